//! What `customer-panel bench scan` measures.

use crate::plan::Failed;
use customer_panel_core::bench::measure;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::path::PathBuf;

const ROUNDS_MOST: usize = 10_000;

/// Reads a file into memory and turns it into rows `rounds` times, on this thread alone: scan, map, convert, hash,
/// encode.
///
/// Its rows, the bytes behind its header, and the seconds of each round. Raises OSError or PlanError.
#[pyfunction]
pub fn scan_speed(
    py: Python<'_>,
    path: PathBuf,
    rounds: usize,
) -> PyResult<(usize, usize, Vec<f64>)> {
    if rounds > ROUNDS_MOST {
        return Err(PyValueError::new_err(format!(
            "{rounds} rounds: {ROUNDS_MOST} are possible"
        )));
    }
    py.detach(|| {
        let bytes = std::fs::read(path)?;
        let (seen, times) = measure(&bytes, rounds).map_err(Failed::from)?;
        let seconds = times.iter().map(|round| round.cut_and_parse.as_secs_f64());
        Ok((seen.rows, seen.records_bytes, seconds.collect()))
    })
}
