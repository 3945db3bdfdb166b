//! One thread that reads the source, cuts it into chunks of whole records and gives them to the parsers, in order.
//!
//! A queue keeps the order: each chunk's parsed rows arrive in a channel of their own, and the queue holds those
//! channels in file order. Its length limits how much is in memory.

use crate::batch::frame::RAW_BYTES;
use crate::csv::cutter::{Cut, Cutter};
use crate::csv::scanner::Limits;
use crate::identity::hash::HashKeys;
use crate::pipeline::error::Failure;
use crate::pipeline::source::Input;
use crate::plan::Plan;
use crate::rows::parse::{Parsed, parse_within};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use std::io;
use std::sync::Arc;

/// Bytes read at once. Half a mebibyte and its rows fit into the level 2 cache of a core; larger was not faster.
pub const CHUNK_BYTES: usize = 512 << 10;

/// A chunk and what it holds.
#[derive(Default)]
pub struct Chunk {
    pub bytes: Vec<u8>,
    pub parsed: Parsed,
}

/// The file, in order.
pub enum Piece {
    /// Bytes without a whole record (the header, a part of an oversize record): they are hashed and nothing else.
    Bytes(Vec<u8>),
    Records {
        chunk: Receiver<Chunk>,
        /// These records end where they do only because the source ended: a longer one might go on differently from
        /// here.
        is_tail: bool,
    },
    /// A record over the limit begins here. Its bytes follow as `Bytes`.
    OversizeBegins,
    /// The record over the limit ends here.
    Oversize {
        span: u64,
        lines: u64,
        raw: Vec<u8>,
        is_tail: bool,
    },
    /// The source ended here. Nothing else is an end.
    End {
        offset: u64,
    },
    Failed(Failure),
}

struct Job {
    chunk: Chunk,
    answer: Sender<Chunk>,
}

/// What the reader needs to know of a file.
pub struct Reading {
    pub input: Input,
    /// Where the first record begins.
    pub data_start: u64,
    pub plan: Arc<Plan>,
    pub keys: HashKeys,
    pub limits: Limits,
    /// Bytes read at once: [`CHUNK_BYTES`].
    pub chunk_bytes: usize,
    pub parsers: usize,
}

/// Starts the reader and its parsers. They end when the receiver of the pieces is dropped. Used chunks go back through
/// the sender. Fails if the system starts no thread.
pub fn start(reading: Reading) -> io::Result<(Receiver<Piece>, Sender<Chunk>)> {
    let parsers = reading.parsers.max(1);
    let (pieces, in_order) = bounded(parsers + 1);
    let (recycle, used) = unbounded();
    let (jobs, work) = bounded::<Job>(parsers);
    let limits = reading.limits;
    for number in 0..parsers {
        let (work, plan, keys) = (work.clone(), Arc::clone(&reading.plan), reading.keys);
        spawn(format!("cp-parse-{number}"), move || {
            for Job { mut chunk, answer } in work {
                parse_within(&chunk.bytes, &plan, &keys, limits, &mut chunk.parsed);
                // Once the import is stopped nobody waits for it.
                let _ = answer.send(chunk);
            }
        })?;
    }
    spawn("cp-read".to_owned(), move || {
        let mut reader = Reader { pieces, used, jobs };
        if let Err(Ended::Failed(error)) = reader.run(reading) {
            let _ = reader.pieces.send(Piece::Failed(error.into()));
        }
    })?;
    Ok((in_order, recycle))
}

/// A named thread that nobody joins: it ends when its channels do. One that panics closes them without a word, which
/// those who wait take for [`Failure::Broken`].
pub fn spawn(name: String, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name(name).spawn(work).map(drop)
}

enum Ended {
    Failed(io::Error),
    /// Nobody receives any more.
    Unwanted,
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Ended::Failed(error)
    }
}

/// A record over the limit, while it is skipped.
#[derive(Default)]
struct Skipped {
    span: u64,
    lines: u64,
    raw: Vec<u8>,
}

struct Reader {
    pieces: Sender<Piece>,
    used: Receiver<Chunk>,
    jobs: Sender<Job>,
}

impl Reader {
    fn run(&mut self, reading: Reading) -> Result<(), Ended> {
        let Reading {
            mut input,
            data_start,
            plan,
            limits,
            chunk_bytes,
            ..
        } = reading;
        let mut cutter = Cutter::with_limits(plan.delimiter, limits);
        let mut skipped: Option<Skipped> = None;
        let mut is_over = self.pass_header(&mut input, data_start, chunk_bytes)?;
        let mut buffer = Vec::new();
        // Cut as if the source went on, until that finds no more records: what is left then is cut as it stands.
        let mut is_tail = false;
        loop {
            match cutter.cut(&buffer, is_tail) {
                Cut::NeedMore if is_over => is_tail = true,
                Cut::NeedMore => {
                    let filled = buffer.len();
                    buffer.resize(filled + chunk_bytes, 0);
                    let count = input.read_full(&mut buffer[filled..])?;
                    buffer.truncate(filled + count);
                    is_over = count < chunk_bytes;
                }
                Cut::Records { end } => {
                    let next = self.next_buffer(&buffer[end..]);
                    buffer.truncate(end);
                    let chunk = Chunk {
                        bytes: std::mem::replace(&mut buffer, next.bytes),
                        parsed: next.parsed,
                    };
                    let (answer, parsed) = bounded(1);
                    self.jobs
                        .send(Job { chunk, answer })
                        .map_err(|_| Ended::Unwanted)?;
                    self.send(Piece::Records {
                        chunk: parsed,
                        is_tail,
                    })?;
                }
                Cut::Skip {
                    end,
                    lines,
                    is_last,
                } => {
                    if skipped.is_none() {
                        self.send(Piece::OversizeBegins)?;
                    }
                    let record = skipped.get_or_insert_default();
                    record.span += end as u64;
                    record.lines += u64::from(lines);
                    let wanted = (RAW_BYTES - record.raw.len()).min(end);
                    record.raw.extend_from_slice(&buffer[..wanted]);
                    let rest = buffer.split_off(end);
                    self.send(Piece::Bytes(std::mem::replace(&mut buffer, rest)))?;
                    if is_last && let Some(Skipped { span, lines, raw }) = skipped.take() {
                        self.send(Piece::Oversize {
                            span,
                            lines,
                            raw,
                            is_tail,
                        })?;
                    }
                }
                Cut::End => {
                    let offset = input.position();
                    return self.send(Piece::End { offset });
                }
            }
        }
    }

    /// Hands on the bytes before the first record; true if the source ended with them.
    fn pass_header(
        &self,
        input: &mut Input,
        data_start: u64,
        chunk_bytes: usize,
    ) -> Result<bool, Ended> {
        while input.position() < data_start {
            let wanted = (data_start - input.position()).min(chunk_bytes as u64) as usize;
            let mut bytes = vec![0; wanted];
            let count = input.read_full(&mut bytes)?;
            bytes.truncate(count);
            self.send(Piece::Bytes(bytes))?;
            if count < wanted {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A used buffer, or a new one, that begins with the rest of the current one.
    fn next_buffer(&self, rest: &[u8]) -> Chunk {
        let mut next = self.used.try_recv().unwrap_or_default();
        next.bytes.clear();
        next.bytes.extend_from_slice(rest);
        next
    }

    fn send(&self, piece: Piece) -> Result<(), Ended> {
        self.pieces.send(piece).map_err(|_| Ended::Unwanted)
    }
}
