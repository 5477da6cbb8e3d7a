//! Leases.

/// What is left of a lease, in whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remaining {
    /// Seconds left, rounded down.
    pub ttl: i64,
    /// Seconds that were granted.
    pub granted_ttl: i64,
}
