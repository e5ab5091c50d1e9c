//! The syntax of synonyms.

/// How many rules an index may have.
pub(super) const MAX_RULES: usize = 1_000;
/// How many words or groups of words a rule may have.
pub(super) const MAX_MEMBERS: usize = 50;
/// The longest rule, in bytes.
const MAX_RULE: usize = 2_000;

/// A rule: each text on the left means all on the right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SynonymRule {
    pub(crate) from: Vec<String>,
    pub(crate) to: Vec<String>,
}

impl SynonymRule {
    /// Reads `tv, television`, where all mean all, or `usb => universal serial bus`.
    pub(crate) fn parse(rule: &str) -> Result<Self, String> {
        if rule.len() > MAX_RULE {
            return Err(format!("the rule has {} bytes, at most {MAX_RULE} are allowed", rule.len()));
        }
        let (from, to) = match rule.split_once("=>") {
            Some((_, to)) if to.contains("=>") => return Err("there is more than one `=>`".to_owned()),
            Some((from, to)) => (members(from)?, members(to)?),
            None => (members(rule)?, members(rule)?),
        };
        if from.len() + to.len() == 2 && from == to {
            return Err("there is only one text".to_owned());
        }
        if from.len().max(to.len()) > MAX_MEMBERS {
            return Err(format!("there are more than {MAX_MEMBERS} texts"));
        }
        Ok(Self { from, to })
    }
}

fn members(list: &str) -> Result<Vec<String>, String> {
    let members: Vec<_> = list.split(',').map(|member| member.trim().to_owned()).collect();
    match members.iter().any(String::is_empty) {
        true => Err("a text is missing".to_owned()),
        false => Ok(members),
    }
}
