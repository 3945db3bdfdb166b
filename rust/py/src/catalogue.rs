//! What Python takes from the core instead of a list of its own: the fields of a customer, and the codes of findings.

use customer_panel_core::customer::{FIELDS, FULL_NAME_ALIASES};
use customer_panel_core::rows::findings::Code;
use pyo3::prelude::*;

type FieldTuple = (
    &'static str,
    &'static str,
    &'static str,
    u32,
    Vec<&'static str>,
);

/// (name, camelCase name, kind, limit in characters, accepted headers) of each column of the customer, in order.
#[pyfunction]
pub fn customer_fields() -> Vec<FieldTuple> {
    let fields = FIELDS.iter();
    fields
        .map(|field| {
            (
                field.name,
                field.camel,
                field.kind.as_str(),
                field.limit,
                field.aliases.to_vec(),
            )
        })
        .collect()
}

/// Headers that mean the full name, which is split into first and last name.
#[pyfunction]
pub fn full_name_aliases() -> Vec<&'static str> {
    FULL_NAME_ALIASES.to_vec()
}

/// (code, message, is a warning) of all that can be wrong with a record.
#[pyfunction]
pub fn finding_codes() -> Vec<(&'static str, &'static str, bool)> {
    Code::ALL
        .iter()
        .map(|code| (code.as_str(), code.message(), code.is_warning()))
        .collect()
}
