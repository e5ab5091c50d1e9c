//! Waits until the members of each service have applied its latest spec, or have said why not.

use std::collections::BTreeMap;
use std::time::Duration;

use client::Client;
use tokio::time::{Instant, sleep};
use types::api::{AgentSelf, Member};
use types::{NodeId, Phase, ServiceName};

use super::report::AppliedSpec;
use super::running::ask_all;
use crate::out::Progress;
use crate::record::ClusterRecord;

const POLL: Duration = Duration::from_millis(50);
/// How long a role that has failed is awaited: longer than the longest pause before it starts again, 30 seconds.
const FAILED_LIMIT: Duration = Duration::from_secs(35);

/// The number of the latest spec that a member is to run with, unless it does, or has said why it does not, or was stopped. One
/// that starts is awaited even with that spec: its service may fail yet. One that has failed with an older spec is awaited,
/// too: it starts again with the latest one. Pure.
fn awaited(member: &Member, specs: &BTreeMap<ServiceName, u64>) -> Option<u64> {
    let state = member.state.as_ref().filter(|state| state.phase != Phase::Stopped)?;
    let latest = *specs.get(state.role.service()?)?;
    let has_read = state.pending.as_ref().map(|pending| pending.spec).max(state.spec);
    let is_starting = state.phase == Phase::Starting;
    Some(latest).filter(|latest| is_starting || has_read.is_none_or(|number| number < *latest))
}

fn has_failed(member: &Member) -> bool {
    member.state.as_ref().is_some_and(|state| state.phase == Phase::Failed)
}

/// Waits, but not longer than `limit`, and for roles that have failed not longer than they pause. Returns what each node
/// reports then.
pub(super) async fn wait(
    record: &ClusterRecord,
    specs: &BTreeMap<ServiceName, u64>,
    limit: Duration,
    progress: &mut Progress,
) -> anyhow::Result<Vec<AgentSelf>> {
    let (deadline, failed_until) = (Instant::now() + limit, Instant::now() + limit.min(FAILED_LIMIT));
    let mut is_announced = false;
    loop {
        let asked = ask_all(record).await?;
        let is_late = Instant::now() >= failed_until;
        let is_awaited =
            |member: &Member| awaited(member, specs).is_some() && !(is_late && has_failed(member));
        let waiting: Vec<_> = asked.iter().filter(|own| is_awaited(&own.member)).collect();
        let (Some(first), true) = (waiting.first(), Instant::now() < deadline) else { return Ok(asked) };
        progress.show(&format!("applying settings on {}", first.member.id));
        if !is_announced {
            // The specs were written to the store. An agent that reads them announces those that are news.
            is_announced = Client::new(&first.member.http)?.specs().await.is_ok();
        }
        sleep(POLL).await;
    }
}

/// The members that ran with an older spec before and run with the latest one now, without a restart.
pub(super) fn applied(
    before: &[AgentSelf],
    now: &[AgentSelf],
    specs: &BTreeMap<ServiceName, u64>,
) -> Vec<AppliedSpec> {
    let find = |node: &NodeId| before.iter().map(|own| &own.member).find(|member| member.id == *node);
    let each = now.iter().map(|own| &own.member).filter_map(|member| {
        let (service, spec) = newly_applied(find(&member.id)?, member)?;
        let is_latest = specs.get(&service) == Some(&spec);
        is_latest.then(|| AppliedSpec { node: member.id.clone(), service, spec })
    });
    each.collect()
}

/// The service and the spec that a member serves with now and did not run with before, if its process is the same.
fn newly_applied(before: &Member, now: &Member) -> Option<(ServiceName, u64)> {
    let runs = |member: &Member| {
        let state = member.state.as_ref()?;
        Some((state.role.service()?.clone(), state.spec?))
    };
    let ((was, old), (service, new)) = (runs(before)?, runs(now)?);
    // The number is published before the service starts with it.
    let is_serving = now.state.as_ref().is_some_and(|state| state.phase.is_serving());
    let is_newly = is_serving && was == service && old < new && before.generation == now.generation;
    is_newly.then_some((service, new))
}

#[cfg(test)]
mod tests {
    use types::PendingSpec;

    use super::*;
    use crate::render::tests::member;

    fn specs(number: u64) -> BTreeMap<ServiceName, u64> {
        [("api_gateway".parse().unwrap(), number)].into()
    }

    fn with(spec: Option<u64>, pending: Option<u64>, phase: Phase) -> Member {
        let mut member = member("a", "api_gateway", phase);
        let state = member.state.as_mut().unwrap();
        (state.spec, state.pending) = (spec, pending.map(|number| PendingSpec::failed(number, "x")));
        member
    }

    #[test]
    fn a_member_is_awaited_until_it_runs_with_the_latest_spec_or_says_why_not() {
        for (spec, pending, phase, expected) in [
            (Some(3), None, Phase::Ready, Some(4)),
            (None, None, Phase::Degraded, Some(4)),
            (Some(4), None, Phase::Ready, None),
            (Some(5), None, Phase::Ready, None),
            (Some(2), Some(3), Phase::Ready, Some(4)),
            (Some(2), Some(4), Phase::Ready, None),
            (Some(2), None, Phase::Stopped, None),
            (Some(2), None, Phase::Failed, Some(4)),
            (Some(2), None, Phase::Starting, Some(4)),
            (Some(4), None, Phase::Starting, Some(4)),
            (Some(4), None, Phase::Failed, None),
        ] {
            assert_eq!(
                awaited(&with(spec, pending, phase), &specs(4)),
                expected,
                "{spec:?} {pending:?} {phase}"
            );
        }
        assert_eq!(awaited(&member("a", "standby", Phase::Ready), &specs(4)), None);
    }

    #[test]
    fn only_members_that_were_not_restarted_have_applied_a_spec() {
        let (before, now) = (with(Some(3), None, Phase::Ready), with(Some(4), None, Phase::Ready));
        assert_eq!(newly_applied(&before, &now), Some(("api_gateway".parse().unwrap(), 4)));
        assert_eq!(newly_applied(&now, &now), None);
        for phase in [Phase::Starting, Phase::Failed, Phase::Stopped] {
            assert_eq!(newly_applied(&before, &with(Some(4), None, phase)), None, "{phase}");
        }
        let mut restarted = now;
        restarted.generation.0 += 1;
        assert_eq!(newly_applied(&before, &restarted), None);
    }
}
