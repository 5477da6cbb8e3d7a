//! Clocks of simulated nodes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};

use madsim::runtime::{Handle, NodeHandle, Runtime};

use super::sim::*;
use super::{Instant, elapsed};
use std::time::Duration;

/// How exact a simulated moment is: the world moves a little with every step.
const TOLERANCE: Duration = Duration::from_millis(2);

#[track_caller]
fn assert_near(actual: Duration, expected: Duration) {
    assert!(actual.abs_diff(expected) < TOLERANCE, "{actual:?} is not {expected:?}");
}

fn simulate<F: Future<Output = ()>>(run: impl FnOnce(NodeHandle, NodeHandle) -> F) {
    reset();
    Runtime::with_seed_and_config(1, madsim::Config::default()).block_on(async {
        let nodes = Handle::current();
        run(nodes.create_node().build(), nodes.create_node().build()).await;
    });
}

async fn world(duration: Duration) {
    madsim::time::sleep(duration).await;
}

/// Starts to sleep on a node; answers how long that took in the world.
fn sleep_on(node: &NodeHandle, duration: Duration) -> tokio::task::JoinHandle<Duration> {
    node.spawn(async move {
        let began = Instant::now();
        sleep(duration).await;
        began.elapsed()
    })
}

#[test]
fn a_clock_that_nobody_changed_shows_the_time_of_the_world() {
    simulate(|node, _| async move {
        assert_near(sleep_on(&node, Duration::from_secs(10)).await.unwrap(), Duration::from_secs(10));
        node.spawn(async { assert_eq!(now(), Instant::now()) }).await.unwrap();
    });
}

#[test]
fn a_rate_bends_one_node_and_no_other() {
    simulate(|fast, other| async move {
        set_rate(fast.id(), 2.0);
        let sleeps = [sleep_on(&fast, Duration::from_secs(10)), sleep_on(&other, Duration::from_secs(10))];
        let [short, long] = futures_util::future::join_all(sleeps).await.try_into().unwrap();
        assert_near(short.unwrap(), Duration::from_secs(5));
        assert_near(long.unwrap(), Duration::from_secs(10));
    });
}

#[test]
fn a_rate_that_changes_moves_those_who_sleep() {
    simulate(|node, _| async move {
        let sleeper = sleep_on(&node, Duration::from_secs(10));
        world(Duration::from_secs(4)).await;
        set_rate(node.id(), 3.0);
        world(Duration::from_secs(1)).await;
        set_rate(node.id(), 0.5);
        // Four seconds, then three, then the other three at half the speed.
        assert_near(sleeper.await.unwrap(), Duration::from_secs(11));
    });
}

#[test]
fn a_jump_wakes_those_whose_time_has_come() {
    simulate(|node, _| async move {
        let (early, late) = (sleep_on(&node, Duration::from_secs(60)), sleep_on(&node, Duration::from_secs(100)));
        let began = node.spawn(async { now() }).await.unwrap();
        world(Duration::from_secs(5)).await;
        jump(node.id(), Duration::from_secs(80));
        assert_near(early.await.unwrap(), Duration::from_secs(5));
        assert_near(late.await.unwrap(), Duration::from_secs(20));
        node.spawn(async move { assert_near(elapsed(began), Duration::from_secs(100)) }).await.unwrap();
    });
}

#[test]
fn a_timeout_is_of_the_local_clock() {
    simulate(|node, _| async move {
        let waits = node.spawn(async {
            assert_eq!(timeout(Duration::from_secs(1), async { 7 }).await, Ok(7));
            let began = Instant::now();
            let never = timeout(Duration::from_secs(30), std::future::pending::<()>()).await;
            (never, began.elapsed())
        });
        world(Duration::from_secs(1)).await;
        jump(node.id(), Duration::from_secs(29));
        let (never, took) = waits.await.unwrap();
        assert_eq!(never, Err(Elapsed));
        assert_near(took, Duration::from_secs(1));
    });
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_sleep_that_is_polled_often_sets_one_timer_and_one_that_is_dropped_wakes_nobody() {
    simulate(|node, _| async move {
        let polled = node.spawn(async {
            let count = Arc::new(Count::default());
            let waker = Waker::from(count.clone());
            let mut kept = Box::pin(sleep(Duration::from_secs(1)));
            let mut dropped = Box::pin(sleep(Duration::from_secs(1)));
            for _ in 0..100 {
                assert!(kept.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
                assert!(dropped.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            }
            drop(dropped);
            madsim::time::sleep(Duration::from_secs(2)).await;
            assert!(kept.as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
            count.0.load(Ordering::Relaxed)
        });
        assert_eq!(polled.await.unwrap(), 1);
    });
}
