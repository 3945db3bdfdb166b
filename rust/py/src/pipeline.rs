//! Pipelines and their sources.

use crate::batch::Batch;
use crate::errors::NativeError;
use crate::known::Known;
use crate::plan::Plan;
use customer_panel_core::batch::blocks;
use customer_panel_core::batch::blocks::Expected;
use customer_panel_core::csv::scanner::Limits;
use customer_panel_core::identity::classify::Rules;
use customer_panel_core::identity::hash::HashKeys;
use customer_panel_core::identity::lanes::Lanes;
use customer_panel_core::pipeline::Pipeline as CorePipeline;
use customer_panel_core::pipeline::reader::{CHUNK_BYTES, Reading};
use customer_panel_core::pipeline::routing::{CHECKPOINT_BYTES, Routing};
use customer_panel_core::pipeline::source::{self, Located, Source};
use pyo3::prelude::*;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, PoisonError};

fn file(descriptor: i32) -> io::Result<File> {
    // SAFETY: the descriptor belongs to a file object that the caller holds open during this call.
    let borrowed = unsafe { BorrowedFd::borrow_raw(descriptor) };
    borrowed.try_clone_to_owned().map(File::from)
}

/// Hands buffers to a pipeline whose source is not a file.
#[pyclass(frozen, module = "customer_panel._native")]
pub struct Feed {
    feed: Mutex<Option<source::Feed>>,
    fed: Mutex<Option<source::Fed>>,
}

#[pymethods]
impl Feed {
    #[new]
    fn new() -> Self {
        let (feed, fed) = source::feed();
        Feed {
            feed: Mutex::new(Some(feed)),
            fed: Mutex::new(Some(fed)),
        }
    }

    /// Waits for room and hands `buffer` over; False if nobody reads any more.
    fn push(&self, py: Python<'_>, buffer: &[u8]) -> bool {
        let owned = buffer.to_vec();
        py.detach(|| {
            self.locked()
                .as_ref()
                .is_some_and(|feed| feed.push(Ok(owned)))
        })
    }

    /// Ends the source, as its end or (with `error`) as a failure to read it.
    #[pyo3(signature = (error=None))]
    fn close(&self, py: Python<'_>, error: Option<String>) {
        py.detach(|| {
            let feed = self.locked().take();
            if let (Some(feed), Some(error)) = (feed, error) {
                feed.push(Err(io::Error::other(error)));
            }
        });
    }
}

impl Feed {
    fn locked(&self) -> std::sync::MutexGuard<'_, Option<source::Feed>> {
        self.feed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Read = (Vec<(u64, i64)>, u64, i64);
/// What [`Pipeline::outcome`] returns.
type Outcome = (Option<Batch>, u64, Read, u64, Option<Known>);

/// Reads a source and sorts its rows into the batches of lanes, on threads of its own.
#[pyclass(frozen, module = "customer_panel._native")]
pub struct Pipeline {
    seed: u64,
    lanes: Lanes,
    core: CorePipeline,
}

#[pymethods]
impl Pipeline {
    /// `source`: a descriptor, or a Feed. `head`: bytes of it that were read already; they hold the header.
    /// `done_to`: for each lane of this run (from `first_lane` on, of `lanes`) the offset up to which it is done.
    #[new]
    #[pyo3(signature = (source, plan, *, seed, head, lanes, done_to, batch_rows, batch_bytes, budget, first_lane=0,
        known=None, import_id=0, blank_clear=false, until=None, checkpoint_bytes=CHECKPOINT_BYTES, parks_changed=false,
        parks_many=false, parks_done=false, is_second=false, hashes_blocks=true, parsers=2))]
    #[expect(
        clippy::too_many_arguments,
        reason = "keyword arguments of one constructor"
    )]
    fn new(
        source: Either<'_>,
        plan: &Plan,
        seed: i64,
        head: &[u8],
        lanes: u32,
        done_to: Vec<u64>,
        batch_rows: usize,
        batch_bytes: usize,
        budget: usize,
        first_lane: u32,
        known: Option<&Known>,
        import_id: i64,
        blank_clear: bool,
        until: Option<u64>,
        checkpoint_bytes: u64,
        parks_changed: bool,
        parks_many: bool,
        parks_done: bool,
        is_second: bool,
        hashes_blocks: bool,
        parsers: usize,
    ) -> PyResult<Self> {
        let source = match source {
            Either::Descriptor(descriptor) => {
                Source::File(Located::new(file(descriptor)?, head.len() as u64))
            }
            Either::Feed(feed) => {
                let fed = feed
                    .get()
                    .fed
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .take();
                Source::Fed(fed.ok_or_else(|| {
                    pyo3::exceptions::PyRuntimeError::new_err("a feed serves one pipeline")
                })?)
            }
        };
        let keys = HashKeys::new(seed as u64, plan.core.mapped, blank_clear);
        let (data_start, header_lines) = plan.start();
        let data_start = data_start as usize;
        let reading = Reading {
            source,
            head: head.to_vec(),
            data_start,
            plan: Arc::clone(&plan.core),
            keys,
            limits: Limits::default(),
            chunk_bytes: CHUNK_BYTES,
            parsers,
        };
        let routing = Routing {
            import_id,
            lanes,
            first_lane,
            done_to,
            until,
            batch_rows: batch_rows.max(1),
            batch_bytes,
            checkpoint_bytes,
            rules: Rules {
                parks_changed,
                parks_many,
                parks_done,
            },
            is_second,
            header_lines,
            hashes_blocks,
        };
        let lanes = Lanes {
            total: routing.lanes,
            first: routing.first_lane,
            count: routing.done_to.len() as u32,
        };
        let known = known.map(Known::take).transpose()?;
        Ok(Pipeline {
            seed: keys.identity_seed,
            lanes,
            core: CorePipeline::start(reading, routing, known, budget),
        })
    }

    /// The next batch of a lane, in file order; None when no more will come, for whatever reason.
    fn next_batch(&self, py: Python<'_>, lane: u32) -> Option<Batch> {
        py.detach(|| self.core.next(lane)).map(Batch::from)
    }

    /// Waits for the end of the source: the batch of a last record without line end, if any; the bytes read; the hashes
    /// of all that was read: (number, hash) of its whole blocks, the bytes hashed, the hash of the rest; how many
    /// customers with several rows have the same ones as before; and the map for the second reading, if others have not.
    ///
    /// Raises OSError, OverBudget, or Stopped. To be called once.
    fn outcome(&self, py: Python<'_>) -> PyResult<Outcome> {
        let outcome = py
            .detach(|| self.core.outcome())
            .map_err(NativeError::from)?;
        let read = outcome.read;
        let blocks = read.blocks.iter().map(|block| (block.number, block.hash));
        let changed = outcome
            .changed
            .map(|map| Known::back(map, self.seed, self.lanes));
        Ok((
            outcome.tail.map(Batch::from),
            outcome.end,
            (blocks.collect(), read.to, read.tail_hash),
            outcome.unchanged,
            changed,
        ))
    }

    /// Stops all threads at their next step.
    fn stop(&self) {
        self.core.stop();
    }
}

#[derive(FromPyObject)]
enum Either<'py> {
    Descriptor(i32),
    Feed(Bound<'py, Feed>),
}

/// Compares the start of a file with the hashes of its whole blocks, by number, and of the rest up to some offsets:
/// None, or the span that differs.
///
/// `check` is called before every mebibyte; what it raises ends the work.
#[pyfunction]
pub fn verify(
    py: Python<'_>,
    descriptor: i32,
    blocks: HashMap<u64, i64>,
    tails: BTreeMap<u64, i64>,
    check: Bound<'_, PyAny>,
) -> PyResult<Option<(u64, u64)>> {
    let source = Located::new(file(descriptor)?, 0);
    let (expected, check) = (Expected { blocks, tails }, check.unbind());
    let changed = py.detach(|| {
        let check = || Python::attach(|py| check.call0(py).map(drop));
        blocks::verify::<PyErr>(source, &expected, check)
    })?;
    Ok(changed.map(|span| (span.from, span.to)))
}
