use std::time::Duration;

/// A time in which the cluster was not left alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Disturbance {
    /// When it began.
    pub from: Duration,
    /// When it was over.
    pub until: Duration,
    /// What it was.
    pub what: String,
    /// What it did to the time that leases have, where it did something.
    pub effect: Option<Effect>,
}

/// What moves the end of leases while the same member leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A member's clock ran at another rate.
    ClockRate {
        /// Which member's.
        member: usize,
        /// How much it showed of a hundred seconds.
        per_cent: u32,
    },
    /// A member's clock jumped ahead at the beginning.
    ClockJump {
        /// Which member's.
        member: usize,
        /// By how much.
        by: Duration,
    },
    /// A member stood still, and did nothing that was due. Its clock went on.
    Pause {
        /// Which.
        member: usize,
    },
    /// The leader was asked to hand over, and takes no commands until it knows what became of it.
    Transfer,
}
