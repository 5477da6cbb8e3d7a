//! Whether this member is too late with what it has to do, so that ordinary requests have to wait elsewhere.
//!
//! A member that is asked for more than it can do misses heartbeats at last, and the cluster elects again and again.
//! It notices earlier: its own timers come late. Its heartbeats would tell the same, but a leader that is cut off does not
//! get rid of them either.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::Gate;
use crate::env::clock::{self, Instant};
use crate::env::probe;
use crate::metrics::Metrics;

/// The least span that lateness is measured by: on a machine that others use, too, timers are late by less than that
/// without anything being wrong.
const SPAN_MIN: Duration = Duration::from_millis(500);
/// So often in a span a member looks how late it is.
const LOOKS: u32 = 25;
/// What one look counts of the smoothed lateness.
const WEIGHT: f64 = 0.25;
/// So much of a span is too late.
const LATE: f64 = 0.5;
/// So little of a span is in time again.
const CALM: f64 = 0.125;
/// For how long it has to be.
const LASTING: Duration = Duration::from_secs(1);

/// Starts to look. It ends with the handle's abortion.
pub fn spawn(gate: Gate, election_timeout: Duration, metrics: Arc<Metrics>) -> JoinHandle<()> {
    let span = span(election_timeout);
    tokio::spawn(async move {
        let mut overload = Overload::new(span);
        loop {
            let due = clock::now() + span / LOOKS;
            clock::sleep_until(due).await;
            let now = clock::now();
            let late = now.saturating_duration_since(due);
            let was = overload.is_on;
            overload.look(now, late);
            if overload.is_on == was {
                continue;
            }
            gate.set_overloaded(overload.is_on);
            metrics.server.overloaded.set(overload.is_on.into());
            if overload.is_on {
                probe::reached("overloaded");
                tracing::warn!(late = ?overload.lateness, "overloaded: ordinary requests are refused until it is calm");
            } else {
                tracing::info!("no longer overloaded");
            }
        }
    })
}

/// What lateness is measured by: who is late by half of it for long is about to cause elections.
fn span(election_timeout: Duration) -> Duration {
    (election_timeout / 2).max(SPAN_MIN)
}

/// How late a member is, and what follows (pure).
struct Overload {
    span: Duration,
    /// Smoothed.
    lateness: Duration,
    is_on: bool,
    calm_since: Option<Instant>,
}

impl Overload {
    fn new(span: Duration) -> Self {
        Self { span, lateness: Duration::ZERO, is_on: false, calm_since: None }
    }

    /// Takes a look into account. One alone does not matter: a process that stood still, or whose clock jumped, is
    /// late once, and counts for no more than a span then.
    fn look(&mut self, now: Instant, late: Duration) {
        // Wrong where it is broken: whoever was late once is taken for overloaded for ever.
        let is_broken = probe::broken("overload-never-ends");
        let counted = if is_broken { late } else { late.min(self.span) };
        self.lateness = self.lateness.mul_f64(1.0 - WEIGHT) + counted.mul_f64(WEIGHT);
        if self.lateness > self.span.mul_f64(LATE) {
            (self.is_on, self.calm_since) = (true, None);
            return;
        }
        let is_calm = self.lateness < self.span.mul_f64(CALM) && !is_broken;
        self.calm_since = is_calm.then(|| self.calm_since.unwrap_or(now));
        if self.calm_since.is_some_and(|since| now.saturating_duration_since(since) >= LASTING) {
            self.is_on = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Duration = Duration::from_millis(100);

    /// Looks every 20 ms, this often and this late; whether ordinary requests are refused then.
    struct Looks {
        overload: Overload,
        now: Instant,
    }

    impl Looks {
        fn new() -> Self {
            Self { overload: Overload::new(SPAN), now: clock::now() }
        }

        fn look(&mut self, times: u32, late_millis: u64) -> bool {
            for _ in 0..times {
                self.now += Duration::from_millis(20 + late_millis);
                self.overload.look(self.now, Duration::from_millis(late_millis));
            }
            self.overload.is_on
        }
    }

    #[tokio::test]
    async fn a_short_election_timeout_asks_for_no_more_than_a_machine_can_do() {
        let mut looks = Looks { overload: Overload::new(span(Duration::from_millis(100))), now: clock::now() };
        assert!(!looks.look(50, 100), "as late as a busy machine is");
        assert!(looks.look(50, 300));
        assert_eq!(span(Duration::from_secs(10)), Duration::from_secs(5));
    }

    #[tokio::test]
    async fn who_is_late_for_long_is_overloaded() {
        let mut looks = Looks::new();
        assert!(!looks.look(500, 10), "a little");
        assert!(!looks.look(2, 80), "twice");
        assert!(looks.look(10, 80));
    }

    #[tokio::test]
    async fn who_stood_still_is_not() {
        let mut looks = Looks::new();
        assert!(!looks.look(1, 30_000));
        assert!(!looks.look(100, 0));
        assert!(!looks.look(1, 3_000));
        assert!(!looks.look(5, 0));
        assert!(!looks.look(1, 3_000));
    }

    #[tokio::test]
    async fn it_ends_after_a_second_of_calm() {
        let mut looks = Looks::new();
        assert!(looks.look(20, 100));
        assert!(looks.look(30, 20), "not calm, and not too late");
        assert!(looks.look(200, 20), "for however long");
        assert!(looks.look(20, 0), "not for long enough");
        assert!(looks.look(1, 100), "late once more: it is not calm any more");
        assert!(looks.look(45, 0));
        assert!(!looks.look(40, 0));
    }
}
