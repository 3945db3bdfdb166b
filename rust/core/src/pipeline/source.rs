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
