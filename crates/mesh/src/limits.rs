//! Limits of the requests that a mesh sends.

use std::time::Duration;

/// Limits of the requests that a mesh sends.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// How long opening a connection may take. Linux repeats a lost request to connect after one second and after three,
    /// and it loses them whenever a server's queue is full, so less than that fails where patience would do.
    pub connect: Duration,
    /// How long a request may wait for a member that serves, pauses between refusals included.
    pub wait: Duration,
    /// The same while the owner of its shard has resigned, because the object store does not answer it: long enough for
    /// another to take the shard over, and shorter than most clients wait, so that they hear why.
    pub wait_for_successor: Duration,
    /// How many requests may wait at once; the next one is refused.
    pub waiting: usize,
    /// How long a response head may take, counted from the last piece of the request's body that was sent.
    pub head: Duration,
    /// How long a body may stand still.
    pub idle: Duration,
    /// Bytes of a request's body that are kept for sending it again.
    pub replay: usize,
    /// How often a request is sent at most; refusals of what was not processed are not counted.
    pub attempts: u32,
    /// How many requests may be sent again, in percent of all requests of the last ten seconds.
    pub retry_percent: u32,
    /// How many requests may be sent again per second whatever the percentage says.
    pub retry_floor: u32,
    /// How long a member is avoided after a connection to it could not be opened, while there are others.
    pub avoid: Duration,
    /// How long a connection is kept open without a request.
    pub keep_alive: Duration,
    /// How many connections without a request are kept open to one address.
    pub keep_alive_connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(4),
            wait: Duration::from_secs(10),
            wait_for_successor: Duration::from_secs(5),
            waiting: 1024,
            head: Duration::from_secs(60),
            idle: Duration::from_secs(60),
            replay: 256 * 1024,
            attempts: 3,
            retry_percent: 20,
            retry_floor: 10,
            avoid: Duration::from_secs(1),
            keep_alive: Duration::from_secs(15),
            keep_alive_connections: 256,
        }
    }
}
