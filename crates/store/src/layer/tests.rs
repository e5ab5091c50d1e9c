use std::sync::Mutex;

use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;

use super::*;

/// Notes what goes through it.
#[derive(Debug)]
struct Noting {
    inner: Arc<dyn ObjectStore>,
    seen: Arc<Mutex<Vec<(Access, usize)>>>,
}

impl Layer for Noting {
    fn inner(&self) -> &Arc<dyn ObjectStore> {
        &self.inner
    }

    async fn call<T: Send>(
        &self,
        access: Access,
        bytes: usize,
        operation: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        self.seen.lock().unwrap().push((access, bytes));
        operation.await
    }

    fn stream<T: Send + 'static>(
        &self,
        access: Access,
        stream: BoxStream<'static, Result<T>>,
    ) -> BoxStream<'static, Result<T>> {
        self.seen.lock().unwrap().push((access, 0));
        stream
    }
}

/// Changes nothing.
#[derive(Debug)]
struct Plain(Arc<dyn ObjectStore>);

impl Layer for Plain {
    fn inner(&self) -> &Arc<dyn ObjectStore> {
        &self.0
    }
}

/// Does each operation once. The results show that each was done.
async fn use_all(store: &impl ObjectStore) {
    let (a, b, c) = (Path::from("a"), Path::from("f/b"), Path::from("c"));
    store.put(&a, "12345".into()).await.unwrap();
    let mut upload = store.put_multipart(&b).await.unwrap();
    upload.put_part("678".into()).await.unwrap();
    upload.complete().await.unwrap();
    assert_eq!(store.get(&a).await.unwrap().bytes().await.unwrap(), "12345");
    assert_eq!(store.get_ranges(&a, &[0..1, 2..5]).await.unwrap(), ["1", "345"]);
    store.copy(&a, &c).await.unwrap();
    let names = |objects: Vec<ObjectMeta>| {
        objects.into_iter().map(|object| object.location.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(store.list(None).try_collect().await.unwrap()), ["a", "c", "f/b"]);
    assert_eq!(names(store.list_with_offset(None, &a).try_collect().await.unwrap()), ["c", "f/b"]);
    let listed = store.list_with_delimiter(None).await.unwrap();
    assert_eq!(
        (names(listed.objects), listed.common_prefixes),
        (vec!["a".into(), "c".into()], vec!["f".into()])
    );
    let gone: Vec<_> =
        store.delete_stream(stream::iter([Ok(c.clone())]).boxed()).try_collect().await.unwrap();
    assert_eq!(gone, std::slice::from_ref(&c));
    assert!(store.get(&c).await.is_err());
}

#[tokio::test]
async fn a_layer_passes_on_what_it_does_not_change() {
    let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let store = Layered::new(Plain(Arc::clone(&inner)));
    use_all(&store).await;
    assert_eq!(store.to_string(), inner.to_string());
}

#[tokio::test]
async fn every_operation_goes_through_the_hooks() {
    let seen = Arc::default();
    let store = Layered::new(Noting { inner: Arc::new(InMemory::new()), seen: Arc::clone(&seen) });
    use_all(&store).await;
    let (read, write) = (Access::Read, Access::Write);
    let expected = [
        (write, 5),
        (write, 0),
        (read, 0),
        (read, 4),
        (write, 0),
        (read, 0),
        (read, 0),
        (read, 0),
        (write, 0),
        (read, 0),
    ];
    assert_eq!(*seen.lock().unwrap(), expected);
}
