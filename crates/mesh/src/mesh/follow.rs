//! Follows the view between requests: notes when a role disappears, and closes connections to members that drain or left.

use std::sync::Arc;

use hyper::rt::Executor;
use hyper_util::rt::TokioExecutor;

use crate::pool::{Addresses, Pools};
use crate::roster::Roster;

/// Records the time when a role disappears, even if no request arrives just then. Ends with the view's owner or the
/// roster.
pub(super) fn keep_watching(roster: &Arc<Roster>) {
    if tokio::runtime::Handle::try_current().is_err() {
        return;
    }
    let mut changes = roster.changes();
    let roster = Arc::downgrade(roster);
    TokioExecutor::new().execute(async move {
        while changes.changed().await.is_ok() {
            let Some(roster) = roster.upgrade() else { return };
            roster.catalog();
        }
    });
}

/// Closes the idle connections to members that drain or left, as soon as the view shows it. Ends with the view's owner or
/// the pools.
pub(super) fn close_retired(roster: &Roster, pools: &Arc<Pools>) {
    if tokio::runtime::Handle::try_current().is_err() {
        return;
    }
    let (mut changes, pools) = (roster.changes(), Arc::downgrade(pools));
    TokioExecutor::new().execute(async move {
        let mut before = Addresses::default();
        loop {
            let addresses = Addresses::of(&changes.borrow_and_update());
            let Some(pools) = pools.upgrade() else { return };
            if addresses != before {
                pools.close(&addresses.to_close(&before), addresses.draining());
                before = addresses;
            }
            drop(pools);
            if changes.changed().await.is_err() {
                return;
            }
        }
    });
}
