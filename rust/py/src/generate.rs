//! Writes a generated file.

use customer_panel_core::generate::{Generator, Options};
use pyo3::prelude::*;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

const PIECE_BYTES: usize = 1 << 20;

/// Writes `rows` generated customers to `path`; the bytes written. The same arguments give the same bytes everywhere.
///
/// `duplicates`, `dirty`, `changed`: shares of the rows, 0 to 1. `progress(rows)` is called now and then.
#[pyfunction]
#[pyo3(signature = (path, rows, *, about=false, seed=1, duplicates=0.0, dirty=0.0, changed=0.0, progress=None))]
#[expect(
    clippy::too_many_arguments,
    reason = "keyword arguments of one function"
)]
pub fn generate(
    py: Python<'_>,
    path: PathBuf,
    rows: u64,
    about: bool,
    seed: u64,
    duplicates: f64,
    dirty: f64,
    changed: f64,
    progress: Option<Py<PyAny>>,
) -> PyResult<u64> {
    let mut generator = Generator::new(Options {
        rows,
        about,
        seed,
        duplicates,
        dirty,
        changed,
    });
    let mut file = File::create(path)?;
    let mut written = 0;
    let mut piece = Vec::with_capacity(PIECE_BYTES + 4096);
    loop {
        let is_over = py.detach(|| -> std::io::Result<bool> {
            for _ in 0..8 {
                piece.clear();
                if !generator.fill(&mut piece, PIECE_BYTES) {
                    return Ok(true);
                }
                file.write_all(&piece)?;
                written += piece.len() as u64;
            }
            Ok(false)
        })?;
        if let Some(progress) = &progress {
            progress.call1(py, (generator.rows_written(),))?;
        }
        py.check_signals()?;
        if is_over {
            return Ok(written);
        }
    }
}
