//! Hashes of the file's 16 MiB blocks. A resumed import compares the file with them before it writes.

use std::hash::Hasher as _;
use std::io::{self, Read};
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

/// The bytes in which a file differs from what it was.
#[derive(Debug, PartialEq, Eq)]
pub struct Changed {
    pub from: u64,
    pub to: u64,
}

/// Compares the first `done_to` bytes of `file` with the hashes of its blocks and of the tail behind the last of them.
///
/// None: they are the same bytes. A file that ends too early differs from its end on.
pub fn verify(
    mut file: impl Read,
    blocks: &[Block],
    done_to: u64,
    tail_hash: i64,
) -> io::Result<Option<Changed>> {
    let mut hasher = BlockHasher::default();
    let mut buffer = vec![0; 1 << 20];
    let mut changed = None;
    while hasher.position() < done_to && changed.is_none() {
        let wanted = (done_to - hasher.position()).min(buffer.len() as u64) as usize;
        let got = file.read(&mut buffer[..wanted])?;
        if got == 0 {
            return Ok(Some(Changed {
                from: hasher.position(),
                to: done_to,
            }));
        }
        hasher.feed(&buffer[..got], |block| {
            let is_same = blocks.contains(&block);
            if !is_same && changed.is_none() {
                changed = Some(Changed {
                    from: block.number * BLOCK_BYTES,
                    to: (block.number + 1) * BLOCK_BYTES,
                });
            }
        });
    }
    if changed.is_none() && !done_to.is_multiple_of(BLOCK_BYTES) && hasher.tail() != tail_hash {
        changed = Some(Changed {
            from: done_to - done_to % BLOCK_BYTES,
            to: done_to,
        });
    }
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_byte_is_found_in_its_block_and_a_longer_file_is_the_same() {
        let mut file: Vec<u8> = (0..2 * BLOCK_BYTES + 1000)
            .map(|i| (i * 31 % 251) as u8)
            .collect();
        let (mut hasher, mut blocks) = (BlockHasher::default(), Vec::new());
        for piece in file.chunks(777_777) {
            hasher.feed(piece, |block| blocks.push(block));
        }
        let (done_to, tail) = (file.len() as u64, hasher.tail());
        file.extend_from_slice(b"more");
        assert_eq!(verify(&file[..], &blocks, done_to, tail).unwrap(), None);
        for at in [0, BLOCK_BYTES + 5, 2 * BLOCK_BYTES + 999] {
            file[at as usize] ^= 1;
            let changed = verify(&file[..], &blocks, done_to, tail).unwrap().unwrap();
            assert!(
                changed.from <= at && at < changed.to && changed.to - changed.from <= BLOCK_BYTES
            );
            file[at as usize] ^= 1;
        }
        let short = verify(&file[..5000], &blocks, done_to, tail).unwrap();
        assert_eq!(
            short,
            Some(Changed {
                from: 5000,
                to: done_to
            })
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
        assert_eq!(verify(&file[..], &blocks, BLOCK_BYTES, 0).unwrap(), None);
        let tail = twox_hash::XxHash3_64::oneshot(&[1]) as i64;
        assert_eq!(
            verify(&file[..], &blocks, BLOCK_BYTES + 1, tail).unwrap(),
            None
        );
        let changed = verify(&file[..], &blocks, BLOCK_BYTES + 1, 0).unwrap();
        let (from, to) = (BLOCK_BYTES, BLOCK_BYTES + 1);
        assert_eq!(changed, Some(Changed { from, to }));
    }

    #[test]
    fn of_several_changes_the_first_is_named() {
        let file = vec![1; 2 * BLOCK_BYTES as usize];
        let changed = verify(&file[..], &[], 2 * BLOCK_BYTES, 0).unwrap();
        let to = BLOCK_BYTES;
        assert_eq!(changed, Some(Changed { from: 0, to }));
    }

    #[test]
    fn nothing_done_is_the_same_file() {
        assert_eq!(verify(&b""[..], &[], 0, 5).unwrap(), None);
    }
}
