//! Work for all cores: as many children at a time as there are cores.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

/// How many children run at a time.
pub(crate) fn width() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Does the work for each item on all cores, beginning with the first, and hands over each result as it
/// comes. Nothing is begun after `take` has broken off; what is under way is finished and not handed over.
pub(crate) fn each<I: Sync, R: Send>(
    items: &[I],
    work: impl Fn(&I) -> R + Sync,
    mut take: impl FnMut(usize, R) -> ControlFlow<()>,
) {
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..width().min(items.len()) {
            let sender = sender.clone();
            scope.spawn(|| {
                let sender = sender;
                while !stop.load(Ordering::Relaxed) {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(place) else { return };
                    // The other side has broken off.
                    if sender.send((place, work(item))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for (place, result) in receiver {
            if take(place, result).is_break() {
                stop.store(true, Ordering::Relaxed);
                break;
            }
        }
    });
}

/// Does the work for all items and returns the results in their order.
pub(crate) fn all<I: Sync, R: Send>(items: &[I], work: impl Fn(&I) -> R + Sync) -> Vec<R> {
    let mut results: Vec<(usize, R)> = Vec::with_capacity(items.len());
    each(items, work, |place, result| {
        results.push((place, result));
        ControlFlow::Continue(())
    });
    results.sort_by_key(|(place, _)| *place);
    results.into_iter().map(|(_, result)| result).collect()
}
