//! A record becomes a row or a reject, and a row may have a warning. A new code begins in `findings`.

pub mod findings;
pub mod parse;
pub mod sample;
