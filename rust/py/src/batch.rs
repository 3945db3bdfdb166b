//! A batch and its streams.

use crate::rows;
use customer_panel_core::batch::Part;
use customer_panel_core::batch::blocks::BLOCK_BYTES;
use customer_panel_core::batch::frame::{Ids, Target};
use customer_panel_core::pgcopy::{HEADER, TRAILER};
use customer_panel_core::pipeline::budget::Held;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};
use std::sync::{Arc, PoisonError, RwLock};

/// Bytes that libpq gets at once: so many fit into its buffer, and the calls are few.
const PIECE_BYTES: usize = 128 << 10;

/// Rows of one lane that are committed together.
#[pyclass(frozen, module = "customer_panel._native")]
pub struct Batch {
    held: Arc<RwLock<Held>>,
}

impl From<Held> for Batch {
    fn from(held: Held) -> Self {
        Batch {
            held: Arc::new(RwLock::new(held)),
        }
    }
}

impl Batch {
    fn read<T>(&self, look: impl FnOnce(&Held) -> T) -> T {
        look(&self.held.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn pieces(&self, part: Part, target: Target) -> Pieces {
        let state = RwLock::new(Position {
            next: 0,
            is_complete: false,
            buffer: Vec::with_capacity(PIECE_BYTES + 8192),
        });
        Pieces {
            held: Arc::clone(&self.held),
            part,
            target,
            state,
        }
    }
}

#[pymethods]
impl Batch {
    #[getter]
    fn lane(&self) -> u32 {
        self.read(|batch| batch.lane)
    }

    /// The byte span of the file whose rows of this lane these are.
    #[getter]
    fn span(&self) -> (u64, u64) {
        self.read(|batch| (batch.from, batch.to))
    }

    /// Rows by class: processed, new, changed, unchanged, duplicate, pending, skipped, warnings.
    #[getter]
    fn counts(&self) -> (u64, u64, u64, u64, u64, u64, u64, u64) {
        self.read(|batch| {
            let c = batch.counts;
            (
                c.processed,
                c.new,
                c.changed,
                c.unchanged,
                c.duplicate,
                c.pending,
                c.skipped,
                c.warnings,
            )
        })
    }

    /// How many rows `parked` holds.
    #[getter]
    fn parked_rows(&self) -> usize {
        self.read(|batch| batch.part(Part::Waiting).len())
    }

    #[getter]
    fn last_row_hash(&self) -> Option<i64> {
        self.read(|batch| batch.last_row_hash)
    }

    #[getter]
    fn last_line(&self) -> u64 {
        self.read(|batch| batch.last_line)
    }

    /// (number, hash) of the 16 MiB blocks completed since the lane's previous batch.
    #[getter]
    fn blocks(&self) -> Vec<(u64, i64)> {
        self.read(|batch| {
            batch
                .blocks
                .iter()
                .map(|block| (block.number, block.hash))
                .collect()
        })
    }

    /// Hash of the file from the end of its last 16 MiB block to the end of the span.
    #[getter]
    fn tail_hash(&self) -> i64 {
        self.read(|batch| batch.tail_hash)
    }

    /// Puts the rows in the order of their keys.
    fn sort(&self, py: Python<'_>) {
        py.detach(|| {
            self.held
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .sort()
        });
    }

    /// Frees the rows; span and counts stay. Until its batches are released the pipeline waits for memory.
    fn release(&self) {
        self.held
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .release();
    }

    /// Binary COPY into `customers (id, import_id, source_id, source_line, source_hash, <columns>)`. The ids are runs
    /// of consecutive ones: the first of each, and how many.
    fn new_rows(&self, ids: Vec<(i64, i64)>, import_id: i64, source_id: i32) -> PyResult<Pieces> {
        let rows = self.read(|batch| batch.part(Part::New).len());
        let ids = Ids::new(&ids, rows).ok_or_else(|| {
            PyValueError::new_err(format!("these are not the ids of {rows} rows"))
        })?;
        Ok(self.pieces(
            Part::New,
            Target::Customers {
                ids,
                import_id,
                source_id,
            },
        ))
    }

    /// Binary COPY of the changed rows into `stage (source_line, source_hash, clears, <columns>)`.
    fn changed(&self, clears: i32) -> Pieces {
        self.pieces(Part::Changed, Target::Stage { clears })
    }

    /// The new rows, framed for `stage`.
    fn new_to_stage(&self, clears: i32) -> Pieces {
        self.pieces(Part::New, Target::Stage { clears })
    }

    /// Binary COPY into `import_parked`.
    fn parked(&self, import_id: i64) -> Pieces {
        self.pieces(Part::Waiting, Target::Parked { import_id })
    }

    /// The new rows as tuples: their columns as `str`, `datetime.date` or `None`.
    fn rows<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyTuple>>> {
        self.read(|batch| rows::tuples(py, batch.part(Part::New)))
    }

    /// The line on which each of `rows()` begins.
    fn lines(&self) -> Vec<u64> {
        self.read(|batch| {
            batch
                .part(Part::New)
                .refs()
                .iter()
                .map(|row| row.line)
                .collect()
        })
    }

    /// Binary COPY into `import_rejects`; empty if there is none.
    fn findings<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        self.read(|batch| match batch.findings.as_slice() {
            [] => PyBytes::new(py, b""),
            findings => PyBytes::new(py, &[&HEADER, findings, &TRAILER].concat()),
        })
    }

    #[classattr]
    const BLOCK_BYTES: u64 = BLOCK_BYTES;
}

struct Position {
    next: usize,
    is_complete: bool,
    buffer: Vec<u8>,
}

/// A COPY stream, as an iterator of `bytes` of about 128 KiB.
#[pyclass(frozen, module = "customer_panel._native")]
pub struct Pieces {
    held: Arc<RwLock<Held>>,
    part: Part,
    target: Target,
    state: RwLock<Position>,
}

#[pymethods]
impl Pieces {
    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        // Framing touches no Python object, so the other threads may run.
        let piece = py.detach(|| {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            let Position {
                next,
                is_complete,
                buffer,
            } = &mut *state;
            if *is_complete {
                return None;
            }
            buffer.clear();
            let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
            *is_complete = held.frame(self.part, &self.target, next, PIECE_BYTES, buffer);
            Some(())
        });
        piece.map(|()| {
            PyBytes::new(
                py,
                &self
                    .state
                    .read()
                    .unwrap_or_else(PoisonError::into_inner)
                    .buffer,
            )
        })
    }
}
