//! From the bytes of a CSV file to customer rows in PostgreSQL's binary format.
//!
//! Pure: no database, no clock, no Python. Every decision about a value is made here, once.

pub mod batch;
pub mod bench;
pub mod csv;
pub mod customer;
pub mod generate;
pub mod identity;
pub mod pgcopy;
pub mod pipeline;
pub mod plan;
pub mod rows;
pub mod values;
