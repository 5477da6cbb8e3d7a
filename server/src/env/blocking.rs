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

/// Runs a call that may block for long; a simulation runs it at once.
#[cfg(madsim)]
pub async fn blocking<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    call()
}
