//! A backend that a connection has, or waits for: the pool counts both, and hears how it went.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Pool;
use crate::eject::may_eject;

/// A backend for one connection. The connection is counted until this is dropped.
#[must_use]
#[derive(Debug)]
pub(crate) struct Lease {
    pub(super) pool: Arc<Pool>,
    pub(crate) id: u64,
    pub(crate) address: SocketAddr,
    /// Cancelled when the connection must end.
    pub(crate) cut: CancellationToken,
}

impl Lease {
    /// The member that it leads to, or the address of a fixed backend.
    pub(crate) fn member(&self) -> String {
        let state = self.pool.lock();
        let slot = state.slots.iter().find(|slot| slot.id == self.id);
        let member = slot.and_then(|slot| slot.of.member.as_ref());
        member.map_or_else(|| self.address.to_string(), |(node, _)| node.to_string())
    }

    /// The backend has accepted the connection.
    pub(crate) fn connected(&self) {
        let now = Instant::now();
        self.pool.with_slot(self.id, |slot, _| {
            slot.opened += 1;
            slot.failure = None;
            slot.ejection.succeeded(now);
        });
    }

    /// It has not. What is this process's own fault says nothing about the backend.
    pub(crate) fn failed(&self, why: String, is_our_own: bool) {
        let (forward, now) = (self.pool.forward.load(), Instant::now());
        self.pool.with_slot(self.id, |slot, (all, out)| {
            slot.failed += 1;
            let out_for = match is_our_own {
                true => None,
                false => {
                    let rules = forward.ejection;
                    slot.ejection.failed(now, rules, may_eject(all, out, rules.most))
                }
            };
            if let Some(time) = out_for {
                let (listener, backend) = (&*forward.listener, &slot.of.named);
                warn!(
                    listener,
                    backend,
                    why,
                    ?time,
                    failures = slot.failed,
                    "a backend is taken out for a while"
                );
            }
            slot.failure = Some(why);
        });
        self.pool.refused.notify_one();
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        if let Some(slot) = state.slots.iter_mut().find(|slot| slot.id == self.id) {
            slot.connections -= 1;
        }
        drop(state);
        self.pool.freed.notify_one();
    }
}

/// A connection that waits for a backend.
pub(super) struct Waiting<'a>(&'a Pool);

impl<'a> Waiting<'a> {
    pub(super) fn new(pool: &'a Pool) -> Self {
        pool.lock().waiting += 1;
        Self(pool)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.lock().waiting -= 1;
        // If this one was to be woken, the next one is.
        self.0.freed.notify_one();
    }
}
