//! Errors of a store: the operation, its object, and why it failed.

use std::error::Error;
use std::fmt;
use std::io;

use object_store::client::{HttpError, HttpErrorKind};
use rustix::io::Errno;
use types::ErrorKind;

/// An operation on the store that failed. A failed write may still have been made.
#[derive(Debug)]
pub struct StoreError(Box<Parts>);

#[derive(Debug)]
struct Parts {
    doing: &'static str,
    object: String,
    store: String,
    fault: Fault,
    cause: String,
    source: Option<object_store::Error>,
}

/// Kinds of failures, by their remedy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The store cannot be reached: wait, or check the network and the store.
    Unreachable,
    /// The store did not answer in time: wait, or check the store.
    Timeout,
    /// The store refuses these credentials, or this user.
    Denied,
    /// The store's disk or quota is used up.
    Full,
    /// This process or this machine has no file descriptor left: wait, or raise the limit.
    NoDescriptors,
    /// The store can be read but not written.
    ReadOnly,
    /// There is no such bucket or folder.
    Missing,
    /// The object's content is not what was written.
    Damaged,
    /// The object was written by a newer version, which this one does not fully understand.
    Newer,
    /// The store does not support the operation.
    Unsupported,
    /// Something else; the message has the store's own words.
    Other,
}

impl StoreError {
    /// The failure of an operation on `object` in `store`.
    pub(crate) fn new(doing: &'static str, object: &str, store: &str, source: object_store::Error) -> Self {
        let (fault, cause) = explain(&source);
        let parts = Parts {
            doing,
            object: object.to_owned(),
            store: store.to_owned(),
            fault,
            cause,
            source: Some(source),
        };
        Self(Box::new(parts))
    }

    /// The same where there is no error of the store's own.
    pub(crate) fn of(
        fault: Fault,
        doing: &'static str,
        object: &str,
        store: &str,
        cause: impl Into<String>,
    ) -> Self {
        let parts = Parts {
            doing,
            object: object.to_owned(),
            store: store.to_owned(),
            fault,
            cause: cause.into(),
            source: None,
        };
        Self(Box::new(parts))
    }

    /// The kind of failure.
    pub fn fault(&self) -> Fault {
        self.0.fault
    }

    /// Whether the object itself can't be understood, so that a retry can't help.
    pub fn is_of_content(&self) -> bool {
        matches!(self.0.fault, Fault::Damaged | Fault::Newer)
    }

    /// Why it failed, in a line.
    pub fn cause(&self) -> &str {
        &self.0.cause
    }

    /// What a caller can do.
    pub fn kind(&self) -> ErrorKind {
        match self.0.fault {
            Fault::Timeout => ErrorKind::Timeout,
            Fault::Unreachable
            | Fault::Denied
            | Fault::Full
            | Fault::NoDescriptors
            | Fault::ReadOnly
            | Fault::Missing => ErrorKind::Unavailable,
            Fault::Damaged | Fault::Newer | Fault::Unsupported | Fault::Other => ErrorKind::Internal,
        }
    }

    /// What an operator can do next.
    pub fn hint(&self) -> Option<String> {
        let folder = self.0.store.starts_with("file:");
        let hint = match self.0.fault {
            Fault::Unreachable if folder => "check the disk or the mount of the store's folder",
            Fault::Unreachable => {
                "check the network, the endpoint (AWS_ENDPOINT, AWS_ALLOW_HTTP=true for http) and the store itself"
            }
            Fault::Timeout if folder => "the disk or the mount of the store's folder hangs; check it",
            Fault::Timeout => {
                "the store hangs, or the client finds no credentials; \
                 check the store and AWS_ACCESS_KEY_ID, GOOGLE_SERVICE_ACCOUNT or AZURE_STORAGE_ACCOUNT_KEY"
            }
            Fault::Denied if folder => "give the agent's user the right to read and write the store's folder",
            Fault::Denied => {
                "check the credentials in the environment; they must allow to get, put, delete and list objects"
            }
            Fault::Full => "free some space or raise the quota; the agent then recovers automatically",
            Fault::NoDescriptors => {
                "raise the limit of open files (`ulimit -n`), or use fewer connections; the agent then recovers automatically"
            }
            Fault::ReadOnly => "mount the store's folder for writing, or use another store",
            Fault::Missing if folder => {
                "the store's folder is not there; is it mounted, and is no file in its place?"
            }
            Fault::Missing => "make the bucket first, or correct the store's url; buckets are not made here",
            Fault::Damaged => {
                "inspect the object; restore it from a backup, or remove it if you know its content"
            }
            Fault::Newer => "update this agent to the version of the others",
            Fault::Unsupported | Fault::Other => return None,
        };
        Some(hint.to_owned())
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Parts { doing, object, store, cause, .. } = &*self.0;
        match object.as_str() {
            "" => write!(f, "cannot {doing} {store}: {cause}"),
            object => write!(f, "cannot {doing} `{object}` in {store}: {cause}"),
        }
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source.as_ref().map(|source| source as _)
    }
}

/// Finds the most informative of the nested errors.
fn explain(error: &object_store::Error) -> (Fault, String) {
    let words = innermost_words(error);
    let fault = fault_of(error, &words);
    let cause = match fault {
        Fault::Full => "the disk is full".to_owned(),
        Fault::NoDescriptors => format!("no file descriptor is left ({words})"),
        Fault::ReadOnly => "it is read-only".to_owned(),
        Fault::Missing if words.contains("NoSuchBucket") || words.contains("ContainerNotFound") => {
            format!("there is no such bucket ({words})")
        }
        Fault::Denied => format!("access is denied ({words})"),
        Fault::Unreachable => format!("it cannot be reached ({words})"),
        Fault::Timeout => format!("no answer in time ({words})"),
        Fault::Missing | Fault::Damaged | Fault::Newer | Fault::Unsupported | Fault::Other => words,
    };
    (fault, cause)
}

fn fault_of(error: &object_store::Error, words: &str) -> Fault {
    if is_missing_bucket(error) {
        return Fault::Missing;
    }
    match error {
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
            return Fault::Denied;
        }
        object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. } => {
            return Fault::Unsupported;
        }
        _ => {}
    }
    let chain = || std::iter::successors(Some(error as &(dyn Error + 'static)), |&error| error.source());
    if let Some(fault) = chain().filter_map(|error| error.downcast_ref::<io::Error>()).find_map(io_fault) {
        return fault;
    }
    let http = chain().find_map(|error| error.downcast_ref::<HttpError>()).map(HttpError::kind);
    match http {
        Some(HttpErrorKind::Timeout) => Fault::Timeout,
        Some(
            HttpErrorKind::Connect
            | HttpErrorKind::Request
            | HttpErrorKind::Interrupted
            | HttpErrorKind::Unknown,
        ) => Fault::Unreachable,
        _ if ["503", "502", "504", "500"].iter().any(|status| words.starts_with(status)) => {
            Fault::Unreachable
        }
        _ => Fault::Other,
    }
}

fn io_fault(error: &io::Error) -> Option<Fault> {
    use io::ErrorKind as Io;
    if matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE)) {
        return Some(Fault::NoDescriptors);
    }
    match error.kind() {
        Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => Some(Fault::Full),
        Io::ReadOnlyFilesystem => Some(Fault::ReadOnly),
        Io::PermissionDenied => Some(Fault::Denied),
        Io::TimedOut => Some(Fault::Timeout),
        // Where a folder is expected, the latter two mean that a file is in its place.
        Io::NotFound | Io::NotADirectory | Io::AlreadyExists => Some(Fault::Missing),
        Io::ConnectionRefused
        | Io::ConnectionReset
        | Io::ConnectionAborted
        | Io::NotConnected
        | Io::HostUnreachable
        | Io::NetworkUnreachable
        | Io::NetworkDown
        | Io::BrokenPipe
        | Io::StaleNetworkFileHandle => Some(Fault::Unreachable),
        _ => None,
    }
}

/// Stores answer 404 for a missing bucket as well; it must not count as a missing object.
pub(crate) fn is_missing_bucket(error: &object_store::Error) -> bool {
    match error {
        object_store::Error::NotFound { source, .. } | object_store::Error::Generic { source, .. } => {
            let words = source.to_string();
            ["NoSuchBucket", "ContainerNotFound", "The specified bucket does not exist"]
                .iter()
                .any(|known| words.contains(known))
        }
        _ => false,
    }
}

fn innermost_words(error: &object_store::Error) -> String {
    let mut innermost: &(dyn Error + 'static) = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    one_line(&innermost.to_string())
}

/// A store's answer may be a page of XML or HTML: its code and message are enough.
fn one_line(words: &str) -> String {
    const SHOWN: usize = 300;
    let status = words.strip_prefix("Server returned non-2xx status code: ").unwrap_or(words);
    let head = status.split(['<', '\n', '{']).next().unwrap_or_default().trim().trim_end_matches(':');
    let text = match (tag(words, "Code"), tag(words, "Message")) {
        (Some(code), Some(message)) => format!("{head}: {code}: {message}"),
        (Some(code), None) => format!("{head}: {code}"),
        _ if head.is_empty() => words.to_owned(),
        _ if words.contains('<') => head.to_owned(),
        _ => status.to_owned(),
    };
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

fn tag<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (inner, _) = rest.split_once(&format!("</{name}>"))?;
    Some(inner.trim())
}

#[cfg(test)]
mod tests;
