//! Clusters on an in-memory network with paused time: nodes are partitioned, paused, killed, restarted, and started in
//! every order.
#![expect(clippy::unwrap_used, reason = "a failing helper is a failing test")]

use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use cluster::{Cluster, ClusterConfig, MemoryNetwork, Network};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use types::api::{About, EventKind};
use types::{Generation, NodeId, Phase, Profile, Role, RoleState};

/// Virtual time, so a long limit costs nothing.
const PATIENCE: Duration = Duration::from_secs(120);

struct World {
    network: MemoryNetwork,
    drivers: JoinSet<()>,
}

struct Node {
    id: NodeId,
    addr: SocketAddr,
    cluster: Cluster,
    driver: tokio::task::AbortHandle,
}

fn addr(number: u16) -> SocketAddr {
    ([127, 0, 0, 1], 1_000 + number).into()
}

fn config(name: &str, number: u16, generation: u64, seeds: &[u16]) -> ClusterConfig {
    ClusterConfig {
        cluster: "test".parse().unwrap(),
        node: name.parse().unwrap(),
        generation: Generation(generation),
        listen: addr(number),
        advertise: addr(number),
        seeds: seeds.iter().map(|seed| addr(*seed).to_string()).collect(),
        profile: Profile::Local,
        http: format!("http://127.0.0.1:{}", 2_000 + number),
        about: About::default(),
        max_members: cluster::MAX_MEMBERS,
    }
}

impl World {
    fn new() -> Self {
        Self { network: MemoryNetwork::new(), drivers: JoinSet::new() }
    }

    async fn start(&mut self, number: u16, generation: u64, seeds: &[u16]) -> Node {
        let node = self.listen(number, generation, seeds).await;
        node.cluster.set_role(RoleState::starting(Role::Standby)).await.unwrap();
        node
    }

    /// Starts a node without a role; no other node lists it as a member.
    async fn listen(&mut self, number: u16, generation: u64, seeds: &[u16]) -> Node {
        let config = config(&format!("n{number}"), number, generation, seeds);
        let id = config.node.clone();
        let (cluster, driver) =
            Cluster::join_here(config, Network::Memory(self.network.clone())).await.unwrap();
        let network = self.network.clone();
        let driver = self.drivers.spawn(unless_held(network, addr(number), driver));
        Node { id, addr: addr(number), cluster, driver }
    }

    async fn start_all(&mut self, count: u16) -> Vec<Node> {
        let mut nodes = Vec::new();
        for number in 1..=count {
            nodes.push(self.start(number, 1, &[1, 2, 3]).await);
        }
        all_see(&nodes, &nodes).await;
        nodes
    }

    /// Ends a node without an announcement, like `kill -9`.
    async fn kill(&self, node: &Node) {
        self.network.hold(node.addr);
        node.driver.abort();
    }
}

/// Polls a future only while its node is not paused: a stopped process runs nothing.
async fn unless_held(network: MemoryNetwork, addr: SocketAddr, future: impl Future<Output = ()>) {
    let mut future = pin!(future);
    loop {
        network.released(addr).await;
        tokio::select! {
            biased;
            () = network.held(addr) => {}
            () = &mut future => return,
        }
    }
}

async fn sees(viewer: &Node, wanted: &[&Node]) {
    let mut view = viewer.cluster.watch();
    let mut ids: Vec<_> = wanted.iter().map(|node| node.id.clone()).collect();
    ids.sort();
    let seen = view.wait_for(|view| view.members().map(|member| member.id.clone()).eq(ids.iter().cloned()));
    let result = timeout(PATIENCE, seen).await.map(|view| view.is_ok());
    assert_eq!(result, Ok(true), "{} sees {:?}, wanted {ids:?}", viewer.id, viewer.cluster.view());
}

async fn all_see(viewers: &[Node], wanted: &[Node]) {
    let wanted: Vec<_> = wanted.iter().collect();
    for viewer in viewers {
        sees(viewer, &wanted).await;
    }
}

#[tokio::test(start_paused = true)]
async fn four_nodes_find_each_other_in_every_order_of_starting() {
    let mut orders = Vec::new();
    permutations(&mut vec![1, 2, 3, 4], 0, &mut orders);
    assert_eq!(orders.len(), 24);
    for order in orders {
        let mut world = World::new();
        let mut nodes = Vec::new();
        for number in &order {
            nodes.push(world.start(*number, 1, &[1]).await);
            tokio::time::sleep(Duration::from_millis(700)).await;
        }
        all_see(&nodes, &nodes).await;
    }
}

fn permutations(items: &mut Vec<u16>, at: usize, out: &mut Vec<Vec<u16>>) {
    if at == items.len() {
        out.push(items.clone());
        return;
    }
    for other in at..items.len() {
        items.swap(at, other);
        permutations(items, at + 1, out);
        items.swap(at, other);
    }
}

#[tokio::test(start_paused = true)]
async fn a_cold_start_and_a_join_take_far_less_than_a_round_of_gossip() {
    let mut world = World::new();
    let start = Instant::now();
    let mut nodes = world.start_all(5).await;
    assert!(start.elapsed() < Duration::from_millis(150), "cold start took {:?}", start.elapsed());
    tokio::time::sleep(Duration::from_secs(20)).await;
    let start = Instant::now();
    nodes.push(world.start(6, 1, &[1, 2, 3]).await);
    all_see(&nodes, &nodes).await;
    assert!(start.elapsed() < Duration::from_millis(150), "a join took {:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_only_listened_is_seen_at_once_when_it_gets_a_role() {
    let mut world = World::new();
    let mut nodes = Vec::new();
    for number in 1..=5 {
        nodes.push(world.listen(number, 1, &[1, 2, 3]).await);
    }
    // Long enough for every greeting to have been sent.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let start = Instant::now();
    for node in &nodes {
        node.cluster.set_role(RoleState::starting(Role::Standby)).await.unwrap();
    }
    all_see(&nodes, &nodes).await;
    assert!(start.elapsed() < Duration::from_millis(50), "took {:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_role_change_reaches_every_member_at_once() {
    let mut world = World::new();
    let nodes = world.start_all(5).await;
    let start = Instant::now();
    let mut state = RoleState::starting("storage/3".parse().unwrap());
    state.phase = Phase::Ready;
    let version = nodes[0].cluster.set_role(state.clone()).await.unwrap();
    for node in &nodes {
        let mut view = node.cluster.watch();
        let seen = view.wait_for(|view| view.shows(&nodes[0].id, Generation(1), version));
        let seen = timeout(PATIENCE, seen).await.unwrap().unwrap().clone();
        assert_eq!(seen.member(&nodes[0].id).unwrap().state.as_ref(), Some(&state));
    }
    assert!(start.elapsed() < Duration::from_millis(50), "took {:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_crash_is_seen_within_the_bound_and_is_not_a_leave() {
    let mut world = World::new();
    let mut nodes = world.start_all(5).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let mut changes = nodes[1].cluster.changes();
    for _ in 0..5 {
        changes.next().await.unwrap();
    }
    let dead = nodes.remove(0);
    let start = Instant::now();
    world.kill(&dead).await;
    all_see(&nodes, &nodes).await;
    assert!(start.elapsed() < Duration::from_millis(1_500), "took {:?}", start.elapsed());
    let change = changes.next().await.unwrap();
    assert_eq!((change.kind, change.member.id), (EventKind::Lost, dead.id));
}

#[tokio::test(start_paused = true)]
async fn a_leave_is_seen_at_once_and_is_not_a_crash() {
    let mut world = World::new();
    let mut nodes = world.start_all(5).await;
    let mut changes = nodes[1].cluster.changes();
    for _ in 0..5 {
        changes.next().await.unwrap();
    }
    let leaver = nodes.remove(0);
    let start = Instant::now();
    leaver.cluster.leave().await;
    all_see(&nodes, &nodes).await;
    assert!(start.elapsed() < Duration::from_millis(200), "took {:?}", start.elapsed());
    let change = changes.next().await.unwrap();
    assert_eq!((change.kind, change.member.id), (EventKind::Left, leaver.id));
    assert_eq!(leaver.cluster.ended().await, "left");
}

#[tokio::test(start_paused = true)]
async fn a_partition_splits_the_view_and_healing_joins_it_again() {
    let mut world = World::new();
    let nodes = world.start_all(4).await;
    let (left, right) = nodes.split_at(2);
    for a in left {
        for b in right {
            world.network.cut(a.addr, b.addr).await;
        }
    }
    all_see(left, left).await;
    all_see(right, right).await;
    for a in left {
        for b in right {
            world.network.heal(a.addr, b.addr).await;
        }
    }
    all_see(&nodes, &nodes).await;
}

#[tokio::test(start_paused = true)]
async fn a_paused_node_declares_no_member_dead_and_is_live_again_when_it_resumes() {
    let mut world = World::new();
    let nodes = world.start_all(4).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let paused = &nodes[0];
    let others = &nodes[1..];
    let mut changes = paused.cluster.changes();
    for _ in 0..4 {
        changes.next().await.unwrap();
    }
    world.network.hold(paused.addr);
    all_see(others, others).await;
    world.network.release(paused.addr);
    all_see(&nodes, &nodes).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let heard = timeout(Duration::from_millis(1), changes.next()).await;
    assert!(heard.is_err(), "the paused node changed its view of the others: {heard:?}");
}

#[tokio::test(start_paused = true)]
async fn a_restarted_node_is_seen_once_under_its_id() {
    let mut world = World::new();
    let mut nodes = world.start_all(4).await;
    let old = nodes.remove(0);
    world.kill(&old).await;
    let mut changes = nodes[0].cluster.changes();
    for _ in 0..4 {
        changes.next().await.unwrap();
    }
    // The same id at another address: the old node is still paused.
    let new = restart(&mut world, &old).await;
    let change = changes.next().await.unwrap();
    assert_eq!((change.kind, change.member.generation), (EventKind::Restarted, Generation(2)));
    nodes.push(new);
    all_see(&nodes, &nodes).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    all_see(&nodes, &nodes).await;
    let heard = timeout(Duration::from_millis(1), changes.next()).await;
    assert!(heard.is_err(), "no event of its old incarnation is expected: {heard:?}");
}

async fn restart(world: &mut World, old: &Node) -> Node {
    let number = 20;
    let config = config(old.id.as_str(), number, 2, &[2]);
    let (cluster, driver) = Cluster::join_here(config, Network::Memory(world.network.clone())).await.unwrap();
    let driver = world.drivers.spawn(driver);
    cluster.set_role(RoleState::starting(Role::Standby)).await.unwrap();
    Node { id: old.id.clone(), addr: addr(number), cluster, driver }
}

#[tokio::test(start_paused = true)]
async fn two_nodes_with_the_same_id_notice_each_other() {
    let mut world = World::new();
    let nodes = world.start_all(2).await;
    let twin = restart(&mut world, &nodes[0]).await;
    let mut rival = twin.cluster.rival();
    let seen = timeout(PATIENCE, rival.wait_for(Option::is_some)).await.unwrap().unwrap().clone().unwrap();
    assert_eq!(seen.generation, Generation(1));
    let mut rival = nodes[0].cluster.rival();
    let seen = timeout(PATIENCE, rival.wait_for(Option::is_some)).await.unwrap().unwrap().clone().unwrap();
    assert_eq!((seen.generation, seen.http.as_str()), (Generation(2), "http://127.0.0.1:2020"));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_only_listens_is_not_a_member_and_learns_which_node_has_its_id() {
    let mut world = World::new();
    let nodes = world.start_all(2).await;
    let config = config("n1", 20, 2, &[2]);
    let (listener, driver) =
        Cluster::join_here(config, Network::Memory(world.network.clone())).await.unwrap();
    world.drivers.spawn(driver);
    let namesakes = timeout(PATIENCE, listener.namesakes()).await.unwrap();
    assert_eq!(namesakes.iter().map(|rival| rival.generation).collect::<Vec<_>>(), [Generation(1)]);
    tokio::time::sleep(Duration::from_secs(5)).await;
    listener.leave().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    all_see(&nodes, &nodes).await;
    assert_eq!(nodes[1].cluster.view().member(&nodes[0].id).unwrap().generation, Generation(1));
}

#[tokio::test(start_paused = true)]
async fn the_first_node_with_an_id_is_seen_again_after_the_second_has_left() {
    let mut world = World::new();
    let nodes = world.start_all(3).await;
    let twin = restart(&mut world, &nodes[0]).await;
    let mut view = nodes[1].cluster.watch();
    let taken = view.wait_for(|view| view.shows(&nodes[0].id, Generation(2), 0));
    timeout(PATIENCE, taken).await.unwrap().unwrap();
    twin.cluster.leave().await;
    all_see(&nodes, &nodes).await;
    assert_eq!(nodes[1].cluster.view().member(&nodes[0].id).unwrap().generation, Generation(1));
}

#[tokio::test(start_paused = true)]
async fn a_full_cluster_cannot_be_joined() {
    let mut world = World::new();
    let nodes = world.start_all(3).await;
    let mut config = config("n4", 4, 1, &[1]);
    config.max_members = 3;
    let (late, driver) = Cluster::join_here(config, Network::Memory(world.network.clone())).await.unwrap();
    world.drivers.spawn(driver);
    let why = timeout(PATIENCE, late.ended()).await.unwrap();
    assert!(why.starts_with("the cluster is full: it has 3 members"), "{why}");
    all_see(&nodes, &nodes).await;
}

#[tokio::test(start_paused = true)]
async fn dead_seeds_and_its_own_address_among_them_do_no_harm() {
    let mut world = World::new();
    let first = world.start(1, 1, &[1, 77, 78]).await;
    let second = world.start(2, 1, &[77, 1, 2]).await;
    let nodes = [first, second];
    all_see(&nodes, &nodes).await;
}

#[tokio::test(start_paused = true)]
async fn a_value_that_would_block_gossip_is_refused_and_gossip_continues() {
    let mut world = World::new();
    let nodes = world.start_all(2).await;
    let mut state = RoleState::starting(Role::Standby);
    state.reason = Some("x".repeat(cluster::MAX_VALUE_BYTES));
    let error = nodes[0].cluster.set_role(state).await.unwrap_err().to_string();
    assert!(error.contains("at most 8192"), "{error}");
    nodes[0].cluster.set_role(RoleState::starting("a".parse().unwrap())).await.unwrap();
}
