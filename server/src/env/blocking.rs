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

/// Values that a call produces which may block for long, a few ahead of who takes them.
#[cfg(not(madsim))]
pub struct Production<T> {
    values: tokio::sync::mpsc::Receiver<T>,
    task: tokio::task::JoinHandle<()>,
}

#[cfg(not(madsim))]
impl<T> Production<T> {
    /// Returns the next value; `None` after the last. A panic of the call goes on here.
    pub async fn next(&mut self) -> Option<T> {
        let value = self.values.recv().await;
        if value.is_none()
            && let Err(error) = (&mut self.task).await
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
        value
    }
}

/// Where a call puts what it produces.
#[cfg(not(madsim))]
pub struct Outlet<T> {
    values: tokio::sync::mpsc::Sender<T>,
}

#[cfg(not(madsim))]
impl<T> Outlet<T> {
    /// Hands a value over, and waits while there is no room for it; whether anybody takes more.
    pub fn put(&self, value: T) -> bool {
        self.values.blocking_send(value).is_ok()
    }

    /// Whether anybody takes more.
    pub fn is_wanted(&self) -> bool {
        !self.values.is_closed()
    }
}

/// Starts a call that produces values and may block for long. At most `ahead` values wait to be taken.
#[cfg(not(madsim))]
pub fn produce<T: Send + 'static>(ahead: usize, call: impl FnOnce(&Outlet<T>) + Send + 'static) -> Production<T> {
    let (sender, values) = tokio::sync::mpsc::channel(ahead);
    let task = tokio::task::spawn_blocking(move || call(&Outlet { values: sender }));
    Production { values, task }
}

/// Values that a call has produced. A simulation makes them all at once: nothing there can wait in a call.
#[cfg(madsim)]
pub struct Production<T> {
    values: std::collections::VecDeque<T>,
}

#[cfg(madsim)]
impl<T> Production<T> {
    /// Returns the next value; `None` after the last.
    pub async fn next(&mut self) -> Option<T> {
        self.values.pop_front()
    }
}

/// Where a call puts what it produces.
#[cfg(madsim)]
pub struct Outlet<T> {
    values: std::cell::RefCell<std::collections::VecDeque<T>>,
}

#[cfg(madsim)]
impl<T> Outlet<T> {
    /// Hands a value over; whether anybody takes more.
    pub fn put(&self, value: T) -> bool {
        self.values.borrow_mut().push_back(value);
        true
    }

    /// Whether anybody takes more.
    pub fn is_wanted(&self) -> bool {
        true
    }
}

/// Runs a call that produces values.
#[cfg(madsim)]
pub fn produce<T: Send + 'static>(_ahead: usize, call: impl FnOnce(&Outlet<T>) + Send + 'static) -> Production<T> {
    let outlet = Outlet { values: std::cell::RefCell::default() };
    call(&outlet);
    Production { values: outlet.values.into_inner() }
}
