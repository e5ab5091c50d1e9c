//! The way of one connection: who it is from, whether it may come in, where it goes, and the copying.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use plugin::InFlightGuard;
use plugin::check::{is_our_own, why};
use plugin::proxy_protocol::{self, Proxied, ProxyHeaderError};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::access_log::Entry;
use crate::admission::Permit;
use crate::hello::{self, HelloError};
use crate::listener::Listener;
use crate::plan::Forward;
use crate::pool::{Lease, Pool};
use crate::refusal::Refusal;
use crate::relay::{End, relay, reset};
use plugin::{ClientGuard, ClientKey};

/// How long a connection may take to say what it is: a PROXY protocol header and a TLS hello, counted from its begin.
const INTRODUCTION: Duration = Duration::from_secs(5);
/// After how long without bytes the system asks whether the peer is still there, and how often until it gives up.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(20);
const KEEP_ALIVE_TIMES: u32 = 3;

/// A connection that has a backend. What it holds is free again when this is dropped.
struct Forwarded {
    backend: TcpStream,
    lease: Lease,
    _permit: Permit,
    _client: Option<ClientGuard>,
}

/// Serves a connection until it ends.
pub(crate) async fn serve(
    listener: Arc<Listener>,
    mut client: TcpStream,
    peer: SocketAddr,
    stopping: CancellationToken,
    _in_flight: InFlightGuard,
) {
    prepare(&client);
    let began = Instant::now();
    let mut entry = Entry::begin(&listener, peer, began);
    let forwarding = tokio::select! {
        biased;
        () = stopping.cancelled() => Err(Refusal::Stopped),
        outcome = forward(&listener, &mut client, peer, began, &mut entry) => outcome,
    };
    let mut forwarded = match forwarding {
        Ok(forwarded) => forwarded,
        Err(refusal) => {
            listener.lasting.meters.refused(refusal);
            entry.refused(refusal);
            debug!(listener = listener.name, %peer, reason = refusal.as_str(), "closed a connection");
            reset(&client);
            return;
        }
    };
    let _active = listener.lasting.meters.forwarded();
    let cut = async {
        tokio::select! {
            biased;
            () = stopping.cancelled() => {}
            () = forwarded.lease.cut.cancelled() => {}
        }
    };
    let Forward { idle, splice, .. } = listener.forward;
    let traffic = [&listener.lasting.meters.traffic, &entry.traffic];
    let end = relay(&mut client, &mut forwarded.backend, idle, splice, traffic, cut).await;
    entry.ended(end);
    let address = forwarded.lease.address;
    debug!(listener = listener.name, %peer, backend = %address, ?end, took = ?began.elapsed(), "a connection ended");
    match end {
        End::Cut => listener.lasting.meters.cut(),
        End::Closed | End::ClientReset | End::BackendReset | End::Idle => {}
    }
}

/// Small pieces must not wait for acknowledgements, and a peer that has vanished is noticed. If this fails, it only costs
/// time.
fn prepare(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let keep_alive = TcpKeepalive::new()
        .with_time(KEEP_ALIVE)
        .with_interval(KEEP_ALIVE_EVERY)
        .with_retries(KEEP_ALIVE_TIMES);
    let _ = SockRef::from(stream).set_tcp_keepalive(&keep_alive);
}

/// Finds a backend for a connection and connects to it.
async fn forward(
    listener: &Listener,
    client: &mut TcpStream,
    peer: SocketAddr,
    began: Instant,
    entry: &mut Entry<'_>,
) -> Result<Forwarded, Refusal> {
    let introduced_by = began + INTRODUCTION;
    let proxied = match &listener.trust {
        None => None,
        Some(trust) => {
            let received = timeout_at(introduced_by, proxy_protocol::receive(client, peer, trust)).await;
            let received = received.unwrap_or(Err(ProxyHeaderError::TooSlow(INTRODUCTION)));
            received.map_err(|error| {
                listener.lasting.meters.accepting.log_proxy_refusal(&listener.name, peer, &error);
                match error {
                    ProxyHeaderError::Broken(_) => Refusal::ClientGone,
                    ProxyHeaderError::NotTrusted(_)
                    | ProxyHeaderError::Missing
                    | ProxyHeaderError::Malformed
                    | ProxyHeaderError::TooLong { .. }
                    | ProxyHeaderError::TooSlow(_) => Refusal::ProxyProtocol,
                }
            })?
        }
    };
    let source = proxied.map_or(peer, |proxied| proxied.source);
    entry.client(source.ip());
    let key = ClientKey::from(source.ip());
    let counted = listener.lasting.admission.client(key)?;
    let mut first = Vec::new();
    let pool = match &listener.names {
        None => listener.pools.first(),
        Some(names) => {
            let hello = hello::read(client, introduced_by).await.map_err(|error| {
                debug!(listener = listener.name, %peer, %error, "refused a connection");
                match error {
                    HelloError::Broken(_) => Refusal::ClientGone,
                    HelloError::NotTls
                    | HelloError::Malformed
                    | HelloError::TooLong
                    | HelloError::TooSlow => Refusal::Hello,
                }
            })?;
            entry.sni(hello.name.as_deref());
            first = hello.bytes;
            let target = hello.name.as_deref().and_then(|name| names.find(name));
            target.and_then(|target| listener.pools.get(target))
        }
    };
    let pool = pool.ok_or(Refusal::UnknownName)?;
    entry.target(pool);
    let mut wait = listener.lasting.admission.wait();
    let found = async {
        let permit = listener.lasting.admission.permit(&mut wait).await?;
        let lease = pool.acquire(key, &[], &mut wait).await?;
        Ok((permit, lease))
    };
    let found = tokio::select! {
        biased;
        found = found => found,
        // A client that resets its connection waits for nothing any more.
        _ = client.ready(Interest::ERROR) => Err(Refusal::ClientGone),
    };
    listener.lasting.meters.waited(wait.began());
    entry.waited(wait.began());
    let (permit, lease) = found?;
    wait.end();
    if let Some(version) = listener.forward.send {
        let destination = proxied.map(|proxied| proxied.destination).or_else(|| client.local_addr().ok());
        let proxied = destination.map(|destination| Proxied { source, destination });
        first = [proxy_protocol::header(version, proxied), first].concat();
    }
    let connecting = Instant::now();
    let connected = tokio::select! {
        biased;
        connected = connect(listener, pool, key, lease, &first, &mut entry.attempts) => connected,
        _ = client.ready(Interest::ERROR) => Err(Refusal::ClientGone),
    };
    let (backend, lease) = connected?;
    entry.connected(&lease, connecting);
    Ok(Forwarded { backend, lease, _permit: permit, _client: counted })
}

/// Connects to a backend and sends it the first bytes; if it does not accept that, to another one. All attempts share one
/// time limit. While there are other backends, an attempt gets half of what is left.
async fn connect(
    listener: &Listener,
    pool: &Arc<Pool>,
    key: ClientKey,
    mut lease: Lease,
    first: &[u8],
    attempts: &mut u32,
) -> Result<(TcpStream, Lease), Refusal> {
    let began = Instant::now();
    let deadline = |part: Duration| began.checked_add(part);
    let end = deadline(listener.forward.connect);
    let mut tried = Vec::new();
    loop {
        tried.push(lease.id);
        *attempts += 1;
        let now = Instant::now();
        let left = end.map(|end| end.saturating_duration_since(now));
        let until = match left {
            Some(left) if pool.has_others(&tried) => now.checked_add(left / 2),
            _ => end,
        };
        match attempt(lease.address, first, until).await {
            Ok(stream) => {
                lease.connected();
                return Ok((stream, lease));
            }
            Err(Failure { why, is_our_own }) => {
                debug!(listener = listener.name, backend = %lease.address, why, "could not connect");
                lease.failed(why, is_our_own);
                listener.lasting.meters.connect_failed();
            }
        }
        if end.is_some_and(|end| end <= Instant::now()) {
            return Err(Refusal::ConnectFailed);
        }
        // Its wait, if all others are full, has to fit into the same limit.
        let mut wait = listener.lasting.admission.wait();
        let next = pool.acquire(key, &tried, &mut wait);
        let next = match end {
            Some(end) => timeout_at(end, next).await.map_err(|_elapsed| Refusal::ConnectFailed)?,
            None => next.await,
        };
        lease = next.map_err(|_| Refusal::ConnectFailed)?;
    }
}

struct Failure {
    why: String,
    is_our_own: bool,
}

async fn attempt(address: SocketAddr, first: &[u8], until: Option<Instant>) -> Result<TcpStream, Failure> {
    let connecting = async {
        let mut stream = TcpStream::connect(address).await?;
        prepare(&stream);
        stream.write_all(first).await?;
        Ok(stream)
    };
    let failure = |error: &std::io::Error| Failure { why: why(error), is_our_own: is_our_own(error) };
    let Some(until) = until else { return connecting.await.map_err(|error| failure(&error)) };
    match timeout_at(until, connecting).await {
        Ok(outcome) => outcome.map_err(|error| failure(&error)),
        Err(_elapsed) => Err(Failure { why: "does not answer".to_owned(), is_our_own: false }),
    }
}
