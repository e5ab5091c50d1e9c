//! How the clients of one listener are verified, by a CA whose file is read again when it changes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::server::danger::ClientCertVerifier;
use tracing::{info, warn};

use super::certificates::Polled;
use super::client_ca::ClientAuth;
use super::watched::{Change, Watched};
use super::{CLIENT_CA_MISSING, CLIENT_CA_REFUSED};
use crate::Health;

/// How clients are verified; not at all without a CA.
#[derive(Debug)]
pub(super) struct Clients(Mutex<Option<Watched<ClientAuth>>>);

/// A CA that was read, and is not used yet.
#[derive(Debug)]
pub(super) struct ReadClients(Option<Watched<ClientAuth>>);

impl Clients {
    /// Nothing is read yet.
    pub(super) fn new(auth: Option<ClientAuth>) -> Self {
        Self(Mutex::new(auth.map(Watched::new)))
    }

    /// Whether clients have to be verified.
    pub(super) fn are_verified(&self) -> bool {
        self.lock().is_some()
    }

    /// Reads the CA if its file has changed. Blocking. `accept_by` is called with the new rules, before anyone else changes
    /// them.
    pub(super) fn poll(&self, listener: &str, accept_by: impl FnOnce(Arc<dyn ClientCertVerifier>)) -> Polled {
        // The file is read without the lock, which connections take, too.
        let Some(mut one) = self.lock().clone() else { return Polled::default() };
        let change = one.poll();
        let mut watched = self.lock();
        match &mut *watched {
            Some(now) if now.files == one.files => *now = one.clone(),
            // It was replaced in the meantime.
            _ => return Polled::default(),
        }
        let ca = one.files.ca.display().to_string();
        match change {
            Change::None => Polled::default(),
            Change::Loaded => {
                info!(listener, ca, "CA for client certificates loaded");
                if let Some(verifier) = &one.parsed {
                    accept_by(Arc::clone(verifier));
                }
                Polled { loaded: 1, failed: 0 }
            }
            Change::Failed => {
                let error = one.trouble.as_deref().unwrap_or_default();
                let keeps_old = one.parsed.is_some();
                warn!(listener, ca, error, keeps_old, "CA for client certificates can't be used");
                Polled { loaded: 0, failed: 1 }
            }
        }
    }

    /// Reads another CA; one that is known keeps its state. Blocking.
    pub(super) fn read(&self, auth: Option<ClientAuth>) -> Result<ReadClients, String> {
        let Some(auth) = auth else { return Ok(ReadClients(None)) };
        let known = self.lock().clone().filter(|known| known.files == auth);
        if known.is_some() {
            return Ok(ReadClients(known));
        }
        let mut one = Watched::new(auth);
        one.poll();
        match one.trouble.clone() {
            Some(trouble) => Err(trouble),
            None => Ok(ReadClients(Some(one))),
        }
    }

    /// Uses what was read. `accept_by` is called with the rules if they are new, with none if clients are not verified any more.
    /// Returns how many CAs are new.
    pub(super) fn replace(
        &self,
        ReadClients(new): ReadClients,
        accept_by: impl FnOnce(Option<Arc<dyn ClientCertVerifier>>),
    ) -> u64 {
        let mut watched = self.lock();
        match (&*watched, &new) {
            (None, None) => return 0,
            // It may have been read again in the meantime.
            (Some(old), Some(new)) if old.files == new.files => return 0,
            (_, Some(Watched { parsed: None, .. })) => return 0,
            (_, Some(Watched { parsed: Some(verifier), .. })) => accept_by(Some(Arc::clone(verifier))),
            (_, None) => accept_by(None),
        }
        let loaded = u64::from(new.is_some());
        *watched = new;
        loaded
    }

    /// The file of the CA, and why it can't be used, if there is none to verify clients by.
    pub(super) fn missing(&self) -> Option<(String, Option<String>)> {
        let watched = self.lock();
        let missing = watched.as_ref().filter(|one| one.parsed.is_none())?;
        Some((missing.files.ca.display().to_string(), missing.trouble.clone()))
    }

    pub(super) fn health(&self, listener: &str) -> Health {
        let watched = self.lock();
        let Some(one) = &*watched else { return Health::Ready };
        let ca = one.files.ca.display();
        match (&one.parsed, &one.trouble) {
            (None, why) => {
                let why = why.as_deref().unwrap_or("it was not read yet");
                let text = format!(
                    "listener `{listener}` refuses every client, as there is no CA to verify it by: {why}"
                );
                Health::degraded(CLIENT_CA_MISSING, text)
            }
            (Some(_), Some(why)) => {
                let text = format!(
                    "listener `{listener}` still verifies clients by what {ca} contained before: {why}"
                );
                Health::degraded(CLIENT_CA_REFUSED, text)
            }
            (Some(_), None) => Health::Ready,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Watched<ClientAuth>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
