//! `ctl routes`: the routes of a gateway, and which of them takes a request.

use client::{Client, Route, RouteRefusal, RouteRetry, RouteTest, Routes};
use types::ServiceName;

use crate::complete;
use crate::exit::Exit;
use crate::out::{OutputArg, say};
use crate::owner::{Twice, with_owner};
use crate::reach::{Cx, Reached};
use crate::render;
use crate::service::{self, ROUTES};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ctl routes
  ctl routes --service edge
  ctl routes --test https://shop.example/api/orders
  ctl routes --test https://shop.example/api --header x-version:2 -o json

The routes are shown in the order in which they are tried: an exact host before a wildcard, a path before a prefix, a \
longer prefix before a shorter one. With --test, nothing is sent; the exit code is 1 if neither a route nor a service \
takes the request, or the gateway refuses it. A method may precede the URL: --test 'PUT https://shop.example/api'. With \
-o json, routes have more of their settings; values of header fields that may be secrets are not shown.")]
pub(crate) struct Args {
    /// The service, if several have the type api_gateway
    #[arg(long, value_name = "NAME", add = complete::services())]
    service: Option<ServiceName>,
    /// Show which route takes a request, such as 'PUT https://host/path', and why those before it do not
    #[arg(long, value_name = "REQUEST")]
    test: Option<String>,
    /// A header field of that request, such as 'x-version: 2'; may be repeated
    #[arg(long, value_name = "FIELD", requires = "test")]
    header: Vec<String>,
    #[command(flatten)]
    output: OutputArg,
}

pub(crate) async fn run(args: &Args, cx: &Cx) -> anyhow::Result<Exit> {
    let reached = service::reach(cx, args.service.as_ref(), &ROUTES).await?;
    match &args.test {
        Some(request) => test(&reached, request, args, cx).await,
        None => list(&reached, args, cx).await,
    }
}

async fn list(reached: &Reached, args: &Args, cx: &Cx) -> anyhow::Result<Exit> {
    let routes =
        with_owner(reached, None, Twice::Harmless, async |member: &Client| member.routes().await).await?;
    cx.out.data(
        args.output.output,
        &routes,
        |routes| table(routes, cx.out.columns),
        |routes| routes.routes.iter().map(name).collect(),
    )?;
    if routes.routes.is_empty() {
        say(&format!("{} has no routes", reached.client.service()));
    }
    Ok(Exit::Ok)
}

async fn test(reached: &Reached, request: &str, args: &Args, cx: &Cx) -> anyhow::Result<Exit> {
    let ask = async |member: &Client| member.test_route(request, &args.header).await;
    let test = with_owner(reached, None, Twice::Harmless, ask).await?;
    cx.out.data(
        args.output.output,
        &test,
        |test| tested(test, cx.out.columns),
        |test| test.route.iter().map(name).collect(),
    )?;
    let (exit, mut verdict) = verdict(&test, request);
    if test.is_of_proxy {
        verdict += "\nnote: this is what a proxy in `trust` gets; from other clients, `Forwarded`, `X-Forwarded-*`, `X-Real-IP` and \
                    `X-Request-Id` are removed first";
    }
    say(&verdict);
    Ok(exit)
}

/// The result of a test in words, and the exit code.
fn verdict(test: &RouteTest, request: &str) -> (Exit, String) {
    let ready = test.ready.join(", ");
    if test.is_ready_everywhere {
        let verdict =
            format!("{request} is a readiness check, which the listeners answer: {ready}; no route gets it");
        return (Exit::Error, verdict);
    }
    if let Some(RouteRefusal { status, code, detail, hint }) = &test.refused {
        let along = test.route.as_ref().map(|route| format!(", which would go along {},", name(route)));
        let hint = hint.as_ref().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
        let along = along.unwrap_or_default();
        return (Exit::Error, format!("{request}{along} is refused with {status} ({code}): {detail}{hint}"));
    }
    let (exit, verdict) = destination_of(test, request);
    match ready.is_empty() {
        true => (exit, verdict),
        false => (
            exit,
            format!("{verdict}; as a readiness check it is answered by the listener itself on: {ready}"),
        ),
    }
}

fn destination_of(test: &RouteTest, request: &str) -> (Exit, String) {
    match (&test.route, &test.service) {
        (Some(route), _) => (Exit::Ok, format!("{request} goes along {} to {}", name(route), target(route))),
        (None, Some(service)) => {
            (Exit::Ok, format!("{request} goes along no route, to the service {service} that its path names"))
        }
        (None, None) if test.is_index => {
            let verdict = format!(
                "no route and no service takes {request}; the gateway answers it with 200 and the list of its routes"
            );
            (Exit::Error, verdict)
        }
        (None, None) => (Exit::Error, format!("no route and no service takes {request}; it would get 404")),
    }
}

fn table(routes: &Routes, columns: Option<usize>) -> String {
    if routes.routes.is_empty() {
        return String::new();
    }
    let mut rows: Vec<_> = routes.routes.iter().map(row).collect();
    for (row, route) in rows.iter_mut().zip(&routes.routes) {
        row.push(limits(route));
    }
    without_empty(&["ROUTE", "HOST", "PATH", "METHODS", "HEADERS", "TARGET", "LIMITS"], rows, columns)
}

fn tested(test: &RouteTest, columns: Option<usize>) -> String {
    let passed = test.passed.iter().map(|passed| (&passed.route, passed.why.as_str()));
    let takes = if test.is_ready_everywhere {
        "gets no readiness check"
    } else if test.refused.is_some() {
        "would take it, but it is refused"
    } else {
        "takes it"
    };
    let routes = passed.chain(test.route.iter().map(|route| (route, takes)));
    let rows: Vec<_> = routes.map(|(route, result)| [row(route), vec![result.to_owned()]].concat()).collect();
    if rows.is_empty() {
        return String::new();
    }
    without_empty(&["ROUTE", "HOST", "PATH", "METHODS", "HEADERS", "TARGET", "RESULT"], rows, columns)
}

/// A table without the columns in which no row has anything, for a terminal with this many columns.
fn without_empty(header: &[&str], rows: Vec<Vec<String>>, columns: Option<usize>) -> String {
    let keep: Vec<bool> = (0..header.len())
        .map(|at| rows.iter().any(|row| row.get(at).is_some_and(|cell| cell != "-")))
        .collect();
    let kept = |at: usize| keep.get(at).copied().unwrap_or(true);
    let header: Vec<_> =
        header.iter().enumerate().filter(|(at, _)| kept(*at)).map(|(_, name)| *name).collect();
    let rows: Vec<Vec<String>> = rows
        .into_iter()
        .map(|row| row.into_iter().enumerate().filter(|(at, _)| kept(*at)).map(|(_, cell)| cell).collect())
        .collect();
    render::table_within(columns, 1, &header, &rows)
}

fn row(route: &Route) -> Vec<String> {
    let or_dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    let path = match (&route.path, &route.prefix) {
        (Some(path), _) => format!("{path} (exact)"),
        (None, prefix) => prefix.clone().unwrap_or_default(),
    };
    let headers: Vec<_> = route.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    vec![
        name(route),
        or_dash(route.host.clone().unwrap_or_default()),
        or_dash(path),
        or_dash(route.methods.join(",")),
        or_dash(headers.join(", ")),
        target(route),
    ]
}

/// The name of a route, else its place in the settings.
fn name(route: &Route) -> String {
    route.name.clone().unwrap_or_else(|| route.place.clone())
}

/// Where it leads, how the member or address is chosen where that is not the default, and whether answers are compressed.
fn target(route: &Route) -> String {
    let balance = route.balance.as_deref().filter(|balance| !["two_choices", "weights"].contains(balance));
    let how = match (&route.affinity, balance) {
        (Some(affinity), _) => format!(", affinity by {affinity}"),
        (None, Some(balance)) => format!(", {balance}"),
        (None, None) => String::new(),
    };
    let compressed = if route.compress { ", compressed" } else { "" };
    destination(route) + &rewritten(route) + &how + compressed
}

/// What happens to the prefix, unless it is removed, and to the host.
fn rewritten(route: &Route) -> String {
    let rewrite = route.rewrite.clone().unwrap_or_default();
    let prefix = rewrite.prefix.map(|prefix| format!(" with prefix {prefix}"));
    let kept = (route.strip_prefix == Some(false)).then(|| " with its prefix".to_owned());
    let host = rewrite.host.map(|host| format!(" as host {host}"));
    [prefix, kept, host].into_iter().flatten().collect()
}

fn destination(route: &Route) -> String {
    let target = &route.target;
    if let Some(service) = &target.service {
        format!("service {service}")
    } else if let Some(urls) = &target.to {
        urls.join(", ")
    } else if let Some(backends) = &target.backends {
        let backends = backends.iter().map(|backend| format!("{} (weight {})", backend.url, backend.weight));
        backends.collect::<Vec<_>>().join(", ")
    } else if let Some(redirect) = &target.redirect {
        let scheme = redirect.scheme.iter().map(|scheme| format!("{scheme}:"));
        let host = redirect.host.iter().map(|host| format!("//{host}"));
        let port = redirect.port.iter().map(|port| format!(":{port}"));
        let parts: String = scheme.chain(host).chain(port).chain(redirect.to.clone()).collect();
        format!("redirect {} {parts}", redirect.status)
    } else if let Some(answer) = &target.answer {
        format!("answer {}", answer.status)
    } else {
        "unknown to this ctl".to_owned()
    }
}

fn limits(route: &Route) -> String {
    let limits = &route.limits;
    let keys = route.keys.iter().map(|keys| format!("keys {keys}"));
    let body = limits.body.iter().map(|body| format!("body {}", render::bytes(*body)));
    let min_rate = limits.min_rate.iter().map(|rate| match rate {
        0 => "no minimum rate".to_owned(),
        rate => format!("at least {} per second", render::bytes(*rate)),
    });
    let in_flight = limits.in_flight.iter().map(|number| format!("{number} in flight"));
    let retry = route.retry.iter().map(retry);
    let timeouts = route.timeouts.iter().map(|(name, time)| format!("{name} timeout {time}"));
    let check = route.check.iter().map(|check| format!("check {check}"));
    let all = keys
        .chain(body)
        .chain(min_rate)
        .chain(in_flight)
        .chain(limits.rate.clone())
        .chain(timeouts)
        .chain(check);
    let all: Vec<_> = all.chain(retry).collect();
    if all.is_empty() { "-".to_owned() } else { all.join("; ") }
}

/// `3 attempts, on connect, 502, 503`.
fn retry(retry: &RouteRetry) -> String {
    let attempts = retry.attempts.iter().map(|attempts| match attempts {
        1 => "1 attempt".to_owned(),
        more => format!("{more} attempts"),
    });
    let codes = retry.codes.iter().map(ToString::to_string);
    let on: Vec<_> = retry.on.iter().cloned().chain(codes).collect();
    let on = if on.is_empty() { "no retry".to_owned() } else { format!("retry on {}", on.join(", ")) };
    attempts.chain([on]).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::fake::{Answer, Fake};

    fn route(value: Value) -> Route {
        serde_json::from_value(value).unwrap()
    }

    fn api() -> Value {
        json!({"place": "/routes/1", "name": "api", "host": "*.shop.example", "prefix": "/api", "methods": ["GET", "PUT"],
               "target": {"service": "storage"}, "keys": "partners",
               "limits": {"body": 1024, "min_rate": 100, "in_flight": 5, "rate": "2 per 1s, burst 2, by client"}})
    }

    fn up() -> Value {
        json!({"place": "/routes/0", "path": "/up", "target": {"answer": {"status": 200}}, "limits": {}})
    }

    #[test]
    fn the_routes_are_a_table_without_empty_columns() {
        let routes = Routes { node: "n".parse().unwrap(), routes: vec![route(api()), route(up())] };
        assert_eq!(
            table(&routes, None),
            "\
ROUTE      HOST            PATH         METHODS  TARGET           LIMITS
api        *.shop.example  /api         GET,PUT  service storage  keys partners; body 1.0 KiB; at least 100 B per second; 5 in flight; 2 per 1s, burst 2, by client
/routes/0  -               /up (exact)  -        answer 200       -"
        );
        let none = Routes { routes: Vec::new(), ..routes };
        assert_eq!(table(&none, None), "");
    }

    #[test]
    fn each_target_is_named() {
        for (of, shown) in [
            (json!({"to": ["http://a", "http://b"]}), "http://a, http://b"),
            (json!({"backends": [{"url": "http://a", "weight": 9}]}), "http://a (weight 9)"),
            (json!({"redirect": {"status": 301, "scheme": "https"}}), "redirect 301 https:"),
            (
                json!({"redirect": {"status": 308, "host": "a", "port": 81, "to": "/n{rest}"}}),
                "redirect 308 //a:81/n{rest}",
            ),
            (json!({"teapot": true}), "unknown to this ctl"),
        ] {
            let route = route(json!({"place": "/routes/0", "target": of, "limits": {}}));
            assert_eq!(target(&route), shown);
        }
    }

    #[test]
    fn a_route_that_chooses_in_its_own_way_says_so() {
        for (how, shown) in [
            (json!({"balance": "two_choices"}), "service storage"),
            (json!({"balance": "round_robin"}), "service storage, round_robin"),
            (json!({"affinity": "cookie sid"}), "service storage, affinity by cookie sid"),
            (json!({"compress": true}), "service storage, compressed"),
        ] {
            let mut value = json!({"place": "/routes/0", "target": {"service": "storage"}, "limits": {}});
            value.as_object_mut().unwrap().extend(how.as_object().unwrap().clone());
            assert_eq!(target(&route(value)), shown);
        }
    }

    #[test]
    fn a_route_with_retries_of_its_own_says_which() {
        for (retry, shown) in [
            (json!({"attempts": 1, "on": ["connect", "reset"]}), "1 attempt, retry on connect, reset"),
            (json!({"on": ["connect"], "codes": [502, 503]}), "retry on connect, 502, 503"),
            (json!({"on": [], "codes": []}), "no retry"),
        ] {
            let route = route(json!({"place": "/routes/0", "target": {}, "limits": {}, "retry": retry}));
            assert_eq!(limits(&route), shown);
        }
    }

    #[tokio::test]
    async fn a_test_shows_what_takes_the_request_and_why_others_do_not() {
        let passed = json!([{"route": api(), "why": "the method is not GET or PUT"}]);
        let fake = Fake::new("api_gateway", move |request, _| match request {
            "GET /routes?test=POST%20%2Fup" => Answer::json(&json!({"passed": passed, "route": up()})),
            "GET /routes?test=POST%20%2Fx" => Answer::json(&json!({"passed": passed})),
            "GET /routes?test=%2Fstorage%2Fx" => Answer::json(&json!({"passed": [], "service": "storage"})),
            other => panic!("{other}"),
        })
        .await;
        let test = async |request: &str| fake.reached.client.test_route(request, &[]).await.unwrap();
        let found = test("POST /up").await;
        assert_eq!(
            tested(&found, None),
            "\
ROUTE      HOST            PATH         METHODS  TARGET           RESULT
api        *.shop.example  /api         GET,PUT  service storage  the method is not GET or PUT
/routes/0  -               /up (exact)  -        answer 200       takes it"
        );
        assert_eq!(
            verdict(&found, "POST /up"),
            (Exit::Ok, "POST /up goes along /routes/0 to answer 200".to_owned())
        );
        let nothing = verdict(&test("POST /x").await, "POST /x");
        assert_eq!(
            nothing,
            (Exit::Error, "no route and no service takes POST /x; it would get 404".to_owned())
        );
        let index: RouteTest = serde_json::from_value(json!({"passed": [], "is_index": true})).unwrap();
        let (exit, text) = verdict(&index, "/");
        assert!(
            exit == Exit::Error && text.contains("answers it with 200 and the list of its routes"),
            "{text}"
        );
        let refused = json!({"status": 403, "code": "foreign-host", "detail": "no", "hint": "do"});
        let refused: RouteTest =
            serde_json::from_value(json!({"passed": [], "route": up(), "refused": refused})).unwrap();
        let (exit, text) = verdict(&refused, "GET /up");
        assert_eq!(exit, Exit::Error);
        assert_eq!(
            text,
            "GET /up, which would go along /routes/0, is refused with 403 (foreign-host): no\nhint: do"
        );
        let (exit, text) = verdict(&test("/storage/x").await, "/storage/x");
        assert!(exit == Exit::Ok && text.contains("to the service storage"), "{text}");
    }
}
