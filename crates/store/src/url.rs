//! Where an object store is: `file:///var/lib/coterie`, `s3://bucket/prefix`.
//!
//! A URL is shown in views and logs, so it carries no credentials: those come from the environment.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use serde::{Deserialize, Serialize};

/// The URL of an object store.
///
/// | URL | store |
/// |---|---|
/// | `file:///var/lib/coterie`, `/var/lib/coterie` | a folder |
/// | `memory:///` | the memory of this process; each opening makes an empty one |
/// | `s3://bucket/prefix` | Amazon S3 and stores with its API (`AWS_ENDPOINT`) |
/// | `gs://bucket/prefix` | Google Cloud Storage |
/// | `az://container/prefix`, `abfs://container/prefix` | Azure Blob Storage |
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StoreUrl(Place);

/// The place that a URL names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Place {
    /// An absolute path, in UTF-8.
    Folder(PathBuf),
    /// The memory of this process.
    Memory,
    /// A bucket of a cloud's store and the path below it, without a slash at either end.
    Bucket { cloud: Cloud, bucket: String, prefix: String },
}

/// The APIs of stores on the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Cloud {
    S3,
    Google,
    Azure,
}

/// Why a text is not the URL of an object store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum StoreUrlError {
    /// Name a store.
    #[error(
        "the store's url is empty; give a folder like `/var/lib/coterie` or a url like `s3://bucket/prefix`"
    )]
    Empty,
    /// Give the whole path, or a URL.
    #[error(
        "store `{text}` is neither an absolute path nor a url; write `/var/lib/coterie` or `s3://bucket/prefix`"
    )]
    Relative { text: String },
    /// Use one of the schemes that the message lists.
    #[error("store scheme `{scheme}` is not known; use file, memory, s3, gs or az{}", did_you_mean(.closest.as_deref()))]
    Scheme { scheme: String, closest: Option<String> },
    /// Put the endpoint into the environment.
    #[error(
        "store `{scheme}://…` is an endpoint; write `s3://bucket/prefix` and set AWS_ENDPOINT to it (and AWS_ALLOW_HTTP=true for http)"
    )]
    Endpoint { scheme: String },
    /// Put the credentials into the environment. The message does not repeat them.
    #[error(
        "the `{scheme}` url of the store has credentials or options in it; give them in the environment \
         (AWS_ACCESS_KEY_ID, GOOGLE_SERVICE_ACCOUNT, AZURE_STORAGE_ACCOUNT_KEY, …)"
    )]
    Credentials { scheme: String },
    /// Name a bucket.
    #[error("store `{text}` names no bucket; write `{scheme}://bucket/prefix`")]
    NoBucket { scheme: String, text: String },
    /// Correct the path.
    #[error("store path `{path}` cannot be used: {reason}")]
    Path { path: String, reason: String },
}

fn did_you_mean(closest: Option<&str>) -> String {
    closest.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}

/// Characters that must be escaped in a file URL.
const IN_A_PATH: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'%').add(b'<').add(b'>').add(b'?').add(b'`').add(b'\\');

impl StoreUrl {
    /// The store in a folder; the path must be absolute. The folder is created when the store is opened.
    pub fn folder(path: &Path) -> Result<Self, StoreUrlError> {
        let shown = path.display().to_string();
        if !path.is_absolute() {
            return Err(StoreUrlError::Relative { text: shown });
        }
        if path.to_str().is_none() {
            return Err(StoreUrlError::Path { path: shown, reason: "it is not in UTF-8".to_owned() });
        }
        if path.components().any(|part| part == Component::ParentDir) {
            return Err(StoreUrlError::Path { path: shown, reason: "`..` is not followed".to_owned() });
        }
        if shown.contains('\0') {
            return Err(StoreUrlError::Path { path: shown, reason: "it has a NUL character".to_owned() });
        }
        // Normalized, so that `/a//b/./c/` and `/a/b/c` are the same store.
        Ok(Self(Place::Folder(path.components().collect())))
    }

    /// Whether it is the memory of this process.
    pub fn is_memory(&self) -> bool {
        matches!(self.0, Place::Memory)
    }

    /// Whether only this machine can reach it, judging by the URL: a folder, or memory.
    pub fn is_local(&self) -> bool {
        matches!(self.0, Place::Folder(_) | Place::Memory)
    }

    pub(crate) fn place(&self) -> &Place {
        &self.0
    }
}

impl Cloud {
    fn scheme(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Google => "gs",
            Self::Azure => "az",
        }
    }

    fn from_scheme(scheme: &str) -> Option<Self> {
        match scheme {
            "s3" | "s3a" => Some(Self::S3),
            "gs" => Some(Self::Google),
            "az" | "azure" | "abfs" | "abfss" => Some(Self::Azure),
            _ => None,
        }
    }
}

impl FromStr for StoreUrl {
    type Err = StoreUrlError;

    fn from_str(text: &str) -> Result<Self, StoreUrlError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(StoreUrlError::Empty);
        }
        if text.starts_with('/') {
            return Self::folder(Path::new(text));
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(StoreUrlError::Relative { text: text.to_owned() });
        };
        let scheme = scheme.to_ascii_lowercase();
        match scheme.as_str() {
            "file" => file(rest),
            "memory" if rest.is_empty() || rest == "/" => Ok(Self(Place::Memory)),
            "memory" => Err(StoreUrlError::Path {
                path: rest.to_owned(),
                reason: "memory has no names; write `memory:///`".to_owned(),
            }),
            "http" | "https" => Err(StoreUrlError::Endpoint { scheme }),
            _ => match Cloud::from_scheme(&scheme) {
                Some(cloud) => bucket(cloud, rest),
                None => Err(unknown(scheme)),
            },
        }
    }
}

fn unknown(scheme: String) -> StoreUrlError {
    let closest = types::did_you_mean(&scheme, ["file", "memory", "s3", "gs", "az"]).map(str::to_owned);
    StoreUrlError::Scheme { scheme, closest }
}

fn file(rest: &str) -> Result<StoreUrl, StoreUrlError> {
    let path = rest.strip_prefix("localhost").unwrap_or(rest);
    if !path.starts_with('/') {
        return Err(StoreUrlError::Path {
            path: rest.to_owned(),
            reason: "a file url has three slashes and an absolute path: `file:///var/lib/coterie`".to_owned(),
        });
    }
    if path.contains(['?', '#']) {
        return Err(StoreUrlError::Path {
            path: path.to_owned(),
            reason: "write `?` as %3F and `#` as %23".to_owned(),
        });
    }
    let decoded = percent_decode_str(path).decode_utf8().map_err(|_| StoreUrlError::Path {
        path: path.to_owned(),
        reason: "it is not in UTF-8".to_owned(),
    })?;
    StoreUrl::folder(Path::new(decoded.as_ref()))
}

fn bucket(cloud: Cloud, rest: &str) -> Result<StoreUrl, StoreUrlError> {
    let scheme = cloud.scheme().to_owned();
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.contains(['@', ':']) || rest.contains(['?', '#']) {
        return Err(StoreUrlError::Credentials { scheme });
    }
    if bucket.trim().is_empty() {
        return Err(StoreUrlError::NoBucket { text: format!("{scheme}://{rest}"), scheme });
    }
    let prefix = prefix.trim_matches('/');
    // A URL is read without the white space around it, so one that ends with some would come back as another.
    for part in [bucket, prefix] {
        if part.trim() != part {
            let reason = "it begins or ends with white space".to_owned();
            return Err(StoreUrlError::Path { path: part.to_owned(), reason });
        }
    }
    object_store::path::Path::parse(prefix)
        .map_err(|error| StoreUrlError::Path { path: prefix.to_owned(), reason: error.to_string() })?;
    Ok(StoreUrl(Place::Bucket { cloud, bucket: bucket.to_owned(), prefix: prefix.to_owned() }))
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Folder(path) => {
                let path = path.to_str().expect("checked when the url was made");
                write!(f, "file://{}", utf8_percent_encode(path, IN_A_PATH))
            }
            Place::Memory => f.write_str("memory:///"),
            Place::Bucket { cloud, bucket, prefix } if prefix.is_empty() => {
                write!(f, "{}://{bucket}", cloud.scheme())
            }
            Place::Bucket { cloud, bucket, prefix } => write!(f, "{}://{bucket}/{prefix}", cloud.scheme()),
        }
    }
}

impl TryFrom<String> for StoreUrl {
    type Error = StoreUrlError;

    fn try_from(text: String) -> Result<Self, StoreUrlError> {
        text.parse()
    }
}

impl From<StoreUrl> for String {
    fn from(url: StoreUrl) -> Self {
        url.to_string()
    }
}

#[cfg(test)]
mod tests;
