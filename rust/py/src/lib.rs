//! The extension module `customer_panel._native`: names, conversions, the GIL. No decisions.

mod batch;
mod bench;
mod catalogue;
mod errors;
mod generate;
mod known;
mod pipeline;
mod plan;
mod rows;
mod source;
mod values;

use pyo3::prelude::*;

#[pymodule]
mod _native {
    #[pymodule_export]
    use super::batch::{Batch, Pieces};
    #[pymodule_export]
    use super::bench::scan_speed;
    #[pymodule_export]
    use super::catalogue::{customer_fields, finding_codes, full_name_aliases};
    #[pymodule_export]
    use super::errors::{Broken, OverBudget, PlanError, Stopped};
    #[pymodule_export]
    use super::generate::generate;
    #[pymodule_export]
    use super::known::Known;
    #[pymodule_export]
    use super::pipeline::{Pipeline, verify};
    #[pymodule_export]
    use super::plan::Plan;
    #[pymodule_export]
    use super::source::{Feed, Source};
    #[pymodule_export]
    use super::values::{email_identity, normalize_email, normalize_identity};

    use super::*;

    /// The version of the rules by which values and identities are normalised.
    #[pymodule_export]
    const RULES_VERSION: u32 = customer_panel_core::customer::RULES_VERSION;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
