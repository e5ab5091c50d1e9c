//! Chooses the member to send a request for a key or to a service to, and retries.

use std::num::NonZeroU32;
use std::time::Duration;

use client::{Client, ClientError};
use tokio::time::{Instant, sleep};
use types::api::{Member, Members};
use types::{KeyHash, RoleState, ServiceName, ShardId};

use crate::exit::{Exit, Failure};
use crate::out::Progress;
use crate::reach::Reached;

/// How long to wait for a shard that changes its owner: longer than it takes to replace a paused owner with the `wan`
/// profile.
const PATIENCE: Duration = Duration::from_secs(30);
/// The pause between two attempts.
const POLL: Duration = Duration::from_millis(100);
/// How long a member may take to answer a probe, before anything is sent to it: the socket of a paused member accepts
/// requests, but none is answered.
const PROBE: Duration = Duration::from_secs(1);
/// How often to check whether the shard of a request in flight has moved.
const LOOK: Duration = Duration::from_millis(500);
/// How long a member may still answer after its shard has moved.
const LATE: Duration = Duration::from_secs(2);
/// How long one request may take.
const LIMIT: Duration = Duration::from_secs(60);

/// The effect of sending a request twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Twice {
    /// The same as of sending it once.
    Harmless,
    /// The second one could undo what others did in between, or its condition could see the result of the first one.
    Differs,
}

/// Sends a request to the owner of a key's shard, or to any member of the service, until one answers or it has taken
/// too long. It shows what it waits for.
pub(crate) async fn with_owner<T>(
    reached: &Reached,
    key: Option<&[u8]>,
    twice: Twice,
    ask: impl AsyncFn(&Client) -> Result<T, ClientError>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + PATIENCE;
    let mut progress = Progress::new();
    loop {
        let failed = match attempt(reached, key, twice, &ask).await? {
            Ok(answer) => return Ok(answer),
            Err(failed) => failed,
        };
        if Instant::now() >= deadline {
            return Err(failed);
        }
        progress.wait_for(&format!("{failed}; waiting"));
        sleep(POLL).await;
    }
}

/// One attempt: its answer, or the error after which to try again. The outer error is final.
async fn attempt<T>(
    reached: &Reached,
    key: Option<&[u8]>,
    twice: Twice,
    ask: &impl AsyncFn(&Client) -> Result<T, ClientError>,
) -> anyhow::Result<anyhow::Result<T>> {
    let view = match reached.view().await {
        Ok(view) => view,
        Err(error) if error.is_unreachable() => return Ok(Err(error.into())),
        Err(error) => return Err(error.into()),
    };
    let service = reached.client.service();
    let member = match owner(&view, service, key) {
        Ok(member) => member,
        Err(failure) => return Ok(Err(failure.into())),
    };
    let client = reached.client.at(&member.http)?;
    if let Err(error) = client.within(PROBE).agent_self().await
        && error.is_unreachable()
    {
        return Ok(Err(Failure::new(Exit::NoAgent, no_answer(member)).into()));
    }
    let client = client.within(LIMIT);
    let began = Instant::now();
    tokio::select! {
        biased;
        answer = ask(&client) => match answer {
            Err(error) if may_repeat(&error, twice) => Ok(Err(error.into())),
            answer => Ok(Ok(answer?)),
        },
        () = moved(reached, key, member) => match twice {
            Twice::Harmless => Ok(Err(Failure::new(Exit::NoAgent, no_answer(member)).into())),
            // The write may have happened before the member stopped answering.
            Twice::Differs => {
                Err(ClientError::Timeout { url: member.http.clone(), limit: began.elapsed() }.into())
            }
        },
    }
}

fn no_answer(member: &Member) -> String {
    match member.state.as_ref() {
        Some(state) => format!("{}, which has {}, does not answer", member.id, state.role),
        None => format!("{} does not answer", member.id),
    }
}

/// Returns once another member has been the right one for [`LATE`]. Cancel-safe.
async fn moved(reached: &Reached, key: Option<&[u8]>, asked: &Member) {
    let service = reached.client.service();
    let mut since = None;
    loop {
        sleep(LOOK).await;
        let is_other = reached.view().await.is_ok_and(|view| match key {
            Some(_) => owner(&view, service, key).is_ok_and(|owner| owner.id != asked.id),
            None => !serving(&view, service).any(|(member, _)| member.id == asked.id),
        });
        let first = since.filter(|_| is_other).unwrap_or_else(Instant::now);
        if is_other && first.elapsed() >= LATE {
            return;
        }
        since = is_other.then_some(first);
    }
}

/// Whether an error can come from a shard that is moving between nodes, and a retry does no harm.
pub(crate) fn may_repeat(error: &ClientError, twice: Twice) -> bool {
    match error {
        ClientError::Problem(problem) => match (problem.status, twice) {
            (421, _) | (503, Twice::Harmless) => true,
            (503, Twice::Differs) => !matches!(problem.code(), "not-durable-in-time" | "cut-short"),
            _ => false,
        },
        ClientError::Unreachable { is_unsent: true, .. } => true,
        other => other.is_unreachable() && twice == Twice::Harmless,
    }
}

/// The members of a service, with their role states.
fn members<'a>(
    view: &'a Members,
    service: &'a ServiceName,
) -> impl Iterator<Item = (&'a Member, &'a RoleState)> {
    view.members.iter().filter_map(move |member| {
        let state = member.state.as_ref()?;
        (state.role.service() == Some(service)).then_some((member, state))
    })
}

fn serving<'a>(
    view: &'a Members,
    service: &'a ServiceName,
) -> impl Iterator<Item = (&'a Member, &'a RoleState)> {
    members(view, service).filter(|(_, state)| state.phase.is_serving())
}

/// The member to send a request for a key to, or for all keys.
fn owner<'a>(view: &'a Members, service: &'a ServiceName, key: Option<&[u8]>) -> Result<&'a Member, Failure> {
    let shard = match key {
        Some(key) => {
            let states = members(view, service).map(|(_, state)| state);
            Some(shard_of(key, states).ok_or_else(|| no_member_serves(service))?)
        }
        None => None,
    };
    serving(view, service)
        .filter(|(_, state)| shard.is_none() || state.role.shard() == shard)
        .max_by_key(|(_, state)| state.epoch)
        .map(|(member, _)| member)
        .ok_or_else(|| match shard {
            Some(shard) => Failure::new(Exit::Error, format!("no member serves {service}/{shard} now"))
                .hint("`ctl claims` shows its owner, `ctl status` what is wrong"),
            None => no_member_serves(service),
        })
}

fn shard_of<'a>(key: &[u8], states: impl Iterator<Item = &'a RoleState>) -> Option<ShardId> {
    let shards = states.filter_map(|state| state.shards).max().and_then(NonZeroU32::new)?;
    Some(KeyHash::of_tagged(key).shard(shards))
}

fn no_member_serves(service: &ServiceName) -> Failure {
    Failure::new(Exit::Error, format!("no member serves {service}"))
        .hint("`ctl members` shows what each node does")
}

#[cfg(test)]
mod tests {
    use types::{ErrorKind, Problem};

    use super::*;

    #[test]
    fn a_request_that_may_have_been_carried_out_is_repeated_only_if_that_is_harmless() {
        let problem = |kind, code| ClientError::Problem(Box::new(Problem::new(kind, code, "x")));
        let unreachable =
            |is_unsent| ClientError::Unreachable { url: String::new(), why: String::new(), is_unsent };
        let timeout = ClientError::Timeout { url: String::new(), limit: LIMIT };
        for (error, harmless, differs) in [
            (problem(ErrorKind::Misdirected, "misdirected"), true, true),
            (problem(ErrorKind::Unavailable, "not-open"), true, true),
            (problem(ErrorKind::Unavailable, "not-durable-in-time"), true, false),
            (problem(ErrorKind::Unavailable, "cut-short"), true, false),
            (problem(ErrorKind::Changed, "precondition-failed"), false, false),
            (problem(ErrorKind::Invalid, "bad-line"), false, false),
            (timeout, true, false),
            (unreachable(false), true, false),
            (unreachable(true), true, true),
        ] {
            assert_eq!(may_repeat(&error, Twice::Harmless), harmless, "{error}");
            assert_eq!(may_repeat(&error, Twice::Differs), differs, "{error}");
        }
    }
}
