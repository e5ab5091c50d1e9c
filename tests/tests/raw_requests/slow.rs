//! Slow and idle clients (section 4f of the design page), with short limits where settings have them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use e2e::eventually;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::frames::EVERY;
use crate::frames::{
    self, CANCEL, DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, RST_STREAM, block, frame, get,
    has_ended, preface,
};
use crate::front::exchange;
use crate::recorder::Scripted;
use crate::{Front, of_each_front};

/// Far above the limits of these tests, and below those that count without settings.
const SOON: Duration = Duration::from_secs(40);
/// Far above the time over which the rate of a body is measured.
const LONG: Duration = Duration::from_secs(120);
/// More than all buffers between the recorder and a client hold.
const LARGE: usize = 64 * 1024 * 1024;

async fn a_connection_that_is_idle_for_too_long_is_closed(front: Front) -> anyhow::Result<()> {
    let began = Instant::now();
    let came = exchange(front.address, b"GET /idle HTTP/1.1\r\nHost: x\r\n\r\n", false).await?;
    ensure!(came.is_closed && came.statuses() == [200], "{}", came.text);

    let request = [preface(&[]), frame(HEADERS, END_HEADERS | END_STREAM, 1, &get("/idle"))].concat();
    let frames = frames::exchange_within(SOON, front.address, request, |_| false).await?;
    let is_goaway = |one: &&Frame| one.kind == GOAWAY && one.code() == 0;
    ensure!(frames.iter().filter(is_goaway).count() == 2, "it was announced, then the last stream was named");
    ensure!(front.recorder.seen("/idle").len() == 2 && began.elapsed() < SOON, "{:?}", began.elapsed());
    Ok(())
}

async fn a_client_that_takes_nothing_of_its_answer_is_cut_off(front: Front) -> anyhow::Result<()> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\n\r\n");
    let bytes = [head.as_bytes(), &vec![b'x'; LARGE]].concat();
    front.recorder.answers("/large", Scripted { bytes, closes: false });
    let began = Instant::now();
    let mut client = TcpStream::connect(front.address).await?;
    client.write_all(b"GET /large/1 HTTP/1.1\r\nHost: x\r\n\r\n").await?;
    eventually("the recorder can send no more", || async {
        front.recorder.seen("/large/1").iter().any(|seen| seen.is_unread).then_some(())
    })
    .await?;
    let mut came = Vec::new();
    // It may end with a reset.
    let _ = timeout(SOON, client.read_to_end(&mut came)).await.context("the connection is closed")?;
    ensure!(came.len() < LARGE, "all of it came");

    // The client opens no window beyond the first.
    let request = [preface(&[]), frame(HEADERS, END_HEADERS | END_STREAM, 1, &get("/large/2"))].concat();
    let is_reset = |frames: &[Frame]| frames.iter().any(|one| one.kind == RST_STREAM && one.code() == CANCEL);
    let frames = frames::exchange_within(SOON, front.address, request, is_reset).await?;
    ensure!(is_reset(&frames), "{:?}", frames.last());
    ensure!(began.elapsed() < SOON, "{:?}", began.elapsed());
    Ok(())
}

/// Sends the head of a request, then a byte of its body again and again. Returns the answer.
async fn drip(address: SocketAddr, head: &[u8]) -> anyhow::Result<String> {
    let (mut reader, mut writer) = TcpStream::connect(address).await?.into_split();
    let sending = async {
        let _ = writer.write_all(head).await;
        while writer.write_all(b"x").await.is_ok() {
            sleep(EVERY).await;
        }
        std::future::pending::<()>().await;
    };
    let mut came = Vec::new();
    let reading = async { while reader.read_buf(&mut came).await.is_ok_and(|read| read > 0) {} };
    timeout(LONG, async {
        tokio::select! {
            () = sending => {}
            () = reading => {}
        }
    })
    .await
    .context("the connection is closed though bytes still come")?;
    Ok(String::from_utf8_lossy(&came).into_owned())
}

async fn a_body_below_its_least_rate_is_refused_though_it_moves(front: Front) -> anyhow::Result<()> {
    let head = b"POST /drip/1 HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n";
    let post = block(&[(":method", "POST"), (":scheme", "http"), (":authority", "x"), (":path", "/drip/2")]);
    let request = [preface(&[]), frame(HEADERS, END_HEADERS, 1, &post)].concat();
    let byte = frame(DATA, 0, 1, b"x");
    let began = Instant::now();
    let (came, frames) = tokio::join!(
        drip(front.address, head),
        frames::exchange_dripping(LONG, front.address, request, &byte, |frames| has_ended(frames, 1)),
    );
    let took = began.elapsed();
    let (came, frames) = (came?, frames?);
    ensure!(came.starts_with("HTTP/1.1 408 ") && came.contains("slow-body"), "{came}");
    let data: Vec<u8> =
        frames.iter().filter(|one| one.kind == DATA).flat_map(|one| one.payload.clone()).collect();
    ensure!(String::from_utf8_lossy(&data).contains("slow-body"), "{:?}", frames.last());
    ensure!(took >= Duration::from_secs(29), "it took {took:?}");
    let log = front.log();
    for path in ["/drip/1", "/drip/2"] {
        eventually("the recorder's request is aborted", || async {
            front.recorder.seen(path).iter().any(|seen| seen.is_cut && seen.body.len() > 10).then_some(())
        })
        .await?;
        let line = eventually("the request is logged", || async {
            let text = std::fs::read_to_string(&log).ok()?;
            let mut lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            lines.find(|line| line["path"] == path)
        });
        let line = line.await?;
        ensure!(line["status"] == 408 && line["reason"] == "slow_body", "{line}");
    }
    Ok(())
}

of_each_front!(hurried:
    a_connection_that_is_idle_for_too_long_is_closed,
    a_client_that_takes_nothing_of_its_answer_is_cut_off,
    a_body_below_its_least_rate_is_refused_though_it_moves,
);
