//! The specs that all members of a service use, changed by compare-and-set.

use std::collections::BTreeMap;

use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::ObjectMeta;
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use types::api::NumberedSpec;
use types::{ErrorKind, ServiceName, ServiceType, Spec};

use crate::error::StoreError;
use crate::log::{AppendError, Entry, LIMITS, Log, latest_of_each};
use crate::objects::Objects;

/// How many objects are read at once.
const AT_ONCE: usize = 16;

/// The specs of a cluster: a [`Log`] for each service.
#[derive(Debug, Clone)]
pub struct Specs {
    objects: Objects,
}

/// An entry of a service's log.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    #[serde(flatten)]
    spec: Spec,
    /// The service was removed. A later entry is of another service of its name; the numbers continue.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    removed: bool,
}

impl Record {
    fn of(spec: Spec) -> Self {
        Self { spec, removed: false }
    }

    /// The spec, unless the service was removed.
    fn spec(self) -> Option<Spec> {
        (!self.removed).then_some(self.spec)
    }
}

/// Why a spec was not written.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// Read it again and decide again.
    #[error("the spec of `{service}` has changed: it is number {latest} now")]
    Changed {
        /// The service.
        service: ServiceName,
        /// The number of its latest spec; 0 if there is none.
        latest: u64,
    },
    /// Keep the number of shards; another one needs another cluster, or another service.
    #[error(
        "the number of shards of `{service}` is {shards} and cannot become {}: keys would be looked for in other shards",
        .wanted.map_or("unknown".to_owned(), |wanted| wanted.to_string())
    )]
    ShardsFixed {
        /// The service.
        service: ServiceName,
        /// The number that it has.
        shards: u32,
        /// The requested number.
        wanted: Option<u32>,
    },
    /// Keep the type, or give the service another name.
    #[error("the type of `{service}` is `{is}` and cannot become {}", .wanted.as_ref().map_or("unknown".to_owned(), |wanted| format!("`{wanted}`")))]
    TypeFixed {
        /// The service.
        service: ServiceName,
        /// The type that it has.
        is: ServiceType,
        /// The requested type.
        wanted: Option<ServiceType>,
    },
    /// Choose a name that can't be mistaken for the other one.
    #[error("`{service}` differs from the service `{other}` in `-` and `_` alone")]
    Similar {
        /// The service.
        service: ServiceName,
        /// The one that exists already.
        other: ServiceName,
    },
    /// It is not known whether the spec was written; read it again.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl SpecError {
    /// What a caller can do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Changed { .. } => ErrorKind::Changed,
            Self::ShardsFixed { .. } | Self::TypeFixed { .. } | Self::Similar { .. } => ErrorKind::Conflict,
            Self::Store(error) => error.kind(),
        }
    }

    /// What a person can do next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Changed { .. } => {
                Some("read it again, then repeat the change if it is still wanted".to_owned())
            }
            Self::ShardsFixed { shards, .. } => {
                Some(format!("keep `shards: {shards}`, or start a new cluster with another number"))
            }
            Self::TypeFixed { is, .. } => {
                Some(format!("keep `type: {is}`, or give the service of the other type another name"))
            }
            Self::Similar { other, .. } => {
                Some(format!("write `{other}` for the same service, or choose another name"))
            }
            Self::Store(error) => error.hint(),
        }
    }
}

impl Specs {
    pub(crate) fn new(objects: Objects) -> Self {
        Self { objects }
    }

    /// The spec of a service; `None` if none was ever written.
    pub async fn latest(&self, service: &ServiceName) -> Result<Option<NumberedSpec>, StoreError> {
        let latest = self.log(service).latest().await?;
        Ok(latest.and_then(numbered))
    }

    /// The specs of all services. One LIST, and one GET a service.
    ///
    /// A latest spec that can't be understood is an error of that service alone; no earlier one replaces it.
    pub async fn all(&self) -> Result<BTreeMap<ServiceName, Result<NumberedSpec, StoreError>>, StoreError> {
        let logs = latest_of_each(self.objects.list(&root()).await?, &root());
        let types = logs.into_iter().filter_map(|(names, latest)| match names.as_slice() {
            [service] => Some((service.parse::<ServiceName>().ok()?, latest)),
            _ => None,
        });
        let read = |(service, (number, listed)): (ServiceName, (u64, ObjectMeta))| async move {
            let read = async {
                match self.log(&service).latest_since(number, &listed).await? {
                    Some(entry) => Ok(numbered(entry)),
                    // Pruned since the listing, so there is a later one.
                    None => self.latest(&service).await,
                }
            };
            match read.await {
                Ok(found) => Ok(found.map(|spec| (service, Ok(spec)))),
                Err(error) if error.is_of_content() => Ok(Some((service, Err(error)))),
                Err(error) => Err(error),
            }
        };
        let found = stream::iter(types).map(read).buffer_unordered(AT_ONCE);
        found.try_filter_map(async |found| Ok(found)).try_collect().await
    }

    /// Writes spec number `last + 1`, where `last` is the number of the spec last seen (0 for none).
    ///
    /// The number of shards and the type never change once they are written. The first spec of a service is refused if another
    /// service's name differs in `-` and `_` alone.
    pub async fn put(&self, service: &ServiceName, last: u64, spec: &Spec) -> Result<u64, SpecError> {
        let spec = spec.clone().written_for(service);
        let entry = self.log(service).latest().await?;
        // After a removed service the numbers continue, and there is no spec to replace.
        let at = entry.as_ref().map_or(0, |entry| entry.number);
        let before = entry.and_then(numbered);
        let number = before.as_ref().map_or(0, |before| before.number);
        if number != last {
            return Err(SpecError::Changed { service: service.clone(), latest: number });
        }
        match &before {
            Some(before) => check_type(service, &before.spec, &spec)?,
            None => self.check_name(service).await?,
        }
        match before.and_then(|before| before.spec.shards) {
            Some(shards) if spec.shards != Some(shards) => {
                return Err(SpecError::ShardsFixed { service: service.clone(), shards, wanted: spec.shards });
            }
            Some(_) | None => {}
        }
        self.append(service, at, &Record::of(spec)).await
    }

    /// Removes the spec of a service, whose number is `last`. Returns the number of the entry that records the removal.
    pub async fn remove(&self, service: &ServiceName, last: u64) -> Result<u64, SpecError> {
        let before = self.latest(service).await?;
        let number = before.as_ref().map_or(0, |before| before.number);
        if number != last || before.is_none() {
            return Err(SpecError::Changed { service: service.clone(), latest: number });
        }
        self.append(service, last, &Record { spec: Spec::default(), removed: true }).await
    }

    async fn append(&self, service: &ServiceName, after: u64, record: &Record) -> Result<u64, SpecError> {
        self.log(service).append(after, record).await.map_err(|error| match error {
            AppendError::Lost { latest } => SpecError::Changed { service: service.clone(), latest },
            AppendError::Store(error) => SpecError::Store(error),
        })
    }

    /// Fails if another service has a name that differs in `-` and `_` alone.
    async fn check_name(&self, service: &ServiceName) -> Result<(), SpecError> {
        let logs = latest_of_each(self.objects.list(&root()).await?, &root());
        let names = logs.into_keys().filter_map(|names| names.first()?.parse::<ServiceName>().ok());
        for other in names.filter(|name| name != service && name.is_similar(service)) {
            if self.latest(&other).await?.is_some() {
                return Err(SpecError::Similar { service: service.clone(), other });
            }
        }
        Ok(())
    }

    fn log(&self, service: &ServiceName) -> Log<Record> {
        Log::new(self.objects.clone(), root().join(service.as_str()), LIMITS)
    }
}

fn numbered(entry: Entry<Record>) -> Option<NumberedSpec> {
    let Entry { number, value } = entry;
    Some(NumberedSpec { number, spec: value.spec()? })
}

/// Fails if a spec has another type than the one before it.
fn check_type(service: &ServiceName, before: &Spec, spec: &Spec) -> Result<(), SpecError> {
    match (before.type_of(service), spec.type_of(service)) {
        (Some(is), wanted) if wanted.as_ref() != Some(&is) => {
            Err(SpecError::TypeFixed { service: service.clone(), is, wanted })
        }
        _ => Ok(()),
    }
}

fn root() -> Path {
    Path::from("spec")
}

#[cfg(test)]
mod tests;
