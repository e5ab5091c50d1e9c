//! `ctl backends`: where each gateway or load balancer sends requests or connections, and why a backend gets none.

use types::ServiceName;
use types::api::{Member, Members};
use types::backends::{Backend, BackendPool, BackendState, Backends};

use crate::exit::{Exit, Failure};
use crate::out::{OutputArg, say};
use crate::reach::{Cx, Reached};
use crate::render;
use crate::service::{self, GATEWAYS};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ctl backends
  ctl backends --service edge
  ctl backends --service load_balancer
  ctl backends -o json

Each gateway or load balancer judges its backends by itself: by their response times, by the requests that it has in \
flight to them, by failures and checks. The estimate decides among two backends drawn at random. An ejected backend gets \
requests again after one has succeeded.")]
pub(crate) struct Args {
    /// Only the gateways or load balancers of this service
    #[arg(long, value_name = "NAME")]
    service: Option<ServiceName>,
    #[command(flatten)]
    output: OutputArg,
}

pub(crate) async fn run(args: &Args, cx: &Cx) -> anyhow::Result<Exit> {
    let reached = cx.reach().await?;
    let view = reached.view().await?;
    if let Some(service) = &args.service {
        service::check_type(&view, service, &GATEWAYS)?;
    }
    let gateways = serving(&view, args.service.as_ref());
    if gateways.is_empty() {
        return Err(nobody(&view, args.service.as_ref()).into());
    }
    let (answers, is_whole) = ask(&reached, &gateways).await?;
    cx.out.data(
        args.output.output,
        &answers,
        |answers| table(answers, render::now_ms(), cx.out.columns),
        |answers| names(answers),
    )?;
    Ok(if is_whole { Exit::Ok } else { Exit::Error })
}

/// Those that serve a service with backends: the named one, or any.
fn serving<'v>(view: &'v Members, named: Option<&ServiceName>) -> Vec<(&'v Member, &'v ServiceName)> {
    let known = service::all_of(view, &GATEWAYS);
    let serves = |member: &'v Member| {
        let state = member.state.as_ref().filter(|state| state.phase.is_serving())?;
        let service = state.role.service()?;
        let is_asked = named.is_none_or(|named| named == service);
        (is_asked && known.contains(service)).then_some((member, service))
    };
    view.members.iter().filter_map(serves).collect()
}

fn nobody(view: &Members, named: Option<&ServiceName>) -> Failure {
    const MAKE_ONE: &str =
        "`ctl members` shows what each member does; `ctl set-service NODE api_gateway` makes one a gateway";
    const NOT_YET: &str = "`ctl members` shows their phases, and why they do not serve";
    let known = service::all_of(view, &GATEWAYS);
    let Some(named) = named else {
        return match known.is_empty() {
            true => Failure::new(Exit::Error, "no member is a gateway or a load balancer").hint(MAKE_ONE),
            false => Failure::new(Exit::Error, "no gateway and no load balancer serves now").hint(NOT_YET),
        };
    };
    let failure = Failure::new(Exit::Error, format!("no member serves `{named}`"));
    if known.contains(named) {
        return failure.hint(NOT_YET);
    }
    let meant = types::did_you_mean(named.as_str(), known.iter().map(|known| known.as_str()));
    match meant {
        Some(meant) => failure.hint(format!("did you mean `ctl backends --service {meant}`?")),
        None if known.is_empty() => failure.hint(MAKE_ONE),
        None => failure.hint("`ctl backends` shows those of all gateways and load balancers"),
    }
}

/// Asks each gateway or load balancer. Returns the answers, and whether all have answered; an error if none has.
async fn ask(
    reached: &Reached,
    gateways: &[(&Member, &ServiceName)],
) -> anyhow::Result<(Vec<Backends>, bool)> {
    let mut answers = Vec::new();
    for (number, (gateway, service)) in gateways.iter().enumerate() {
        let client = reached.client.with_service((*service).clone());
        match client.at(&gateway.http)?.backends().await {
            Ok(backends) => answers.push(backends),
            Err(error) if answers.is_empty() && number + 1 == gateways.len() => return Err(error.into()),
            Err(error) => say(&format!("{} does not answer: {error}", gateway.id)),
        }
    }
    let is_whole = answers.len() == gateways.len();
    Ok((answers, is_whole))
}

fn names(answers: &[Backends]) -> Vec<String> {
    let pools = answers.iter().flat_map(|answer| answer.services.iter().chain(&answer.routes));
    pools.flat_map(|pool| &pool.backends).map(|backend| backend.address.clone()).collect()
}

fn table(answers: &[Backends], now_ms: u64, columns: Option<usize>) -> String {
    let mut rows = Vec::new();
    for answer in answers {
        for pool in answer.services.iter().chain(&answer.routes) {
            rows.extend(pool.backends.iter().map(|backend| row(answer, pool, backend, now_ms)));
            if pool.backends.is_empty() {
                rows.push(empty_row(answer, pool));
            }
        }
    }
    let header = ["NODE", "POOL", "BACKEND", "STATE", "IN FLIGHT", "ESTIMATE", "WEIGHT", "WHY"];
    render::table_within(columns, 3, &header, &rows)
}

/// A pool without backends, and why it has none.
fn empty_row(answer: &Backends, pool: &BackendPool) -> Vec<String> {
    let why = pool.why.as_deref().unwrap_or("no backend is known yet");
    let cells = [answer.node.as_str(), &pool.name, "-", "none", "-", "-", "-", why];
    cells.map(ToOwned::to_owned).to_vec()
}

fn row(answer: &Backends, pool: &BackendPool, backend: &Backend, now_ms: u64) -> Vec<String> {
    let node = backend.node.as_ref().map(ToString::to_string);
    vec![
        answer.node.to_string(),
        pool.name.clone(),
        node.unwrap_or_else(|| backend.address.clone()),
        backend.state.as_str().to_owned(),
        backend.in_flight.to_string(),
        backend.estimate_ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1} ms")),
        backend.weight.to_string(),
        why(pool, backend, now_ms),
    ]
}

/// Why a backend is in its state, and how long it still is.
fn why(pool: &BackendPool, backend: &Backend, now_ms: u64) -> String {
    let left = backend.until_ms.map(|until| render::age(until.saturating_sub(now_ms)));
    let left = left.map(|left| match backend.state {
        BackendState::Ejected => format!("probed in {left}"),
        _ => format!("for {left}"),
    });
    let panic = pool.panic.then(|| "most members disappeared at once".to_owned());
    let parts: Vec<_> = [backend.why.clone(), left, panic].into_iter().flatten().collect();
    if parts.is_empty() { "-".to_owned() } else { parts.join("; ") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fake::{Answer, Fake};

    fn answer() -> serde_json::Value {
        json!({
            "node": "g",
            "services": [{"name": "storage", "panic": false, "backends": [
                {"address": "http://h:1/svc/storage", "node": "a", "state": "serving", "in_flight": 3,
                 "estimate_ms": 1.25, "weight": 1},
                {"address": "http://h:2/svc/storage", "node": "b", "state": "ejected", "in_flight": 0,
                 "why": "5 requests in a row failed", "until_ms": 17_000, "weight": 1},
            ]}],
            "routes": [{"name": "/files", "backends": [
                {"address": "http://h:3", "state": "slow_start", "in_flight": 0, "until_ms": 9_000, "weight": 9},
            ]}, {"name": "web", "why": "no member runs nope", "backends": []}],
        })
    }

    #[test]
    fn each_backend_is_shown_with_the_reason_for_its_state() {
        let answers: Vec<Backends> = vec![serde_json::from_value(answer()).unwrap()];
        assert_eq!(
            table(&answers, 5_000, None),
            "\
NODE  POOL     BACKEND     STATE       IN FLIGHT  ESTIMATE  WEIGHT  WHY
g     storage  a           serving     3          1.2 ms    1       -
g     storage  b           ejected     0          -         1       5 requests in a row failed; probed in 12s
g     /files   http://h:3  slow_start  0          -         9       for 4s
g     web      -           none        -          -         -       no member runs nope"
        );
        let narrow = table(&answers, 5_000, Some(80));
        assert!(narrow.lines().all(|line| line.len() <= 80), "{narrow}");
        assert!(
            narrow.ends_with(
                "why\n  - g storage b: 5 requests in a row failed; probed in 12s\n  \
            - g /files http://h:3: for 4s\n  - g web -: no member runs nope"
            ),
            "{narrow}"
        );
        assert_eq!(names(&answers), ["http://h:1/svc/storage", "http://h:2/svc/storage", "http://h:3"]);
    }

    #[tokio::test]
    async fn each_gateway_is_asked_at_its_own_address() {
        let fake = Fake::new("api_gateway", |asked, _| {
            assert_eq!(asked, "GET /backends");
            Answer::json(&answer())
        })
        .await;
        let view = fake.reached.view().await.unwrap();
        let here = serving(&view, None);
        let (answers, is_whole) = ask(&fake.reached, &here).await.unwrap();
        assert_eq!((answers.len(), is_whole), (1, true));

        let (mut gone, service) = (here[0].0.clone(), here[0].1);
        gone.http = "http://127.0.0.1:1".to_owned();
        let (answers, is_whole) = ask(&fake.reached, &[(&gone, service), here[0]]).await.unwrap();
        assert_eq!((answers.len(), is_whole), (1, false), "one that does not answer hides no other");
        assert!(ask(&fake.reached, &[(&gone, service)]).await.is_err());

        let nobody = |named: &str| nobody(&view, Some(&named.parse().unwrap()));
        let failure = |named: &str| Failure::new(Exit::Error, format!("no member serves `{named}`"));
        for (named, hint) in [
            ("api_gatewy", "did you mean `ctl backends --service api_gateway`?"),
            ("web", "`ctl backends` shows those of all gateways and load balancers"),
        ] {
            assert_eq!(nobody(named), failure(named).hint(hint));
        }
    }
}
