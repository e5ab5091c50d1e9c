//! Generated names for nodes: short, kind, and easy to say aloud.

use cool_id_generator::words::{ADJECTIVES, ANIMALS};
use rand::RngExt;
use rand::seq::IndexedRandom;
use types::NodeId;

/// Adjectives that would be unkind in the name of a machine.
const UNKIND: [&str; 38] = [
    "angry",
    "anxious",
    "bad-tempered",
    "bossy",
    "careless",
    "clingy",
    "crazy",
    "dishonest",
    "disobedient",
    "distracted",
    "emotional",
    "fat",
    "hypocritical",
    "impatient",
    "infuriating",
    "jealous",
    "lazy",
    "loving",
    "mean",
    "messy",
    "naughty",
    "nervous",
    "obedient",
    "overprotective",
    "passionate",
    "pessimistic",
    "romantic",
    "rude",
    "scared",
    "selfish",
    "silly",
    "stubborn",
    "timid",
    "unfriendly",
    "unpleasant",
    "untidy",
    "worried",
    "self-disciplined",
];
/// Animals whose names can be insults, or that exist only in a game.
const ODD: [&str; 14] = [
    "alphabeaver",
    "boomalope",
    "boomrat",
    "chicken",
    "cow",
    "donkey",
    "megascarab",
    "megaspider",
    "megasloth",
    "muffalo",
    "pig",
    "rat",
    "spelopede",
    "thrumbo",
];

/// A new name, as `brave-lynx-27`: one of some 350,000.
pub fn generated_id() -> NodeId {
    let mut rng = rand::rng();
    let fit = |words: &'static [&'static str], unfit: &[&str]| -> Vec<&'static str> {
        words.iter().copied().filter(|word| !unfit.contains(word)).collect()
    };
    let (adjectives, animals) = (fit(&ADJECTIVES, &UNKIND), fit(&ANIMALS, &ODD));
    let adjective = adjectives.choose(&mut rng).expect("most adjectives are kind");
    let animal = animals.choose(&mut rng).expect("most animals exist");
    let number = rng.random_range(10..100);
    let name = format!("{adjective}-{animal}-{number}");
    name.parse().expect("letters and hyphens, far below the limit")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_are_short_and_kind() {
        for _ in 0..2_000 {
            let id = generated_id();
            assert!(id.as_str().len() <= 32, "{id}");
            assert!(!UNKIND.iter().any(|word| id.as_str().starts_with(&format!("{word}-"))), "{id}");
        }
    }
}
