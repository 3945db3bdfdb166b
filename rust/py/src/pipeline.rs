//! Pipelines.

use crate::batch::Batch;
use crate::errors::NativeError;
use crate::known::Known;
use crate::plan::Plan;
use crate::source::{PATIENCE, Source};
use customer_panel_core::batch::blocks;
use customer_panel_core::batch::blocks::Expected;
use customer_panel_core::csv::scanner::Limits;
use customer_panel_core::identity::classify::Rules;
use customer_panel_core::identity::hash::HashKeys;
use customer_panel_core::identity::lanes::Lanes;
use customer_panel_core::pipeline::error::Failure;
use customer_panel_core::pipeline::reader::{CHUNK_BYTES, Reading};
use customer_panel_core::pipeline::routing::{CHECKPOINT_BYTES, Routing};
use customer_panel_core::pipeline::{Pipeline as CorePipeline, Waiting};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Parsers of a pipeline, and lanes of an import, at most: more would only cost memory.
const PARSERS_MOST: usize = 64;
const LANES_MOST: u32 = 1 << 16;

type Read = (Vec<(u64, i64)>, u64, i64);
/// What [`Pipeline::outcome`] returns.
type Outcome = (Vec<Batch>, u64, u64, Read, u64, Option<Known>);

/// Reads a source and sorts its rows into the batches of lanes, on threads of its own.
#[pyclass(frozen, module = "customer_panel._native")]
pub struct Pipeline {
    seed: u64,
    lanes: Lanes,
    core: CorePipeline,
    /// For each lane whether its last batch was taken.
    drained: Vec<AtomicBool>,
    is_stopped: AtomicBool,
    is_outcome_taken: AtomicBool,
}

#[pymethods]
impl Pipeline {
    /// `done_to`: for each lane of this run (from `first_lane` on, of `lanes`) the offset up to which it is done.
    #[new]
    #[pyo3(signature = (source, plan, *, seed, lanes, done_to, batch_rows, batch_bytes, budget, first_lane=0,
        known=None, import_id=0, blank_clear=false, until=None, checkpoint_bytes=CHECKPOINT_BYTES, parks_changed=false,
        parks_many=false, parks_done=false, is_second=false, hashes_blocks=true, parsers=2))]
    #[expect(
        clippy::too_many_arguments,
        reason = "keyword arguments of one constructor"
    )]
    fn new(
        source: &Source,
        plan: &Plan,
        seed: i64,
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
        let is_of_import = (first_lane as usize).saturating_add(done_to.len()) <= lanes as usize;
        if done_to.is_empty() || !is_of_import || lanes > LANES_MOST {
            return Err(PyValueError::new_err(format!(
                "lanes {first_lane} and {} behind it are no lanes of {lanes}; an import has at most {LANES_MOST}",
                done_to.len().saturating_sub(1),
            )));
        }
        if !(1..=PARSERS_MOST).contains(&parsers) {
            return Err(PyValueError::new_err(format!(
                "{parsers} parsers: 1 to {PARSERS_MOST} are possible"
            )));
        }
        let keys = HashKeys::new(seed as u64, plan.core.mapped, blank_clear);
        let (data_start, header_lines) = plan.start();
        let reading = Reading {
            input: source.open()?,
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
        let run = Lanes {
            total: routing.lanes,
            first: routing.first_lane,
            count: routing.done_to.len() as u32,
        };
        let drained = (0..routing.done_to.len()).map(|_| AtomicBool::default());
        let drained = drained.collect();
        let known = known.map(Known::take).transpose()?;
        Ok(Pipeline {
            core: CorePipeline::start(reading, routing, known, budget)?,
            seed: keys.identity_seed,
            lanes: run,
            drained,
            is_stopped: AtomicBool::default(),
            is_outcome_taken: AtomicBool::default(),
        })
    }

    /// The next batch of a lane, in file order; None when no more will come, for whatever reason: `outcome` says which.
    fn next_batch(&self, py: Python<'_>, lane: u32) -> PyResult<Option<Batch>> {
        let index = lane
            .checked_sub(self.lanes.first)
            .map(|index| index as usize);
        let Some(is_drained) = index.and_then(|index| self.drained.get(index)) else {
            return Err(PyValueError::new_err(format!(
                "lane {lane} is not of this pipeline"
            )));
        };
        let batch = waited(py, || self.core.next_within(lane, PATIENCE))?;
        if batch.is_none() {
            is_drained.store(true, Ordering::Relaxed);
        }
        Ok(batch.map(Batch::from))
    }

    /// Waits for the end of the source: the batches of its tail; where the tail begins; the bytes read; the hashes of
    /// all that was read, which are (number, hash) of its whole blocks, the bytes hashed, the hash of the rest; how many
    /// customers with several rows have the same ones as before; and the map for the second reading, if others have not.
    ///
    /// To be called once, when every lane's batches were taken or the pipeline was stopped. Raises OSError, OverBudget,
    /// Stopped or Broken.
    fn outcome(&self, py: Python<'_>) -> PyResult<Outcome> {
        let is_over = self.is_stopped.load(Ordering::Relaxed)
            || self.drained.iter().all(|lane| lane.load(Ordering::Relaxed));
        if !is_over {
            let message = "the outcome comes when every lane has given its last batch";
            return Err(PyRuntimeError::new_err(message));
        }
        if self.is_outcome_taken.swap(true, Ordering::Relaxed) {
            return Err(PyRuntimeError::new_err("the outcome was taken already"));
        }
        let outcome = waited(py, || self.core.outcome_within(PATIENCE))?;
        let outcome = outcome.map_err(NativeError::from)?;
        let read = outcome.read;
        let blocks = read.blocks.iter().map(|block| (block.number, block.hash));
        let changed = outcome
            .changed
            .map(|map| Known::back(map, self.seed, self.lanes));
        Ok((
            outcome.tails.into_iter().map(Batch::from).collect(),
            outcome.decided,
            outcome.end,
            (blocks.collect(), read.to, read.tail_hash),
            outcome.unchanged,
            changed,
        ))
    }

    /// Stops all threads, also one that waits for its source.
    fn stop(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
        self.core.stop();
    }
}

/// Waits without the GIL, but for signals that Python has to handle.
fn waited<T: Send>(
    py: Python<'_>,
    wait: impl Fn() -> Result<T, Waiting> + Send + Sync,
) -> PyResult<T> {
    loop {
        match py.detach(&wait) {
            Ok(found) => return Ok(found),
            Err(Waiting) => py.check_signals()?,
        }
    }
}

/// What ends a comparison early.
struct Ended(PyErr);

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Ended(NativeError::from(Failure::from(error)).into())
    }
}

/// Compares the start of a source with the hashes of its whole blocks, by number, and of the rest up to some offsets:
/// None, or the span that differs.
///
/// `check` is called before every mebibyte; what it raises ends the work.
#[pyfunction]
pub fn verify(
    py: Python<'_>,
    source: &Source,
    blocks: HashMap<u64, i64>,
    tails: BTreeMap<u64, i64>,
    check: Bound<'_, PyAny>,
) -> PyResult<Option<(u64, u64)>> {
    if !source.is_rewindable() {
        return Err(PyValueError::new_err("a stream cannot be compared"));
    }
    let input = source.open()?;
    let (expected, check) = (Expected { blocks, tails }, check.unbind());
    let changed = py.detach(|| {
        let check = || Python::attach(|py| check.call0(py).map(drop)).map_err(Ended);
        blocks::verify::<Ended>(input, &expected, check)
    });
    let changed = changed.map_err(|Ended(error)| error)?;
    Ok(changed.map(|span| (span.from, span.to)))
}
