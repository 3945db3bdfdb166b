//! From the bytes of a CSV file to customer rows in PostgreSQL's binary format.
//!
//! Pure: no database, no clock, no Python. Every decision about a value is made here, once.

pub mod convert;
pub mod customer;
pub mod dates;
pub mod fields;
pub mod findings;
pub mod generate;
mod matching;
pub mod parse;
pub mod plan;
pub mod scan;
mod simd;
