//! What all members of a service type run with, settled by compare-and-set.

use std::collections::BTreeMap;

use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::ObjectMeta;
use object_store::path::Path;
use types::api::NumberedSpec;
use types::{ErrorKind, ServiceType, Spec};

use crate::error::StoreError;
use crate::log::{AppendError, LIMITS, Log, latest_of_each};
use crate::objects::Objects;

/// How many objects are read at once.
const AT_ONCE: usize = 16;

/// The specs of a cluster: a [`Log`] for each service type.
#[derive(Debug, Clone)]
pub struct Specs {
    objects: Objects,
}

/// Why a spec was not written.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// Read it again and decide anew.
    #[error("the spec of `{service}` has changed: it is number {latest} now")]
    Changed {
        /// The service type.
        service: ServiceType,
        /// The number of its latest spec; 0 if there is none.
        latest: u64,
    },
    /// Keep the number of shards; another one needs another cluster, or another service type.
    #[error(
        "the number of shards of `{service}` is {shards} and cannot become {}: keys would be looked for in other shards",
        .wanted.map_or("unknown".to_owned(), |wanted| wanted.to_string())
    )]
    ShardsFixed {
        /// The service type.
        service: ServiceType,
        /// What is settled.
        shards: u32,
        /// What was asked for.
        wanted: Option<u32>,
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
            Self::ShardsFixed { .. } => ErrorKind::Conflict,
            Self::Store(error) => error.kind(),
        }
    }

    /// What a person can do next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Changed { .. } => {
                Some("look at it again, then repeat the change if it is still wanted".to_owned())
            }
            Self::ShardsFixed { shards, .. } => {
                Some(format!("keep `shards: {shards}`, or start a new cluster with another number"))
            }
            Self::Store(error) => error.hint(),
        }
    }
}

impl Specs {
    pub(crate) fn new(objects: Objects) -> Self {
        Self { objects }
    }

    /// The spec of a service type; `None` if none was ever written.
    pub async fn latest(&self, service: &ServiceType) -> Result<Option<NumberedSpec>, StoreError> {
        let latest = self.log(service).latest().await?;
        Ok(latest.map(|entry| NumberedSpec { number: entry.number, spec: entry.value }))
    }

    /// The specs of all service types. One LIST, and one GET a type.
    ///
    /// A latest spec that can't be understood is an error of that type alone; no earlier one stands for it.
    pub async fn all(&self) -> Result<BTreeMap<ServiceType, Result<NumberedSpec, StoreError>>, StoreError> {
        let logs = latest_of_each(self.objects.list(&root()).await?, &root());
        let types = logs.into_iter().filter_map(|(names, latest)| match names.as_slice() {
            [service] => Some((service.parse::<ServiceType>().ok()?, latest)),
            _ => None,
        });
        let read = |(service, (number, listed)): (ServiceType, (u64, ObjectMeta))| async move {
            let read = async {
                match self.log(&service).latest_since(number, &listed).await? {
                    Some(entry) => Ok(Some(NumberedSpec { number: entry.number, spec: entry.value })),
                    // pruned since the list: so there is a later one
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
    /// The number of shards never changes once one is written.
    pub async fn put(&self, service: &ServiceType, last: u64, spec: &Spec) -> Result<u64, SpecError> {
        let before = self.latest(service).await?;
        let number = before.as_ref().map_or(0, |before| before.number);
        if number != last {
            return Err(SpecError::Changed { service: service.clone(), latest: number });
        }
        match before.and_then(|before| before.spec.shards) {
            Some(shards) if spec.shards != Some(shards) => {
                return Err(SpecError::ShardsFixed { service: service.clone(), shards, wanted: spec.shards });
            }
            Some(_) | None => {}
        }
        self.log(service).append(last, spec).await.map_err(|error| match error {
            AppendError::Lost { latest } => SpecError::Changed { service: service.clone(), latest },
            AppendError::Store(error) => SpecError::Store(error),
        })
    }

    fn log(&self, service: &ServiceType) -> Log<Spec> {
        Log::new(self.objects.clone(), root().join(service.as_str()), LIMITS)
    }
}

fn root() -> Path {
    Path::from("spec")
}

#[cfg(test)]
mod tests;
