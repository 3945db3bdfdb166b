//! Hashes of the file's 16 MiB blocks. A resumed import compares the file with them before it writes.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hasher as _;
use std::io::{self, ErrorKind, Read};
use twox_hash::xxhash3_64::Hasher;

pub const BLOCK_BYTES: u64 = 16 << 20;

/// The hash of a whole 16 MiB block of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    pub number: u64,
    pub hash: i64,
}

/// Hashes a file in order from its first byte, in pieces of any size.
pub struct BlockHasher {
    state: Hasher,
    position: u64,
}

impl Default for BlockHasher {
    fn default() -> Self {
        BlockHasher {
            state: Hasher::new(),
            position: 0,
        }
    }
}

impl BlockHasher {
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Takes the next bytes and calls `completed` for every block that they complete.
    pub fn feed(&mut self, mut bytes: &[u8], mut completed: impl FnMut(Block)) {
        while !bytes.is_empty() {
            let room = BLOCK_BYTES - self.position % BLOCK_BYTES;
            let (now, later) = bytes.split_at(bytes.len().min(room as usize));
            self.state.write(now);
            self.position += now.len() as u64;
            bytes = later;
            if self.position.is_multiple_of(BLOCK_BYTES) {
                completed(Block {
                    number: self.position / BLOCK_BYTES - 1,
                    hash: self.tail(),
                });
                self.state = Hasher::new();
            }
        }
    }

    /// Hash of the bytes since the end of the last block.
    pub fn tail(&self) -> i64 {
        self.state.finish() as i64
    }
}

/// The hashes of all that one reading of a file has read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hashed {
    pub blocks: Vec<Block>,
    /// Bytes that were hashed; 0 if hashing is off.
    pub to: u64,
    /// Of the bytes from the end of the last block to `to`.
    pub tail_hash: i64,
}

/// What a file held, as far as the hashes of its parts tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// The hash of each whole block, by its number.
    pub blocks: HashMap<u64, i64>,
    /// The hash of the bytes from the end of the last whole block to an offset, by that offset.
    pub tails: BTreeMap<u64, i64>,
}

/// The bytes in which a file differs from what it was.
#[derive(Debug, PartialEq, Eq)]
pub struct Changed {
    pub from: u64,
    pub to: u64,
}

/// Compares a file with `expected`, from its start up to the furthest of the tails.
///
/// None: they are the same bytes. A file that ends too early differs from its end on; a block without a hash counts as
/// changed. `check` is called before every read, of a mebibyte at most, and its error ends the work.
pub fn verify<E: From<io::Error>>(
    mut file: impl Read,
    expected: &Expected,
    mut check: impl FnMut() -> Result<(), E>,
) -> Result<Option<Changed>, E> {
    let mut hasher = BlockHasher::default();
    let mut buffer = vec![0; 1 << 20];
    for (&tail_to, &tail_hash) in &expected.tails {
        while hasher.position() < tail_to {
            check()?;
            let wanted = (tail_to - hasher.position()).min(buffer.len() as u64) as usize;
            let got = match file.read(&mut buffer[..wanted]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                got => got?,
            };
            if got == 0 {
                let furthest = expected.tails.keys().next_back();
                return Ok(Some(Changed {
                    from: hasher.position(),
                    to: furthest.copied().unwrap_or(tail_to),
                }));
            }
            // A read of a mebibyte completes one block at most.
            let mut changed = None;
            hasher.feed(&buffer[..got], |block| {
                if expected.blocks.get(&block.number) != Some(&block.hash) {
                    changed = Some(Changed {
                        from: block.number * BLOCK_BYTES,
                        to: (block.number + 1) * BLOCK_BYTES,
                    });
                }
            });
            if changed.is_some() {
                return Ok(changed);
            }
        }
        if !tail_to.is_multiple_of(BLOCK_BYTES) && hasher.tail() != tail_hash {
            return Ok(Some(Changed {
                from: tail_to - tail_to % BLOCK_BYTES,
                to: tail_to,
            }));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an import keeps of a file: its blocks, and one tail.
    fn expected(blocks: &[Block], to: u64, tail_hash: i64) -> Expected {
        Expected {
            blocks: blocks.iter().map(|b| (b.number, b.hash)).collect(),
            tails: [(to, tail_hash)].into(),
        }
    }

    fn compare(file: impl Read, expected: &Expected) -> Option<Changed> {
        verify(file, expected, || Ok::<_, io::Error>(())).unwrap()
    }

    #[test]
    fn a_changed_byte_is_found_in_its_block_and_a_longer_file_is_the_same() {
        let mut file: Vec<u8> = (0..2 * BLOCK_BYTES + 1000)
            .map(|i| (i * 31 % 251) as u8)
            .collect();
        let (mut hasher, mut blocks) = (BlockHasher::default(), Vec::new());
        for piece in file.chunks(777_777) {
            hasher.feed(piece, |block| blocks.push(block));
        }
        let done_to = file.len() as u64;
        let kept = expected(&blocks, done_to, hasher.tail());
        file.extend_from_slice(b"more");
        assert_eq!(compare(&file[..], &kept), None);
        for at in [0, BLOCK_BYTES + 5, 2 * BLOCK_BYTES + 999] {
            file[at as usize] ^= 1;
            let changed = compare(&file[..], &kept).unwrap();
            assert!(
                changed.from <= at && at < changed.to && changed.to - changed.from <= BLOCK_BYTES
            );
            file[at as usize] ^= 1;
        }
        let short = compare(&file[..5000], &kept);
        assert_eq!(
            short,
            Some(Changed {
                from: 5000,
                to: done_to
            })
        );
    }

    #[test]
    fn every_tail_is_compared_wherever_it_ends() {
        let file: Vec<u8> = (0..BLOCK_BYTES + 500)
            .map(|i| (i * 7 % 253) as u8)
            .collect();
        let mut kept = Expected::default();
        let mut hasher = BlockHasher::default();
        let mut at = 0;
        for to in [3, 70_000, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 9] {
            hasher.feed(&file[at..to as usize], |block| {
                kept.blocks.insert(block.number, block.hash);
            });
            at = to as usize;
            kept.tails.insert(to, hasher.tail());
        }
        assert_eq!(compare(&file[..], &kept), None);
        let cases = [
            (3, 0),
            (70_000, 0),
            (BLOCK_BYTES - 1, 0),
            (BLOCK_BYTES + 9, BLOCK_BYTES),
        ];
        for (to, from) in cases {
            let mut other = kept.clone();
            other.tails.entry(to).and_modify(|hash| *hash ^= 1);
            assert_eq!(compare(&file[..], &other), Some(Changed { from, to }));
        }
        let to = BLOCK_BYTES + 9;
        assert_eq!(
            compare(&file[..80_000], &kept),
            Some(Changed { from: 80_000, to })
        );
    }

    #[test]
    fn at_the_end_of_a_block_there_is_no_tail_to_compare() {
        let file = vec![1; BLOCK_BYTES as usize + 1];
        let (mut hasher, mut blocks) = (BlockHasher::default(), Vec::new());
        hasher.feed(&file[..BLOCK_BYTES as usize], |block| blocks.push(block));
        assert_eq!(hasher.position(), BLOCK_BYTES);
        assert_eq!(blocks[0].number, 0);
        assert_eq!(
            blocks[0].hash,
            twox_hash::XxHash3_64::oneshot(&file[1..]) as i64
        );
        assert_eq!(compare(&file[..], &expected(&blocks, BLOCK_BYTES, 0)), None);
        let tail = twox_hash::XxHash3_64::oneshot(&[1]) as i64;
        let kept = |tail| expected(&blocks, BLOCK_BYTES + 1, tail);
        assert_eq!(compare(&file[..], &kept(tail)), None);
        let (from, to) = (BLOCK_BYTES, BLOCK_BYTES + 1);
        assert_eq!(compare(&file[..], &kept(0)), Some(Changed { from, to }));
    }

    #[test]
    fn of_several_changes_the_first_is_named() {
        let file = vec![1; 2 * BLOCK_BYTES as usize];
        let changed = compare(&file[..], &expected(&[], 2 * BLOCK_BYTES, 0));
        let to = BLOCK_BYTES;
        assert_eq!(changed, Some(Changed { from: 0, to }));
    }

    #[test]
    fn nothing_done_is_the_same_file() {
        assert_eq!(compare(&b""[..], &expected(&[], 0, 5)), None);
        assert_eq!(compare(&b""[..], &Expected::default()), None);
    }

    /// Is interrupted before every second read, and gives one byte at a time.
    struct Interrupted<'a>(&'a [u8], bool);

    impl Read for Interrupted<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                return Err(ErrorKind::Interrupted.into());
            }
            self.0.read(&mut out[..1])
        }
    }

    #[test]
    fn interrupted_and_short_reads_change_nothing() {
        let mut hasher = BlockHasher::default();
        hasher.feed(b"abcdef", |_| {});
        let kept = expected(&[], 6, hasher.tail());
        assert_eq!(compare(Interrupted(b"abcdef", false), &kept), None);
        let to = 6;
        assert_eq!(
            compare(Interrupted(b"abcdeX", false), &kept),
            Some(Changed { from: 0, to })
        );
    }

    #[test]
    fn a_failed_read_and_a_failed_check_end_it() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(ErrorKind::BrokenPipe.into())
            }
        }
        let kept = expected(&[], 6, 0);
        let failed = verify(Broken, &kept, || Ok::<_, io::Error>(())).unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::BrokenPipe);
        // Zeroes without an end: only the check can end it.
        let mut left = 3;
        let stopped = verify(io::repeat(0), &expected(&[], u64::MAX, 0), || {
            left -= 1;
            if left > 0 {
                Ok(())
            } else {
                Err(io::Error::from(ErrorKind::TimedOut))
            }
        });
        assert_eq!(stopped.unwrap_err().kind(), ErrorKind::TimedOut);
    }
}
