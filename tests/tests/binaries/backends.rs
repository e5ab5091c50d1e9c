//! `ctl backends`: where each gateway sends requests.

use e2e::eventually;

use crate::up;

const FOUR: &str = "\
nodes:
  - {id: gateway, service: api_gateway, count: 2}
  - {id: owner, service: storage, count: 2}
";

#[tokio::test]
async fn each_gateway_shows_its_backends() -> anyhow::Result<()> {
    let machine = up(FOUR).await?;
    let shown = eventually("both gateways see both owners serve", || async {
        let shown = machine.ctl(&["backends", "-o", "json"]).await.ok()?.exits(0).ok()?.json().ok()?;
        let pools: Vec<_> = shown.as_array()?.iter().map(|gateway| gateway["services"][0].clone()).collect();
        // Gateways are not among them: no client's request goes there.
        let is_whole = pools.len() == 2
            && pools.iter().all(|pool| pool["backends"].as_array().is_some_and(|all| all.len() == 2));
        is_whole.then_some(shown)
    })
    .await?;
    for (gateway, name) in shown.as_array().into_iter().flatten().zip(["gateway-1", "gateway-2"]) {
        assert_eq!((&gateway["node"], &gateway["services"][0]["name"]), (&name.into(), &"storage".into()));
        for backend in gateway["services"][0]["backends"].as_array().into_iter().flatten() {
            assert!(
                ["serving", "slow_start"].contains(&backend["state"].as_str().unwrap_or_default()),
                "{gateway}"
            );
        }
    }
    let table = machine.ctl(&["backends"]).await?.exits(0)?.out;
    assert!(table.starts_with("NODE "), "{table}");
    assert_eq!(table.lines().count(), 5, "{table}");
    let names = machine.ctl(&["backends", "-o", "name"]).await?.exits(0)?.out;
    assert!(names.lines().all(|name| name.ends_with("/svc/storage")), "{names}");
    machine.ctl(&["backends", "--service", "edge"]).await?.exits(1)?.tells("no member serves `edge`")?;
    machine.ctl(&["down"]).await?.exits(0)?;
    machine.nothing_is_left()
}
