/// Runs a call that may block for long (a flush, a walk over all data) off the runtime's threads.
///
/// A simulation has one thread and no real blocking, so there it runs at once.
#[cfg(not(madsim))]
pub async fn blocking<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(call).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Runs a call that may block for long; a simulation lets some time pass and then runs it at once.
#[cfg(madsim)]
pub async fn blocking<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    use madsim::rand::{Rng, thread_rng};
    let wait = std::time::Duration::from_micros(thread_rng().gen_range(1..BLOCKING_MICROS));
    madsim::time::sleep(wait).await;
    let value = call();
    madsim::time::sleep(wait).await;
    value
}

/// How long it takes a simulated thread to begin, and to be heard of, in microseconds.
#[cfg(madsim)]
const BLOCKING_MICROS: u64 = 2_000;

/// How many calls that keep a processor busy can make progress at once.
#[cfg(not(madsim))]
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// A simulation has one thread, wherever it runs.
#[cfg(madsim)]
pub fn processors() -> usize {
    1
}
