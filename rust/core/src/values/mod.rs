//! What a cell of the file becomes.

pub mod convert;
pub mod dates;
