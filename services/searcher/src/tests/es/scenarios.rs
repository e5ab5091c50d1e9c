//! Scenarios of an Elasticsearch-compatible API from YAML files, if a folder of them is named in `COTERIE_ES_SUITE`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::*;

/// The steps of a file. Each document is one step.
fn steps(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    // A document may begin with a comment after the dashes.
    let mut documents = vec![String::new()];
    for line in text.lines() {
        if line.starts_with("---") {
            documents.push(String::new());
        } else if let Some(document) = documents.last_mut() {
            document.push_str(line);
            document.push('\n');
        }
    }
    let parse = |text: &String| {
        // A step for another engine need not be understood.
        serde_saphyr::from_str::<Value>(text).unwrap_or_else(|error| {
            assert!(!text.contains("elasticsearch"), "{}: {error}\n{text}", path.display());
            json!({ "engines": [] })
        })
    };
    let is_step =
        |text: &&String| text.lines().any(|line| !line.trim().is_empty() && !line.trim().starts_with('#'));
    documents.iter().filter(is_step).map(parse).collect()
}

/// Why an answer is not as expected. Only a few forms of `$expect` are understood; others hold.
fn differs(found: &Value, expected: &Value) -> Option<String> {
    match (found, expected) {
        (found, Value::Object(members)) if members.contains_key("$expect") => {
            let expression = members["$expect"].as_str()?;
            if let Some(count) = expression.strip_prefix("len(val) == ") {
                let len = found.as_array().map(Vec::len).or(found.as_object().map(serde_json::Map::len));
                return (len != count.parse().ok()).then(|| format!("{expression}: {found}"));
            }
            if let Some(rest) = expression.strip_prefix('\'') {
                let (text, rest) = rest.split_once('\'')?;
                let has = match found {
                    Value::Object(members) => members.contains_key(text),
                    Value::String(found) => found.contains(text),
                    _ => false,
                };
                return (has == rest.contains("not in")).then(|| format!("{expression}: {found}"));
            }
            None
        }
        (Value::Object(found), Value::Object(expected)) => expected.iter().find_map(|(name, expected)| {
            let found = found.get(name).unwrap_or(&Value::Null);
            differs(found, expected).map(|why| format!("{name}: {why}"))
        }),
        (Value::Array(found), Value::Array(expected)) => {
            if found.len() != expected.len() {
                return Some(format!("{} elements, not {}", found.len(), expected.len()));
            }
            found.iter().zip(expected).find_map(|(found, expected)| differs(found, expected))
        }
        (Value::Number(found), Value::Number(expected)) => {
            (found.as_f64() != expected.as_f64()).then(|| format!("{found} is not {expected}"))
        }
        (found, expected) => (found != expected).then(|| format!("{found} is not {expected}")),
    }
}

/// Runs a step, and returns why it failed.
async fn run(searchers: &Searchers, step: &Value, folder: &Path) -> Vec<String> {
    let engines = step["engines"].as_array();
    if engines.is_some_and(|engines| !engines.iter().any(|engine| engine == "elasticsearch")) {
        return Vec::new();
    }
    let methods: Vec<&str> = match &step["method"] {
        Value::Array(methods) => methods.iter().filter_map(Value::as_str).collect(),
        method => vec![method.as_str().unwrap_or("GET")],
    };
    let endpoint = step["endpoint"].as_str().unwrap_or_default().trim_start_matches('/');
    let mut uri = format!("/es/{endpoint}");
    for (name, value) in step["params"].as_object().into_iter().flatten() {
        uri.push(if uri.contains('?') { '&' } else { '?' });
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        uri.push_str(&format!(
            "{name}={}",
            plugin::http::query::percent_encode(value.as_bytes()).replace('/', "%2F")
        ));
    }
    let body: Vec<u8> = if let Some(file) = step["body_from_file"].as_str() {
        std::fs::read(folder.join(file)).unwrap()
    } else if let Some(lines) = step["ndjson"].as_array() {
        lines.iter().map(|line| format!("{line}\n")).collect::<String>().into_bytes()
    } else if step["json"].is_null() {
        Vec::new()
    } else {
        step["json"].to_string().into_bytes()
    };
    let mut failures = Vec::new();
    for method in methods {
        let mut request = Request::builder().method(method).uri(&uri);
        for (name, value) in step["headers"].as_object().into_iter().flatten() {
            request = request.header(name, value.as_str().unwrap_or_default());
        }
        let answer = searchers.send(request.body(Body::from(body.clone())).unwrap()).await;
        let shown = String::from_utf8_lossy(&answer.body).chars().take(600).collect::<String>();
        let status = step.get("status_code").map_or(Some(200), Value::as_u64);
        if status.is_some_and(|status| status != u64::from(answer.status)) {
            failures.push(format!("{method} {uri}: status {}: {shown}", answer.status));
        } else if !step["expected"].is_null()
            && let Some(why) = differs(&answer.json(), &step["expected"])
        {
            failures.push(format!("{method} {uri}: {why}: {shown}"));
        }
    }
    failures
}

/// Files of a folder whose names begin with a digit, by name; each step has the defaults of the folder.
fn scenarios(folder: &Path) -> BTreeMap<PathBuf, Vec<Value>> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let is_scenario = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(|first: char| first.is_ascii_digit()) && name.ends_with(".yaml")
    };
    let defaults = steps(&folder.join("_ctx.yaml")).pop().unwrap_or_default();
    let with_defaults = |mut step: Value| {
        for (name, value) in defaults.as_object().into_iter().flatten() {
            if step.get(name).is_none() {
                step[name] = value.clone();
            }
        }
        step
    };
    files
        .filter(is_scenario)
        .map(|path| (path.clone(), steps(&path).into_iter().map(with_defaults).collect()))
        .collect()
}

/// The scenarios that concern indexes, bulk requests, tables and the health. `COTERIE_ES_SUITE_ALL` runs all.
#[tokio::test]
async fn scenarios_of_other_implementations_hold() {
    let Some(folder) =
        std::env::var_os("COTERIE_ES_SUITE").map(PathBuf::from).filter(|folder| folder.is_dir())
    else {
        eprintln!(
            "skipped: COTERIE_ES_SUITE names no folder of scenarios, which are not a part of the repository"
        );
        return;
    };
    let is_all = std::env::var_os("COTERIE_ES_SUITE_ALL").is_some();
    let mut failures = Vec::new();
    let searchers = Searchers::start(1, json!({})).await;
    for sub in ["", "bulk", "multi-indices"] {
        let below = folder.join(sub);
        for step in steps(&below.join("_setup.elasticsearch.yaml")) {
            failures.extend(
                run(&searchers, &step, &folder).await.into_iter().map(|why| format!("{sub} setup: {why}")),
            );
        }
        for (path, steps) in scenarios(&below) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let is_ours = sub == "bulk" || name.starts_with("0021") || name.starts_with("0027");
            if !is_ours && !is_all {
                continue;
            }
            for (number, step) in steps.iter().enumerate() {
                let found = run(&searchers, step, &below).await;
                failures
                    .extend(found.into_iter().map(|why| format!("{sub}/{name} step {}: {why}", number + 1)));
            }
        }
    }
    searchers.stop().await;
    assert!(failures.is_empty(), "{} failed:\n{}", failures.len(), failures.join("\n"));
}
