//! Where bytes come from: a local file read at absolute offsets, or buffers that another thread sends.

use crossbeam_channel::{Receiver, Sender, bounded};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

/// Buffers that another thread sends. Ends when the [`Feed`] is dropped, or fails with the error that it sent.
pub struct Fed {
    buffers: Receiver<io::Result<Vec<u8>>>,
    current: Vec<u8>,
    at: usize,
}

/// The other end of [`Fed`].
pub struct Feed(Sender<io::Result<Vec<u8>>>);

/// A pair that holds at most four buffers between them.
pub fn feed() -> (Feed, Fed) {
    let (sender, buffers) = bounded(4);
    (
        Feed(sender),
        Fed {
            buffers,
            current: Vec::new(),
            at: 0,
        },
    )
}

impl Feed {
    /// Waits for room and sends `buffer`; false if nobody reads any more.
    pub fn push(&self, buffer: io::Result<Vec<u8>>) -> bool {
        self.0.send(buffer).is_ok()
    }
}

impl Read for Fed {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.at == self.current.len() {
            match self.buffers.recv() {
                Ok(buffer) => (self.current, self.at) = (buffer?, 0),
                Err(_) => return Ok(0),
            }
        }
        let rest = &self.current[self.at..];
        let count = rest.len().min(out.len());
        out[..count].copy_from_slice(&rest[..count]);
        self.at += count;
        Ok(count)
    }
}

/// A file that is read at its own position, so that others may use the same descriptor.
pub struct Located {
    file: File,
    position: u64,
}

impl Located {
    /// Reads from `position` on.
    pub fn new(file: File, position: u64) -> Self {
        Located { file, position }
    }
}

impl Read for Located {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(out, self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}

pub enum Source {
    File(Located),
    Fed(Fed),
}

impl Read for Source {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self {
            Source::File(file) => file.read(out),
            Source::Fed(fed) => fed.read(out),
        }
    }
}

/// Reads until `out` is full or the source ends; bytes read.
pub fn read_full(source: &mut impl Read, out: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < out.len() {
        match source.read(&mut out[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind;

    /// Gives what it holds, one answer for each read.
    struct Answers(Vec<io::Result<Vec<u8>>>);

    impl Read for Answers {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() {
                return Ok(0);
            }
            let bytes = self.0.remove(0)?;
            out[..bytes.len()].copy_from_slice(&bytes);
            Ok(bytes.len())
        }
    }

    fn bytes(text: &str) -> io::Result<Vec<u8>> {
        Ok(text.as_bytes().to_vec())
    }

    #[test]
    fn short_reads_and_interrupts_are_no_end() {
        let interrupt = Err(ErrorKind::Interrupted.into());
        let mut source = Answers(vec![bytes("ab"), interrupt, bytes("c"), bytes("de")]);
        let mut out = [0; 5];
        assert_eq!(read_full(&mut source, &mut out[..3]).unwrap(), 3);
        assert_eq!(&out[..3], b"abc");
        assert_eq!(read_full(&mut source, &mut out).unwrap(), 2);
        assert_eq!(&out[..2], b"de");
    }

    #[test]
    fn an_error_is_an_error() {
        let mut source = Answers(vec![bytes("ab"), Err(ErrorKind::NotFound.into())]);
        let error = read_full(&mut source, &mut [0; 5]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }

    #[test]
    fn buffers_are_read_in_order_whatever_their_size() {
        let (feed, fed) = feed();
        let mut source = Source::Fed(fed);
        for text in ["", "abc", "", "d"] {
            assert!(feed.push(bytes(text)));
        }
        let mut out = [0; 2];
        for expected in ["ab", "c", "d"] {
            let count = source.read(&mut out).unwrap();
            assert_eq!(&out[..count], expected.as_bytes());
        }
        feed.push(Err(ErrorKind::BrokenPipe.into()));
        assert_eq!(
            source.read(&mut out).unwrap_err().kind(),
            ErrorKind::BrokenPipe
        );
        drop(feed);
        assert_eq!(source.read(&mut out).unwrap(), 0);
    }

    #[test]
    fn a_feed_that_nobody_reads_says_so() {
        let (feed, fed) = feed();
        drop(fed);
        assert!(!feed.push(bytes("a")));
    }

    #[test]
    fn a_file_is_read_from_its_position_and_others_do_not_move_it() {
        let path =
            std::env::temp_dir().join(format!("customer-panel-source-{}", std::process::id()));
        std::fs::write(&path, "0123456789").unwrap();
        let file = File::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let mut first = Source::File(Located::new(file.try_clone().unwrap(), 2));
        let mut second = Source::File(Located::new(file, 6));
        let mut out = [0; 3];
        for (source, expected) in [(&mut first, "234"), (&mut second, "678")] {
            assert_eq!(read_full(source, &mut out).unwrap(), 3);
            assert_eq!(out, expected.as_bytes());
        }
        assert_eq!(read_full(&mut first, &mut [0; 100]).unwrap(), 5);
        assert_eq!(read_full(&mut second, &mut out).unwrap(), 1);
    }
}
