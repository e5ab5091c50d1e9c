//! Runs what may block forever, on a pipe or a person, in a separate thread, so that it delays neither ^C nor the exit
//! of the process.

use std::io;

use tokio::sync::oneshot;

pub(crate) async fn aside<T, E>(wait: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: From<io::Error> + Send + 'static,
{
    let (give, take) = oneshot::channel();
    std::thread::spawn(move || give.send(wait()));
    take.await.unwrap_or_else(|_| Err(io::Error::other("its reader ended").into()))
}
