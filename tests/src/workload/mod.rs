//! Traffic, and the record of what was promised to it.

mod bulk;
mod registers;
mod retryable;
mod unique_puts;

pub use bulk::fill;
pub use registers::Registers;
pub use retryable::is_retryable;
pub use unique_puts::{Record, UniquePuts};
