//! Parsed rows as Python tuples, for sinks other than COPY.

use customer_panel_core::batch::row_set::RowSet;
use customer_panel_core::customer::{FIELDS, Kind};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};
use std::collections::HashMap;

/// `datetime.date.toordinal()` of 2000-01-01, from which PostgreSQL counts days.
const EPOCH_ORDINAL: i32 = 730_120;

/// One tuple for each row, its columns in order: `str`, `datetime.date` or `None`.
pub fn tuples<'py>(py: Python<'py>, rows: &RowSet) -> PyResult<Vec<Bound<'py, PyTuple>>> {
    let from_ordinal = py
        .import("datetime")?
        .getattr("date")?
        .getattr(intern!(py, "fromordinal"))?;
    // Dates repeat, and one call of Python costs more than the rest of a row.
    let mut dates: HashMap<i32, Bound<'py, PyAny>> = HashMap::new();
    let mut date = |days: i32| -> PyResult<Bound<'py, PyAny>> {
        if let Some(known) = dates.get(&days) {
            return Ok(known.clone());
        }
        let made = from_ordinal.call1((EPOCH_ORDINAL + days,))?;
        dates.insert(days, made.clone());
        Ok(made)
    };
    let none = py.None().into_bound(py);
    let tuple = |row| {
        let mut columns = rows.columns(row);
        let mut values = Vec::with_capacity(FIELDS.len());
        for field in &FIELDS {
            values.push(match (next(&mut columns), &field.kind) {
                (None, _) => none.clone(),
                (Some(value), Kind::Date) => date(i32::from_be_bytes(value.try_into()?))?,
                (Some(value), _) => PyString::from_bytes(py, value)?.into_any(),
            });
        }
        PyTuple::new(py, values)
    };
    rows.refs().iter().map(tuple).collect()
}

/// Takes the next field off a COPY tuple; `None` is NULL.
fn next<'a>(columns: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = columns.split_first_chunk::<4>()?;
    // -1: NULL.
    let length = usize::try_from(i32::from_be_bytes(*length)).ok();
    let (value, rest) = rest.split_at(length.unwrap_or(0));
    *columns = rest;
    length.map(|_| value)
}
