//! Limits of the requests that a mesh sends.

use std::time::Duration;

use crate::min_rate::MinRate;

/// Limits of the requests that a mesh sends.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// How long opening a connection may take. Linux repeats a lost connection request after one second and after
    /// three, and requests are lost whenever a server's queue is full, so a shorter limit fails where waiting would
    /// succeed.
    pub connect: Duration,
    /// How long a request may wait for a serving member, including the pauses between refusals.
    pub wait: Duration,
    /// Replaces `wait` while the owner of the shard has resigned because the object store does not answer it: long
    /// enough for another node to take the shard over, and shorter than most clients' timeouts, so that they get the
    /// reason.
    pub wait_for_new_owner: Duration,
    /// The largest number of requests that may wait at once; the next one is refused.
    pub waiting: usize,
    /// How long the head of an answer may take, counted from the last piece of the request's body that was sent.
    pub head: Duration,
    /// How long a body may make no progress.
    pub idle: Duration,
    /// The minimum rate of a request's body until the head of its answer.
    pub min_rate: MinRate,
    /// The number of bytes of a request's body that are kept for a retry.
    pub replay: usize,
    /// The largest number of times a request is sent; refusals without processing are not counted.
    pub attempts: u32,
    /// The share of requests that may be sent again, in percent of all requests of the last ten seconds.
    pub retry_percent: u32,
    /// The number of requests per second that may be sent again regardless of the percentage.
    pub retry_floor: u32,
    /// How long a member is avoided after opening a connection to it failed, while there are others.
    pub avoid: Duration,
    /// How long the failure detector takes to declare a member dead. If most members of a service disappear within this
    /// time, they are kept for twice as long. Meshes that share their members have that of the first one.
    pub detector: Duration,
    /// How long an idle connection is kept open.
    pub keep_alive: Duration,
    /// How often the name of a host is looked up: a connection that is older carries no further request. Connections to IP
    /// addresses need no lookup.
    pub lookup: Duration,
    /// The largest number of idle connections to one address. Fewer than there are requests at once would open one for nearly
    /// every request; those that are not needed end after `keep_alive`.
    pub keep_alive_connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(4),
            wait: Duration::from_secs(10),
            wait_for_new_owner: Duration::from_secs(5),
            waiting: 1024,
            head: Duration::from_secs(60),
            idle: Duration::from_secs(60),
            min_rate: MinRate::default(),
            replay: 256 * 1024,
            attempts: 3,
            retry_percent: 20,
            retry_floor: 10,
            avoid: Duration::from_secs(1),
            detector: Duration::from_secs(2),
            keep_alive: Duration::from_secs(15),
            lookup: Duration::from_secs(10),
            keep_alive_connections: 1024,
        }
    }
}
