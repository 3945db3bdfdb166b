//! Where the structural bytes of a chunk are, 64 bytes at a time.
//!
//! The only `unsafe` of this room. The build is for any x86-64 processor, so AVX2 is chosen at run time. Other
//! processors take the portable loop. All three give the same bits; a test compares them.

/// The structural bytes among 64: bit `i` is byte `i`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    /// A delimiter, LF or CR.
    pub ends: u64,
    pub quotes: u64,
}

/// What the whole chunk holds, so that most chunks need no slow checks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traits {
    pub has_nul: bool,
    pub has_return: bool,
    /// Some byte is above 127: to trim, to lower the case and to count need decoding.
    pub has_wide: bool,
}

/// What one pass over a chunk finds. Reused from chunk to chunk.
#[derive(Default)]
pub(crate) struct Index {
    /// Element `i` covers the bytes from `64 * i`; the last one covers the end of the chunk.
    pub marks: Vec<Marks>,
    pub traits: Traits,
}

impl Index {
    pub fn build(&mut self, chunk: &[u8], delimiter: u8) {
        let (blocks, tail) = chunk.as_chunks::<64>();
        self.marks.resize(blocks.len() + 1, Marks::default());
        let most = mark(blocks, delimiter, &mut self.marks);
        // Padding that is no quote, no NUL and ASCII; if it is the delimiter, it is cut off below.
        let mut last = [b'x'; 64];
        last[..tail.len()].copy_from_slice(tail);
        let end = &mut self.marks[blocks.len()..];
        let rest = mark(&[last], delimiter, end);
        end[0].ends &= (1 << tail.len()) - 1;
        self.traits = Traits {
            has_nul: most.has_nul | rest.has_nul,
            has_return: most.has_return | rest.has_return,
            has_wide: most.has_wide | rest.has_wide,
        };
    }
}

/// Fills the mark of each block.
fn mark(blocks: &[[u8; 64]], delimiter: u8, marks: &mut [Marks]) -> Traits {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has AVX2.
            return unsafe { x86::mark_avx2(blocks, delimiter, marks) };
        }
        x86::mark_sse2(blocks, delimiter, marks)
    }
    #[cfg(not(target_arch = "x86_64"))]
    mark_portable(blocks, delimiter, marks)
}

#[cfg(any(test, not(target_arch = "x86_64")))]
fn mark_portable(blocks: &[[u8; 64]], delimiter: u8, marks: &mut [Marks]) -> Traits {
    let mut traits = Traits::default();
    for (block, found) in std::iter::zip(blocks, marks) {
        *found = Marks::default();
        for (i, &byte) in block.iter().enumerate() {
            let is_end = byte == delimiter || byte == b'\n' || byte == b'\r';
            found.ends |= u64::from(is_end) << i;
            found.quotes |= u64::from(byte == b'"') << i;
            traits.has_nul |= byte == 0;
            traits.has_return |= byte == b'\r';
            traits.has_wide |= byte >= 128;
        }
    }
    traits
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Marks, Traits};
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx2")]
    pub fn mark_avx2(blocks: &[[u8; 64]], delimiter: u8, marks: &mut [Marks]) -> Traits {
        let delimiters = _mm256_set1_epi8(delimiter as i8);
        let feeds = _mm256_set1_epi8(b'\n' as i8);
        let returns = _mm256_set1_epi8(b'\r' as i8);
        let quotes = _mm256_set1_epi8(b'"' as i8);
        let mut any = _mm256_setzero_si256();
        let mut least = _mm256_set1_epi8(-1);
        let mut any_return = _mm256_setzero_si256();
        for (block, found) in std::iter::zip(blocks, marks) {
            *found = Marks::default();
            for half in 0..2 {
                // SAFETY: a block has 64 bytes, so both halves of 32 are inside it.
                let bytes = unsafe { _mm256_loadu_si256(block.as_ptr().add(half * 32).cast()) };
                any = _mm256_or_si256(any, bytes);
                least = _mm256_min_epu8(least, bytes);
                let is_return = _mm256_cmpeq_epi8(bytes, returns);
                any_return = _mm256_or_si256(any_return, is_return);
                let is_end = _mm256_or_si256(
                    _mm256_cmpeq_epi8(bytes, delimiters),
                    _mm256_or_si256(_mm256_cmpeq_epi8(bytes, feeds), is_return),
                );
                let is_quote = _mm256_cmpeq_epi8(bytes, quotes);
                found.ends |= u64::from(_mm256_movemask_epi8(is_end) as u32) << (half * 32);
                found.quotes |= u64::from(_mm256_movemask_epi8(is_quote) as u32) << (half * 32);
            }
        }
        let zeros = _mm256_cmpeq_epi8(least, _mm256_setzero_si256());
        Traits {
            has_nul: _mm256_movemask_epi8(zeros) != 0,
            has_return: _mm256_movemask_epi8(any_return) != 0,
            has_wide: _mm256_movemask_epi8(any) != 0,
        }
    }

    pub fn mark_sse2(blocks: &[[u8; 64]], delimiter: u8, marks: &mut [Marks]) -> Traits {
        // SAFETY: SSE2 is part of x86-64; a block has 64 bytes, so all four quarters of 16 are
        // inside it.
        unsafe {
            let delimiters = _mm_set1_epi8(delimiter as i8);
            let feeds = _mm_set1_epi8(b'\n' as i8);
            let returns = _mm_set1_epi8(b'\r' as i8);
            let quotes = _mm_set1_epi8(b'"' as i8);
            let mut any = _mm_setzero_si128();
            let mut least = _mm_set1_epi8(-1);
            let mut any_return = _mm_setzero_si128();
            for (block, found) in std::iter::zip(blocks, marks) {
                *found = Marks::default();
                for quarter in 0..4 {
                    let bytes = _mm_loadu_si128(block.as_ptr().add(quarter * 16).cast());
                    any = _mm_or_si128(any, bytes);
                    least = _mm_min_epu8(least, bytes);
                    let is_return = _mm_cmpeq_epi8(bytes, returns);
                    any_return = _mm_or_si128(any_return, is_return);
                    let is_end = _mm_or_si128(
                        _mm_cmpeq_epi8(bytes, delimiters),
                        _mm_or_si128(_mm_cmpeq_epi8(bytes, feeds), is_return),
                    );
                    let is_quote = _mm_cmpeq_epi8(bytes, quotes);
                    found.ends |= (_mm_movemask_epi8(is_end) as u64) << (quarter * 16);
                    found.quotes |= (_mm_movemask_epi8(is_quote) as u64) << (quarter * 16);
                }
            }
            let zeros = _mm_cmpeq_epi8(least, _mm_setzero_si128());
            Traits {
                has_nul: _mm_movemask_epi8(zeros) != 0,
                has_return: _mm_movemask_epi8(any_return) != 0,
                has_wide: _mm_movemask_epi8(any) != 0,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Mark = fn(&[[u8; 64]], u8, &mut [Marks]) -> Traits;

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
                let expected = Marks {
                    ends: u64::from(matches!(byte, b';' | b'\n' | b'\r')) << place,
                    quotes: u64::from(byte == b'"') << place,
                };
                let traits = Traits {
                    has_nul: byte == 0,
                    has_return: byte == b'\r',
                    has_wide: byte >= 128,
                };
                for mark in marks() {
                    let mut found = [Marks::default()];
                    assert_eq!(mark(&[block], b';', &mut found), traits);
                    assert_eq!(found, [expected], "{byte} at {place}");
                }
            }
        }
    }

    #[test]
    fn the_tail_is_marked_and_the_padding_is_not() {
        let mut index = Index::default();
        for length in 0..200 {
            index.build(&vec![b'x'; length], b'x');
            let marked: u32 = index
                .marks
                .iter()
                .map(|found| found.ends.count_ones())
                .sum();
            assert_eq!(marked as usize, length);
            assert_eq!(index.marks.len(), length / 64 + 1);
            assert_eq!(index.traits, Traits::default());
        }
    }
}
