//! Makes the client of a store from its URL and the environment variables passed to it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ObjectStore, RetryConfig};

use crate::objects::LIMIT;
use crate::url::{Cloud, Place, StoreUrl};

/// Environment variables, by name.
pub(crate) type Environment = BTreeMap<String, String>;

/// The client of the store at `url`; names are relative to the URL's path. Sends no request to a store on the
/// network yet, but creates a folder.
pub(crate) async fn connect(
    url: &StoreUrl,
    environment: &Environment,
) -> object_store::Result<Arc<dyn ObjectStore>> {
    match url.place() {
        Place::Folder(path) => {
            let path = path.clone();
            let made = tokio::task::spawn_blocking(move || folder(&path)).await?;
            Ok(Arc::new(made?))
        }
        Place::Memory => Ok(Arc::new(InMemory::new())),
        Place::Bucket { cloud, bucket, prefix } => {
            // The clients' TLS uses ring; an error means that the process has already chosen a provider.
            let _ = rustls::crypto::ring::default_provider().install_default();
            let client: Arc<dyn ObjectStore> = match cloud {
                Cloud::S3 => Arc::new(s3(bucket, environment)?),
                Cloud::Google => Arc::new(google(bucket, environment)?),
                Cloud::Azure => Arc::new(azure(bucket, environment)?),
            };
            let prefix = Path::parse(prefix)?;
            Ok(if prefix.is_root() { client } else { Arc::new(PrefixStore::new(client, prefix)) })
        }
    }
}

/// A folder whose writes are on the disk, names included, when they are acknowledged.
///
/// With fsync, `LocalFileSystem` syncs a written file, its folder and the folders it made for it. The folders down to
/// the root of the store remain to be synced here.
fn folder(path: &FilePath) -> object_store::Result<LocalFileSystem> {
    create_synced(path).map_err(|source| object_store::Error::Generic {
        store: "LocalFileSystem",
        source: Box::new(source),
    })?;
    Ok(LocalFileSystem::new_with_prefix(path)?.with_fsync(true))
}

fn create_synced(path: &FilePath) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let new: Vec<_> = path.ancestors().take_while(|folder| !folder.exists()).collect();
    fs::create_dir_all(path)?;
    for parent in new.into_iter().filter_map(FilePath::parent) {
        fs::File::open(parent)?.sync_all()?;
    }
    Ok(())
}

/// A client stops retrying when the caller stops waiting.
fn retry() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(50),
            max_backoff: Duration::from_secs(2),
            base: 2.,
        },
        max_retries: 6,
        retry_timeout: LIMIT,
    }
}

/// The variables whose name begins with `prefix`, with keys of the store's own kind.
fn keys<K: std::str::FromStr>(environment: &Environment, prefix: &str) -> Vec<(K, String)> {
    environment
        .iter()
        .filter(|(name, _)| name.starts_with(prefix))
        .filter_map(|(name, value)| Some((name.to_ascii_lowercase().parse().ok()?, value.clone())))
        .collect()
}

fn s3(bucket: &str, environment: &Environment) -> object_store::Result<object_store::aws::AmazonS3> {
    keys::<AmazonS3ConfigKey>(environment, "AWS_")
        .into_iter()
        .fold(AmazonS3Builder::new(), |builder, (key, value)| builder.with_config(key, value))
        .with_bucket_name(bucket)
        // All claims depend on it, so it cannot be switched off.
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_retry(retry())
        .build()
}

fn google(
    bucket: &str,
    environment: &Environment,
) -> object_store::Result<object_store::gcp::GoogleCloudStorage> {
    let account = environment.get("SERVICE_ACCOUNT");
    let builder = GoogleCloudStorageBuilder::new();
    let builder = match account {
        Some(path) => builder.with_service_account_path(path),
        None => builder,
    };
    keys::<GoogleConfigKey>(environment, "GOOGLE_")
        .into_iter()
        .fold(builder, |builder, (key, value)| builder.with_config(key, value))
        .with_bucket_name(bucket)
        .with_retry(retry())
        .build()
}

fn azure(
    container: &str,
    environment: &Environment,
) -> object_store::Result<object_store::azure::MicrosoftAzure> {
    let builder = MicrosoftAzureBuilder::new();
    let builder = match environment.get("IDENTITY_ENDPOINT") {
        Some(endpoint) => builder.with_msi_endpoint(endpoint),
        None => builder,
    };
    keys::<AzureConfigKey>(environment, "AZURE_")
        .into_iter()
        .fold(builder, |builder, (key, value)| builder.with_config(key, value))
        .with_container_name(container)
        .with_retry(retry())
        .build()
}
