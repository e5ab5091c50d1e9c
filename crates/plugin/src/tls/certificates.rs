//! The certificates of one listener: read from files, chosen by host name, and read again when the files change.
//!
//! The files are polled, through symbolic links, by device, inode, time of change and length. Watching them would miss
//! the replacement of a folder's link, which is how Kubernetes updates secrets, and every change on a network file
//! system. A pair that can't be used changes nothing: the one before it stays.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::SignatureScheme;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tracing::{info, warn};

use super::ListenerName;
use super::pair::Pair;

/// The largest file that is read, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// The files of a certificate and its key, in PEM. The certificates that sign it follow it in its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The file of the certificate.
    pub cert: PathBuf,
    /// The file of its private key.
    pub key: PathBuf,
}

/// What a certificate says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Its host names, in lower case; `*.example.org` is a wildcard.
    pub names: Vec<String>,
    /// When it expires, in seconds of Unix time, if that can be read.
    pub not_after: Option<i64>,
}

impl CertificateFiles {
    /// Reads both files, as a listener does. Blocking.
    ///
    /// # Errors
    /// In words, if they can't be used.
    pub fn facts(&self) -> Result<CertificateFacts, String> {
        let (cert, key) = (read(&self.cert)?, read(&self.key)?);
        let pair = Pair::parse(&cert, &key).map_err(|error| format!("{}: {error}", self.cert.display()))?;
        Ok(CertificateFacts { names: pair.names, not_after: pair.not_after })
    }
}

/// How one certificate is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CertificateStatus {
    /// Its first host name; without one, the name of its file.
    pub(super) name: String,
    /// When it expires, in seconds of Unix time.
    pub(super) not_after: Option<i64>,
    /// Why its files can't be used.
    pub(super) trouble: Option<String>,
    /// Whether there is a certificate to serve.
    pub(super) is_served: bool,
}

/// Certificates that were read, and are not served yet.
#[derive(Debug)]
pub struct NewCertificates {
    watched: Vec<Watched>,
    /// How many pairs were not served before.
    loaded: u64,
}

/// What a poll found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Polled {
    /// Pairs that are served from now on.
    pub(super) loaded: u64,
    /// Pairs that can't be used.
    pub(super) failed: u64,
}

/// The certificates of one listener.
#[derive(Debug)]
pub(super) struct Certificates {
    listener: ListenerName,
    watched: Mutex<Vec<Watched>>,
    served: ArcSwap<Served>,
}

impl Certificates {
    /// None is read yet.
    pub(super) fn new(listener: ListenerName, files: Vec<CertificateFiles>) -> Self {
        let watched = files.into_iter().map(Watched::new).collect();
        Self { listener, watched: Mutex::new(watched), served: ArcSwap::default() }
    }

    /// Reads files that have changed. Blocking.
    pub(super) fn poll(&self) -> Polled {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let mut polled = Polled::default();
        for one in watched.iter_mut() {
            match one.poll() {
                Change::None => {}
                Change::Loaded => {
                    polled.loaded += 1;
                    let status = one.status();
                    info!(listener = self.listener.now(), cert = %one.files.cert.display(), name = status.name,
                        not_after = status.not_after, "certificate loaded");
                }
                Change::Failed => {
                    polled.failed += 1;
                    let error = one.trouble.as_deref().unwrap_or_default();
                    let keeps_old = one.pair.is_some();
                    warn!(listener = self.listener.now(), cert = %one.files.cert.display(),
                        key = %one.files.key.display(), error, keeps_old, "certificate can't be used");
                }
            }
        }
        if polled != Polled::default() {
            self.served.store(Arc::new(Served::new(&watched)));
        }
        polled
    }

    /// Reads other files; those that are known keep their state. Blocking.
    pub(super) fn read(&self, files: Vec<CertificateFiles>) -> Result<NewCertificates, String> {
        let known = self.watched.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut watched = Vec::new();
        let mut loaded = 0;
        for files in files {
            if let Some(known) = known.iter().find(|known| known.files == files) {
                watched.push(known.clone());
                continue;
            }
            let mut one = Watched::new(files);
            one.poll();
            match &one.trouble {
                Some(trouble) => return Err(trouble.clone()),
                None => loaded += 1,
            }
            watched.push(one);
        }
        Ok(NewCertificates { watched, loaded })
    }

    /// Serves what was read. Returns how many pairs are new.
    pub(super) fn replace(&self, new: NewCertificates) -> u64 {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        *watched = new.watched;
        self.served.store(Arc::new(Served::new(&watched)));
        new.loaded
    }

    /// What a client that asks for a name would get.
    #[cfg(test)]
    pub(super) fn chosen(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        self.served.load().choose(name, &[SignatureScheme::ECDSA_NISTP256_SHA256])
    }

    pub(super) fn statuses(&self) -> Vec<CertificateStatus> {
        self.served.load().statuses.clone()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.served.load().choose(hello.server_name(), hello.signature_schemes())
    }
}

/// What is served: rebuilt whenever a pair changes.
#[derive(Debug, Default)]
struct Served {
    /// By host name. For a wildcard, `*.example.org` is under `.example.org`.
    by_name: BTreeMap<String, Vec<Arc<CertifiedKey>>>,
    /// The first pair.
    default: Option<Arc<CertifiedKey>>,
    statuses: Vec<CertificateStatus>,
}

impl Served {
    fn new(watched: &[Watched]) -> Self {
        let mut by_name: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for pair in watched.iter().filter_map(|one| one.pair.as_ref()) {
            for name in &pair.names {
                let name = name.strip_prefix('*').unwrap_or(name);
                by_name.entry(name.to_owned()).or_default().push(Arc::clone(&pair.key));
            }
        }
        let default = watched.first().and_then(|one| one.pair.as_ref()).map(|pair| Arc::clone(&pair.key));
        Self { by_name, default, statuses: watched.iter().map(Watched::status).collect() }
    }

    /// The certificate for a name: one with exactly this name, else one with a wildcard for it, else the first of all.
    /// Among several for the same name, the first whose key the client understands.
    fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let name = name.map(|name| name.trim_end_matches('.').to_ascii_lowercase()).unwrap_or_default();
        let wildcard = name.find('.').map(|dot| &name[dot..]);
        let named = self.by_name.get(&name).or_else(|| self.by_name.get(wildcard?));
        let fits = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(schemes).is_some();
        match named {
            Some(keys) => keys.iter().find(fits).or_else(|| keys.first()),
            None => self.default.as_ref(),
        }
        .cloned()
    }
}

/// What identifies the state of a file without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    modified: Option<SystemTime>,
    len: u64,
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let about = std::fs::metadata(path).ok()?;
        let (device, inode) = (about.dev(), about.ino());
        Some(Self { device, inode, modified: about.modified().ok(), len: about.len() })
    }
}

enum Change {
    None,
    Loaded,
    Failed,
}

/// One pair of files.
#[derive(Debug, Clone)]
struct Watched {
    files: CertificateFiles,
    stamps: Option<[Stamp; 2]>,
    /// A hash of what the files contained when they were last judged.
    judged: Option<u64>,
    /// The same if it was unusable once. It is judged on the next poll: between the replacement of the certificate and
    /// that of its key, the two do not fit together.
    suspect: Option<u64>,
    pair: Option<Pair>,
    trouble: Option<String>,
}

impl Watched {
    fn new(files: CertificateFiles) -> Self {
        Self { files, stamps: None, judged: None, suspect: None, pair: None, trouble: None }
    }

    fn poll(&mut self) -> Change {
        let stamps =
            Stamp::of(&self.files.cert).zip(Stamp::of(&self.files.key)).map(|(cert, key)| [cert, key]);
        let is_settled = self.trouble.is_none() && self.suspect.is_none() && self.judged.is_some();
        if is_settled && stamps.is_some() && stamps == self.stamps {
            return Change::None;
        }
        self.stamps = stamps;
        let contents = read(&self.files.cert).and_then(|cert| Ok([cert, read(&self.files.key)?]));
        let mut hasher = DefaultHasher::new();
        contents.hash(&mut hasher);
        let hash = hasher.finish();
        if self.judged == Some(hash) {
            self.suspect = None;
            return Change::None;
        }
        match contents.and_then(|[cert, key]| Pair::parse(&cert, &key).map_err(|error| error.to_string())) {
            Ok(pair) => {
                let (pair, judged) = (Some(pair), Some(hash));
                (self.pair, self.judged, self.suspect, self.trouble) = (pair, judged, None, None);
                Change::Loaded
            }
            Err(_) if self.pair.is_some() && self.suspect != Some(hash) => {
                self.suspect = Some(hash);
                Change::None
            }
            Err(error) => {
                (self.judged, self.suspect, self.trouble) = (Some(hash), None, Some(error));
                Change::Failed
            }
        }
    }

    fn status(&self) -> CertificateStatus {
        let of_file = || self.files.cert.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = self.pair.as_ref().and_then(|pair| pair.names.first().cloned());
        CertificateStatus {
            name: name.or_else(of_file).unwrap_or_default(),
            not_after: self.pair.as_ref().and_then(|pair| pair.not_after),
            trouble: self.trouble.clone(),
            is_served: self.pair.is_some(),
        }
    }
}

/// The contents of a regular file of moderate size.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("{} can't be read: {error}", path.display());
    let about = std::fs::metadata(path).map_err(failed)?;
    if !about.is_file() {
        return Err(format!("{} is not a file", path.display()));
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(format!("{} has more than {MAX_FILE} bytes", path.display()));
    }
    Ok(bytes)
}
