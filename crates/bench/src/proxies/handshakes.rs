//! Load of new TLS connections: each has a full handshake, one request, and its end.
//!
//! wrk and h2load can't do this: the former resumes sessions, the latter opens all of its connections at once. It runs in a
//! process of its own, on the core of the load, and prints its results as JSON. It does not verify certificates, so that the
//! load is light.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use crate::proxies::backend::Body;
use crate::proxies::cores::{Cores, pinned};
use crate::proxies::load::{self, Latency, Load};

/// The time limit of one connection.
const LIMIT: Duration = Duration::from_secs(10);
const REQUEST: &[u8] = b"GET /1k HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// The arguments of the process.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The port on loopback
    #[arg(long)]
    port: u16,
    /// Connections at a time
    #[arg(long)]
    connections: usize,
    /// How long
    #[arg(long)]
    seconds: u64,
}

/// Runs the process, and returns what it measured.
pub(crate) async fn run(
    cores: Cores,
    addr: SocketAddr,
    connections: usize,
    seconds: u64,
) -> anyhow::Result<Load> {
    let mut command = Command::new(std::env::current_exe().context("finding this binary")?);
    command.arg("handshakes").arg("--port").arg(addr.port().to_string());
    command.arg("--connections").arg(connections.to_string()).arg("--seconds").arg(seconds.to_string());
    let limit = Duration::from_secs(seconds) + LIMIT * 2;
    let output = load::output(pinned(cores.load, &command), limit).await?;
    serde_json::from_str(&output).with_context(|| format!("the load printed {output}"))
}

/// The process: loads the address, and prints the results.
pub(crate) async fn serve(args: &Args) -> anyhow::Result<()> {
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, args.port));
    let began = Instant::now();
    let deadline = began + Duration::from_secs(args.seconds);
    let mut workers = JoinSet::new();
    for _ in 0..args.connections {
        workers.spawn(async move {
            let (connector, name, mut times) = (connector(), name()?, Vec::new());
            while Instant::now() < deadline {
                let began = Instant::now();
                timeout(LIMIT, connect(&connector, &name, addr))
                    .await
                    .context("a connection took too long")??;
                times.push(u64::try_from(began.elapsed().as_micros())?);
            }
            anyhow::Ok(times)
        });
    }
    let mut times = Vec::new();
    while let Some(worker) = workers.join_next().await {
        times.extend(worker??);
    }
    let seconds = began.elapsed().as_secs_f64();
    let latency = Latency::of_micros(&mut times).context("there was no time for a connection")?;
    println!(
        "{}",
        serde_json::to_string(&Load { operations: u64::try_from(times.len())?, seconds, latency })?
    );
    Ok(())
}

/// One connection, until the proxy has closed it.
async fn connect(
    connector: &TlsConnector,
    name: &ServerName<'static>,
    addr: SocketAddr,
) -> anyhow::Result<()> {
    let stream = TcpStream::connect(addr).await.context("connecting")?;
    stream.set_nodelay(true)?;
    let mut stream = connector.connect(name.clone(), stream).await.context("the handshake")?;
    stream.write_all(REQUEST).await?;
    let mut answer = Vec::with_capacity(2 * Body::OneKb.length());
    match stream.read_to_end(&mut answer).await {
        // Some proxies close without TLS's own end.
        Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => return Err(error.into()),
        Ok(_) | Err(_) => {}
    }
    if !answer.starts_with(b"HTTP/1.1 200") || answer.len() < Body::OneKb.length() {
        bail!("the answer was {:?}", String::from_utf8_lossy(&answer));
    }
    Ok(())
}

/// The name in the certificate.
pub(crate) fn name() -> anyhow::Result<ServerName<'static>> {
    Ok(ServerName::try_from("localhost")?)
}

/// A client that resumes no session and accepts every certificate.
pub(crate) fn connector() -> TlsConnector {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let any = Arc::new(AnyCertificate(Arc::clone(&provider)));
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = versions.expect("the provider supports the default versions");
    let mut config = builder.dangerous().with_custom_certificate_verifier(any).with_no_client_auth();
    config.resumption = Resumption::disabled();
    TlsConnector::from(Arc::new(config))
}

/// Accepts every certificate, because all run on this machine.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
