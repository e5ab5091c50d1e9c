//! Templates: `/_templates` and `/_templates/{name}`.

use axum::body::Body;
use http::request::Parts;
use http::{Method, StatusCode};
use plugin::check_settings;
use plugin::http::{Answer, json, method_not_allowed};
use serde_json::{Value, json};

use super::indexes::{MAX_DEFINITION, no_parameters};
use super::path::is_read;
use super::refusal::Refusal;
use crate::catalog::{NoSuchTemplate, Template, TemplateError, delete_templates, put_template};
use crate::service::SearcherService;

impl SearcherService {
    /// Answers `/_templates`.
    pub(crate) async fn list_templates(&self, head: &Parts) -> Answer {
        no_parameters(head)?;
        if !is_read(&head.method) {
            return Err(method_not_allowed("GET, HEAD"));
        }
        let indexes = self.catalog.fresh().await.map_err(Refusal::from)?;
        Ok(json(json!({ "templates": *indexes.templates }).to_string()))
    }

    /// Answers `/_templates/{name}`.
    pub(crate) async fn one_template(&self, name: &str, head: &Parts, body: Body) -> Answer {
        no_parameters(head)?;
        match head.method {
            Method::GET | Method::HEAD => {
                let indexes = self.catalog.fresh().await.map_err(Refusal::from)?;
                let found = indexes.templates.get(name).ok_or_else(|| {
                    let names = indexes.templates.keys().map(String::as_str);
                    Refusal::from(NoSuchTemplate::among(name, names))
                })?;
                let mut answer = json!(found);
                answer["name"] = json!(name);
                Ok(json(answer.to_string()))
            }
            Method::PUT => {
                let (body, _space) = self.read_body(head, body, MAX_DEFINITION, &self.bodies.outer).await?;
                let template = template(&body)?;
                let is_created = self.put_template(name, &template, false).await?;
                let mut answer = json(json!({ "name": name, "created": is_created }).to_string());
                if is_created {
                    *answer.status_mut() = StatusCode::CREATED;
                }
                Ok(answer)
            }
            Method::DELETE => {
                let change =
                    |record: &_| -> Result<_, NoSuchTemplate> { Ok((delete_templates(record, name)?, ())) };
                self.catalog.change(change).await.map_err(Refusal::from)?;
                Ok(json(json!({ "name": name, "deleted": true }).to_string()))
            }
            _ => Err(method_not_allowed("GET, HEAD, PUT, DELETE")),
        }
    }

    /// Creates or replaces a template. Returns whether it was created. Members read the latest record when they create an
    /// index, so nobody has to be told.
    pub(crate) async fn put_template(
        &self,
        name: &str,
        template: &Template,
        must_be_new: bool,
    ) -> Result<bool, Refusal> {
        let change =
            |record: &_| -> Result<_, TemplateError> { put_template(record, name, template, must_be_new) };
        Ok(self.catalog.change(change).await?.1)
    }
}

/// The template in the body of a request.
fn template(body: &[u8]) -> Result<Template, Refusal> {
    let hint = r#"send for example {"patterns": ["logs-*"], "definition": {"delete_after": "30d"}}"#;
    let bad = |detail: String| Refusal::invalid("bad-template", &detail, hint);
    let value: Value =
        serde_json::from_slice(body).map_err(|error| bad(format!("the body is no JSON: {error}")))?;
    if !value.is_object() {
        return Err(bad("a template is a JSON object".to_owned()));
    }
    check_settings(&value, Ok).map_err(|error| {
        let hints = error.mistakes.iter().find_map(|mistake| mistake.hint.clone());
        Refusal::invalid("bad-template", &error, hints.as_deref().unwrap_or(hint))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_an_object_and_its_mistakes_are_shown_with_their_place() {
        let read = template(br#"{"patterns": ["a*"], "priority": 3, "definition": {"delete_after": "1d"}}"#)
            .unwrap();
        assert_eq!((read.priority, read.patterns.len()), (3, 1));
        for (body, words) in [
            ("", "no JSON"),
            ("[]", "JSON object"),
            (r#"{"pattern": ["a"]}"#, "pattern"),
            (r#"{"patterns": ["a"], "priority": -1}"#, "priority"),
            (r#"{"patterns": ["a"], "definition": {"delete_after": "1"}}"#, "delete_after"),
            (r#"{"patterns": ["a"], "definition": {"fields": {"x": {"type": "txt"}}}}"#, "txt"),
        ] {
            let refusal = template(body.as_bytes()).unwrap_err();
            assert_eq!((refusal.problem.status, refusal.problem.code()), (400, "bad-template"));
            assert!(refusal.problem.detail.contains(words), "{body}: {}", refusal.problem);
        }
    }
}
