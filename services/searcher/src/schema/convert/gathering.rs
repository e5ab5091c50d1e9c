//! The values of a document, each as its field wants it.

use std::collections::BTreeMap;

use super::{Indexed, Kind, Leaves, coerced, dynamic_name_problem, indexed};
use crate::definition::FieldDefinition;
use crate::document::{DocumentError, MAX_DOCUMENT, MAX_PATH, MAX_PATHS, Reading, Scalar, Sink, read_into};
use crate::schema::IndexSchema;

impl IndexSchema {
    /// The values of a document. A lenient reading leaves out what can't be indexed.
    pub(in crate::schema) fn leaves<'a>(
        &self,
        source: &'a str,
        reading: Reading,
    ) -> Result<Leaves<'a>, DocumentError> {
        if reading == Reading::Strict && source.len() > MAX_DOCUMENT {
            return Err(DocumentError::TooLarge { bytes: source.len() });
        }
        let mut gathering = Gathering {
            schema: self,
            is_strict: reading == Reading::Strict,
            leaves: Leaves::default(),
            known: BTreeMap::new(),
            subs: BTreeMap::new(),
        };
        read_into(source, reading, &mut gathering)?;
        Ok(gathering.leaves)
    }

    /// How values of a path in a document are indexed, if its name can be.
    fn path_kind(&self, path: &str) -> Result<Kind, DocumentError> {
        let kind = self.kind(path)?;
        if kind != Kind::Dynamic {
            return Ok(kind);
        }
        match dynamic_name_problem(path) {
            Some(problem) => Err(DocumentError::FieldName { path: path.to_owned(), problem }),
            None => Ok(kind),
        }
    }
}

/// Gathers the values of a document.
struct Gathering<'s, 'a> {
    schema: &'s IndexSchema,
    is_strict: bool,
    leaves: Leaves<'a>,
    /// The index of each path, and how its values are indexed; `None` if they can't be.
    known: BTreeMap<String, Option<(usize, Kind)>>,
    /// The sub-fields, by the index of their field's path.
    subs: BTreeMap<usize, Vec<(usize, Kind)>>,
}

impl Gathering<'_, '_> {
    /// The index of a path, and how its values are indexed; `None` if they are not.
    fn known(&mut self, path: &str) -> Result<Option<(usize, Kind)>, DocumentError> {
        // Only a lenient reading has such a path.
        if path.len() > MAX_PATH {
            return Ok(None);
        }
        if let Some(known) = self.known.get(path) {
            return Ok(*known);
        }
        let found = match self.schema.path_kind(path) {
            // Not remembered: a document may have any number of such fields.
            Ok(Kind::Stored) => return Ok(None),
            // Sub-fields are counted in the definition.
            Ok(_) if self.leaves.paths.len() >= MAX_PATHS => {
                if self.is_strict {
                    return Err(DocumentError::TooManyFields { path: path.to_owned() });
                }
                None
            }
            Ok(kind) => {
                let paths = &mut self.leaves.paths;
                paths.push(path.to_owned());
                let index = paths.len() - 1;
                if kind == Kind::Dynamic && !self.schema.definition.fields.contains_key(path) {
                    self.leaves.dynamic.push(index);
                }
                if let Some(field) = self.schema.definition.fields.get(path) {
                    for (name, sub) in field.sub_fields() {
                        paths.push(format!("{path}.{name}"));
                        let sub = (paths.len() - 1, Kind::of_sub_field(sub));
                        self.subs.entry(index).or_default().push(sub);
                    }
                }
                Some((index, kind))
            }
            Err(error) if self.is_strict => return Err(error),
            Err(_) => None,
        };
        self.known.insert(path.to_owned(), found);
        Ok(found)
    }
}

impl<'a> Sink<'a> for &mut Gathering<'_, 'a> {
    fn scalar(&mut self, path: &str, scalar: Scalar<'a>) -> Result<(), DocumentError> {
        let Some((index, kind)) = self.known(path)? else { return Ok(()) };
        let subs =
            self.subs.get(&index).into_iter().flatten().map(|(sub, kind)| (*sub, *kind, scalar.clone()));
        for (index, kind, scalar) in subs.collect::<Vec<_>>().into_iter().chain([(index, kind, scalar)]) {
            let scalar = if self.schema.definition.coerce { coerced(kind, scalar) } else { scalar };
            match indexed(kind, scalar) {
                Ok(value) => self.leaves.values.push((index, value)),
                Err((wanted, found)) if self.is_strict => {
                    let path = self.leaves.paths[index].clone();
                    return Err(DocumentError::Value { path, wanted, found });
                }
                Err(_) => {}
            }
        }
        Ok(())
    }

    fn dims(&self, path: &str) -> Option<usize> {
        match self.schema.definition.fields.get(path) {
            Some(FieldDefinition::Vector { dims, .. }) => Some(usize::from(*dims)),
            _ => None,
        }
    }

    fn vector(&mut self, path: &str, vector: Result<Vec<f32>, String>) -> Result<(), DocumentError> {
        let Some((index, Kind::Vector(similarity))) = self.known(path)? else { return Ok(()) };
        let vector = vector.and_then(|vector| match similarity.problem(&vector) {
            Some(problem) => Err(problem),
            None if self.leaves.values.iter().any(|(known, _)| *known == index) => {
                Err("a document has one vector for a field, found another one".to_owned())
            }
            None => Ok(vector),
        });
        match vector {
            Ok(vector) => self.leaves.values.push((index, Indexed::Vector(vector))),
            Err(problem) if self.is_strict => {
                return Err(DocumentError::Vector { path: path.to_owned(), problem });
            }
            Err(_) => {}
        }
        Ok(())
    }
}
