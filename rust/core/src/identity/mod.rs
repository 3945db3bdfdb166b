//! Who a row is about, and whether that is new.

pub mod classify;
pub mod known;
pub mod lanes;
pub mod load;
