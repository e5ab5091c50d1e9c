//! The same promises on an S3 server, reached through the environment variables that users set.

use std::net::TcpListener;

use types::ClusterId;

use crate::testing::{Moto, environment};
use crate::{ClaimState, Fault, OpenError, Store, StoreUrl, claims, log};

fn cluster() -> ClusterId {
    "demo".parse().unwrap()
}

fn url(text: &str) -> StoreUrl {
    text.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_s3_server_that_honours_if_none_match_holds_a_cluster() {
    let Some(moto) = Moto::start("bucket").await else { return };
    let mut environment = moto.environment();
    environment.insert("AWS_ALLOW_HTTP".to_owned(), "YES".to_owned());
    let store = Store::open_with(&url("s3://bucket/a/b"), &cluster(), &environment).await.unwrap();
    let again = Store::open_with(&url("s3://bucket/a/b"), &cluster(), &environment).await.unwrap();
    assert_eq!(store.info(), again.info());
    assert_eq!(store.info().url, "s3://bucket/a/b");

    let shard = "storage/0".parse().unwrap();
    let (node, claims) = ("a".parse().unwrap(), store.claims());
    let unowned = ClaimState::default();
    let holder = claims.take(&shard, &unowned, &node, types::Generation(1)).await.unwrap();
    assert!(claims.is_latest(&shard, holder.epoch.0).await.unwrap());
    claims.release(&shard, &holder, crate::Farewell::default()).await.unwrap();
    assert!(!claims.is_latest(&shard, holder.epoch.0).await.unwrap());
    assert_eq!(claims.all().await.unwrap().len(), 1);

    for (round, number) in ["x", "y", "z"].into_iter().zip(1..) {
        let store = Store::open_with(&url(&format!("s3://bucket/{round}")), &cluster(), &environment).await;
        let objects = store.unwrap().objects_for_test();
        match round {
            "x" => log::tests::racing_writers_share_a_log(objects, 4, 5).await,
            "y" => log::tests::a_pruner_never_lets_a_stale_writer_win(objects, number, 8).await,
            _ => claims::tests::racing_nodes_share_a_shard(objects, number, 4, 6).await,
        }
    }

    let missing = Store::open_with(&url("s3://nobucket"), &cluster(), &environment).await.unwrap_err();
    let OpenError::Store(error) = missing else { panic!("{missing}") };
    assert_eq!(error.fault(), Fault::Missing, "{error}");
    assert!(error.to_string().contains("there is no such bucket"), "{error}");
}

#[tokio::test]
async fn an_endpoint_without_a_listener_cannot_be_reached() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for scheme in ["http", "https"] {
        let environment = environment(&format!("{scheme}://127.0.0.1:{port}"));
        let error = Store::open_with(&url("s3://bucket"), &cluster(), &environment).await.unwrap_err();
        let OpenError::Store(error) = error else { panic!("{error}") };
        assert_eq!(error.fault(), Fault::Unreachable, "{error}");
        assert!(error.hint().unwrap().contains("AWS_ENDPOINT"));
    }
}

#[tokio::test]
async fn plain_http_must_be_allowed() {
    let mut environment = environment("http://127.0.0.1:1");
    environment.remove("AWS_ALLOW_HTTP");
    let error = Store::open_with(&url("s3://bucket"), &cluster(), &environment).await.unwrap_err();
    assert!(error.hint().is_some_and(|hint| hint.contains("AWS_ALLOW_HTTP")), "{error:?}");
}
