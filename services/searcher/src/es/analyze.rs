//! `_analyze`: the terms that a text becomes.

use axum::body::Body;
use http::Method;
use http::request::Parts;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::EsError;
use super::mapping::built_in;
use super::parameters::Parameters;
use super::path::allow;
use super::reply::{Answer, Reply};
use super::unique;
use crate::definition::{Analyzer, Definition, FieldDefinition, SubField};
use crate::schema::IndexSchema;
use crate::service::SearcherService;

/// The largest body.
const MAX_BODY: usize = 1024 * 1024;
/// The most terms of an answer, as in Elasticsearch.
const MAX_TOKENS: usize = 10_000;
/// The distance between the positions of two texts, as in Elasticsearch.
const GAP: usize = 100;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    text: Value,
    analyzer: Option<String>,
    field: Option<String>,
}

#[derive(Debug, Serialize, PartialEq, Eq)]
struct Token {
    token: String,
    start_offset: usize,
    end_offset: usize,
    #[serde(rename = "type")]
    kind: &'static str,
    position: usize,
}

#[derive(Debug, Serialize)]
struct Tokens {
    tokens: Vec<Token>,
}

/// The terms of texts. Offsets count UTF-16 units, as Elasticsearch's do.
fn analyze(analyzer: Analyzer, texts: &[&str]) -> Result<Vec<Token>, EsError> {
    let mut tokens = Vec::new();
    let (mut position, mut offset) = (0, 0);
    let mut tokenizer = IndexSchema::analyzer(analyzer);
    for text in texts {
        let units = |end: usize| text.get(..end).unwrap_or(text).encode_utf16().count();
        let mut stream = tokenizer.token_stream(text);
        let first = position;
        while stream.advance() {
            if tokens.len() == MAX_TOKENS {
                return Err(EsError::illegal(format!("the text has more than {MAX_TOKENS} terms")));
            }
            let token = stream.token();
            position = first + token.position;
            tokens.push(Token {
                token: token.text.clone(),
                start_offset: offset + units(token.offset_from),
                end_offset: offset + units(token.offset_to),
                kind: "<ALPHANUM>",
                position,
            });
        }
        position += GAP + 1;
        offset += units(text.len()) + 1;
    }
    Ok(tokens)
}

/// The analyzer of a field; `None` for one whose values are indexed whole.
fn analyzer_of(definition: &Definition, field: &str) -> Option<Analyzer> {
    match (definition.fields.get(field), definition.sub_field(field)) {
        (Some(FieldDefinition::Text { analyzer, .. }), _) | (None, Some(SubField::Text { analyzer })) => {
            Some(*analyzer)
        }
        (None, None) => Some(Analyzer::Default),
        _ => None,
    }
}

impl SearcherService {
    /// Answers `_analyze`.
    pub(crate) async fn es_analyze(&self, index: Option<&str>, head: &Parts, body: Body) -> Answer {
        allow(head, &[Method::GET, Method::POST])?;
        Parameters::parse(head.uri.query(), &[])?;
        let (body, _space) = self.es_body(head, body, MAX_BODY).await?;
        let wanted: Wanted =
            unique::read(&body).map_err(|error| EsError::parsing(format!("no _analyze: {error}")))?;
        let bad = || EsError::parsing("[text] is a text or a list of texts");
        let texts = match &wanted.text {
            Value::String(text) => vec![text.as_str()],
            Value::Array(texts) => {
                texts.iter().map(|text| text.as_str().ok_or_else(bad)).collect::<Result<_, _>>()?
            }
            _ => return Err(bad()),
        };
        let index = match index {
            Some(index) => Some(self.es_index(index).await?.1),
            None => None,
        };
        let analyzer = match (&wanted.analyzer, &wanted.field, &index) {
            (Some(_), Some(_), _) => {
                return Err(EsError::illegal("[analyzer] and [field] can't both be given"));
            }
            (Some(name), None, _) => {
                let unknown = || EsError::illegal(format!("failed to find global analyzer [{name}]"));
                Some(built_in(name).ok_or_else(unknown)?)
            }
            (None, Some(field), Some(index)) => analyzer_of(&index.schema.definition, field),
            (None, Some(_), None) => return Err(EsError::illegal("[field] needs an index in the path")),
            (None, None, _) => Some(Analyzer::Default),
        };
        let Some(analyzer) = analyzer else {
            return Err(EsError::unsupported("_analyze of a field that is not text"));
        };
        let tokens = analyze(analyzer, &texts)?;
        Ok(Reply::json(&Tokens { tokens }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_have_their_places_in_the_text() {
        let tokens = analyze(Analyzer::Default, &["The 𝄞 Übung", "Two"]).unwrap();
        let shown: Vec<_> = tokens
            .iter()
            .map(|token| (token.token.as_str(), token.start_offset, token.end_offset, token.position))
            .collect();
        assert_eq!(shown.first(), Some(&("the", 0, 3, 0)));
        assert!(shown.contains(&("ubung", 7, 12, 1)), "{shown:?}");
        assert_eq!(shown.last().map(|last| (last.0, last.1)), Some(("two", 13)));
        assert!(analyze(Analyzer::Default, &["a ".repeat(MAX_TOKENS + 1).as_str()]).is_err());
        let stemmed = analyze(Analyzer::En, &["running"]).unwrap();
        assert_eq!(stemmed[0].token, "run");
    }
}
