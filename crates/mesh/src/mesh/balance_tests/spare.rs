//! A service of more than fifty members, of which a node uses twenty.

use std::collections::BTreeSet;

use super::*;
use crate::address::Unreachable;
use crate::outlier::{EjectionReason, Service};

/// Sixty members: those that this node uses are at one server, the spares at another.
fn sixty(used: &Server, spare: &Server, limits: Limits) -> (watch::Sender<ClusterView>, Mesh) {
    let ids: Vec<String> = (0..60).map(|number| format!("m{number:02}")).collect();
    let (views, mesh) = mesh(ids.iter().map(|id| used.member(id)), limits);
    let catalog = mesh.0.roster.catalog();
    let spares = catalog.members(&echo()).iter().filter(|member| member.is_spare);
    let spares: BTreeSet<_> = spares.map(|member| member.node.to_string()).collect();
    assert_eq!(spares.len(), 40);
    let server = |id: &String| if spares.contains(id) { spare } else { used };
    views.send_replace(view(ids.iter().map(|id| server(id).member(id))));
    (views, mesh)
}

/// The members that this node uses, or its spares.
fn urls(mesh: &Mesh, are_spare: bool) -> Vec<BaseUrl> {
    let catalog = mesh.0.roster.catalog();
    let members = catalog.members(&echo()).iter().filter(|member| member.is_spare == are_spare);
    members.map(|member| member.url.clone()).collect()
}

fn attempts(urls: &[BaseUrl]) -> u64 {
    urls.iter().flat_map(|url| url.state().attempts()).sum()
}

fn eject(urls: &[BaseUrl]) {
    for url in urls {
        assert!(url.state().eject(EjectionReason::Consecutive, Instant::now()).is_some());
    }
}

#[tokio::test]
async fn spares_help_once_fewer_than_half_of_the_used_members_are_good() {
    for (out, helps) in [(10, false), (11, true), (19, true)] {
        for is_ejected in [true, false] {
            let (used, spare) = (Server::new(200).await, Server::new(200).await);
            let (_views, mesh) = sixty(&used, &spare, Limits { avoid: 60 * SECOND, ..Limits::default() });
            let out = &urls(&mesh, false)[..out];
            if is_ejected {
                eject(out);
            } else {
                let refused = Unreachable { why: "it refuses connections".to_owned(), is_tls: false };
                out.iter().for_each(|url| url.state().mark_unreachable(refused.clone(), Instant::now()));
            }
            for _ in 0..100 {
                assert_eq!(ask(&mesh, "POST").await, 200);
            }
            assert_eq!(attempts(out), 0, "{} of 20", out.len());
            assert_eq!(spare.hits() > 50, helps, "{} of 100 with {} of 20 out", spare.hits(), out.len());
            assert!(helps || spare.hits() == 0);
        }
    }
}

#[tokio::test]
async fn an_ejected_spare_comes_back_by_a_probe_and_gets_no_other_request() {
    let (used, spare) = (Server::new(200).await, Server::new(200).await);
    let (_views, mesh) = sixty(&used, &spare, Limits::default());
    let out = urls(&mesh, true).swap_remove(0);
    eject(std::slice::from_ref(&out));
    assert_eq!((ask(&mesh, "GET").await, spare.hits()), (200, 0), "its time has not passed");
    later(10 * SECOND).await;
    assert_eq!((ask(&mesh, "POST").await, spare.hits()), (200, 0), "a POST is no probe");
    for _ in 0..20 {
        assert_eq!(ask(&mesh, "GET").await, 200);
    }
    assert_eq!((attempts(std::slice::from_ref(&out)), spare.hits()), (1, 1));
    assert_eq!((out.state().service(Instant::now()), mesh.ejected()), (Service::In, vec![(echo(), 0)]));
}

#[tokio::test]
async fn spares_that_are_to_be_probed_are_no_reason_to_pardon_used_members() {
    let (used, spare) = (Server::new(200).await, Server::new(200).await);
    let (_views, mesh) = sixty(&used, &spare, Limits::default());
    eject(&urls(&mesh, true)[..14]);
    later(10 * SECOND).await;
    let out = &urls(&mesh, false)[..8];
    eject(out);
    for _ in 0..50 {
        assert_eq!(ask(&mesh, "POST").await, 200);
    }
    assert_eq!((attempts(out), spare.hits()), (0, 0));
}

#[tokio::test]
async fn a_node_uses_twenty_of_sixty_members_and_the_others_when_those_fail() {
    let (used, spare) = (Server::new(200).await, Server::new(200).await);
    let limits = Limits { avoid: 60 * SECOND, ..Limits::default() };
    let ids: Vec<String> = (0..60).map(|number| format!("m{number:02}")).collect();
    let (views, mesh) = mesh(ids.iter().map(|id| used.member(id)), limits);
    let backends = mesh.backends(&echo()).backends;
    let is_spare = |backend: &&types::backends::Backend| {
        backend.why.as_deref().is_some_and(|why| why.starts_with("spare: of more than 50 members"))
    };
    let spares: Vec<_> =
        backends.iter().filter(is_spare).filter_map(|backend| backend.node.clone()).collect();
    assert_eq!(spares.len(), 40);

    let parted = |of_used: &Server| {
        let server = |id: &String| if spares.iter().any(|own| own.as_str() == id) { &spare } else { of_used };
        ids.iter().map(|id| server(id).member(id)).collect::<Vec<_>>()
    };
    views.send_replace(view(parted(&used)));
    burst(&mesh, 200).await;
    assert_eq!((used.hits(), spare.hits()), (200, 0));

    // A key goes to the same member from every node, whichever members those use.
    for key in 0_u8..40 {
        let request = Request::get("/").body(Empty::<Bytes>::new()).unwrap();
        let affinity = Options { balance: Balance::Affinity(AffinityKey::of(&[key])), ..Options::default() };
        read(mesh.send_with(&echo(), &affinity, request).await.unwrap().into_body()).await.unwrap();
    }
    assert!(spare.hits() > 10, "{}", spare.hits());

    let gone = closed_addr();
    let refusing = ids.iter().map(|id| match spares.iter().any(|own| own.as_str() == id) {
        true => spare.member(id),
        false => member(id, gone, Phase::Ready),
    });
    views.send_replace(view(refusing));
    let is_known = |state: &&BackendState| **state == BackendState::Unreachable;
    while states(&mesh).iter().filter(is_known).count() < 20 {
        // All three attempts may be refused.
        let _ = mesh.send(&echo(), Request::post("/").body(Empty::<Bytes>::new()).unwrap()).await;
    }
    let before = spare.hits();
    for _ in 0..100 {
        assert_eq!(ask(&mesh, "POST").await, 200);
    }
    assert_eq!(spare.hits() - before, 100);
}
