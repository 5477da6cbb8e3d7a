//! Traffic, and the record of what was promised to it.

mod bulk;
mod unique_puts;

pub use bulk::fill;
pub use unique_puts::{Record, UniquePuts};
