//! Detects that an owner's process has ended, sooner than the failure detector.
//!
//! The failure detector needs ten rounds of gossip to declare a member dead. But the system closes the connections of a
//! process that ends, and refuses new ones. So the first candidates for a shard each hold an idle connection to its owner.
//! Once that connection has closed, the address refuses new ones, and no heartbeat has come for some rounds, the owner
//! counts as crashed. A machine or network that fails closes no connection: such owners are left to the failure detector.

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
/// The pause between two attempts to connect to an address that refuses.
const LOOK: Duration = Duration::from_millis(50);
/// The same for an address that neither accepts nor refuses, or that closes a connection that it has just accepted.
const AGAIN: Duration = Duration::from_secs(1);

/// The connections to owners.
#[derive(Debug)]
pub(crate) struct CrashDetector {
    cluster: Cluster,
    silence: Duration,
    held: BTreeMap<(NodeId, Generation), AbortHandle>,
    /// Dropping this aborts them.
    monitors: JoinSet<()>,
    gone: Arc<watch::Sender<Gone>>,
}

/// Watches one owner.
struct Monitor {
    incarnation: (NodeId, Generation),
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
            monitors: JoinSet::new(),
            gone: Arc::default(),
        }
    }

    /// The owners that have crashed.
    pub(crate) fn gone(&self) -> watch::Receiver<Gone> {
        self.gone.subscribe()
    }

    /// Watches these owners and no others.
    pub(crate) fn hold(&mut self, owners: Vec<Sighting>) {
        let wanted: BTreeMap<_, _> =
            owners.into_iter().map(|owner| ((owner.node, owner.generation), owner.http)).collect();
        self.held.retain(|incarnation, monitor| {
            let is_wanted = wanted.contains_key(incarnation);
            if !is_wanted {
                monitor.abort();
            }
            is_wanted
        });
        while self.monitors.try_join_next().is_some() {}
        // Every time: a monitor that was aborted may still have reported its owner after that.
        self.gone.send_if_modified(|gone| {
            let before = gone.len();
            gone.retain(|incarnation| wanted.contains_key(incarnation));
            gone.len() < before
        });
        for (incarnation, http) in wanted {
            let Ok(url) = http.parse::<BaseUrl>() else { continue };
            if self.held.contains_key(&incarnation) {
                continue;
            }
            let monitor = Monitor {
                incarnation: incarnation.clone(),
                address: url.authority().to_owned(),
                cluster: self.cluster.clone(),
                silence: self.silence,
                gone: Arc::clone(&self.gone),
            };
            self.held.insert(incarnation, self.monitors.spawn(monitor.keep().instrument(Span::current())));
        }
    }
}

impl Monitor {
    /// Never returns.
    async fn keep(self) {
        let (mut was_open, mut was_short) = (false, false);
        // An earlier monitor of the same owner may have reported it gone just before it was aborted.
        self.report(false);
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

    /// Watches for heartbeats while the address refuses.
    async fn refused(&self) {
        let mut last = (None, Instant::now());
        loop {
            let heartbeat = self.cluster.heartbeat(&self.incarnation.0, self.incarnation.1).await;
            if heartbeat != last.0 {
                last = (heartbeat, Instant::now());
            }
            self.report(last.1.elapsed() >= self.silence);
            sleep(LOOK).await;
            match connect(&self.address).await {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                _ => return self.report(false),
            }
        }
    }

    fn report(&self, is_gone: bool) {
        let (node, address) = (&self.incarnation.0, &self.address);
        let is_news = self.gone.send_if_modified(|gone| match is_gone {
            true => gone.insert(self.incarnation.clone()),
            false => gone.remove(&self.incarnation),
        });
        if is_news && is_gone {
            info!(%node, address, "an owner has crashed: it is silent, and its address refuses");
        } else if is_news {
            info!(%node, address, "an owner is alive after all");
        }
    }
}

/// Opens a connection. The system may choose a free port of this machine for both ends of it: then nothing listens there.
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

    /// Two members; one watches the other, whose API is a listener of the test.
    struct Pair {
        detector: CrashDetector,
        incarnation: (NodeId, Generation),
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
            let incarnation = ("owner".parse().unwrap(), Generation(1));
            let mut view = me.watch();
            view.wait_for(|view| view.member(&incarnation.0).is_some()).await.unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut detector = CrashDetector::new(me, Profile::Local);
            detector.hold(vec![sighting(&incarnation, &listener)]);
            Self { detector, incarnation, network, listener, _owner: owner, _drivers: drivers }
        }
    }

    fn sighting(incarnation: &(NodeId, Generation), listener: &TcpListener) -> Sighting {
        let http = format!("http://{}", listener.local_addr().unwrap());
        Sighting { node: incarnation.0.clone(), generation: incarnation.1, epoch: Epoch(1), http }
    }

    async fn wait_until(gone: &mut watch::Receiver<Gone>, is_gone: impl Fn(&Gone) -> bool) {
        timeout(LONG, gone.wait_for(is_gone)).await.expect("it is reported in time").unwrap();
    }

    #[tokio::test]
    async fn an_owner_counts_as_crashed_only_when_its_address_refuses_and_it_is_silent() {
        let pair = Pair::new().await;
        let (mut gone, incarnation) = (pair.detector.gone(), pair.incarnation.clone());
        let (connection, _) = pair.listener.accept().await.unwrap();
        let address = pair.listener.local_addr().unwrap();
        drop((connection, pair.listener));
        let silence = pair.detector.silence;
        assert!(timeout(silence * 4, gone.changed()).await.is_err(), "its heartbeats arrive");

        pair.network.hold(addr(2));
        wait_until(&mut gone, |gone| gone.contains(&incarnation)).await;

        pair.network.release(addr(2));
        wait_until(&mut gone, Gone::is_empty).await;

        pair.network.hold(addr(2));
        wait_until(&mut gone, |gone| gone.contains(&incarnation)).await;
        let _back = TcpListener::bind(address).await.unwrap();
        wait_until(&mut gone, Gone::is_empty).await;
    }

    #[tokio::test]
    async fn a_silent_owner_whose_connection_is_open_is_left_to_the_failure_detector() {
        let pair = Pair::new().await;
        let mut gone = pair.detector.gone();
        let _connection = pair.listener.accept().await.unwrap();
        pair.network.hold(addr(2));
        assert!(timeout(pair.detector.silence * 4, gone.changed()).await.is_err());
    }

    #[tokio::test]
    async fn an_address_that_was_never_open_and_one_that_is_not_watched_report_no_crash() {
        let pair = Pair::new().await;
        let mut detector = pair.detector;
        let never = sighting(&pair.incarnation, &pair.listener);
        drop(pair.listener);
        pair.network.hold(addr(2));
        detector.hold(vec![]);
        let mut gone = detector.gone();
        detector.hold(vec![never]);
        assert!(
            timeout(detector.silence * 4, gone.changed()).await.is_err(),
            "it refused from the beginning"
        );
        detector.hold(vec![]);
        assert!(detector.held.is_empty() && gone.borrow().is_empty());
    }
}
