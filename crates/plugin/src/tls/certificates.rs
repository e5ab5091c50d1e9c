//! The certificates of one listener: read from files, chosen by host name, and read again when the files change. A pair that
//! can't be used changes nothing: the one before it stays.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::SignatureScheme;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tracing::{info, warn};

use super::ListenerName;
use super::pair::Pair;
use super::watched::{Change, Files, Watched, read};

/// The files of a certificate and its key, in PEM. The certificates that sign it follow it in its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The file of the certificate.
    pub cert: PathBuf,
    /// The file of its private key.
    pub key: PathBuf,
}

/// The host names in a certificate, in lower case; `*.example.org` is a wildcard. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateNames(Arc<[String]>);

impl CertificateNames {
    /// Whether one of them is that of a host, which is in lower case. A wildcard stands for one label (RFC 6125, section
    /// 6.4.3).
    pub fn cover(&self, host: &str) -> bool {
        let below = wildcard_of(host);
        let is_it = |name: &String| name == host || (below.is_some() && name.strip_prefix('*') == below);
        self.0.iter().any(is_it)
    }
}

impl From<Vec<String>> for CertificateNames {
    fn from(names: Vec<String>) -> Self {
        Self(names.into())
    }
}

/// What follows the first label of a host name, for which a wildcard may stand: `.example.org`.
fn wildcard_of(host: &str) -> Option<&str> {
    host.find('.').filter(|dot| *dot > 0).map(|dot| &host[dot..])
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
pub(super) struct ReadCertificates {
    watched: Vec<Watched<CertificateFiles>>,
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
    watched: Mutex<Vec<Watched<CertificateFiles>>>,
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
                    let keeps_old = one.parsed.is_some();
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
    pub(super) fn read(&self, files: Vec<CertificateFiles>) -> Result<ReadCertificates, String> {
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
        Ok(ReadCertificates { watched, loaded })
    }

    /// Serves what was read. Returns how many pairs are new.
    pub(super) fn replace(&self, new: ReadCertificates) -> u64 {
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

    /// The names of the certificate that a client gets who asks for a host; `None` if that is the default one, which is served
    /// for want of a better one.
    pub(super) fn names_for(&self, host: &str) -> Option<CertificateNames> {
        self.served.load().named(host).map(|named| named.names.clone())
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
    by_name: BTreeMap<String, Named>,
    /// The first pair.
    default: Option<Arc<CertifiedKey>>,
    statuses: Vec<CertificateStatus>,
}

/// The pairs for a host name.
#[derive(Debug)]
struct Named {
    keys: Vec<Arc<CertifiedKey>>,
    /// All names of these.
    names: CertificateNames,
}

impl Served {
    fn new(watched: &[Watched<CertificateFiles>]) -> Self {
        let mut by_name: BTreeMap<String, Named> = BTreeMap::new();
        for pair in watched.iter().filter_map(|one| one.parsed.as_ref()) {
            let names = CertificateNames::from(pair.names.clone());
            for name in &pair.names {
                let name = name.strip_prefix('*').unwrap_or(name);
                let named = by_name
                    .entry(name.to_owned())
                    .or_insert_with(|| Named { keys: Vec::new(), names: names.clone() });
                if !named.keys.is_empty() && named.names != names {
                    named.names = [&named.names.0[..], &names.0].concat().into();
                }
                named.keys.push(Arc::clone(&pair.key));
            }
        }
        let default = watched.first().and_then(|one| one.parsed.as_ref()).map(|pair| Arc::clone(&pair.key));
        Self { by_name, default, statuses: watched.iter().map(Watched::status).collect() }
    }

    /// The certificate for a name: one with exactly this name, else one with a wildcard for it, else the first of all.
    /// Among several for the same name, the first whose key the client understands.
    fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let fits = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(schemes).is_some();
        match self.named(name.unwrap_or_default()) {
            Some(Named { keys, .. }) => keys.iter().find(fits).or_else(|| keys.first()),
            None => self.default.as_ref(),
        }
        .cloned()
    }

    /// The pairs for a name: those with exactly this one, else those with a wildcard for it.
    fn named(&self, name: &str) -> Option<&Named> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        self.by_name.get(&name).or_else(|| self.by_name.get(wildcard_of(&name)?))
    }
}

impl Files for CertificateFiles {
    type Parsed = Pair;

    fn paths(&self) -> Vec<&Path> {
        vec![&self.cert, &self.key]
    }

    fn parse(&self, contents: &[Vec<u8>]) -> Result<Pair, String> {
        let [cert, key] = contents else { return Err("a certificate has two files".to_owned()) };
        Pair::parse(cert, key).map_err(|error| error.to_string())
    }
}

impl Watched<CertificateFiles> {
    fn status(&self) -> CertificateStatus {
        let of_file = || self.files.cert.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = self.parsed.as_ref().and_then(|pair| pair.names.first().cloned());
        CertificateStatus {
            name: name.or_else(of_file).unwrap_or_default(),
            not_after: self.parsed.as_ref().and_then(|pair| pair.not_after),
            trouble: self.trouble.clone(),
            is_served: self.parsed.is_some(),
        }
    }
}
