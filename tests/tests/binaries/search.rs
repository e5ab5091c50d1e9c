//! Search as a user sees it: indexes, documents and searches through ctl, and owners that are killed.

use e2e::{Machine, eventually, repository};

use crate::up;

const SEARCH: &str = "\
services:
  searcher: {shards: 2, replicas: 1}
nodes:
  - {id: gateway, service: api_gateway}
  - {id: s, service: searcher, count: 4}
  - {id: spare, service: standby}
";

const BOOKS: &str = "\
{\"isbn\":\"1\",\"title\":\"The HTTP proxy\",\"year\":2020}
{\"isbn\":\"2\",\"title\":\"Proxies of the web\",\"year\":2021}
{\"isbn\":\"3\",\"title\":\"Gardens\",\"year\":1999}
";

async fn ids(machine: &Machine, words: &[&str]) -> anyhow::Result<Vec<String>> {
    let said = machine.ctl(&[&["search", "books", "-o", "name"], words].concat()).await?.exits(0)?;
    Ok(said.out.lines().map(str::to_owned).collect())
}

#[tokio::test]
async fn documents_are_imported_searched_and_exported_and_survive_their_owner() -> anyhow::Result<()> {
    let machine = up(SEARCH).await?;
    let file = machine.write("books.ndjson", BOOKS)?;
    machine.ctl(&["index", "import", "books", &file]).await?.exits(1)?.tells("there is no index `books`")?;
    machine
        .ctl(&["index", "create", "books", "--field", "title:text:en", "--field", "year:i64", "--id", "isbn"])
        .await?
        .exits(0)?
        .tells("created books with 2 fields")?;
    machine.ctl(&["index", "import", "books", &file]).await?.exits(0)?.tells("imported 3 documents in ")?;
    // What was imported is visible once the import has ended.
    let mut found = ids(&machine, &["proxy"]).await?;
    found.sort();
    assert_eq!(found, ["1", "2"]);
    assert_eq!(ids(&machine, &["proxy", "--filter", "year:2020"]).await?, ["1"]);
    assert_eq!(ids(&machine, &["--sort", "-year", "--size", "2"]).await?, ["2", "1"]);
    let said = machine.ctl(&["search", "books", "gardns", "--typos", "--facet", "year"]).await?.exits(0)?;
    assert!(said.out.contains("Gardens") && said.out.contains("YEAR  DOCUMENTS\n1999  1"), "{}", said.out);
    said.tells("1 document, ")?;
    machine.ctl(&["search", "boks", "x"]).await?.exits(1)?.tells("did you mean `books`?")?;
    machine.ctl(&["search", "books", "year:[1 TO"]).await?.exits(2)?;

    let bad = machine
        .write("bad.ndjson", "{\"isbn\":\"4\",\"year\":2000}\nnonsense\n{\"isbn\":\"5\",\"year\":\"x\"}\n")?;
    let kept = machine.write("refused.ndjson", "")?;
    machine
        .ctl(&["index", "import", "books", &bad, "--refused", &kept])
        .await?
        .exits(1)?
        .tells("line 2")?
        .tells("imported 1 document in ")?;
    assert!(std::fs::read_to_string(&kept)?.starts_with("nonsense\n"));

    machine.ctl(&["kill", "s-1", "--for-good"]).await?.exits(0)?;
    eventually("every shard has an owner", || async {
        ids(&machine, &["proxy"]).await.ok().filter(|found| found.len() == 2)
    })
    .await?;
    let lines =
        machine.ctl(&["index", "export", "books"]).await?.exits(0)?.tells("exported 4 documents in ")?.out;
    assert!(lines.contains("\"Gardens\""), "{lines}");
    machine.ctl(&["index", "compact", "books"]).await?.exits(0)?;
    machine.ctl(&["index", "delete", "books"]).await?.exits(2)?.tells("--yes")?;
    machine.ctl(&["index", "delete", "books", "--yes"]).await?.exits(0)?.tells("deleted books")?;
    assert_eq!(machine.ctl(&["index", "ls", "-o", "name"]).await?.exits(0)?.out, "");
    machine.ctl(&["down", "--purge", "--yes"]).await?.exits(0)?;
    machine.nothing_is_left()
}

#[tokio::test]
async fn the_index_of_the_packages_is_declared_by_its_manifest() -> anyhow::Result<()> {
    let machine = Machine::new()?;
    let manifest = std::fs::read_to_string(repository().join("manifests/search.yaml"))?;
    let manifest = machine.manifest(&manifest.replace("cluster: search\nprofile: local\n", ""))?;
    machine.ctl(&["up", &manifest]).await?.exits(0)?;
    let line = "{\"name\":\"tinyproxy\",\"words\":\"tinyproxy\",\"description\":\"small HTTP proxy\",\"section\":\"web\"}\n";
    let file = machine.write("packages.ndjson", line)?;
    machine.ctl(&["index", "import", "packages", &file]).await?.exits(0)?;
    let said = machine.ctl(&["search", "packages", "http", "proxies"]).await?.exits(0)?;
    assert!(said.out.contains("tinyproxy  small HTTP proxy"), "{}", said.out);
    machine.ctl(&["index", "delete", "packages", "--yes"]).await?.exits(5)?;
    machine.ctl(&["down", "--purge", "--yes"]).await?.exits(0)?;
    machine.nothing_is_left()
}
