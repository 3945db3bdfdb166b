//! A record becomes a row or a reject. A new code for what can be wrong begins here.

pub mod findings;
pub mod parse;
pub mod sample;
