//! Commands for the supervisor: one at a time; leaving interrupts them all.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use types::Role;
use types::api::{Receipt, Release, Wait};

use super::error::ChangeError;

/// A command to a node, from an operator or another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Order {
    /// Take this role; with `take` also a shard that another node owns.
    Change { role: Role, take: bool },
    /// Finish running requests, then keep the role without running it.
    Drain,
    /// Hand a shard over to the node that takes it.
    Release(Release),
    /// Take a shard that its owner has just released.
    Offer(Release),
}

/// An order on its way to the supervisor.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) order: Order,
    pub(crate) wait: Wait,
    pub(crate) done: oneshot::Sender<Result<Receipt, ChangeError>>,
    /// Dropped when the order has been carried out.
    pub(crate) busy: Busy,
}

/// Hands orders to the supervisor. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Control {
    commands: mpsc::Sender<Command>,
    busy: Arc<Mutex<Option<String>>>,
    leaving: CancellationToken,
}

/// Marks the node as busy until it is dropped.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Mutex<Option<String>>>);

impl Drop for Busy {
    fn drop(&mut self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Control {
    pub(crate) fn new(leaving: CancellationToken) -> (Self, mpsc::Receiver<Command>) {
        let (commands, receiver) = mpsc::channel(1);
        (Self { commands, busy: Arc::default(), leaving }, receiver)
    }

    /// Has an order carried out, and waits for its receipt. The order is carried out even if the caller goes away.
    pub(crate) async fn order(&self, order: Order, wait: Wait) -> Result<Receipt, ChangeError> {
        if self.leaving.is_cancelled() {
            return Err(ChangeError::Leaving);
        }
        let busy = self.begin(&order)?;
        let (done, receipt) = oneshot::channel();
        let command = Command { order, wait, done, busy };
        self.commands.send(command).await.map_err(|_| ChangeError::Leaving)?;
        receipt.await.unwrap_or_else(|_| Err(ChangeError::Leaving))
    }

    /// Has an order carried out without waiting for it.
    pub(crate) fn post(&self, order: Order) -> Result<(), ChangeError> {
        self.is_idle()?;
        let busy = self.begin(&order)?;
        let command = Command { order, wait: Wait::Local, done: oneshot::channel().0, busy };
        self.commands.try_send(command).map_err(|_| ChangeError::Leaving)
    }

    /// Fails while another command is carried out, or the node leaves.
    pub(crate) fn is_idle(&self) -> Result<(), ChangeError> {
        if self.leaving.is_cancelled() {
            return Err(ChangeError::Leaving);
        }
        self.busy_with().map_or(Ok(()), |other| Err(ChangeError::Busy(other)))
    }

    /// The command that is being carried out now, in words.
    pub(crate) fn busy_with(&self) -> Option<String> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the node is leaving.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.is_cancelled()
    }

    /// Waits until the node begins to leave.
    pub(crate) async fn until_leaving(&self) {
        self.leaving.cancelled().await;
    }

    /// Begins to leave; a running command is interrupted.
    pub(crate) fn leave(&self) {
        self.leaving.cancel();
    }

    fn begin(&self, order: &Order) -> Result<Busy, ChangeError> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(other) = busy.as_ref() {
            return Err(ChangeError::Busy(other.clone()));
        }
        *busy = Some(match order {
            Order::Change { role, .. } => format!("change to {role}"),
            Order::Release(Release { service, shard, to, .. }) => {
                format!("hand {service}/{shard} over to {to}")
            }
            Order::Offer(Release { service, shard, .. }) => format!("take {service}/{shard} over"),
            Order::Drain => "drain".to_owned(),
        });
        Ok(Busy(self.busy.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_second_command_is_refused_with_the_name_of_the_running_one() {
        let (control, mut commands) = Control::new(CancellationToken::new());
        let first =
            control.order(Order::Change { role: "storage/1".parse().unwrap(), take: false }, Wait::All);
        tokio::pin!(first);
        assert!(futures_util::poll!(first.as_mut()).is_pending());
        let refused = control.order(Order::Drain, Wait::All).await.unwrap_err();
        assert!(matches!(refused, ChangeError::Busy(_)), "{refused:?}");
        assert!(refused.to_string().contains("change to storage/1"), "{refused}");
        drop(commands.recv().await);
        assert_eq!(control.busy_with(), None, "free again once it is over");
    }

    #[tokio::test]
    async fn a_leaving_node_takes_no_orders() {
        let (control, _commands) = Control::new(CancellationToken::new());
        control.leave();
        assert!(matches!(control.order(Order::Drain, Wait::All).await, Err(ChangeError::Leaving)));
    }
}
