//! WebSockets to a service: through the front and the agent of a member, whose router takes the connection over.

use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::{Front, of_each_front};

const LONG: Duration = Duration::from_secs(30);

/// Sends a handshake with these lines in its head and bytes behind it; returns the head of the answer.
async fn shake(front: &Front, more: &str, behind: &str) -> anyhow::Result<(TcpStream, String)> {
    let mut stream = TcpStream::connect(front.address).await?;
    let head = format!(
        "GET {} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n{behind}",
        front.of_member("/websocket")
    );
    stream.write_all(head.as_bytes()).await?;
    let mut head = Vec::new();
    timeout(LONG, async {
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        Ok::<_, std::io::Error>(())
    })
    .await??;
    Ok((stream, String::from_utf8(head)?))
}

async fn a_service_takes_a_connection_over_through_the_front(front: Front) -> anyhow::Result<()> {
    let (mut stream, head) = shake(&front, "Origin: http://127.0.0.1\r\n", "early ").await?;
    ensure!(head.starts_with("HTTP/1.1 101 "), "{head}");
    ensure!(head.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    stream.write_all(b"late").await?;
    let mut arrived = [0; 10];
    timeout(LONG, stream.read_exact(&mut arrived)).await??;
    ensure!(&arrived == b"early late", "{arrived:?}");
    // A page of another site must not reach the service through a visitor's browser.
    let (_stream, head) = shake(&front, "Origin: http://evil.example\r\n", "").await?;
    ensure!(head.starts_with("HTTP/1.1 403 "), "{head}");
    // A member that takes another role closes what it has taken over.
    front.machine.ctl(&["set-service", "member", "standby"]).await?.exits(0)?;
    let end = timeout(LONG, stream.read(&mut [0])).await.context("the connection ends")?;
    ensure!(!matches!(end, Ok(1..)), "{end:?}");
    front.machine.ctl(&["down"]).await?.exits(0)?;
    Ok(())
}

of_each_front!(with_member:
    a_service_takes_a_connection_over_through_the_front,
);
