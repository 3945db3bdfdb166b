//! The map of known identities.

use crate::errors::NativeError;
use customer_panel_core::identity::known::{Known as CoreKnown, OverBudget};
use customer_panel_core::identity::lanes::Lanes;
use customer_panel_core::identity::load;

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use std::sync::Mutex;

/// Room is made at once for so many identities, about a gibibyte; for more it is made as they come.
const PRESIZED: usize = 50_000_000;

/// What the database holds of the identities of some lanes. Filled by any number of threads, then given to a pipeline.
#[pyclass(frozen, module = "customer_panel._native")]
pub struct Known {
    map: Mutex<Option<CoreKnown>>,
    seed: u64,
    lanes: Lanes,
}

impl Known {
    /// The map of the identities of `lanes`, hashed with `seed`, as a pipeline left it.
    pub fn back(map: CoreKnown, seed: u64, lanes: Lanes) -> Self {
        Known {
            map: Mutex::new(Some(map)),
            seed,
            lanes,
        }
    }

    pub fn take(&self) -> PyResult<CoreKnown> {
        let taken = self.map.lock().ok().and_then(|mut map| map.take());
        taken.ok_or_else(|| PyRuntimeError::new_err("the map was given to a pipeline already"))
    }

    fn fill(
        &self,
        py: Python<'_>,
        fill: impl FnOnce(&mut CoreKnown) -> Result<Result<(), OverBudget>, load::NotAnArray> + Send,
    ) -> PyResult<()> {
        let filled = py.detach(|| {
            self.map
                .lock()
                .ok()
                .and_then(|mut map| map.as_mut().map(fill))
        });
        let filled = filled
            .ok_or_else(|| PyRuntimeError::new_err("the map was given to a pipeline already"))?;
        let filled = filled
            .map_err(|_| PyValueError::new_err("not a one-dimensional array in binary form"))?;
        Ok(filled.map_err(NativeError::from)?)
    }
}

#[pymethods]
impl Known {
    #[new]
    #[pyo3(signature = (seed, *, expected, memory, lanes, first_lane, lane_count))]
    fn new(
        seed: i64,
        expected: usize,
        memory: usize,
        lanes: u32,
        first_lane: u32,
        lane_count: u32,
    ) -> Self {
        let lanes = Lanes {
            total: lanes,
            first: first_lane,
            count: lane_count,
        };
        Known {
            map: Mutex::new(Some(CoreKnown::new(expected.min(PRESIZED), memory))),
            seed: seed as u64,
            lanes,
        }
    }

    /// Adds customer ids (`text[]`) and their source hashes (`int8[]`), both as PostgreSQL sends arrays in binary
    /// form.
    fn load_hashes(&self, py: Python<'_>, ids: &[u8], hashes: &[u8]) -> PyResult<()> {
        self.fill(py, |map| {
            load::load_hashes(map, self.seed, self.lanes, ids, hashes)
        })
    }

    /// Adds flags (`int4[]`) to customer ids (`text[]`).
    fn load_flags(&self, py: Python<'_>, ids: &[u8], flags: &[u8]) -> PyResult<()> {
        self.fill(py, |map| {
            load::load_flags(map, self.seed, self.lanes, ids, flags)
        })
    }
}
