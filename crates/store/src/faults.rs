//! A store that fails on demand, for tests of this crate, of services and of the runtime.
//!
//! It wraps another store. While it runs, a test can make it refuse writes, be unreachable, hang, be slow, ignore
//! `If-None-Match`, or hold the next operation until the test resumes it.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::{oneshot, watch};

/// A store with faults; clones share them.
#[derive(Clone)]
pub struct Faults {
    inner: Arc<dyn ObjectStore>,
    mode: Arc<watch::Sender<Mode>>,
    switches: Arc<Mutex<Switches>>,
}

#[derive(Default)]
struct Switches {
    ignore_create: bool,
    repeat_create: bool,
    busy_creates: usize,
    delay: Duration,
    hidden: BTreeSet<Path>,
    refused: BTreeSet<String>,
    holds: Vec<Hold>,
}

/// How the store treats operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// It performs them.
    #[default]
    Work,
    /// It performs reads; writes and deletes fail: `StorageFull`, `ReadOnlyFilesystem`, `PermissionDenied`.
    FailWrites(io::ErrorKind),
    /// They fail as on a store that cannot be reached.
    Unreachable,
    /// They wait until the mode changes.
    Hang,
}

/// Kinds of operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Reading an object.
    Get,
    /// Writing an object, replacing another of that name.
    Put,
    /// Writing an object unless there is one.
    Create,
    /// Deleting an object.
    Delete,
    /// Listing.
    List,
}

/// On which side of the store an operation is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// It has not reached the store.
    Before,
    /// The store has performed it, but not answered yet.
    After,
}

struct Hold {
    /// `None` for any operation.
    op: Option<Op>,
    when: When,
    /// How many operations pass before.
    skip: usize,
    reached: oneshot::Sender<()>,
    go: oneshot::Receiver<()>,
}

/// Holds the next operation of a kind; dropping it resumes the operation.
#[derive(Debug)]
#[must_use]
pub struct Pause {
    reached: Option<oneshot::Receiver<()>>,
    go: oneshot::Sender<()>,
}

impl Pause {
    /// Waits until an operation is held.
    pub async fn reached(&mut self) {
        if let Some(reached) = self.reached.take() {
            reached.await.ok();
        }
    }

    /// Resumes the operation.
    pub fn resume(self) {
        self.go.send(()).ok();
    }
}

impl Faults {
    /// A store that works like `inner` until a fault is set.
    pub fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self { inner, mode: Arc::default(), switches: Arc::default() }
    }

    /// The same as a store.
    pub fn objects(&self) -> Arc<dyn ObjectStore> {
        Arc::new(self.clone())
    }

    /// Sets the mode for operations from now on, and for those that hang.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Whether a create overwrites, as on a store that ignores `If-None-Match`.
    pub fn ignore_create(&self, ignore: bool) {
        self.switches().ignore_create = ignore;
    }

    /// Whether each create is sent twice and the second answer returned, as by a client that lost the first.
    pub fn repeat_create(&self, repeat: bool) {
        self.switches().repeat_create = repeat;
    }

    /// Refuses the next creates as if the object were there, as S3 does while others are writing it.
    pub fn refuse_creates(&self, count: usize) {
        self.switches().busy_creates = count;
    }

    /// Delays each operation.
    pub fn delay(&self, delay: Duration) {
        self.switches().delay = delay;
    }

    /// Refuses to write objects that have one of these as a part of their path, as on a store whose rules forbid it.
    pub fn refuse<'a>(&self, parts: impl IntoIterator<Item = &'a str>) {
        self.switches().refused = parts.into_iter().map(str::to_owned).collect();
    }

    /// Leaves these objects out of listings, as may happen when a folder is listed while they are made. They can be read.
    pub fn hide(&self, objects: impl IntoIterator<Item = Path>) {
        self.switches().hidden = objects.into_iter().collect();
    }

    /// Holds the next operation of this kind, before or after it is performed.
    pub fn pause_next(&self, op: Op, when: When) -> Pause {
        self.pause(Some(op), when, 0)
    }

    /// Holds an operation of any kind, once `others` operations have passed.
    pub fn pause_after(&self, others: usize, when: When) -> Pause {
        self.pause(None, when, others)
    }

    fn pause(&self, op: Option<Op>, when: When, skip: usize) -> Pause {
        let (reached, is_reached) = oneshot::channel();
        let (go, may_go) = oneshot::channel();
        self.switches().holds.push(Hold { op, when, skip, reached, go: may_go });
        Pause { reached: Some(is_reached), go }
    }

    fn switches(&self) -> MutexGuard<'_, Switches> {
        self.switches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn before(&self, op: Op) -> Result<()> {
        let delay = self.switches().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        self.held(op, When::Before).await;
        let mode = *self
            .mode
            .subscribe()
            .wait_for(|mode| *mode != Mode::Hang)
            .await
            .expect("the sender is in `self`");
        match mode {
            Mode::Work | Mode::Hang => Ok(()),
            Mode::FailWrites(kind) => match op {
                Op::Put | Op::Create | Op::Delete => Err(failed(kind)),
                Op::Get | Op::List => Ok(()),
            },
            Mode::Unreachable => Err(failed(io::ErrorKind::ConnectionRefused)),
        }
    }

    /// Fails if objects with this path can't be written.
    fn writable(&self, location: &Path) -> Result<()> {
        let switches = self.switches();
        let is_refused = location.parts().any(|part| switches.refused.contains(part.as_ref()));
        if is_refused { Err(failed(io::ErrorKind::PermissionDenied)) } else { Ok(()) }
    }

    async fn held(&self, op: Op, when: When) {
        let hold = {
            let mut switches = self.switches();
            let is_meant = |hold: &Hold| hold.when == when && hold.op.is_none_or(|wanted| wanted == op);
            let found = switches.holds.iter().position(|hold| is_meant(hold) && hold.skip == 0);
            for hold in switches.holds.iter_mut().filter(|hold| is_meant(hold)) {
                hold.skip = hold.skip.saturating_sub(1);
            }
            found.map(|at| switches.holds.remove(at))
        };
        if let Some(hold) = hold {
            hold.reached.send(()).ok();
            hold.go.await.ok();
        }
    }

    async fn around<T>(&self, op: Op, operation: impl Future<Output = Result<T>>) -> Result<T> {
        self.before(op).await?;
        let done = operation.await;
        self.held(op, When::After).await;
        done
    }

    fn listed(
        &self,
        list: impl FnOnce(&dyn ObjectStore) -> BoxStream<'static, Result<ObjectMeta>> + Send + 'static,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let this = self.clone();
        let whole = async move {
            let mut all: Vec<ObjectMeta> =
                this.around(Op::List, async { list(&this.inner).try_collect().await }).await?;
            all.retain(|object| !this.switches().hidden.contains(&object.location));
            Ok::<_, object_store::Error>(stream::iter(all).map(Ok))
        };
        stream::once(whole).try_flatten().boxed()
    }
}

fn failed(kind: io::ErrorKind) -> object_store::Error {
    object_store::Error::Generic { store: "Faults", source: Box::new(io::Error::from(kind)) }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults").field("inner", &self.inner).field("mode", &*self.mode.borrow()).finish()
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Faults({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Faults {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        mut opts: PutOptions,
    ) -> Result<PutResult> {
        self.writable(location)?;
        let op = if opts.mode == PutMode::Create { Op::Create } else { Op::Put };
        if op == Op::Put {
            return self.around(op, self.inner.put_opts(location, payload, opts)).await;
        }
        let (repeat, busy) = {
            let mut switches = self.switches();
            if switches.ignore_create {
                opts.mode = PutMode::Overwrite;
            }
            let busy = switches.busy_creates > 0;
            switches.busy_creates = switches.busy_creates.saturating_sub(1);
            (switches.repeat_create, busy)
        };
        let create = async {
            if busy {
                let source = "409 Conflict".into();
                return Err(object_store::Error::AlreadyExists { path: location.to_string(), source });
            }
            if repeat {
                self.inner.put_opts(location, payload.clone(), opts.clone()).await?;
            }
            self.inner.put_opts(location, payload, opts).await
        };
        self.around(op, create).await
    }

    /// Fails or waits when it begins; its parts are not affected.
    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.writable(location)?;
        self.around(Op::Put, self.inner.put_multipart_opts(location, opts)).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.around(Op::Get, self.inner.get_opts(location, options)).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        let delete = move |location: Path| {
            let this = this.clone();
            async move {
                this.around(Op::Delete, this.inner.delete(&location)).await?;
                Ok(location)
            }
        };
        locations.and_then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let prefix = prefix.cloned();
        self.listed(move |inner| inner.list(prefix.as_ref()))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let (prefix, offset) = (prefix.cloned(), offset.clone());
        self.listed(move |inner| inner.list_with_offset(prefix.as_ref(), &offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.around(Op::List, self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.around(Op::Put, self.inner.copy_opts(from, to, options)).await
    }
}

#[cfg(test)]
mod tests;
