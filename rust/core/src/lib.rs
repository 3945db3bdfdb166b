//! From the bytes of a CSV file to customer rows in PostgreSQL's binary format.
//!
//! Pure: no database, no clock, no Python. Every decision about a value is made here, once.
//! The rooms stand in the order in which a row passes through them; `tests/layers.rs` holds which may use which.

// What a customer is: the columns, their limits, and the headers that mean them.
pub mod customer;
// Bytes become chunks of whole records, and records become fields.
pub mod csv;
// The header decides which column is which field.
pub mod plan;
// A cell becomes a trimmed text, an identity, or a date.
pub mod values;
// A record becomes a row or a reject.
pub mod rows;
// Whose row is it, and is it new, changed, or the same?
pub mod identity;
// What one lane sends to the database in one transaction.
pub mod batch;
// How a field is written for COPY.
pub mod pgcopy;
// The threads that carry all this, and the memory that they may take.
pub mod pipeline;

// Files for tests and measurements.
pub mod generate;
// How fast one thread is.
pub mod bench;
