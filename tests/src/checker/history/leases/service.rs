//! When a cluster certainly took commands: what is due in such a time is done.

use std::time::Duration;

use super::term::Write;
use crate::history::{Disturbance, Effect};

/// A leader that has committed something takes commands for so long, by a clock that may run at double
/// speed: half of the election timeout.
const TRUSTED: Duration = Duration::from_millis(500);

/// The times in which a leader took every command, in order, and not touching each other.
pub(super) struct Service(Vec<(Duration, Duration)>);

impl Service {
    /// A write that was answered shows that a quorum was there between question and answer. Where a
    /// leader stands still, or is asked to hand over, that shows nothing; nor does it when a clock jumps.
    pub(super) fn of(writes: &[Write<'_>], disturbances: &[Disturbance]) -> Self {
        let mut times: Vec<(Duration, Duration)> = Vec::new();
        let broken = disturbances.iter().filter_map(|disturbance| match disturbance.effect {
            Some(Effect::Pause { .. } | Effect::Transfer | Effect::ClockJump { .. }) => {
                Some((disturbance.from, disturbance.until))
            }
            Some(Effect::ClockRate { .. }) | None => None,
        });
        let broken: Vec<(Duration, Duration)> = broken.collect();
        for write in writes {
            let (from, mut until) = (write.operation.ended, write.operation.began + TRUSTED);
            for (begins, ends) in &broken {
                if *begins < until && *ends >= write.operation.began {
                    until = until.min(*begins);
                }
            }
            if from < until {
                times.push((from, until));
            }
        }
        times.sort_unstable();
        let mut joined: Vec<(Duration, Duration)> = Vec::new();
        for (from, until) in times {
            match joined.last_mut() {
                Some(last) if from <= last.1 => last.1 = last.1.max(until),
                _ => joined.push((from, until)),
            }
        }
        Self(joined)
    }

    /// The first moment from one on before which there was service for so long.
    pub(super) fn after(&self, from: Duration, lasting: Duration) -> Option<Duration> {
        let mut fitting = self.0.iter().filter_map(|(begins, ends)| {
            let moment = from.max(*begins + lasting);
            (moment <= *ends).then_some(moment)
        });
        fitting.next()
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::sample::{Sample, millis, put};
    use super::*;

    fn service(disturbances: &[Disturbance]) -> Service {
        let mut sample = Sample::new();
        for (number, at) in [1000, 1400, 1800, 3000].into_iter().enumerate() {
            sample.now = millis(at);
            sample.txn(1, put("a", &number.to_string()));
        }
        let writes: Vec<Write<'_>> =
            sample.history.operations.iter().map(|operation| Write { revision: 1, operation }).collect();
        Service::of(&writes, disturbances)
    }

    #[test]
    fn writes_show_service() {
        let service = service(&[]);
        assert_eq!(service.0, [(millis(1010), millis(2300)), (millis(3010), millis(3500))]);
        assert_eq!(service.after(millis(1200), millis(300)), Some(millis(1310)));
        assert_eq!(service.after(millis(1500), millis(300)), Some(millis(1500)));
        assert_eq!(service.after(millis(2400), millis(300)), Some(millis(3310)));
        assert_eq!(service.after(millis(2400), millis(600)), None);
    }

    #[test]
    fn who_stands_still_serves_nobody() {
        let effect = Some(Effect::Pause { member: 0 });
        let paused =
            |from, until| Disturbance { from: millis(from), until: millis(until), what: "test".into(), effect };
        assert_eq!(service(&[paused(1450, 1700)]).0[0], (millis(1010), millis(1450)));
        assert_eq!(service(&[paused(1450, 1700)]).0[1], (millis(1810), millis(2300)));
    }
}
