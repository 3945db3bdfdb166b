//! Plans: which column of a file is which field.

use crate::errors::PlanError;
use customer_panel_core::batch::blocks::BlockHasher;
use customer_panel_core::customer::{FIELDS, FIRST_NAME, FULL_NAME, LAST_NAME};
use customer_panel_core::plan::error::{HEADER_BYTES, PlanError as CoreError};
use customer_panel_core::plan::{Plan as CorePlan, delimiter_of};
use customer_panel_core::rows::sample::average_record_bytes;
use customer_panel_core::values::dates::DateOrder;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::sync::Arc;

/// Where the longest header ends, with the byte order mark before it.
const HEADER_END_MOST: u64 = HEADER_BYTES as u64 + 3;

/// Which column of a file is which field of a customer. Decided once per import.
#[pyclass(frozen, module = "customer_panel._native")]
pub struct Plan {
    pub core: Arc<CorePlan>,
    /// Bytes and line ends before the first record.
    #[pyo3(get)]
    data_start: u64,
    #[pyo3(get)]
    header_lines: u64,
}

impl From<CoreError> for Failed {
    fn from(error: CoreError) -> Self {
        Failed(error)
    }
}

/// A plan that could not be made, on its way to Python.
pub struct Failed(CoreError);

impl From<Failed> for PyErr {
    fn from(Failed(error): Failed) -> Self {
        PlanError::new_err((error.code(), error.to_string()))
    }
}

fn date_order(name: Option<&str>) -> PyResult<DateOrder> {
    match name {
        None => Ok(DateOrder::Auto),
        Some("mdy") => Ok(DateOrder::Mdy),
        Some("dmy") => Ok(DateOrder::Dmy),
        Some(other) => Err(PyValueError::new_err(format!(
            "date order {other:?} is neither 'mdy' nor 'dmy'"
        ))),
    }
}

impl Plan {
    pub fn start(&self) -> (u64, u64) {
        (self.data_start, self.header_lines)
    }
}

#[pymethods]
impl Plan {
    #[staticmethod]
    #[pyo3(signature = (sample, *, delimiter=None, overrides=Vec::new(), date_order=None))]
    fn from_header(
        sample: &[u8],
        delimiter: Option<&str>,
        overrides: Vec<(String, String)>,
        date_order: Option<&str>,
    ) -> PyResult<Self> {
        let delimiter = delimiter.map(delimiter_of).transpose();
        let delimiter = delimiter.map_err(Failed)?;
        let order = self::date_order(date_order)?;
        let (core, data_start, lines) =
            CorePlan::from_header(sample, delimiter, &overrides, order).map_err(Failed)?;
        Ok(Plan {
            core: Arc::new(core),
            data_start: data_start as u64,
            header_lines: lines.into(),
        })
    }

    #[staticmethod]
    #[pyo3(signature = (delimiter, headers, mapping, *, date_order, data_start, header_lines))]
    fn restore(
        delimiter: &str,
        headers: Vec<String>,
        mapping: Vec<(String, String)>,
        date_order: Option<&str>,
        data_start: u64,
        header_lines: u64,
    ) -> PyResult<Self> {
        let order = self::date_order(date_order)?;
        if data_start > HEADER_END_MOST || header_lines > data_start {
            return Err(PyValueError::new_err(format!(
                "no header has {data_start} bytes and {header_lines} line ends"
            )));
        }
        let delimiter = delimiter_of(delimiter).map_err(Failed)?;
        let core = CorePlan::restore(delimiter, headers, &mapping, order).map_err(Failed)?;
        Ok(Plan {
            core: Arc::new(core),
            data_start,
            header_lines,
        })
    }

    #[getter]
    fn delimiter(&self) -> String {
        char::from(self.core.delimiter).into()
    }

    #[getter]
    fn headers(&self) -> Vec<String> {
        self.core.headers.clone()
    }

    /// Header and field of each column that is read, in file order.
    #[getter]
    fn mapping(&self) -> Vec<(String, &'static str)> {
        self.core
            .mapping()
            .into_iter()
            .map(|(_, header, field)| (header, field))
            .collect()
    }

    #[getter]
    fn unmapped(&self) -> Vec<String> {
        self.core.unmapped.clone()
    }

    /// Hash of the bytes before the first record: what a lane that has done nothing has passed.
    fn header_hash(&self, head: &[u8]) -> i64 {
        let mut hasher = BlockHasher::default();
        hasher.feed(
            head.get(..self.data_start as usize).unwrap_or_default(),
            |_| {},
        );
        hasher.tail()
    }

    /// Bytes of a record on average, judged by those that `head`, the start of the file, holds whole.
    fn average_record_bytes(&self, head: &[u8]) -> usize {
        let records = head.get(self.data_start as usize..).unwrap_or_default();
        average_record_bytes(records, &self.core)
    }

    /// Bit set of the columns of `customers` that the file can fill.
    #[getter]
    fn fields(&self) -> u32 {
        let mapped = self.core.mapped;
        let names = if mapped >> FULL_NAME & 1 == 1 {
            1 << FIRST_NAME | 1 << LAST_NAME
        } else {
            0
        };
        (mapped | names) & ((1 << FIELDS.len()) - 1)
    }
}
