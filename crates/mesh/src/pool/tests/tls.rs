//! TLS to servers.

use std::convert::Infallible;
use std::path::{Path, PathBuf};

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::testing::text;

pub(super) fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/pool/testdata").join(name)
}

/// A server for `localhost` that answers with the protocol and the name that it was asked for.
pub(super) async fn serving(alpn: &'static [&'static str]) -> Upstream {
    let certificate = CertificateDer::from_pem_file(testdata("server.crt")).unwrap();
    let key = PrivateKeyDer::from_pem_file(testdata("server.key")).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    Upstream::raw(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            let name = stream.get_ref().1.server_name().unwrap_or("-").to_owned();
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                let answer = text(format!("{:?} {name} {:?}", request.version(), request.uri().scheme_str()));
                async move { Ok::<_, Infallible>(answer) }
            });
            let stream = TokioIo::new(stream);
            let _ = if is_http2 {
                http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service).await
            } else {
                http1::Builder::new().serve_connection(stream, service).await
            };
        }
    })
    .await
}

pub(super) fn url(upstream: &Upstream, host: &str) -> BaseUrl {
    format!("https://{host}:{}", upstream.addr.port()).parse().unwrap()
}

async fn asked(mesh: &Mesh, url: &BaseUrl) -> Result<String, MeshError> {
    let answer = mesh.send_to_any(std::slice::from_ref(url), get()).await?;
    Ok(whole(answer.into_body()).await.unwrap())
}

#[tokio::test]
async fn the_server_chooses_the_protocol() {
    let ca = testdata("ca.crt");
    for (alpn, expected) in [
        (&["h2", "http/1.1"][..], "HTTP/2.0 localhost Some(\"https\")"),
        (&["http/1.1"], "HTTP/1.1 localhost None"),
        (&[], "HTTP/1.1 localhost None"),
    ] {
        let upstream = serving(alpn).await;
        let (_view, mesh) = mesh([], Limits::default());
        let url = url(&upstream, "localhost").trusting(&ca);
        for _ in 0..3 {
            assert_eq!(asked(&mesh, &url).await.unwrap(), expected);
            idle(&mesh, 1).await;
        }
        assert_eq!(upstream.hits(), 1);
    }
}

#[tokio::test]
async fn a_server_that_is_asked_for_by_its_address_gets_no_name() {
    let upstream = serving(&["http/1.1"]).await;
    let (_view, mesh) = mesh([], Limits::default());
    let url = url(&upstream, "127.0.0.1").trusting(&testdata("ca.crt"));
    assert_eq!(asked(&mesh, &url).await.unwrap(), "HTTP/1.1 - None");
}

#[tokio::test]
async fn an_address_may_have_the_certificate_of_the_name_that_it_was_found_by() {
    let upstream = serving(&["h2"]).await;
    let (_view, mesh) = mesh([], Limits { attempts: 1, ..Limits::default() });
    let address = url(&upstream, "127.0.0.1").trusting(&testdata("ca.crt"));
    let named = address.clone().certified_for("localhost");
    assert_eq!(asked(&mesh, &named).await.unwrap(), "HTTP/2.0 localhost Some(\"https\")");
    let error = asked(&mesh, &address.certified_for("other.example")).await.unwrap_err();
    let MeshError::NoTlsSession { why, .. } = &error else { panic!("{error:?}") };
    assert!(why.contains("is not for `other.example`"), "{why}");
}

#[tokio::test]
async fn a_server_without_a_trusted_certificate_gets_no_request() {
    let upstream = serving(&["h2"]).await;
    let (_view, mesh) = mesh([], Limits { attempts: 1, ..Limits::default() });
    let localhost = url(&upstream, "localhost");
    let missing = testdata("missing.crt");
    let no_pem = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    for (url, expected) in [
        // Without `ca`, the system's certificates count, if it has any.
        (localhost.clone(), "certificate"),
        (localhost.clone().trusting(&testdata("server.crt")), "its certificate"),
        (localhost.clone().trusting(&missing), "missing.crt` can't be read: No such file"),
        (localhost.trusting(&no_pem), "it has no certificate"),
    ] {
        let error = asked(&mesh, &url).await.unwrap_err();
        let MeshError::NoTlsSession { why, .. } = &error else { panic!("{error:?}") };
        assert!(why.contains(expected), "{why}");
    }
    assert_eq!(mesh.upstream_counts().connects[3], (ConnectResult::Tls, 4));
}

#[tokio::test]
async fn a_server_that_does_not_speak_tls_is_reported() {
    let upstream = Upstream::raw(|mut stream| async move {
        let _ = stream.write_all(OK).await;
        until_closed(&mut stream).await;
    })
    .await;
    let (_view, mesh) = mesh([], Limits { attempts: 1, ..Limits::default() });
    let url = url(&upstream, "localhost").trusting(&testdata("ca.crt"));
    let error = asked(&mesh, &url).await.unwrap_err();
    let MeshError::NoTlsSession { why, .. } = &error else { panic!("{error:?}") };
    assert!(why.contains("not TLS"), "{why}");
}

#[tokio::test]
async fn many_requests_at_once_to_a_server_with_http1_alone_are_answered() {
    let upstream = serving(&["http/1.1"]).await;
    let (_view, mesh) = mesh([], Limits::default());
    let url = url(&upstream, "localhost").trusting(&testdata("ca.crt"));
    let asking = (0..10).map(|_| asked(&mesh, &url));
    for answer in futures_util::future::join_all(asking).await {
        assert_eq!(answer.unwrap(), "HTTP/1.1 localhost None");
    }
}

/// A server that accepts connections and says nothing.
async fn silent() -> Upstream {
    Upstream::raw(|mut stream| async move { until_closed(&mut stream).await }).await
}

#[tokio::test]
async fn a_tls_handshake_that_hangs_is_no_trouble_that_a_check_of_tcp_refutes() {
    let upstream = silent().await;
    let connect = Duration::from_millis(200);
    let (_view, mesh) = mesh([], Limits { attempts: 1, connect, ..Limits::default() });
    let url = url(&upstream, "127.0.0.1").trusting(&testdata("ca.crt"));
    let error = asked(&mesh, &url).await.unwrap_err();
    let MeshError::NoTlsSession { why, .. } = &error else { panic!("{error:?}") };
    assert!(why.contains("the TLS handshake did not end within 200ms"), "{why}");
    url.probed(None);
    url.checked(None);
    assert!(url.why_unreachable().is_some());
    assert_eq!(mesh.upstream_counts().connects[3], (ConnectResult::Tls, 1));
}

#[tokio::test]
async fn an_address_is_reached_only_once_a_connection_is_open() {
    let upstream = silent().await;
    let (head, connect) = (Duration::from_secs(1), Duration::from_secs(60));
    let (_view, mesh) = mesh([], Limits { attempts: 1, head, connect, ..Limits::default() });
    let shaking = url(&upstream, "127.0.0.1").trusting(&testdata("ca.crt"));
    for (url, reached) in [(shaking, 0), (upstream.url(), 1)] {
        url.probed(Some("it refuses connections"));
        let error = asked(&mesh, &url).await.unwrap_err();
        assert!(matches!(error, MeshError::TimedOut { .. }), "{error:?}");
        assert_eq!((url.reached(), url.why_unreachable().is_none()), (reached, reached == 1));
    }
}
