//! Manifests: turns YAML into a checked model, reports all mistakes at once with their positions, and compares a
//! manifest with a cluster.
//!
//! No I/O: the text, the variables and the known service types are arguments. The agent reads its config file with
//! [`read_tree`].

mod check;
mod diff;
mod encoding;
mod mistake;
mod model;
mod paths;
mod render;
mod schema;
mod suggest;
mod tree;
mod variables;
pub mod yaml;

use std::collections::BTreeSet;

pub use diff::{Drift, Plan, Running, diff};
pub use encoding::text;
pub use mistake::{Mistake, Mistakes};
pub use model::{Checked, Known, KnownType, Manifest, NodeSpec, ServiceSpec};
pub use paths::absolute;
pub use schema::json_schema;
pub use tree::{Key, Node, Position, Value};
pub use variables::Variables;

/// Reads a manifest: parses it, replaces variables and checks everything. Checks service types too if `known` is given.
///
/// `file_name` is for messages only. All mistakes are returned at once; only a YAML syntax error hides mistakes after
/// it.
pub fn parse(
    file_name: &str,
    source: &str,
    variables: Variables<'_>,
    known: Option<&Known>,
) -> Result<Checked, Mistakes> {
    let Prepared { tree, failed, mut mistakes } = prepared(file_name, source, variables)?;
    match check::check(&tree, known, &failed, &mut mistakes) {
        Some(checked) if mistakes.is_empty() => Ok(checked),
        _ => Err(Mistakes::new(file_name, source, mistakes)),
    }
}

/// Reads any YAML file to a tree with variables replaced, for configs that are not manifests.
///
/// Bad variables and duplicate keys are mistakes; all other checks are up to the caller.
pub fn read_tree(file_name: &str, source: &str, variables: Variables<'_>) -> Result<Node, Mistakes> {
    let Prepared { tree, mistakes, .. } = prepared(file_name, source, variables)?;
    if mistakes.is_empty() { Ok(tree) } else { Err(Mistakes::new(file_name, source, mistakes)) }
}

/// A tree with variables replaced, and the mistakes so far.
struct Prepared {
    tree: Node,
    failed: BTreeSet<Position>,
    mistakes: Vec<Mistake>,
}

fn prepared(file_name: &str, source: &str, variables: Variables<'_>) -> Result<Prepared, Mistakes> {
    let (mut tree, mut mistakes) =
        yaml::parse_tree(source).map_err(|mistake| Mistakes::new(file_name, source, vec![mistake]))?;
    let mut failed: BTreeSet<Position> = mistakes.iter().map(|mistake| mistake.at).collect();
    failed.extend(variables::substitute(&mut tree, variables, &mut mistakes));
    check::duplicate_keys(&tree, &mut mistakes);
    Ok(Prepared { tree, failed, mistakes })
}
