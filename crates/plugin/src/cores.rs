//! One thread with a Tokio runtime of its own for each core, for the connections of service listeners.
//!
//! A connection stays on the core that accepted it, and so does what it spawns: it never waits for another thread, and
//! shares no lock with another core. The threads start with the first listener that needs them, and live as long as the
//! process. Everything else runs on the shared runtime.

mod listener;

use std::io;
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::sync::CancellationToken;

pub use listener::CoreListener;
pub(crate) use listener::unavailable;

/// The most cores that are used. Each listener has a socket for each of them.
const MOST: usize = 64;
/// The most threads of a core that wait for blocking calls, such as name lookups.
const BLOCKING_THREADS: usize = 32;

/// The cores of this process.
static CORES: Mutex<Cores> = Mutex::new(Cores { cores: Vec::new() });

/// A set of cores.
#[derive(Debug)]
pub(crate) struct Cores {
    cores: Vec<Running>,
}

#[derive(Debug)]
struct Running {
    core: Core,
    thread: JoinHandle<()>,
    end: CancellationToken,
}

/// The runtime of one core. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Core {
    pub(crate) index: usize,
    pub(crate) handle: Handle,
}

/// The cores of this process: as many as it may use. They are started if they are not running.
pub(crate) fn cores() -> io::Result<Vec<Core>> {
    let count = thread::available_parallelism().map_or(1, NonZeroUsize::get).min(MOST);
    CORES.lock().unwrap_or_else(PoisonError::into_inner).start(count)
}

impl Cores {
    /// Starts the cores that are not running. A thread never ends by itself, but if one has, there must be another.
    fn start(&mut self, count: usize) -> io::Result<Vec<Core>> {
        for index in 0..count {
            match self.cores.get_mut(index) {
                Some(running) if running.thread.is_finished() => *running = Running::start(index)?,
                Some(_) => {}
                None => self.cores.push(Running::start(index)?),
            }
        }
        Ok(self.cores.iter().take(count).map(|running| running.core.clone()).collect())
    }
}

impl Running {
    fn start(index: usize) -> io::Result<Self> {
        let name = format!("core-{index}");
        let runtime = Builder::new_current_thread()
            .enable_all()
            .thread_name(name.clone())
            .max_blocking_threads(BLOCKING_THREADS)
            .build()?;
        let core = Core { index, handle: runtime.handle().clone() };
        let end = CancellationToken::new();
        let ended = end.clone();
        let thread = thread::Builder::new().name(name).spawn(move || run(index, &runtime, &ended))?;
        Ok(Self { core, thread, end })
    }
}

impl Drop for Running {
    /// Ends the thread. What still runs on it is dropped.
    fn drop(&mut self) {
        self.end.cancel();
    }
}

fn run(index: usize, runtime: &Runtime, end: &CancellationToken) {
    mesh::core::enter(index);
    runtime.block_on(end.cancelled());
}

#[cfg(test)]
impl Cores {
    /// A set of its own for a test.
    pub(crate) fn of_test(count: usize) -> (Self, Vec<Core>) {
        let mut own = Self { cores: Vec::new() };
        let cores = own.start(count).expect("threads can be started");
        (own, cores)
    }

    /// Ends the thread of a core, as only a fault could.
    pub(crate) fn end(&mut self, index: usize) {
        self.cores[index].end.cancel();
        while !self.cores[index].thread.is_finished() {
            thread::yield_now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_core_spawns_stays_on_its_thread() {
        let (_own, cores) = Cores::of_test(2);
        for core in &cores {
            let name = || thread::current().name().map(ToOwned::to_owned);
            let on_core = core.handle.spawn(async move {
                let inner = Handle::current().spawn(async move { (name(), mesh::core::current()) });
                (name(), mesh::core::current(), inner.await.unwrap())
            });
            let (name, index, inner) = on_core.await.unwrap();
            assert_eq!((name.as_deref(), index), (Some(&*format!("core-{}", core.index)), Some(core.index)));
            assert_eq!(inner, (name, index));
        }
        assert_eq!(mesh::core::current(), None, "the shared runtime is no core");
    }

    #[tokio::test]
    async fn a_panic_ends_its_task_and_not_the_core() {
        let (_own, cores) = Cores::of_test(1);
        let panicked = cores[0].handle.spawn(async { panic!("out of luck") });
        assert!(panicked.await.unwrap_err().is_panic());
        assert_eq!(cores[0].handle.spawn(async { 7 }).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn a_core_whose_thread_has_ended_is_started_again() {
        let (mut own, cores) = Cores::of_test(2);
        own.end(1);
        assert!(cores[1].handle.spawn(async {}).await.is_err());
        let again = own.start(2).unwrap();
        assert_eq!(again[1].handle.spawn(async { mesh::core::current() }).await.unwrap(), Some(1));
    }

    #[test]
    fn all_listeners_of_a_process_share_one_set() {
        let (first, second) = (cores().unwrap(), cores().unwrap());
        assert!(!first.is_empty() && first.len() <= MOST);
        assert!(first.iter().zip(&second).all(|(one, other)| one.handle.id() == other.handle.id()));
    }
}
