//! Where bytes come from: a file, which can be read again, or buffers that another thread hands over, which cannot.
//!
//! A [`Source`] owns the raw bytes. All who read them take an [`Input`] from it: whoever looks at the start, the
//! comparison with an earlier run, and every pass. A position counts the bytes that an `Input` has given; so packed files
//! and other encodings, once they are undone here, change nothing behind it. An end is said ([`Feed::end`]), never
//! concluded from silence.

use crate::pipeline::error::Failure;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes that wait between a [`Feed`] and its reader, at most.
pub const QUEUE_BYTES: usize = 1 << 20;
/// A buffer is handed over in pieces of so many bytes at most, however large it is.
const PIECE_BYTES: usize = 256 << 10;

/// The source was stopped. The cause of the error of a read that this ended.
#[derive(Debug)]
pub struct Halted;

impl std::fmt::Display for Halted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the source was stopped")
    }
}

impl std::error::Error for Halted {}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.get_ref() {
            Some(cause) if cause.is::<Halted>() => Failure::Stopped,
            _ => Failure::Io(error),
        }
    }
}

/// Ends a read, and every later one, from another thread.
#[derive(Clone, Default)]
pub struct Halt {
    is_asked: Arc<AtomicBool>,
    queue: Option<Arc<Queue>>,
}

impl Halt {
    pub fn stop(&self) {
        self.is_asked.store(true, Ordering::Relaxed);
        if let Some(queue) = &self.queue {
            queue.abandon();
        }
    }

    fn check(&self) -> io::Result<()> {
        if self.is_asked.load(Ordering::Relaxed) {
            Err(io::Error::other(Halted))
        } else {
            Ok(())
        }
    }
}

/// The buffers between a [`Feed`] and the one who reads them.
#[derive(Default)]
struct Queue {
    state: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    buffers: VecDeque<Vec<u8>>,
    bytes: usize,
    /// The end of the source, or why there is none.
    end: Option<Result<(), String>>,
    /// Nobody reads any more.
    is_abandoned: bool,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn abandon(&self) {
        let mut state = self.state();
        state.is_abandoned = true;
        (state.buffers, state.bytes) = Default::default();
        self.changed.notify_all();
    }

    fn end(&self, end: Result<(), String>) {
        self.state().end.get_or_insert(end);
        self.changed.notify_all();
    }

    fn push(&self, piece: &[u8]) -> bool {
        let mut state = self.state();
        let is_closed = |state: &Waiting| state.is_abandoned || state.end.is_some();
        while !is_closed(&state) && state.bytes > 0 && state.bytes + piece.len() > QUEUE_BYTES {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if is_closed(&state) {
            return false;
        }
        if !piece.is_empty() {
            state.bytes += piece.len();
            // Buffers of a few bytes would take many times their memory.
            match state.buffers.back_mut() {
                Some(last) if last.len() + piece.len() <= PIECE_BYTES => last.extend(piece),
                _ => state.buffers.push_back(piece.to_vec()),
            }
            self.changed.notify_all();
        }
        true
    }

    /// The next buffer, or an empty one at the end. Fails with `TimedOut` when nothing has come for `patience`.
    fn pop(&self, patience: Option<Duration>) -> io::Result<Vec<u8>> {
        let mut state = self.state();
        loop {
            if state.is_abandoned {
                return Err(io::Error::other(Halted));
            }
            if let Some(buffer) = state.buffers.pop_front() {
                state.bytes -= buffer.len();
                self.changed.notify_all();
                return Ok(buffer);
            }
            match &state.end {
                Some(Ok(())) => return Ok(Vec::new()),
                Some(Err(error)) => return Err(io::Error::other(error.clone())),
                None => {}
            }
            state = match patience {
                None => self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(patience) => {
                    let waited = self.changed.wait_timeout(state, patience);
                    let (state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
                    if waited.timed_out() && state.buffers.is_empty() && state.end.is_none() {
                        return Err(ErrorKind::TimedOut.into());
                    }
                    state
                }
            };
        }
    }
}

/// Hands buffers to the one who reads the [`Fed`] of the same pair. A feed that is dropped before it has said the end
/// has failed.
pub struct Feed(Arc<Queue>);

/// The other end of a [`Feed`].
pub struct Fed {
    queue: Arc<Queue>,
    current: Vec<u8>,
    at: usize,
}

/// A pair that holds at most [`QUEUE_BYTES`] between them.
pub fn feed() -> (Feed, Fed) {
    let queue = Arc::new(Queue::default());
    let fed = Fed {
        queue: Arc::clone(&queue),
        current: Vec::new(),
        at: 0,
    };
    (Feed(queue), fed)
}

impl Feed {
    /// Waits for room and hands `buffer` over, piece by piece; false if nobody reads any more or the end was said.
    pub fn push(&self, buffer: &[u8]) -> bool {
        buffer.chunks(PIECE_BYTES).all(|piece| self.0.push(piece))
    }

    /// Says that nothing more comes: because this is the end, or because of an error. Only the first call counts. Never
    /// waits, and ends a `push` that does.
    pub fn end(&self, end: Result<(), String>) {
        self.0.end(end);
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.end(Err("who fed the source is gone".to_owned()));
    }
}

impl Fed {
    fn read(&mut self, out: &mut [u8], patience: Option<Duration>) -> io::Result<usize> {
        if self.at == self.current.len() {
            (self.current, self.at) = (self.queue.pop(patience)?, 0);
        }
        let rest = &self.current[self.at..];
        let count = rest.len().min(out.len());
        out[..count].copy_from_slice(&rest[..count]);
        self.at += count;
        Ok(count)
    }
}

impl Drop for Fed {
    fn drop(&mut self) {
        self.queue.abandon();
    }
}

/// The bytes of an import.
pub struct Source {
    origin: Origin,
    halt: Halt,
}

enum Origin {
    File(File),
    Fed(Mutex<Stream>),
}

/// What was read of the buffers to see their start, and the rest of them until somebody reads it.
struct Stream {
    start: Vec<u8>,
    rest: Option<Fed>,
}

impl Stream {
    /// Reads on until `start` has so many bytes, or all there are; false if nothing came for `patience`.
    fn look(&mut self, bytes: usize, patience: Duration) -> io::Result<bool> {
        let Some(rest) = &mut self.rest else {
            return Ok(true);
        };
        while self.start.len() < bytes {
            let filled = self.start.len();
            self.start.resize(bytes.min(filled + PIECE_BYTES), 0);
            let count = rest.read(&mut self.start[filled..], Some(patience));
            self.start
                .truncate(filled + count.as_ref().map_or(0, |count| *count));
            match count {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::TimedOut => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

impl Source {
    pub fn from_file(file: File) -> Self {
        Source {
            origin: Origin::File(file),
            halt: Halt::default(),
        }
    }

    pub fn from_fed(fed: Fed) -> Self {
        let queue = Some(Arc::clone(&fed.queue));
        let (start, rest) = (Vec::new(), Some(fed));
        Source {
            origin: Origin::Fed(Mutex::new(Stream { start, rest })),
            halt: Halt {
                queue,
                ..Halt::default()
            },
        }
    }

    /// Whether [`Source::open`] succeeds more than once.
    pub fn is_rewindable(&self) -> bool {
        matches!(self.origin, Origin::File(_))
    }

    /// The first `bytes` bytes, or all if there are fewer. They are read again by whoever opens the source.
    ///
    /// None: not all have come, and nothing more for `patience`; a later call goes on.
    pub fn head(&self, bytes: usize, patience: Duration) -> Result<Option<Vec<u8>>, Failure> {
        match &self.origin {
            Origin::File(_) => {
                let mut head = Vec::new();
                let input = self.open()?.expect("a file can be opened again");
                input.take(bytes as u64).read_to_end(&mut head)?;
                Ok(Some(head))
            }
            Origin::Fed(stream) => {
                let mut stream = stream.lock().unwrap_or_else(PoisonError::into_inner);
                if !stream.look(bytes, patience)? {
                    return Ok(None);
                }
                let count = bytes.min(stream.start.len());
                Ok(Some(stream.start[..count].to_vec()))
            }
        }
    }

    /// All bytes from the first one on; None if somebody reads or has read them already, and they cannot be read again.
    pub fn open(&self) -> io::Result<Option<Input>> {
        let (bytes, queue) = match &self.origin {
            Origin::File(file) => (Bytes::File(file.try_clone()?), None),
            Origin::Fed(stream) => {
                let mut stream = stream.lock().unwrap_or_else(PoisonError::into_inner);
                let Some(rest) = stream.rest.take() else {
                    return Ok(None);
                };
                let queue = Arc::clone(&rest.queue);
                (Bytes::Fed(stream.start.clone(), rest), Some(queue))
            }
        };
        Ok(Some(Input {
            bytes,
            position: 0,
            of_source: self.halt.clone(),
            halt: Halt {
                queue,
                ..Halt::default()
            },
        }))
    }

    /// Ends every read and wait of this source, now and later, with [`Halted`].
    pub fn stop(&self) {
        self.halt.stop();
    }
}

enum Bytes {
    File(File),
    /// The bytes that were looked at before, and the rest.
    Fed(Vec<u8>, Fed),
}

/// One reading of a source, from its first byte to its last. A read of 0 bytes is the end.
pub struct Input {
    bytes: Bytes,
    position: u64,
    of_source: Halt,
    halt: Halt,
}

impl Input {
    /// Bytes read so far.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Stops this reading and no other one of the source.
    pub fn halt(&self) -> Halt {
        self.halt.clone()
    }

    /// Reads until `out` is full or the source ends; bytes read.
    pub fn read_full(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < out.len() {
            match self.read(&mut out[filled..])? {
                0 => break,
                count => filled += count,
            }
        }
        Ok(filled)
    }
}

impl Read for Input {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            self.of_source.check()?;
            self.halt.check()?;
            let read = match &mut self.bytes {
                // At an offset of our own: others may use the same descriptor.
                Bytes::File(file) => file.read_at(out, self.position),
                Bytes::Fed(start, rest) => match start.get(self.position as usize..) {
                    Some(seen) if !seen.is_empty() => {
                        let count = seen.len().min(out.len());
                        out[..count].copy_from_slice(&seen[..count]);
                        Ok(count)
                    }
                    _ => rest.read(out, None),
                },
            };
            match read {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(count) => {
                    self.position += count as u64;
                    return Ok(count);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::unbounded;

    const SOON: Duration = Duration::from_millis(30);
    const LONG: Duration = Duration::from_secs(60);

    fn file(text: &str) -> File {
        let name = format!("customer-panel-source-{}-{text}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).unwrap();
        let file = File::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        file
    }

    fn input(source: &Source) -> Input {
        source.open().unwrap().expect("it was not opened before")
    }

    fn is_halted(read: io::Result<usize>) -> bool {
        matches!(read.map_err(Failure::from), Err(Failure::Stopped))
    }

    #[test]
    fn buffers_are_read_in_order_whatever_their_size() {
        let (feed, fed) = feed();
        let mut input = input(&Source::from_fed(fed));
        for text in ["", "abc", "", "d"] {
            assert!(feed.push(text.as_bytes()));
        }
        let mut out = [0; 2];
        for expected in ["ab", "cd"] {
            let count = input.read(&mut out).unwrap();
            assert_eq!(&out[..count], expected.as_bytes());
        }
        feed.end(Ok(()));
        assert_eq!(input.read(&mut out).unwrap(), 0);
        assert_eq!(input.read(&mut out).unwrap(), 0);
        assert_eq!(input.position(), 4);
    }

    #[test]
    fn an_error_comes_behind_what_was_sent_before_it_and_stays() {
        let (feed, fed) = feed();
        let mut input = input(&Source::from_fed(fed));
        assert!(feed.push(b"a"));
        feed.end(Err("the wire is cut".to_owned()));
        feed.end(Ok(()));
        assert!(!feed.push(b"b"));
        assert_eq!(input.read(&mut [0; 9]).unwrap(), 1);
        for _ in 0..2 {
            let error = input.read(&mut [0; 9]).unwrap_err();
            assert_eq!(error.to_string(), "the wire is cut");
        }
    }

    #[test]
    fn a_feed_that_is_gone_is_no_end() {
        let (feed, fed) = feed();
        let mut input = input(&Source::from_fed(fed));
        feed.push(b"a");
        drop(feed);
        assert_eq!(input.read(&mut [0; 9]).unwrap(), 1);
        assert!(input.read(&mut [0; 9]).is_err());
    }

    #[test]
    fn a_feed_that_nobody_reads_says_so() {
        let (feed, fed) = feed();
        drop(fed);
        assert!(!feed.push(b"a"));
    }

    #[test]
    fn so_many_bytes_wait_and_no_more() {
        let (feed, fed) = feed();
        let (pushed, all_pushed) = unbounded();
        let mut input = input(&Source::from_fed(fed));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                assert!(feed.push(&vec![1; 3 * QUEUE_BYTES]));
                feed.end(Ok(()));
                pushed.send(()).unwrap();
            });
            assert!(all_pushed.recv_timeout(SOON).is_err());
            let Bytes::Fed(_, rest) = &input.bytes else {
                unreachable!("it is fed")
            };
            assert_eq!(rest.queue.state().bytes, QUEUE_BYTES);
            let mut out = vec![0; 4 * QUEUE_BYTES];
            assert_eq!(input.read_full(&mut out).unwrap(), 3 * QUEUE_BYTES);
        });
    }

    #[test]
    fn small_buffers_wait_as_one() {
        let (feed, fed) = feed();
        for _ in 0..PIECE_BYTES + 1 {
            assert!(feed.push(b"a"));
        }
        assert_eq!(fed.queue.state().buffers.len(), 2);
    }

    #[test]
    fn an_end_does_not_wait_behind_a_push() {
        let (feed, _fed) = feed();
        let (pushed, is_pushed) = unbounded();
        std::thread::scope(|scope| {
            scope.spawn(|| pushed.send(feed.push(&vec![1; 3 * QUEUE_BYTES])).unwrap());
            assert!(is_pushed.recv_timeout(SOON).is_err());
            feed.end(Ok(()));
            assert_eq!(is_pushed.recv(), Ok(false));
        });
    }

    #[test]
    fn a_stop_wakes_whoever_reads_and_whoever_pushes() {
        for of_source in [true, false] {
            let (feed, fed) = feed();
            let source = Source::from_fed(fed);
            let mut input = input(&source);
            let halt = input.halt();
            std::thread::scope(|scope| {
                let reading = scope.spawn(move || is_halted(input.read(&mut [0; 9])));
                std::thread::sleep(SOON); // it waits by then
                if of_source {
                    source.stop();
                } else {
                    halt.stop();
                }
                assert!(reading.join().unwrap());
            });
            assert!(!feed.push(b"a"));
        }
    }

    #[test]
    fn a_stopped_file_is_read_no_more_but_by_others() {
        let source = Source::from_file(file("stopped"));
        let (mut first, mut second) = (input(&source), input(&source));
        first.halt().stop();
        assert!(is_halted(first.read(&mut [0; 9])));
        assert_eq!(second.read(&mut [0; 3]).unwrap(), 3);
        source.stop();
        assert!(is_halted(second.read(&mut [0; 9])));
        assert!(is_halted(input(&source).read(&mut [0; 9])));
    }

    #[test]
    fn the_head_is_read_again_and_needs_no_whole_source() {
        let (feed, fed) = feed();
        let source = Source::from_fed(fed);
        let head = |bytes, patience| source.head(bytes, patience).unwrap();
        assert_eq!(head(2, SOON), None);
        feed.push(b"0123");
        assert_eq!(head(2, LONG), Some(b"01".to_vec()));
        assert_eq!(head(6, SOON), None);
        feed.push(b"45678");
        assert_eq!(head(6, LONG), Some(b"012345".to_vec()));
        assert!(!source.is_rewindable());
        let mut input = input(&source);
        assert!(source.open().unwrap().is_none());
        feed.end(Ok(()));
        let mut all = Vec::new();
        input.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"012345678");
        assert_eq!(head(3, LONG), Some(b"012".to_vec()));
    }

    #[test]
    fn a_head_ends_with_its_source() {
        let (feed, fed) = feed();
        let source = Source::from_fed(fed);
        feed.push(b"01");
        feed.end(Ok(()));
        assert_eq!(source.head(9, LONG).unwrap(), Some(b"01".to_vec()));
        let source = Source::from_file(file("0123"));
        assert_eq!(source.head(9, LONG).unwrap(), Some(b"0123".to_vec()));
        assert_eq!(source.head(3, LONG).unwrap(), Some(b"012".to_vec()));
    }

    #[test]
    fn each_reading_of_a_file_begins_at_its_start_and_moves_no_other() {
        let source = Source::from_file(file("0123456789"));
        assert!(source.is_rewindable());
        let (mut first, mut second) = (input(&source), input(&source));
        let mut out = [0; 3];
        for (input, expected) in [(&mut first, "012"), (&mut second, "012")] {
            assert_eq!(input.read_full(&mut out).unwrap(), 3);
            assert_eq!(out, expected.as_bytes());
        }
        assert_eq!(first.read_full(&mut [0; 100]).unwrap(), 7);
        assert_eq!((first.position(), second.position()), (10, 3));
    }
}
