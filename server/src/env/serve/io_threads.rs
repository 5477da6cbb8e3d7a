//! The threads on which connections live.
//!
//! A connection, its requests and its timers stay on one thread with a runtime of its own. What is answered together is
//! then written together: the answers of a run of commands wake many requests, and the thread comes to the connection's
//! turn to write when all of them have said what they have to say. A runtime of several threads writes after each one
//! (tokio runs what was woken last first), and hands requests from thread to thread besides. Measured in
//! `docs/decisions/2026-11-22-connections-stay-on-a-thread.md`.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::watch;

/// Most threads of this kind; who has more processors needs them for the rest.
const THREADS_MAX: usize = 16;

/// The threads, which connections take in turn. They end when this is dropped, with all that is left on them.
#[derive(Debug)]
pub struct IoThreads {
    runtimes: Arc<Runtimes>,
    _alive: watch::Sender<()>,
}

/// Where connections go.
#[derive(Clone, Debug)]
pub struct Placing(Option<Arc<Runtimes>>);

#[derive(Debug)]
struct Runtimes {
    handles: Vec<Handle>,
    next: AtomicUsize,
}

impl IoThreads {
    /// Starts one for two processors.
    ///
    /// # Errors
    /// When the system has no thread or no event queue left.
    pub fn start(processors: usize) -> io::Result<Self> {
        let alive = watch::Sender::new(());
        let count = (processors / 2).clamp(1, THREADS_MAX);
        let handles = (0..count).map(|number| spawn(number, alive.subscribe())).collect::<io::Result<_>>()?;
        Ok(Self { runtimes: Arc::new(Runtimes { handles, next: AtomicUsize::new(0) }), _alive: alive })
    }

    /// Where connections go that are to live on these threads.
    pub fn placing(&self) -> Placing {
        Placing(Some(self.runtimes.clone()))
    }
}

impl Placing {
    /// Connections stay where they are accepted.
    pub fn here() -> Self {
        Self(None)
    }

    /// Where the next connection goes; `None` where it stays.
    pub(super) fn next(&self) -> Option<Handle> {
        let runtimes = self.0.as_ref()?;
        let turn = runtimes.next.fetch_add(1, Ordering::Relaxed);
        Some(runtimes.handles[turn % runtimes.handles.len()].clone())
    }
}

fn spawn(number: usize, mut alive: watch::Receiver<()>) -> io::Result<Handle> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    thread::Builder::new().name(format!("grpc-io-{number}")).spawn(move || {
        // Ends when the sender is gone.
        while runtime.block_on(alive.changed()).is_ok() {}
        runtime.shutdown_background();
    })?;
    Ok(handle)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::*;

    async fn thread_of(handle: Handle) -> String {
        handle.spawn(async { thread::current().name().unwrap_or_default().to_owned() }).await.unwrap()
    }

    #[tokio::test]
    async fn connections_take_the_threads_in_turn() {
        let threads = IoThreads::start(4).unwrap();
        let placing = threads.placing();
        let mut names = Vec::new();
        for _ in 0..4 {
            names.push(thread_of(placing.next().unwrap()).await);
        }
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), 2, "{names:?}");
        assert_eq!(names[..2], names[2..]);
        assert!(Placing::here().next().is_none());
    }

    #[tokio::test]
    async fn what_is_left_ends_with_the_threads() {
        let threads = IoThreads::start(1).unwrap();
        let (held, mut gone) = tokio::sync::oneshot::channel::<()>();
        threads.placing().next().unwrap().spawn(async move {
            let _held = held;
            std::future::pending::<()>().await;
        });
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(gone.try_recv().is_err());
        drop(threads);
        let ended = tokio::time::timeout(Duration::from_secs(10), gone).await;
        assert!(ended.unwrap().is_err(), "its task was dropped");
    }
}
