use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// A node on which one revision is made each second.
struct Node {
    start: Instant,
    leads: Cell<bool>,
    fails: Cell<bool>,
    compactions: RefCell<Vec<(u64, i64)>>,
}

/// What a schedule did within a time: after how many seconds it compacted to which revision.
async fn check(mode: Mode, time: Duration, act: impl Fn(&Node, u64), expected: &[(u64, i64)]) {
    let node = Rc::new(Node {
        start: Instant::now(),
        leads: Cell::new(true),
        fails: Cell::new(false),
        compactions: RefCell::default(),
    });
    let now = || node.start.elapsed().as_secs();
    let compact = |revision| {
        let node = node.clone();
        async move {
            if node.fails.get() {
                return Err(Unavailable::NoLeader);
            }
            node.compactions.borrow_mut().push((node.start.elapsed().as_secs(), revision));
            Ok(Outcome::default())
        }
    };
    let schedule = run(mode, || now() as i64, || node.leads.get(), compact);
    let script = async {
        while node.start.elapsed() < time {
            act(&node, now());
            clock::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::select! {
        biased;
        () = script => {}
        () = schedule => {}
    }
    assert_eq!(*node.compactions.borrow(), expected);
}

fn undisturbed(_: &Node, _: u64) {}

#[tokio::test(start_paused = true)]
async fn short_periods_compact_once_a_period() {
    // Sampled every minute; the eleventh look back is to a minute more than the period.
    check(Mode::Periodic(10 * MINUTE), 31 * MINUTE, undisturbed, &[(600, 0), (1_200, 540), (1_800, 1_140)]).await;
}

#[tokio::test(start_paused = true)]
async fn long_periods_compact_every_hour() {
    let expected = [(10_800, 0), (14_400, 3_240), (18_000, 6_840)];
    check(Mode::Periodic(3 * HOUR), 5 * HOUR + MINUTE, undisturbed, &expected).await;
}

#[tokio::test(start_paused = true)]
async fn revisions_compact_every_five_minutes() {
    check(Mode::Revision(400), 16 * MINUTE, undisturbed, &[(600, 200), (900, 500)]).await;
}

#[tokio::test(start_paused = true)]
async fn only_a_leader_compacts_but_all_keep_the_schedule() {
    let elected = |node: &Node, now: u64| node.leads.set(now >= 610);
    check(Mode::Periodic(10 * MINUTE), 15 * MINUTE, elected, &[(660, 0)]).await;
    check(Mode::Revision(400), 16 * MINUTE, elected, &[(900, 500)]).await;
}

#[tokio::test(start_paused = true)]
async fn what_failed_is_tried_at_the_next_step() {
    let failing = |node: &Node, now: u64| node.fails.set(now < 700);
    check(Mode::Periodic(10 * MINUTE), 13 * MINUTE, failing, &[(720, 60)]).await;
    check(Mode::Revision(400), 11 * MINUTE, failing, &[]).await;
}

#[tokio::test(start_paused = true)]
async fn a_revision_is_compacted_once() {
    let mut schedule = Schedule::new(Mode::Revision(10), Instant::now());
    assert_eq!(schedule.due(Instant::now(), 10), None);
    assert_eq!(schedule.due(Instant::now(), 15), Some(5));
    schedule.compacted(Instant::now(), 5);
    assert_eq!(schedule.due(Instant::now(), 15), None);
    assert_eq!(schedule.due(Instant::now(), 16), Some(6));
}

#[tokio::test(start_paused = true)]
async fn no_period_makes_the_schedule_spin() {
    for period in [Duration::ZERO, Duration::from_nanos(1)] {
        assert!(Schedule::new(Mode::Periodic(period), Instant::now()).step() >= Duration::from_millis(1));
    }
}
