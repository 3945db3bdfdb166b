//! How a pipeline fails.

use crate::identity::known::OverBudget;
use std::io;

/// Why a pipeline ended before its source did.
#[derive(Debug)]
pub enum Failure {
    Io(io::Error),
    /// The identities of these lanes need more memory than the map may take. Run fewer lanes at a time.
    OverBudget,
    Stopped,
    /// A thread panicked: a defect of this program. So ends whoever waits for a thread that is gone without a word.
    Broken,
}

impl From<OverBudget> for Failure {
    fn from(_: OverBudget) -> Self {
        Failure::OverBudget
    }
}
