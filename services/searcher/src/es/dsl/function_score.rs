//! `function_score`: a field's number, and decays. Scripts and random scores are refused.

use serde_json::Value;

use super::keys::{Keys, checked_field, shortened, unknown};
use super::{DslError, Reader};
use crate::query::Node;
use crate::query::dates::{DateReading, duration};
use crate::query::functions::{Combine, Function, Functions, Modifier, Shape, Value as FunctionValue};

const NAME: &str = "function_score";
const SHAPES: [(&str, Shape); 3] =
    [("gauss", Shape::Gauss), ("exp", Shape::Exponential), ("linear", Shape::Linear)];
/// The most functions of a query.
const MAX_FUNCTIONS: usize = 100;

impl Reader {
    pub(super) fn function_score(&mut self, body: &Value) -> Result<Node, DslError> {
        let known = [
            "query",
            "functions",
            "score_mode",
            "boost_mode",
            "max_boost",
            "boost",
            "weight",
            "field_value_factor",
            "gauss",
            "exp",
            "linear",
        ];
        refuse(body)?;
        let keys = Keys::of(NAME, body, &known)?;
        let query = keys.raw("query").map_or(Ok(Node::All), |query| self.query(query))?;
        let mut functions = Vec::new();
        let own = self.function(&keys, None)?;
        match (own, keys.raw("functions")) {
            (Some(function), None) => functions.push(function),
            (None, Some(Value::Array(all))) if all.len() <= MAX_FUNCTIONS => {
                for function in all {
                    refuse(function)?;
                    let known = ["filter", "weight", "field_value_factor", "gauss", "exp", "linear"];
                    let keys = Keys::of(NAME, function, &known)?;
                    let filter = keys.raw("filter").map(|filter| self.query(filter)).transpose()?;
                    let function = self.function(&keys, filter)?;
                    functions.push(keys.needed("weight", function)?);
                }
            }
            (None, None) => {}
            (Some(_), Some(_)) => {
                let reason = "[function_score] query has one function, or [functions], not both";
                return Err(DslError::parsing(reason));
            }
            (None, Some(_)) => return Err(keys.wrong("functions", "a list of at most 100 functions")),
        }
        let modes = [
            ("multiply", Combine::Multiply),
            ("sum", Combine::Sum),
            ("avg", Combine::Average),
            ("first", Combine::First),
            ("max", Combine::Max),
            ("min", Combine::Min),
        ];
        let score_mode = keys.word("score_mode", &modes)?.unwrap_or(Combine::Multiply);
        let modes = modes.map(|(name, mode)| (if name == "first" { "replace" } else { name }, mode));
        let boost_mode = keys.word("boost_mode", &modes)?.unwrap_or(Combine::Multiply);
        let max_boost = match keys.raw("max_boost") {
            None => f32::MAX,
            Some(_) => keys.boost("max_boost")?,
        };
        let functions = Functions { query, functions, score_mode, boost_mode, max_boost };
        keys.boosted(Node::Functions(Box::new(functions)))
    }

    fn function(&self, keys: &Keys<'_>, filter: Option<Node>) -> Result<Option<Function>, DslError> {
        let mut values = Vec::new();
        if let Some(body) = keys.raw("field_value_factor") {
            values.push(field_value_factor(body)?);
        }
        for (name, shape) in SHAPES {
            if let Some(body) = keys.raw(name) {
                values.push(self.decay(name, shape, body)?);
            }
        }
        let weight = keys.boost("weight")?;
        let value = match values.len() {
            0 if keys.raw("weight").is_none() => return Ok(None),
            0 => FunctionValue::One,
            1 => values.remove(0),
            _ => {
                return Err(DslError::parsing("[function_score] query: an entry has more than one function"));
            }
        };
        Ok(Some(Function { filter, weight, value }))
    }

    fn decay(&self, name: &'static str, shape: Shape, body: &Value) -> Result<FunctionValue, DslError> {
        let Value::Object(members) = body else {
            return Err(DslError::parsing(format!("[{name}] wants an object with a field")));
        };
        let mut fields = members.iter().filter(|(key, _)| *key != "multi_value_mode");
        let (Some((field, body)), None) = (fields.next(), fields.next()) else {
            return Err(DslError::parsing(format!("[{name}] wants exactly one field")));
        };
        if members.get("multi_value_mode").is_some_and(|mode| mode.as_str() != Some("min")) {
            return Err(DslError::illegal(format!("[{name}] only supports [multi_value_mode] of [min]")));
        }
        let field = checked_field(name, field)?;
        let keys = Keys::of(name, body, &["origin", "scale", "offset", "decay"])?;
        let decay = keys.number("decay")?.unwrap_or(0.5);
        if !(decay > 0.0 && decay < 1.0) {
            return Err(keys.wrong("decay", "a number between 0 and 1"));
        }
        let is_date = matches!(keys.raw("scale"), Some(Value::String(text)) if duration(text).is_some());
        let length = |key: &str| match (is_date, keys.raw(key)) {
            #[expect(clippy::cast_precision_loss, reason = "an estimate is enough")]
            (true, Some(Value::String(text))) => {
                duration(text).map(|length| Some(length as f64)).ok_or_else(|| keys.wrong(key, "a duration"))
            }
            _ => keys.number(key),
        };
        let scale = keys.needed("scale", length("scale")?)?;
        let offset = length("offset")?.unwrap_or(0.0);
        let origin = match (is_date, keys.scalar("origin")?) {
            (false, _) => keys.needed("origin", keys.number("origin")?)?,
            (true, origin) => {
                let text = origin.map_or_else(|| "now".to_owned(), |origin| origin.text);
                let span = DateReading::plain(self.now).read(&text);
                #[expect(clippy::cast_precision_loss, reason = "an estimate is enough")]
                span.map(|span| span.first as f64).ok_or_else(|| keys.wrong("origin", "a date"))?
            }
        };
        if scale <= 0.0 || offset < 0.0 {
            return Err(keys.wrong("scale", "a positive number, and [offset] not negative"));
        }
        Ok(FunctionValue::Decay { field, shape, origin, scale, offset, decay })
    }
}

fn field_value_factor(body: &Value) -> Result<FunctionValue, DslError> {
    let keys = Keys::of("field_value_factor", body, &["field", "factor", "modifier", "missing"])?;
    let modifiers = [
        ("none", Modifier::None),
        ("log", Modifier::Log),
        ("log1p", Modifier::Log1p),
        ("log2p", Modifier::Log2p),
        ("ln", Modifier::Ln),
        ("ln1p", Modifier::Ln1p),
        ("ln2p", Modifier::Ln2p),
        ("square", Modifier::Square),
        ("sqrt", Modifier::Sqrt),
        ("reciprocal", Modifier::Reciprocal),
    ];
    Ok(FunctionValue::Field {
        field: checked_field("field_value_factor", keys.needed("field", keys.text("field")?)?)?,
        factor: keys.number("factor")?.unwrap_or(1.0),
        modifier: keys.word("modifier", &modifiers)?.unwrap_or(Modifier::None),
        missing: keys.number("missing")?,
    })
}

/// Refuses functions that are not supported by their name.
fn refuse(body: &Value) -> Result<(), DslError> {
    let members = body.as_object();
    let refused = ["script_score", "random_score", "min_score"];
    match members.and_then(|members| refused.iter().find(|key| members.contains_key(**key))) {
        Some(key) if members.is_some() => Err(unknown(NAME, &shortened(key), &[])),
        _ => Ok(()),
    }
}
