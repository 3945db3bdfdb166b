//! Who a row is about, and whether that is new.

pub mod chains;
pub mod classify;
pub mod hash;
pub mod known;
pub mod lanes;
pub mod load;
