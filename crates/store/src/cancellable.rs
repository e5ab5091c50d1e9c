//! An object store whose calls end at once when a token is cancelled.
//!
//! Without it, a store that hangs would keep a service from ending for as long as a library retries its calls.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt, stream};
use object_store::path::Path;
use object_store::{
    Error, GetOptions, GetResult, GetResultPayload, MultipartUpload, ObjectStore, PutMultipartOptions,
    PutPayload, PutResult, Result, UploadPart,
};
use tokio_util::sync::CancellationToken;

use crate::{Access, Layer, Layered};

/// An object store that works until a token is cancelled. After that every call fails with an error that clients do not
/// retry.
///
/// A write that was in progress when the token was cancelled may have been made.
#[derive(Debug)]
pub struct Cancellable {
    inner: Arc<dyn ObjectStore>,
    cancelled: CancellationToken,
    is_read_only: bool,
}

impl Cancellable {
    /// Forwards all calls to `inner` until the token is cancelled.
    pub fn new(inner: Arc<dyn ObjectStore>, cancelled: CancellationToken) -> Layered<Self> {
        Layered::new(Self { inner, cancelled, is_read_only: false })
    }

    /// The same for a caller that must not write, such as a replica: every write fails.
    pub fn read_only(inner: Arc<dyn ObjectStore>, cancelled: CancellationToken) -> Layered<Self> {
        Layered::new(Self { inner, cancelled, is_read_only: true })
    }
}

// Both are errors that clients do not retry.

fn is_cancelled() -> Error {
    Error::NotSupported { source: "the store is no longer used".into() }
}

fn only_read() -> Error {
    Error::NotSupported { source: "the store is only read here".into() }
}

impl Layer for Cancellable {
    fn inner(&self) -> &Arc<dyn ObjectStore> {
        &self.inner
    }

    async fn call<T: Send>(
        &self,
        access: Access,
        _bytes: usize,
        operation: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        if self.is_read_only && access == Access::Write {
            return Err(only_read());
        }
        tokio::select! {
            biased;
            () = self.cancelled.cancelled() => Err(is_cancelled()),
            outcome = operation => outcome,
        }
    }

    fn stream<T: Send + 'static>(
        &self,
        access: Access,
        stream: BoxStream<'static, Result<T>>,
    ) -> BoxStream<'static, Result<T>> {
        if self.is_read_only && access == Access::Write {
            return stream::once(std::future::ready(Err(only_read()))).boxed();
        }
        let token = self.cancelled.clone();
        let end = stream::once(async move { token.is_cancelled().then(|| Err(is_cancelled())) });
        let end = end.filter_map(std::future::ready);
        stream.take_until(self.cancelled.clone().cancelled_owned()).chain(end).boxed()
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let begin = self.inner.put_multipart_opts(location, options);
        let inner = self.call(Access::Write, 0, begin).await?;
        Ok(Box::new(Upload { inner, cancelled: self.cancelled.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let found = self.call(Access::Read, 0, self.inner.get_opts(location, options)).await?;
        let payload = match found.payload {
            GetResultPayload::Stream(body) => GetResultPayload::Stream(self.stream(Access::Read, body)),
            file => file,
        };
        Ok(GetResult { payload, ..found })
    }
}

/// An object that is written in parts.
#[derive(Debug)]
struct Upload {
    inner: Box<dyn MultipartUpload>,
    cancelled: CancellationToken,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (token, part) = (self.cancelled.clone(), self.inner.put_part(data));
        async move { token.run_until_cancelled_owned(part).await.unwrap_or_else(|| Err(is_cancelled())) }
            .boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let completed = self.cancelled.run_until_cancelled(self.inner.complete()).await;
        completed.unwrap_or_else(|| Err(is_cancelled()))
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;
    use tokio::time::timeout;

    use super::*;
    use crate::faults::{Faults, Mode};

    #[tokio::test(start_paused = true)]
    async fn a_call_that_hangs_ends_when_the_token_is_cancelled() {
        let faults = Faults::new(Arc::new(InMemory::new()));
        let path = Path::from("a");
        for is_cancelled_first in [false, true] {
            let token = CancellationToken::new();
            let store = Cancellable::new(faults.objects(), token.clone());
            store.put(&path, "1".into()).await.unwrap();
            assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "1");
            faults.set(Mode::Hang);
            if is_cancelled_first {
                token.cancel();
            }
            let calls = async {
                let (put, get) = tokio::join!(store.put(&path, "2".into()), store.get(&path));
                assert!(matches!(put, Err(Error::NotSupported { .. })), "{put:?}");
                assert!(get.unwrap_err().to_string().contains("no longer used"));
                assert!(store.list(None).next().await.unwrap().is_err());
                assert!(store.delete(&path).await.is_err());
            };
            let cancel = async {
                tokio::time::sleep(Duration::from_secs(5)).await;
                token.cancel();
            };
            let (ended, ()) = tokio::join!(timeout(Duration::from_secs(6), calls), cancel);
            ended.expect("no call outlives the token");
            faults.set(Mode::Work);
        }
    }

    #[tokio::test]
    async fn a_read_only_store_writes_nothing() {
        let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let (path, other) = (Path::from("a"), Path::from("b"));
        inner.put(&path, "1".into()).await.unwrap();
        let store = Cancellable::read_only(Arc::clone(&inner), CancellationToken::new());
        assert!(store.put(&path, "2".into()).await.unwrap_err().to_string().contains("only read"));
        assert!(store.put_multipart(&path).await.is_err());
        assert!(store.copy(&path, &other).await.is_err());
        assert!(store.delete(&path).await.is_err());
        assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "1");
        assert!(store.get(&other).await.is_err());
    }
}
