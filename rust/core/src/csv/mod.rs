//! Bytes become records, and records become fields.

pub mod cutter;
pub(crate) mod index;
pub mod scanner;
