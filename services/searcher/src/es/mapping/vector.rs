//! `dense_vector` as a field of a definition.

use serde_json::{Map, Value};

use super::{refused, unknown};
use crate::definition::{FieldDefinition, MAX_DIMS, Similarity};
use crate::es::error::EsError;

/// Elasticsearch's name of the type.
pub(super) const DENSE_VECTOR: &str = "dense_vector";

/// A field of vectors. They are always searched, and exactly.
pub(super) fn field(
    members: &Map<String, Value>,
    path: &str,
    warnings: &mut Vec<String>,
) -> Result<FieldDefinition, EsError> {
    let (mut dims, mut similarity) = (None, Similarity::default());
    for (name, value) in members {
        match name.as_str() {
            "type" => {}
            "index" if value == &Value::Bool(true) => {}
            "element_type" if value == "float" => {}
            "element_type" => {
                return Err(refused(format!("[element_type: {value}] of field [{path}] is not supported")));
            }
            "dims" => {
                let number = value.as_u64().and_then(|number| u16::try_from(number).ok());
                dims = number.filter(|dims| (1..=MAX_DIMS).contains(dims));
                if dims.is_none() {
                    return Err(refused(format!(
                        "The number of dimensions for field [{path}] should be in the range [1, {MAX_DIMS}] but was [{value}]"
                    )));
                }
            }
            "similarity" => {
                let known = value.as_str().and_then(Similarity::of_name);
                similarity = known.ok_or_else(|| {
                    let names = Similarity::NAMES.join(", ");
                    refused(format!(
                        "Unknown value {value} for field [similarity] - accepted values are [{names}]"
                    ))
                })?;
            }
            "index_options" if value.is_object() => {
                warnings.push("[index_options] has no effect: vectors are searched exactly".to_owned());
            }
            name => return Err(refused(unknown(path, DENSE_VECTOR, name))),
        }
    }
    let dims = dims.ok_or_else(|| refused(format!("[dims] of field [{path}] is needed")))?;
    Ok(FieldDefinition::Vector { dims, similarity })
}
