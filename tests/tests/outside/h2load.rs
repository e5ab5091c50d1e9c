//! h2load: many requests on few connections, none of which fails.

use std::path::Path;

use anyhow::ensure;

use crate::front::{Front, Kind};
use crate::tool::{has, run};

#[tokio::test]
async fn h2load_gets_every_answer_over_every_protocol() -> anyhow::Result<()> {
    loads(Kind::Gateway).await
}

#[tokio::test]
async fn h2load_gets_every_answer_of_a_balancer_over_every_protocol() -> anyhow::Result<()> {
    loads(Kind::Balancer).await
}

async fn loads(kind: Kind) -> anyhow::Result<()> {
    if !has("h2load", "--version", "nghttp2-client").await? {
        return Ok(());
    }
    let front = Front::start(kind).await?;
    let plain = format!("http://{}", front.address("plain")?);
    let web = format!("https://{}", front.address("web")?);
    for (url, options) in [
        (&plain, &["--h1", "-c", "8"][..]),
        (&plain, &["-c", "4", "-m", "50"]),
        (&web, &["--npn-list", "http/1.1", "-c", "8"]),
        (&web, &["-c", "4", "-m", "50"]),
    ] {
        for (path, count) in [("/bytes/1000", "2000"), ("/bytes/300000", "100")] {
            let target = format!("{url}{path}");
            let shown = run(Path::new("h2load"), &[&["-n", count], options, &[&target]].concat()).await?;
            let all = format!("{count} succeeded, 0 failed, 0 errored, 0 timeout");
            ensure!(shown.contains(&all) && shown.contains(&format!("{count} 2xx")), "{target}: {shown}");
        }
    }
    front.machine.ctl(&["down"]).await?.exits(0)?;
    Ok(())
}
