//! Notices within a moment that an owner's process has ended.
//!
//! The failure detector needs ten rounds of gossip to give a member up. But a system closes the connections of a process
//! that ends, and refuses new ones. So whoever would be among the first to take a shard over keeps a connection to its
//! owner, over which nothing is said. When that has closed, nobody is at the address any more, and gossip brings no
//! heartbeat for some rounds, the owner is gone for sure. One whose machine or network fails closes nothing: such a one
//! is left to the failure detector.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use cluster::{Cluster, Timing};
use mesh::BaseUrl;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};
use tracing::{Instrument, Span, info};
use types::{Generation, NodeId, Profile};

use crate::takeover::vacancy::{Gone, Sighting};

/// Rounds of gossip without a heartbeat.
const ROUNDS: u32 = 3;
/// How long a connection may take to open.
const CONNECT: Duration = Duration::from_secs(2);
/// Between two looks at an address that refuses.
const LOOK: Duration = Duration::from_millis(50);
/// Between two attempts to connect to one that does not even refuse, or that closes what it has just opened.
const AGAIN: Duration = Duration::from_secs(1);

/// The connections to owners.
#[derive(Debug)]
pub(crate) struct CrashDetector {
    cluster: Cluster,
    silence: Duration,
    held: BTreeMap<(NodeId, Generation), AbortHandle>,
    /// Ends with this.
    lines: JoinSet<()>,
    gone: Arc<watch::Sender<Gone>>,
}

/// One of them.
struct Line {
    life: (NodeId, Generation),
    /// Host and port.
    address: String,
    cluster: Cluster,
    silence: Duration,
    gone: Arc<watch::Sender<Gone>>,
}

impl CrashDetector {
    pub(crate) fn new(cluster: Cluster, profile: Profile) -> Self {
        Self {
            cluster,
            silence: Timing::of(profile).interval * ROUNDS,
            held: BTreeMap::new(),
            lines: JoinSet::new(),
            gone: Arc::default(),
        }
    }

    /// Those of the owners that are gone for sure.
    pub(crate) fn gone(&self) -> watch::Receiver<Gone> {
        self.gone.subscribe()
    }

    /// Looks closely at these owners and at nobody else.
    pub(crate) fn hold(&mut self, owners: Vec<Sighting>) {
        let wanted: BTreeMap<_, _> =
            owners.into_iter().map(|owner| ((owner.node, owner.generation), owner.http)).collect();
        self.held.retain(|life, line| {
            let is_wanted = wanted.contains_key(life);
            if !is_wanted {
                line.abort();
            }
            is_wanted
        });
        while self.lines.try_join_next().is_some() {}
        // Every time: one that was aborted may have told its last word after that.
        self.gone.send_if_modified(|gone| {
            let before = gone.len();
            gone.retain(|life| wanted.contains_key(life));
            gone.len() < before
        });
        for (life, http) in wanted {
            let Ok(url) = http.parse::<BaseUrl>() else { continue };
            if self.held.contains_key(&life) {
                continue;
            }
            let line = Line {
                life: life.clone(),
                address: url.authority().to_owned(),
                cluster: self.cluster.clone(),
                silence: self.silence,
                gone: Arc::clone(&self.gone),
            };
            self.held.insert(life, self.lines.spawn(line.keep().instrument(Span::current())));
        }
    }
}

impl Line {
    /// Never ends by itself.
    async fn keep(self) {
        let (mut was_open, mut was_short) = (false, false);
        // An earlier line to the same owner may have said so with its last word.
        self.tell(false);
        loop {
            match connect(&self.address).await {
                Ok(connection) => {
                    if was_short {
                        sleep(AGAIN).await;
                    }
                    let opened = Instant::now();
                    closed(connection).await;
                    (was_open, was_short) = (true, opened.elapsed() < AGAIN);
                }
                Err(error) if was_open && error.kind() == io::ErrorKind::ConnectionRefused => {
                    self.refused().await;
                }
                Err(_) => sleep(AGAIN).await,
            }
        }
    }

    /// Listens for heartbeats for as long as the address refuses.
    async fn refused(&self) {
        let mut last = (None, Instant::now());
        loop {
            let heartbeat = self.cluster.heartbeat(&self.life.0, self.life.1).await;
            if heartbeat != last.0 {
                last = (heartbeat, Instant::now());
            }
            self.tell(last.1.elapsed() >= self.silence);
            sleep(LOOK).await;
            match connect(&self.address).await {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                _ => return self.tell(false),
            }
        }
    }

    fn tell(&self, is_gone: bool) {
        let (node, address) = (&self.life.0, &self.address);
        let is_news = self.gone.send_if_modified(|gone| match is_gone {
            true => gone.insert(self.life.clone()),
            false => gone.remove(&self.life),
        });
        if is_news && is_gone {
            info!(%node, address, "an owner is gone: it is silent, and its address refuses");
        } else if is_news {
            info!(%node, address, "an owner is there after all");
        }
    }
}

/// Opens a connection. A free port of this machine may be chosen for both ends of it: then nobody listens there.
async fn connect(address: &str) -> io::Result<TcpStream> {
    let connection = timeout(CONNECT, TcpStream::connect(address)).await??;
    if connection.local_addr()? == connection.peer_addr()? {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok(connection)
}

/// Waits until the other side has closed a connection.
async fn closed(mut connection: TcpStream) {
    let mut nothing = [0; 64];
    while connection.read(&mut nothing).await.is_ok_and(|length| length > 0) {}
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use cluster::{ClusterConfig, MemoryNetwork, Network};
    use tokio::net::TcpListener;
    use types::api::About;
    use types::{Epoch, Role, RoleState};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn addr(number: u16) -> SocketAddr {
        ([127, 0, 0, 1], number).into()
    }

    async fn join(name: &str, number: u16, network: &MemoryNetwork, drivers: &mut JoinSet<()>) -> Cluster {
        let config = ClusterConfig {
            cluster: "test".parse().unwrap(),
            node: name.parse().unwrap(),
            generation: Generation(1),
            listen: addr(number),
            advertise: addr(number),
            seeds: vec![addr(1).to_string(), addr(2).to_string()],
            profile: Profile::Local,
            http: String::new(),
            about: About::default(),
            max_members: cluster::MAX_MEMBERS,
        };
        let joined = Cluster::join_here(config, Network::Memory(network.clone())).await;
        let (cluster, driver) = joined.unwrap();
        drivers.spawn(driver);
        cluster.set_role(RoleState::starting(Role::Standby)).await.unwrap();
        cluster
    }

    /// Two members of which one looks closely at the other, whose API is a listener here.
    struct Pair {
        lines: CrashDetector,
        life: (NodeId, Generation),
        network: MemoryNetwork,
        listener: TcpListener,
        _owner: Cluster,
        _drivers: JoinSet<()>,
    }

    impl Pair {
        async fn new() -> Self {
            let (network, mut drivers) = (MemoryNetwork::new(), JoinSet::new());
            let me = join("me", 1, &network, &mut drivers).await;
            let owner = join("owner", 2, &network, &mut drivers).await;
            let life = ("owner".parse().unwrap(), Generation(1));
            let mut view = me.watch();
            view.wait_for(|view| view.member(&life.0).is_some()).await.unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut lines = CrashDetector::new(me, Profile::Local);
            lines.hold(vec![sighting(&life, &listener)]);
            Self { lines, life, network, listener, _owner: owner, _drivers: drivers }
        }
    }

    fn sighting(life: &(NodeId, Generation), listener: &TcpListener) -> Sighting {
        let http = format!("http://{}", listener.local_addr().unwrap());
        Sighting { node: life.0.clone(), generation: life.1, epoch: Epoch(1), http }
    }

    async fn told(gone: &mut watch::Receiver<Gone>, is_gone: impl Fn(&Gone) -> bool) {
        timeout(LONG, gone.wait_for(is_gone)).await.expect("it is told in time").unwrap();
    }

    #[tokio::test]
    async fn an_owner_is_gone_when_it_refuses_and_is_silent_and_only_then() {
        let pair = Pair::new().await;
        let (mut gone, life) = (pair.lines.gone(), pair.life.clone());
        let (connection, _) = pair.listener.accept().await.unwrap();
        let address = pair.listener.local_addr().unwrap();
        drop((connection, pair.listener));
        let silence = pair.lines.silence;
        assert!(timeout(silence * 4, gone.changed()).await.is_err(), "its heart beats");

        pair.network.hold(addr(2));
        told(&mut gone, |gone| gone.contains(&life)).await;

        pair.network.release(addr(2));
        told(&mut gone, Gone::is_empty).await;

        pair.network.hold(addr(2));
        told(&mut gone, |gone| gone.contains(&life)).await;
        let _back = TcpListener::bind(address).await.unwrap();
        told(&mut gone, Gone::is_empty).await;
    }

    #[tokio::test]
    async fn an_owner_that_is_silent_but_there_is_left_to_the_failure_detector() {
        let pair = Pair::new().await;
        let mut gone = pair.lines.gone();
        let _connection = pair.listener.accept().await.unwrap();
        pair.network.hold(addr(2));
        assert!(timeout(pair.lines.silence * 4, gone.changed()).await.is_err());
    }

    #[tokio::test]
    async fn an_address_that_was_never_open_and_one_that_nobody_asks_for_tell_nothing() {
        let pair = Pair::new().await;
        let mut lines = pair.lines;
        let never = sighting(&pair.life, &pair.listener);
        drop(pair.listener);
        pair.network.hold(addr(2));
        lines.hold(vec![]);
        let mut gone = lines.gone();
        lines.hold(vec![never]);
        assert!(timeout(lines.silence * 4, gone.changed()).await.is_err(), "it refused from the beginning");
        lines.hold(vec![]);
        assert!(lines.held.is_empty() && gone.borrow().is_empty());
    }
}
