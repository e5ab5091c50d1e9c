//! What may change in the definition of an index that exists.

use super::{Definition, FieldDefinition, PartialDefinition};

/// A change that an index which exists can't take. Make a new index and import the documents into it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}; make a new index and import the documents into it", .changes.join("; "))]
pub(crate) struct Conflict {
    /// What can't change, at least one sentence.
    pub(crate) changes: Vec<String>,
}

impl Definition {
    /// This definition with what a later one adds and changes; what the later one leaves out stays. New fields may come.
    /// Default fields, synonyms and the `ignore_above` of a field that is given may change, for these do not touch what is
    /// indexed. Equal to this definition if the later one changes nothing.
    pub(crate) fn extended(&self, later: &PartialDefinition) -> Result<Self, Conflict> {
        let mut changes = Vec::new();
        if later.dynamic.is_some_and(|dynamic| dynamic != self.dynamic) {
            changes.push("`dynamic` can't change".to_owned());
        }
        if later.id.is_some() && later.id != self.id {
            changes.push("`id` can't change".to_owned());
        }
        let mut fields = self.fields.clone();
        for (name, field) in &later.fields {
            if let Some(change) = self.fields.get(name).and_then(|present| change(name, present, field)) {
                changes.push(change);
            }
            fields.insert(name.clone(), field.clone());
        }
        let extended = Self {
            fields,
            dynamic: self.dynamic,
            id: self.id.clone(),
            default_fields: later.default_fields.clone().unwrap_or_else(|| self.default_fields.clone()),
            synonyms: later.synonyms.clone().unwrap_or_else(|| self.synonyms.clone()),
        };
        if changes.is_empty()
            && let Err(error) = extended.check()
        {
            changes.extend(error.mistakes.iter().map(ToString::to_string));
        }
        if changes.is_empty() { Ok(extended) } else { Err(Conflict { changes }) }
    }
}

/// Why a declared field can't become another, or `None` if it can.
fn change(name: &str, present: &FieldDefinition, later: &FieldDefinition) -> Option<String> {
    match (present, later) {
        (FieldDefinition::Text { analyzer: present }, FieldDefinition::Text { analyzer: later }) => {
            let message = || {
                let (present, later) = (present.name(), later.name());
                format!("field `{name}` has the analyzer `{present}`, which can't become `{later}`")
            };
            (present != later).then(message)
        }
        _ => {
            let (present, later) = (present.type_name(), later.type_name());
            (present != later).then(|| format!("field `{name}` is {present}, which can't become {later}"))
        }
    }
}
