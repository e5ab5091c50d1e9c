//! The documents: generated text with a Zipf vocabulary, or the packages that apt knows.
//!
//! Both have the fields `id`, `title`, `body`, `section` and `size`. Everything is seeded, so that all runs have the same
//! documents and queries.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, bail};
use bytes::{BufMut, Bytes, BytesMut};
use clap::ValueEnum;
use rand::distr::Distribution;
use rand::distr::weighted::WeightedIndex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::process::Command;

/// The number of different words in generated text.
const VOCABULARY: u32 = 50_000;
/// The number of different sections.
const SECTIONS: u32 = 40;
/// The length of generated bodies, in words.
const BODY: std::ops::RangeInclusive<usize> = 20..=60;
const TITLE: std::ops::RangeInclusive<usize> = 3..=8;
const SEED: u64 = 14;
/// The number of lines in the body of a request.
pub(crate) const BATCH: usize = 1_000;
/// One of this many documents contributes a phrase.
const PHRASE_EVERY: usize = 50;

/// Where the documents come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Source {
    /// Text of 50,000 words with the frequencies of Zipf's law
    Generated,
    /// The package records of `apt-cache dumpavail`
    Packages,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Generated => "generated",
            Self::Packages => "packages",
        })
    }
}

/// Documents as lines of JSON, and statistics of the words in their bodies.
#[derive(Debug)]
pub(crate) struct Corpus {
    pub(crate) source: Source,
    pub(crate) documents: usize,
    /// Bodies of requests, each of at most [`BATCH`] lines.
    pub(crate) batches: Vec<Bytes>,
    /// The words of bodies with the number of documents that have them, the most frequent first.
    pub(crate) words: Vec<(String, usize)>,
    /// Pairs of words that follow each other in some body.
    pub(crate) phrases: Vec<[String; 2]>,
}

/// The definition of the index.
pub(crate) fn definition() -> Value {
    json!({
        "id": "id",
        "dynamic": "strict",
        "fields": {
            "id": { "type": "keyword" },
            "title": { "type": "text" },
            "body": { "type": "text" },
            "section": { "type": "keyword" },
            "size": { "type": "i64" },
        },
        "default_fields": { "body": 1 },
    })
}

impl Corpus {
    /// The corpus; an error says why there is none.
    pub(crate) async fn of(source: Source, documents: usize) -> anyhow::Result<Self> {
        match source {
            Source::Generated => Self::generated(documents),
            Source::Packages => {
                let mut command = Command::new("apt-cache");
                command.arg("dumpavail").stdin(Stdio::null()).kill_on_drop(true);
                let output = command.output().await.context("no apt-cache")?;
                let mut builder = Builder::new(source);
                for record in packages(&String::from_utf8_lossy(&output.stdout)).into_iter().take(documents) {
                    builder.add(&record);
                }
                if builder.documents == 0 {
                    bail!("apt-cache knows no packages; run apt-get update");
                }
                Ok(builder.build())
            }
        }
    }

    fn generated(documents: usize) -> anyhow::Result<Self> {
        let (words, sections) = (zipf(VOCABULARY)?, zipf(SECTIONS)?);
        let mut random = StdRng::seed_from_u64(SEED);
        let mut builder = Builder::new(Source::Generated);
        for number in 0..documents {
            let mut text = |length: usize| {
                let words: Vec<_> = (0..length).map(|_| word(words.sample(&mut random))).collect();
                words.join(" ")
            };
            let (title, body) =
                (text(TITLE.start() + number % TITLE.count()), text(BODY.start() + number % BODY.count()));
            let (section, size) = (sections.sample(&mut random), random.random_range(0..1_000_000));
            builder.add(&Record {
                id: format!("d{number:07}"),
                title,
                body,
                section: format!("section{section}"),
                size,
            });
        }
        Ok(builder.build())
    }

    /// Documents of exactly `length` bytes each.
    pub(crate) fn short(documents: usize, length: usize) -> anyhow::Result<Self> {
        let words = zipf(VOCABULARY)?;
        let mut random = StdRng::seed_from_u64(SEED);
        let mut builder = Builder::new(Source::Generated);
        for number in 0..documents {
            let mut body = String::with_capacity(length);
            let around = format!(r#"{{"id":"d{number:07}","body":""}}"#).len();
            while body.len() + around < length {
                body.push_str(&word(words.sample(&mut random)));
                body.push(' ');
            }
            body.truncate(length.saturating_sub(around));
            builder.count(&body);
            builder.line(&format!(r#"{{"id":"d{number:07}","body":"{body}"}}"#));
        }
        Ok(builder.build())
    }

    /// Writes all lines to a file.
    pub(crate) async fn write(&self, folder: &Path) -> anyhow::Result<PathBuf> {
        use tokio::io::AsyncWriteExt;
        let path = folder.join(format!("{}.ndjson", self.source));
        let mut file = tokio::fs::File::create(&path).await?;
        for batch in &self.batches {
            file.write_all(batch).await?;
        }
        file.flush().await?;
        Ok(path)
    }

    /// The size of all documents, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.batches.iter().map(Bytes::len).sum()
    }

    /// The first lines.
    pub(crate) fn first(&self, lines: usize) -> Bytes {
        let Some(batch) = self.batches.first() else { return Bytes::new() };
        let end = batch.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(lines.saturating_sub(1));
        batch.slice(..end.map_or(batch.len(), |(at, _)| at + 1))
    }
}

/// A document.
#[derive(Debug)]
struct Record {
    id: String,
    title: String,
    body: String,
    section: String,
    size: i64,
}

#[derive(Debug)]
struct Builder {
    source: Source,
    documents: usize,
    batches: Vec<Bytes>,
    batch: BytesMut,
    words: BTreeMap<String, usize>,
    phrases: Vec<[String; 2]>,
}

impl Builder {
    fn new(source: Source) -> Self {
        Self {
            source,
            documents: 0,
            batches: Vec::new(),
            batch: BytesMut::new(),
            words: BTreeMap::new(),
            phrases: Vec::new(),
        }
    }

    fn add(&mut self, record: &Record) {
        let Record { id, title, body, section, size } = record;
        self.count(body);
        let line = json!({ "id": id, "title": title, "body": body, "section": section, "size": size });
        self.line(&line.to_string());
    }

    fn line(&mut self, line: &str) {
        self.batch.put_slice(line.as_bytes());
        self.batch.put_u8(b'\n');
        self.documents += 1;
        if self.documents.is_multiple_of(BATCH) {
            self.batches.push(self.batch.split().freeze());
        }
    }

    fn count(&mut self, body: &str) {
        let lower = body.to_lowercase();
        let all: Vec<&str> =
            lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
        if self.documents.is_multiple_of(PHRASE_EVERY)
            && let Some([first, second]) =
                all.array_windows().find(|pair| pair.iter().all(|word| is_plain(word)))
        {
            self.phrases.push([(*first).to_owned(), (*second).to_owned()]);
        }
        let mut distinct: Vec<&str> = all.into_iter().filter(|word| is_plain(word)).collect();
        distinct.sort_unstable();
        distinct.dedup();
        for word in distinct {
            match self.words.get_mut(word) {
                Some(count) => *count += 1,
                None => drop(self.words.insert(word.to_owned(), 1)),
            }
        }
    }

    fn build(mut self) -> Corpus {
        if !self.batch.is_empty() {
            self.batches.push(self.batch.freeze());
        }
        let mut words: Vec<_> = self.words.into_iter().collect();
        words.sort_unstable_by(|(a, of_a), (b, of_b)| of_b.cmp(of_a).then_with(|| a.cmp(b)));
        Corpus {
            source: self.source,
            documents: self.documents,
            batches: self.batches,
            words,
            phrases: self.phrases,
        }
    }
}

/// Whether every tokenizer takes it for one word.
fn is_plain(word: &str) -> bool {
    word.len() >= 3 && word.bytes().all(|byte| byte.is_ascii_lowercase())
}

/// Zipf's law with the exponent 1.
fn zipf(count: u32) -> Result<WeightedIndex<f64>, rand::distr::weighted::Error> {
    WeightedIndex::new((1..=count).map(|rank| 1.0 / f64::from(rank)))
}

/// A word of at least two syllables, another one for each number.
fn word(number: usize) -> String {
    const CONSONANTS: &[u8; 14] = b"bdfgklmnprstvz";
    const VOWELS: &[u8; 5] = b"aeiou";
    const SYLLABLES: usize = CONSONANTS.len() * VOWELS.len();
    let (mut word, mut rest) = (String::new(), number);
    while rest > 0 || word.len() < 4 {
        let syllable = rest % SYLLABLES;
        word.push(char::from(CONSONANTS[syllable / VOWELS.len()]));
        word.push(char::from(VOWELS[syllable % VOWELS.len()]));
        rest /= SYLLABLES;
    }
    word
}

/// The records of `apt-cache dumpavail`; of several versions of a package, the last one.
fn packages(text: &str) -> Vec<Record> {
    let mut records: Vec<Record> = Vec::new();
    let mut known = BTreeMap::new();
    for record in text.split("\n\n") {
        let field = |name: &str| {
            let line = record.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            line.unwrap_or_default().to_owned()
        };
        let id = field("Package");
        if id.is_empty() {
            continue;
        }
        let size = field("Installed-Size").parse().unwrap_or_default();
        let (title, body, section) = (id.clone(), field("Description"), field("Section"));
        let record = Record { id, title, body, section, size };
        match known.get(&record.id) {
            Some(at) => records[*at] = record,
            None => {
                known.insert(record.id.clone(), records.len());
                records.push(record);
            }
        }
    }
    records
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_number_is_another_word() {
        let words: BTreeSet<_> = (0..10_000).map(word).collect();
        assert_eq!(words.len(), 10_000);
        assert!(words.iter().all(|word| is_plain(word)));
    }

    #[test]
    fn every_run_has_the_same_documents() {
        let corpus = Corpus::generated(2_500).unwrap();
        assert_eq!(corpus.batches, Corpus::generated(2_500).unwrap().batches);
        let lines: Vec<_> =
            corpus.batches.iter().map(|batch| batch.split(|byte| *byte == b'\n').count() - 1).collect();
        assert_eq!((corpus.documents, lines), (2_500, vec![1_000, 1_000, 500]));
        assert!(corpus.words.is_sorted_by(|a, b| a.1 >= b.1) && corpus.words[0].1 > 2_000);
        let first = corpus.first(2);
        assert!(corpus.batches[0].starts_with(&first) && first.ends_with(b"}\n"));
        assert_eq!(first.iter().filter(|byte| **byte == b'\n').count(), 2);
    }

    #[test]
    fn short_documents_have_their_length() {
        let corpus = Corpus::short(100, 200).unwrap();
        for line in corpus.batches[0].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            assert_eq!(line.len(), 200);
            serde_json::from_slice::<Value>(line).unwrap();
        }
    }

    #[test]
    fn a_package_is_a_document_and_its_last_version_counts() {
        let text = "Package: a\nInstalled-Size: 7\nSection: net\nDescription: old\n more\n\nPackage: b\n\n\
                    Package: a\nDescription: new\n";
        let records = packages(text);
        let seen: Vec<_> = records.iter().map(|record| (record.id.as_str(), record.body.as_str())).collect();
        assert_eq!(seen, [("a", "new"), ("b", "")]);
    }
}
