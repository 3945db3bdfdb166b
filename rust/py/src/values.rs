//! The rules of the import for values that come from elsewhere: what is typed, what is looked for.

use customer_panel_core::values::convert;
use pyo3::prelude::*;

/// An e-mail as it is stored; empty for a blank.
#[pyfunction]
pub fn normalize_email(text: &str) -> String {
    convert::email(convert::trim(text)).into_owned()
}

/// A `customer_id` as it is stored; empty for a blank.
#[pyfunction]
pub fn normalize_identity(text: &str) -> String {
    in_text(&convert::identity(convert::trim(text).as_bytes()))
}

/// The `customer_id` that an e-mail gives a customer without another one; None unless it has the form x@y.
#[pyfunction]
pub fn email_identity(text: &str) -> Option<String> {
    convert::email_identity(convert::trim(text).as_bytes()).map(|identity| in_text(&identity))
}

fn in_text(identity: &[u8]) -> String {
    String::from_utf8_lossy(identity).into_owned()
}
