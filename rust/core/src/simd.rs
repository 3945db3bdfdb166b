//! Where the structural bytes are, 64 at a time, and the copying of short values.
//!
//! The only `unsafe` of this crate. The build is for any x86-64, so AVX2 is chosen at run time;
//! other processors take the portable loop. All three give the same bits; a test compares them.

/// What one pass over a chunk finds. Reused from chunk to chunk.
#[derive(Default)]
pub(crate) struct Index {
    /// One bit per byte: a delimiter, LF or CR. Word `i` covers the bytes from `64 * i`.
    pub ends: Vec<u64>,
    /// Some byte is 0.
    pub has_nul: bool,
    /// No byte is above 127: trimming, case and length need no decoding.
    pub is_ascii: bool,
}

#[derive(Clone, Copy, Default)]
struct Seen {
    has_nul: bool,
    is_ascii: bool,
}

impl Index {
    pub fn build(&mut self, chunk: &[u8], delimiter: u8) {
        let (blocks, tail) = chunk.as_chunks::<64>();
        self.ends.clear();
        self.ends.reserve(blocks.len() + 1);
        let seen = mark(blocks, delimiter, &mut self.ends);
        // Padding that is no delimiter, no NUL and ASCII; its bits are cut off below.
        let mut last = [b'x'; 64];
        last[..tail.len()].copy_from_slice(tail);
        let rest = mark(&[last], delimiter, &mut self.ends);
        if let Some(bits) = self.ends.last_mut() {
            *bits &= (1 << tail.len()) - 1;
        }
        self.has_nul = seen.has_nul | rest.has_nul;
        self.is_ascii = seen.is_ascii & rest.is_ascii;
    }
}

fn mark(blocks: &[[u8; 64]], delimiter: u8, ends: &mut Vec<u64>) -> Seen {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has AVX2.
            return unsafe { x86::mark_avx2(blocks, delimiter, ends) };
        }
        x86::mark_sse2(blocks, delimiter, ends)
    }
    #[cfg(not(target_arch = "x86_64"))]
    mark_portable(blocks, delimiter, ends)
}

#[cfg(any(test, not(target_arch = "x86_64")))]
fn mark_portable(blocks: &[[u8; 64]], delimiter: u8, ends: &mut Vec<u64>) -> Seen {
    let mut seen = Seen {
        has_nul: false,
        is_ascii: true,
    };
    for block in blocks {
        let mut bits = 0u64;
        for (i, &byte) in block.iter().enumerate() {
            let is_end = byte == delimiter || byte == b'\n' || byte == b'\r';
            bits |= u64::from(is_end) << i;
            seen.has_nul |= byte == 0;
            seen.is_ascii &= byte < 128;
        }
        ends.push(bits);
    }
    seen
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Seen;
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx2")]
    pub fn mark_avx2(blocks: &[[u8; 64]], delimiter: u8, ends: &mut Vec<u64>) -> Seen {
        let delimiters = _mm256_set1_epi8(delimiter as i8);
        let feeds = _mm256_set1_epi8(b'\n' as i8);
        let returns = _mm256_set1_epi8(b'\r' as i8);
        let mut any = _mm256_setzero_si256();
        let mut least = _mm256_set1_epi8(-1);
        ends.extend(blocks.iter().map(|block| {
            let mut bits = 0u64;
            for half in 0..2 {
                // SAFETY: a block has 64 bytes, so both halves of 32 are inside it.
                let bytes = unsafe { _mm256_loadu_si256(block.as_ptr().add(half * 32).cast()) };
                any = _mm256_or_si256(any, bytes);
                least = _mm256_min_epu8(least, bytes);
                let hits = _mm256_or_si256(
                    _mm256_cmpeq_epi8(bytes, delimiters),
                    _mm256_or_si256(
                        _mm256_cmpeq_epi8(bytes, feeds),
                        _mm256_cmpeq_epi8(bytes, returns),
                    ),
                );
                bits |= u64::from(_mm256_movemask_epi8(hits) as u32) << (half * 32);
            }
            bits
        }));
        let zeros = _mm256_cmpeq_epi8(least, _mm256_setzero_si256());
        Seen {
            has_nul: _mm256_movemask_epi8(zeros) != 0,
            is_ascii: _mm256_movemask_epi8(any) == 0,
        }
    }

    pub fn mark_sse2(blocks: &[[u8; 64]], delimiter: u8, ends: &mut Vec<u64>) -> Seen {
        // SAFETY: SSE2 is part of x86-64; a block has 64 bytes, so all four quarters of 16 are
        // inside it.
        unsafe {
            let delimiters = _mm_set1_epi8(delimiter as i8);
            let feeds = _mm_set1_epi8(b'\n' as i8);
            let returns = _mm_set1_epi8(b'\r' as i8);
            let mut any = _mm_setzero_si128();
            let mut least = _mm_set1_epi8(-1);
            ends.extend(blocks.iter().map(|block| {
                let mut bits = 0u64;
                for quarter in 0..4 {
                    let bytes = _mm_loadu_si128(block.as_ptr().add(quarter * 16).cast());
                    any = _mm_or_si128(any, bytes);
                    least = _mm_min_epu8(least, bytes);
                    let hits = _mm_or_si128(
                        _mm_cmpeq_epi8(bytes, delimiters),
                        _mm_or_si128(_mm_cmpeq_epi8(bytes, feeds), _mm_cmpeq_epi8(bytes, returns)),
                    );
                    bits |= (_mm_movemask_epi8(hits) as u64) << (quarter * 16);
                }
                bits
            }));
            let zeros = _mm_cmpeq_epi8(least, _mm_setzero_si128());
            Seen {
                has_nul: _mm_movemask_epi8(zeros) != 0,
                is_ascii: _mm_movemask_epi8(any) == 0,
            }
        }
    }
}

/// Appends a value as a field of a binary COPY tuple: its length, big endian, and its bytes.
#[inline(always)]
pub(crate) fn push_value(payload: &mut Vec<u8>, value: &[u8]) {
    payload.extend_from_slice(&(value.len() as u32).to_be_bytes());
    payload.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    type Mark = fn(&[[u8; 64]], u8, &mut Vec<u64>) -> Seen;

    fn marks() -> Vec<Mark> {
        let mut marks: Vec<Mark> = vec![mark, mark_portable];
        #[cfg(target_arch = "x86_64")]
        marks.push(x86::mark_sse2);
        marks
    }

    /// Every byte at every place of a block, for every way to mark it.
    #[test]
    fn all_ways_mark_the_same() {
        for byte in 0..=255u8 {
            for place in 0..64 {
                let mut block = [b'a'; 64];
                block[place] = byte;
                for mark in marks() {
                    let mut ends = Vec::new();
                    let seen = mark(&[block], b';', &mut ends);
                    let is_end = matches!(byte, b';' | b'\n' | b'\r');
                    assert_eq!(ends, [u64::from(is_end) << place], "{byte} at {place}");
                    assert_eq!((seen.has_nul, seen.is_ascii), (byte == 0, byte < 128));
                }
            }
        }
    }

    #[test]
    fn the_tail_is_marked_and_the_padding_is_not() {
        let mut index = Index::default();
        for length in 0..200 {
            let chunk = vec![b'x'; length];
            index.build(&chunk, b'x');
            let marked: u32 = index.ends.iter().map(|bits| bits.count_ones()).sum();
            assert_eq!(marked as usize, length);
            assert_eq!(index.ends.len(), length / 64 + 1);
            assert!(index.is_ascii && !index.has_nul);
        }
    }
}
