//! The actions on aliases in the body of a request, in Elasticsearch's form. Pure.

use serde_json::{Map, Value};
use types::did_you_mean;

use super::alias::{AliasAction, AliasOptions, MAX_ALIASES};

/// How many names all actions of a request may have.
const MAX_NAMES: usize = 2 * MAX_ALIASES;
/// What aliases have in Elasticsearch, and not here.
pub(crate) const UNSUPPORTED: [&str; 5] =
    ["filter", "routing", "index_routing", "search_routing", "is_hidden"];

/// Why the actions are refused: change the request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ActionError {
    #[error("{0}")]
    Shape(String),
    /// An unknown member.
    #[error("{action} has no member `{member}`{}", near(.similar.as_ref()))]
    Unknown { action: String, member: String, similar: Option<String> },
    #[error("`{0}` of an alias is not supported")]
    Unsupported(String),
    #[error("the actions have more than {MAX_NAMES} names")]
    TooMany,
}

fn near(similar: Option<&String>) -> String {
    similar.map(|similar| format!("; did you mean `{similar}`?")).unwrap_or_default()
}

fn shape(text: &str) -> ActionError {
    ActionError::Shape(text.to_owned())
}

/// Reads `{"actions": [{"add": {"index": "logs-2", "alias": "logs"}}, {"remove": {..}}, {"remove_index": {..}}]}`.
pub(crate) fn actions(body: &[u8]) -> Result<Vec<AliasAction>, ActionError> {
    let members: Map<String, Value> = serde_json::from_slice(body)
        .map_err(|error| ActionError::Shape(format!("the body is no JSON object: {error}")))?;
    known("the body", &members, &["actions"])?;
    let list = members.get("actions").and_then(Value::as_array);
    let list = list
        .filter(|list| !list.is_empty())
        .ok_or_else(|| shape("`actions` is a list of at least one action"))?;
    let mut found = Vec::with_capacity(list.len().min(MAX_NAMES));
    let mut names = 0;
    for value in list {
        let Some(members) = value.as_object().filter(|members| members.len() == 1) else {
            return Err(shape(
                "an action is an object with `add`, `remove` or `remove_index` as its only member",
            ));
        };
        let action =
            members.iter().next().and_then(|(name, value)| Some((name.as_str(), value.as_object()?)));
        let Some((name, members)) = action else {
            return Err(shape("an action has an object after its name"));
        };
        let action = one(name, members)?;
        names += match &action {
            AliasAction::Add { indexes, aliases, .. } | AliasAction::Remove { indexes, aliases, .. } => {
                indexes.len() + aliases.len()
            }
            AliasAction::RemoveIndex { indexes } => indexes.len(),
        };
        if names > MAX_NAMES {
            return Err(ActionError::TooMany);
        }
        found.push(action);
    }
    Ok(found)
}

fn one(name: &str, members: &Map<String, Value>) -> Result<AliasAction, ActionError> {
    let indexes = || list(name, members, ["index", "indices"]);
    let aliases = || list(name, members, ["alias", "aliases"]);
    let names = ["index", "indices", "alias", "aliases"];
    match name {
        "add" => {
            known("`add`", members, &[&names[..], &["is_write_index", "must_exist"]].concat())?;
            let is_write_index = flag(members, "is_write_index")?;
            Ok(AliasAction::Add {
                indexes: indexes()?,
                aliases: aliases()?,
                options: AliasOptions { is_write_index },
            })
        }
        "remove" => {
            known("`remove`", members, &[&names[..], &["must_exist"]].concat())?;
            let must_exist = flag(members, "must_exist")?.unwrap_or(false);
            Ok(AliasAction::Remove { indexes: indexes()?, aliases: aliases()?, must_exist })
        }
        "remove_index" => {
            known("`remove_index`", members, &["index", "indices", "must_exist"])?;
            Ok(AliasAction::RemoveIndex { indexes: indexes()? })
        }
        _ => Err(ActionError::Shape(format!(
            "there is no action `{name}`; there are `add`, `remove` and `remove_index`"
        ))),
    }
}

/// What an alias says of an index: the members beside the names.
pub(crate) fn options(value: &Value) -> Result<AliasOptions, ActionError> {
    let members = value.as_object().ok_or_else(|| shape("an alias has an object of options"))?;
    known("an alias", members, &["is_write_index"])?;
    Ok(AliasOptions { is_write_index: flag(members, "is_write_index")? })
}

fn known(action: &str, members: &Map<String, Value>, known: &[&str]) -> Result<(), ActionError> {
    let Some(member) = members.keys().find(|name| !known.contains(&name.as_str())) else { return Ok(()) };
    if UNSUPPORTED.contains(&member.as_str()) {
        return Err(ActionError::Unsupported(member.clone()));
    }
    let similar = did_you_mean(member, known.iter().copied()).map(str::to_owned);
    Err(ActionError::Unknown { action: action.to_owned(), member: member.clone(), similar })
}

fn flag(members: &Map<String, Value>, name: &str) -> Result<Option<bool>, ActionError> {
    match members.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(flag)) => Ok(Some(*flag)),
        Some(_) => Err(ActionError::Shape(format!("`{name}` is true or false"))),
    }
}

/// Names in one member as a text, or in the other one as a list; both take both.
fn list(action: &str, members: &Map<String, Value>, either: [&str; 2]) -> Result<Vec<String>, ActionError> {
    let [one, several] = either;
    let bad = || {
        ActionError::Shape(format!(
            "`{action}` has names in `{one}` or in `{several}`: a text or a list of texts"
        ))
    };
    let ((Some(value), None) | (None, Some(value))) = (members.get(one), members.get(several)) else {
        return Err(bad());
    };
    let names: Vec<String> = match value {
        Value::String(name) => name.split(',').map(|name| name.trim().to_owned()).collect(),
        Value::Array(names) => names
            .iter()
            .map(|name| name.as_str().map(str::to_owned).ok_or_else(bad))
            .collect::<Result<_, _>>()?,
        _ => return Err(bad()),
    };
    if names.is_empty() || names.iter().any(String::is_empty) { Err(bad()) } else { Ok(names) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn actions_are_read_with_their_names_in_either_form() {
        let body = r#"{"actions": [
            {"add": {"index": "a-2", "alias": "a", "is_write_index": true}},
            {"remove": {"indices": ["a-1", "b*"], "aliases": "a,b", "must_exist": true}},
            {"remove_index": {"index": "c"}}
        ]}"#;
        let is_write_index = Some(true);
        assert_eq!(
            actions(body.as_bytes()).unwrap(),
            [
                AliasAction::Add {
                    indexes: text(&["a-2"]),
                    aliases: text(&["a"]),
                    options: AliasOptions { is_write_index },
                },
                AliasAction::Remove {
                    indexes: text(&["a-1", "b*"]),
                    aliases: text(&["a", "b"]),
                    must_exist: true
                },
                AliasAction::RemoveIndex { indexes: text(&["c"]) },
            ]
        );
    }

    #[test]
    fn what_is_not_supported_or_unknown_is_refused_by_name() {
        let of = |action: &str| format!("{{\"actions\": [{action}]}}");
        for (body, words) in [
            ("".to_owned(), "no JSON object"),
            ("[]".to_owned(), "no JSON object"),
            ("{}".to_owned(), "at least one action"),
            (of(""), "at least one action"),
            (r#"{"action": []}"#.to_owned(), "did you mean `actions`"),
            (of("7"), "only member"),
            (of("{}"), "only member"),
            (of(r#"{"add": 7}"#), "an object after its name"),
            (of(r#"{"swap": {}}"#), "no action `swap`"),
            (of(r#"{"add": {"index": "a"}}"#), "`alias` or in `aliases`"),
            (of(r#"{"add": {"index": "a", "indices": ["b"], "alias": "x"}}"#), "`index` or in `indices`"),
            (of(r#"{"add": {"index": "a", "alias": ""}}"#), "`alias` or in `aliases`"),
            (of(r#"{"add": {"index": "a", "alias": [7]}}"#), "`alias` or in `aliases`"),
            (of(r#"{"add": {"index": [], "alias": "x"}}"#), "`index` or in `indices`"),
            (of(r#"{"add": {"index": "a", "alias": "x", "filter": {"term": {}}}}"#), "`filter` of an alias"),
            (of(r#"{"add": {"index": "a", "alias": "x", "routing": "1"}}"#), "`routing` of an alias"),
            (
                of(r#"{"add": {"index": "a", "alias": "x", "is_write_indx": true}}"#),
                "did you mean `is_write_index`",
            ),
            (of(r#"{"add": {"index": "a", "alias": "x", "is_write_index": 1}}"#), "true or false"),
            (of(r#"{"remove_index": {"index": "a", "alias": "x"}}"#), "no member `alias`"),
        ] {
            let error = actions(body.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(words), "{body}: {error}");
        }
        let many = vec![r#"{"remove": {"index": "a", "alias": "b"}}"#; MAX_NAMES].join(",");
        assert_eq!(actions(of(&many).as_bytes()), Err(ActionError::TooMany));
    }
}
