//! The settings of each service type, from its JSON Schema: for people, for programs, and as `docs/settings.org`.

use std::fmt::Write;

use anyhow::Context;
use plugin::{Plugin, Registry, RegistryError};
use serde_json::Value;
use types::{Role, ServiceType};

use crate::cli::Output;
use crate::output;

/// One setting.
#[derive(Debug, PartialEq, Eq)]
struct Setting {
    /// `routes[].to` is a key of each item of `routes`.
    key: String,
    about: String,
    /// The accepted values, in words.
    form: String,
    /// The default; `None` if the setting must be given or the schema has no default.
    default: Option<String>,
    is_required: bool,
}

/// Prints the settings of a type.
pub(crate) fn run(registry: &Registry, service: &str, output: Output) -> anyhow::Result<()> {
    let unknown = || {
        let mut known: Vec<_> = registry.service_types().map(ToString::to_string).collect();
        known.push(Role::STANDBY.to_owned());
        RegistryError::UnknownType { wanted: service.to_owned(), known }
    };
    let named = service.parse::<ServiceType>().ok();
    let plugin = named.as_ref().and_then(|named| registry.plugin(named)).with_context(unknown)?;
    match output {
        Output::Table => output::print(&page(&**plugin)),
        Output::Json => output::print(&(serde_json::to_string_pretty(&plugin.settings_schema())? + "\n")),
    }
}

/// The settings of a type as text for people.
fn page(plugin: &dyn Plugin) -> String {
    let schema = plugin.settings_schema();
    let mut out = format!("{}: {}\n", plugin.service_type(), plugin.about());
    if let Some(about) = schema["description"].as_str() {
        let _ = write!(out, "\n{about}\n");
    }
    for Setting { key, about, form, default, is_required } in settings(&schema) {
        let default = match default {
            _ if is_required => ", must be given".to_owned(),
            Some(default) => format!(" [default: {default}]"),
            None => String::new(),
        };
        let about = about.split_whitespace().collect::<Vec<_>>().join(" ");
        // Writing to a string can't fail.
        let _ = write!(out, "\n{key}\n  {form}{default}\n  {about}\n");
    }
    out
}

/// The settings of every type, as `docs/settings.org` has them.
#[cfg(test)]
fn document(registry: &Registry) -> String {
    let mut out = "#+TITLE: Settings of the service types\n\n\
        Settings stand in a manifest under =services.NAME.settings=. Everything has a default unless it says otherwise.\n\
        =agent settings TYPE= prints the same for one type, also for types of your own; =-o json= prints its JSON Schema.\n\
        This page is generated: =UPDATE_GOLDEN=1 cargo test -p agent -- settings=.\n"
        .to_owned();
    for plugin in registry.plugins() {
        let schema = plugin.settings_schema();
        let about = org(schema["description"].as_str().unwrap_or_default());
        let _ =
            write!(out, "\n* {}\n\n{}.\n\n{about}\n\n", plugin.service_type(), capitalized(plugin.about()));
        for Setting { key, about, form, default, is_required } in settings(&schema) {
            let default = match default {
                _ if is_required => "; must be given".to_owned(),
                Some(default) => format!("; default ={default}="),
                None => String::new(),
            };
            let about = org(&about).split_whitespace().collect::<Vec<_>>().join(" ");
            let _ = writeln!(out, "- ={key}= :: {}{default}.\\\\\n  {about}", org(&capitalized(&form)));
        }
    }
    out
}

#[cfg(test)]
fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// Converts Markdown of doc comments to org markup.
#[cfg(test)]
fn org(markdown: &str) -> String {
    let mut is_code = false;
    let lines = markdown.lines().map(|line| match line.strip_prefix("```") {
        Some(language) => {
            is_code = !is_code;
            if is_code { format!("#+begin_src {language}") } else { "#+end_src".to_owned() }
        }
        None if is_code => line.to_owned(),
        None => line.replace('`', "="),
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// All settings of a schema; nested ones follow their parents.
fn settings(schema: &Value) -> Vec<Setting> {
    let mut all = Vec::new();
    collect(schema, "", &mut all);
    all
}

fn collect(schema: &Value, above: &str, all: &mut Vec<Setting>) {
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, form) in schema["properties"].as_object().into_iter().flatten() {
        let key = format!("{above}{name}");
        all.push(Setting {
            about: form["description"].as_str().unwrap_or_default().to_owned(),
            form: words(form),
            default: form.get("default").and_then(shown),
            is_required: required.contains(&name.as_str()),
            key: key.clone(),
        });
        collect(form, &format!("{key}."), all);
        collect(&form["items"], &format!("{key}[]."), all);
        collect(&form["additionalProperties"], &format!("{key}.*."), all);
    }
}

/// The accepted values, in words.
fn words(form: &Value) -> String {
    if let Some(choices) = form["anyOf"].as_array().or_else(|| form["oneOf"].as_array()) {
        let choices: Vec<_> = choices.iter().filter(|choice| choice["type"] != "null").map(words).collect();
        return choices.join(" or ");
    }
    if let Some(constant) = form.get("const") {
        return format!("`{}`", constant.as_str().map_or_else(|| constant.to_string(), ToOwned::to_owned));
    }
    if let Some(words) = form["enum"].as_array() {
        let words: Vec<_> = words.iter().filter_map(Value::as_str).map(|word| format!("`{word}`")).collect();
        return format!("one of {}", words.join(", "));
    }
    let kind = match &form["type"] {
        Value::Array(kinds) => kinds.iter().find(|kind| **kind != "null").unwrap_or(&Value::Null),
        kind => kind,
    };
    match (form["title"].as_str(), kind.as_str()) {
        (Some(title), _) if title.starts_with("a ") => title.to_owned(),
        (_, Some("boolean")) => "`true` or `false`".to_owned(),
        (_, Some("string")) => "text".to_owned(),
        (_, Some("integer")) => "a whole number".to_owned(),
        (_, Some("number")) => "a number".to_owned(),
        (_, Some("array")) => format!("a list of {}", plural(&words(&form["items"]))),
        _ => "a mapping".to_owned(),
    }
}

fn plural(form: &str) -> String {
    match form {
        "text" => "texts".to_owned(),
        form => match (form.strip_prefix("a whole number"), form.strip_prefix("a ")) {
            (Some(range), _) => format!("whole numbers{range}"),
            (None, Some(form)) => format!("{form}s"),
            (None, None) => form.to_owned(),
        },
    }
}

/// A default as text; `None` for null.
fn shown(default: &Value) -> Option<String> {
    match default {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;

    #[test]
    fn a_schema_is_put_into_words() {
        let schema = json!({
            "properties": {
                "count": { "type": ["integer", "null"], "title": "a whole number from 1 to 9", "default": null },
                "hosts": { "anyOf": [{ "const": "any" }, { "type": "array", "items": { "type": "string" } }] },
                "inner": { "type": "array", "default": [], "items": {
                    "type": "object", "required": ["to"],
                    "properties": { "to": { "type": "string", "description": "Where to." }, "on": { "type": "boolean", "default": true } }
                }},
                "level": { "enum": ["low", "high"], "default": "low" },
                "odds": { "type": "array", "items": { "type": "integer", "title": "a whole number from 1 to 9" } },
            }
        });
        let found = settings(&schema);
        let shown: Vec<_> = found
            .iter()
            .map(|found| (&*found.key, &*found.form, found.default.as_deref(), found.is_required))
            .collect();
        assert_eq!(
            shown,
            [
                ("count", "a whole number from 1 to 9", None, false),
                ("hosts", "`any` or a list of texts", None, false),
                ("inner", "a list of mappings", Some("[]"), false),
                ("inner[].on", "`true` or `false`", Some("true"), false),
                ("inner[].to", "text", None, true),
                ("level", "one of `low`, `high`", Some("low"), false),
                ("odds", "a list of whole numbers from 1 to 9", None, false),
            ]
        );
    }

    #[test]
    fn every_setting_is_described_and_has_a_default_or_an_explanation() {
        for plugin in crate::builtin().plugins() {
            let name = plugin.service_type();
            for setting in settings(&plugin.settings_schema()) {
                assert!(!setting.about.is_empty(), "{name}: {} has no description", setting.key);
                let about = setting.about.to_lowercase();
                let is_explained =
                    setting.is_required || setting.default.is_some() || about.contains("unless given");
                assert!(
                    is_explained,
                    "{name}: {} has no default, and its description has no `unless given`",
                    setting.key
                );
            }
            let page = page(&**plugin);
            assert!(page.starts_with(&format!("{name}: ")) && !page.contains("\n\n\n"), "{page}");
        }
    }

    #[test]
    fn the_page_of_settings_is_up_to_date() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/settings.org");
        let wanted = document(&crate::builtin());
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &wanted).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == wanted,
            "docs/settings.org is stale; `UPDATE_GOLDEN=1 cargo test -p agent -- settings` renews it"
        );
    }
}
