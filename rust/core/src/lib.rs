//! From the bytes of a CSV file to customer rows in PostgreSQL's binary format.
//!
//! Pure: no database, no clock, no Python. Every decision about a value is made here, once.

pub mod batch;
pub mod blocks;
pub mod convert;
pub mod customer;
pub mod dates;
pub mod fields;
pub mod findings;
pub mod generate;
pub mod judge;
pub mod known;
pub mod load;
mod matching;
pub mod parse;
pub mod pgcopy;
pub mod pipeline;
pub mod plan;
pub mod reader;
pub mod routing;
pub mod scan;
pub mod sequence;
mod simd;
pub mod source;
pub mod speed;
