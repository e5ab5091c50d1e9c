//! Which member to ask for a key, and when to ask again.

use std::num::NonZeroU32;
use std::time::Duration;

use client::{Client, ClientError};
use tokio::time::{Instant, sleep};
use types::api::{Member, Members};
use types::{KeyHash, RoleState, ShardId};

use crate::exit::{Exit, Failure};
use crate::reach::Reached;

/// How long a shard that moves is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked for.
const POLL: Duration = Duration::from_millis(100);
/// How long one request may take on its way.
const LIMIT: Duration = Duration::from_secs(60);
const STORAGE: &str = "storage";

/// What doing it twice means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Twice {
    /// The same as once.
    Harmless,
    /// It would undo what others did in between, or a condition would meet what the first attempt has done.
    Differs,
}

/// Asks the owner of a key's shard, or any member of storage, until one answers or it has taken too long.
pub(super) async fn with_owner<T>(
    reached: &Reached,
    key: Option<&[u8]>,
    twice: Twice,
    ask: impl AsyncFn(&Client) -> Result<T, ClientError>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let view = reached.client.members().await?;
        let failed: anyhow::Error = match owner(&view, key) {
            Ok(member) => {
                let client = reached.client.at(&member.http)?.within(LIMIT);
                match ask(&client).await {
                    Ok(answer) => return Ok(answer),
                    Err(error) if !may_repeat(&error, twice) => return Err(error.into()),
                    Err(error) => error.into(),
                }
            }
            Err(failure) => failure.into(),
        };
        if Instant::now() >= deadline {
            return Err(failed);
        }
        sleep(POLL).await;
    }
}

/// Whether an error is one of a shard that is on its way from one node to another, and asking again does no harm.
pub(super) fn may_repeat(error: &ClientError, twice: Twice) -> bool {
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

/// The member to ask for a key, or for all of them.
fn owner<'a>(view: &'a Members, key: Option<&[u8]>) -> Result<&'a Member, Failure> {
    let members = || {
        view.members.iter().filter_map(|member| {
            let state = member.state.as_ref()?;
            (state.role.service_name() == STORAGE).then_some((member, state))
        })
    };
    let shard = match key {
        Some(key) => Some(shard_of(key, members().map(|(_, state)| state)).ok_or_else(no_storage)?),
        None => None,
    };
    members()
        .filter(|(_, state)| state.phase.is_serving())
        .filter(|(_, state)| shard.is_none() || state.role.shard() == shard)
        .max_by_key(|(_, state)| state.epoch)
        .map(|(member, _)| member)
        .ok_or_else(|| match shard {
            Some(shard) => Failure::new(Exit::Error, format!("nobody serves {STORAGE}/{shard} now"))
                .hint(format!("`ctl set-service NODE {STORAGE} --shard {shard}` gives it an owner")),
            None => no_storage(),
        })
}

fn shard_of<'a>(key: &[u8], states: impl Iterator<Item = &'a RoleState>) -> Option<ShardId> {
    let shards = states.filter_map(|state| state.shards).max().and_then(NonZeroU32::new)?;
    Some(KeyHash::of_tagged(key).shard(shards))
}

fn no_storage() -> Failure {
    Failure::new(Exit::Error, "no member serves storage")
        .hint("`ctl set-service NODE storage` gives a node that role; `ctl members` shows who there is")
}

#[cfg(test)]
mod tests {
    use types::{ErrorKind, Problem};

    use super::*;

    #[test]
    fn what_may_have_been_done_is_repeated_only_if_twice_is_as_good_as_once() {
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
