//! What may change in the definition of an index that exists.

use std::collections::BTreeMap;

use super::{Definition, FieldDefinition, PartialDefinition, SubField};

/// A change that an index which exists can't take. Make a new index and copy the documents into it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}; make a new index and copy the documents into it", .changes.join("; "))]
pub(crate) struct Conflict {
    /// What can't change, at least one sentence.
    pub(crate) changes: Vec<String>,
}

impl Definition {
    /// This definition with what a later one adds and changes; what the later one leaves out stays. New fields may come.
    /// Sub-fields of a field that is given may come, and none go. `coerce` may be switched on. Default fields, synonyms, `delete_after`
    /// and the `ignore_above` of a field that is given may change, for these do not touch what is indexed. Equal to this
    /// definition if the later one changes nothing.
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
            let mut field = field.clone();
            if let (
                FieldDefinition::Text { fields: later, .. } | FieldDefinition::Keyword { fields: later, .. },
                Some(present),
            ) = (&mut field, self.fields.get(name))
            {
                for (name, present) in present.sub_fields() {
                    later.entry(name.clone()).or_insert_with(|| present.clone());
                }
            }
            fields.insert(name.clone(), field);
        }
        let extended = Self {
            fields,
            dynamic: self.dynamic,
            coerce: self.coerce || later.coerce,
            id: self.id.clone(),
            default_fields: later.default_fields.clone().unwrap_or_else(|| self.default_fields.clone()),
            synonyms: later.synonyms.clone().unwrap_or_else(|| self.synonyms.clone()),
            delete_after: later.delete_after.unwrap_or(self.delete_after),
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
    let sub_fields = later.sub_fields().iter();
    let of_sub_field = sub_fields
        .filter_map(|(sub, later)| {
            let present = present.sub_fields().get(sub)?;
            let sub = format!("{name}.{sub}");
            change_of(&sub, &present.as_field(), &later.as_field())
        })
        .next();
    change_of(name, present, later).or(of_sub_field)
}

fn change_of(name: &str, present: &FieldDefinition, later: &FieldDefinition) -> Option<String> {
    match (present, later) {
        (FieldDefinition::Text { analyzer: present, .. }, FieldDefinition::Text { analyzer: later, .. }) => {
            let message = || {
                let (present, later) = (present.name(), later.name());
                format!("field `{name}` has the analyzer `{present}`, which can't become `{later}`")
            };
            (present != later).then(message)
        }
        (
            FieldDefinition::Keyword { normalizer: present, .. },
            FieldDefinition::Keyword { normalizer: later, .. },
        ) => (present != later).then(|| format!("the normalizer of field `{name}` can't change")),
        (FieldDefinition::Vector { .. }, FieldDefinition::Vector { .. }) => {
            (present != later).then(|| format!("`dims` and `similarity` of field `{name}` can't change"))
        }
        _ => {
            let (present, later) = (present.type_name(), later.type_name());
            (present != later).then(|| format!("field `{name}` is {present}, which can't become {later}"))
        }
    }
}

impl SubField {
    /// A field that is indexed in the same way.
    fn as_field(&self) -> FieldDefinition {
        match self {
            Self::Text { analyzer } => FieldDefinition::Text { analyzer: *analyzer, fields: BTreeMap::new() },
            Self::Keyword { ignore_above, normalizer } => FieldDefinition::Keyword {
                ignore_above: *ignore_above,
                normalizer: *normalizer,
                fields: BTreeMap::new(),
            },
        }
    }
}
