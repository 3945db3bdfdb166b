//! Failures of the core as Python exceptions.

use customer_panel_core::identity::known::OverBudget as CoreOverBudget;
use customer_panel_core::pipeline::error::Failure;
use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyRuntimeError};
use pyo3::prelude::*;

create_exception!(
    _native,
    OverBudget,
    PyException,
    "The map of known identities would take more than its memory."
);
create_exception!(_native, Stopped, PyException, "The pipeline was stopped.");
create_exception!(
    _native,
    Broken,
    PyRuntimeError,
    "A thread of the pipeline died: a defect of this program."
);
create_exception!(
    _native,
    PlanError,
    PyException,
    "The columns cannot be matched with the fields of a customer. args: (code, message)."
);

/// A failure of the core on its way to Python.
pub struct NativeError(Failure);

impl From<Failure> for NativeError {
    fn from(failure: Failure) -> Self {
        NativeError(failure)
    }
}

impl From<CoreOverBudget> for NativeError {
    fn from(error: CoreOverBudget) -> Self {
        NativeError(error.into())
    }
}

impl From<NativeError> for PyErr {
    fn from(NativeError(failure): NativeError) -> Self {
        match failure {
            Failure::Io(error) => error.into(),
            Failure::OverBudget => OverBudget::new_err(()),
            Failure::Stopped => Stopped::new_err(()),
            Failure::Broken => Broken::new_err("a thread of the pipeline died"),
        }
    }
}
