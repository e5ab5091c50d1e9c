//! `ctl kv import`: lines of JSON become keys, several requests at once.
//!
//! Answers are heard in the order of the file. So when one is a failure, all lines before it are known to be stored.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use client::ClientError;
use futures_util::{StreamExt, stream};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::Instant;
use types::Problem;

use super::owner::{Twice, with_owner};
use crate::exit::{Exit, Failure, explain};
use crate::out::{Progress, StreamFormat, StreamOutputArg, say};
use crate::reach::{Cx, Reached};
use crate::render;

pub(super) const AFTER_HELP: &str = "\
Examples:
  ctl kv import users.ndjson
  ctl kv export user/ | ctl --cluster other kv import -

A line is {\"key\":\"user/1\",\"value\":\"text\"}, or has `value_base64` instead; `content_type` and `expires_ms` \
(milliseconds since 1970) may be there too. A key is percent-encoded, as in a URL: a percent sign itself is %25.

It is not atomic, but repeating it does no harm. If it fails it says from which line on to repeat it. A key should be \
there once: of two lines with the same key either may be the last.";

/// Lines in a request, and their bytes unless one line has more.
const CHUNK: (usize, usize) = (10_000, 1024 * 1024);
/// Requests at once.
const IN_FLIGHT: usize = 4;
/// From when on it is shown how far it is.
const LONG: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The file with the lines, or - for standard input
    #[arg(default_value = "-", value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    output: StreamOutputArg,
}

/// Lines that are sent together.
#[derive(Debug, Default, PartialEq, Eq)]
struct Chunk {
    /// The number of the first one, from 1.
    first: usize,
    lines: usize,
    text: Vec<u8>,
}

#[derive(Debug, Serialize)]
struct Summary {
    imported: usize,
    seconds: f64,
}

/// Whether it takes so long that it should be shown how far it is.
pub(super) fn is_long(began: Instant) -> bool {
    began.elapsed() > LONG
}

/// `41 s (24 k/s)`.
pub(super) fn pace(keys: usize, time: Duration) -> String {
    let millis = usize::try_from(time.as_millis()).unwrap_or(usize::MAX).max(1);
    let each_second = keys.saturating_mul(1_000) / millis;
    let pace = match each_second {
        0..10_000 => each_second.to_string(),
        _ => format!("{} k", each_second / 1_000),
    };
    let seconds =
        if millis < 10_000 { format!("{:.1}", time.as_secs_f64()) } else { (millis / 1_000).to_string() };
    format!("{seconds} s ({pace}/s)")
}

/// The next lines, none at the end.
fn chunk(source: &mut impl BufRead, first: usize) -> io::Result<Option<Chunk>> {
    let mut chunk = Chunk { first, ..Chunk::default() };
    while chunk.lines < CHUNK.0 && chunk.text.len() < CHUNK.1 {
        if source.read_until(b'\n', &mut chunk.text)? == 0 {
            break;
        }
        chunk.lines += 1;
    }
    Ok((chunk.lines > 0).then_some(chunk))
}

/// Reads beside the requests: a slow pipe must not stop them.
fn chunks(source: Box<dyn BufRead + Send>) -> mpsc::Receiver<io::Result<Chunk>> {
    let (chunks, queue) = mpsc::channel(IN_FLIGHT);
    // A thread of its own, which does not hold up the end of the process while it waits for input.
    std::thread::spawn(move || {
        let mut source = source;
        let mut first = 1;
        while let Some(read) = chunk(&mut source, first).transpose() {
            first += read.as_ref().map_or(0, |chunk| chunk.lines);
            let is_last = read.is_err();
            if chunks.blocking_send(read).is_err() || is_last {
                return;
            }
        }
    });
    queue
}

pub(super) async fn run(reached: &Reached, args: &Args, cx: &Cx) -> anyhow::Result<Exit> {
    let is_stdin = args.file.as_os_str() == "-";
    let source: Box<dyn BufRead + Send> = if is_stdin {
        Box::new(BufReader::new(io::stdin()))
    } else {
        let file = File::open(&args.file).with_context(|| format!("opening {}", args.file.display()))?;
        Box::new(BufReader::new(file))
    };
    let began = Instant::now();
    let queue = stream::unfold(chunks(source), async |mut queue| Some((queue.recv().await?, queue)));
    let mut answers = Box::pin(queue.map(|chunk| send(reached, chunk)).buffered(IN_FLIGHT));
    let (mut imported, mut stored_lines) = (0, 0);
    let mut progress = Progress::new();
    while let Some(answer) = answers.next().await {
        let (keys, lines) = match answer {
            Ok(answer) => answer,
            Err(error) => {
                progress.clear();
                return Err(failed(&error, stored_lines, args));
            }
        };
        imported += keys;
        stored_lines += lines;
        if is_long(began) {
            progress.show(&format!(
                "imported {}, {}",
                render::count(imported, "key"),
                pace(imported, began.elapsed())
            ));
        }
    }
    progress.clear();
    if args.output.output == StreamFormat::Json {
        cx.out.json_line(&Summary { imported, seconds: began.elapsed().as_secs_f64() })?;
    }
    say(&format!("imported {} in {}", render::count(imported, "key"), pace(imported, began.elapsed())));
    Ok(Exit::Ok)
}

/// Keys and lines that are stored.
async fn send(reached: &Reached, chunk: io::Result<Chunk>) -> anyhow::Result<(usize, usize)> {
    let chunk = chunk.context("reading the lines")?;
    let sending = async |member: &client::Client| member.kv_import(chunk.text.clone()).await;
    match with_owner(reached, None, Twice::Harmless, sending).await {
        Ok(keys) => Ok((usize::try_from(keys).unwrap_or(usize::MAX), chunk.lines)),
        Err(error) => Err(in_file(error, chunk.first)),
    }
}

/// A mistake in a line, with the number that the line has in the file.
fn in_file(error: anyhow::Error, first: usize) -> anyhow::Error {
    let problem = error.downcast_ref::<ClientError>().and_then(ClientError::problem);
    let Some(Problem { detail, .. }) = problem.filter(|problem| problem.code() == "bad-line") else {
        return error;
    };
    let numbered = detail.strip_prefix("line ").and_then(|rest| rest.split_once(": "));
    match numbered.and_then(|(number, why)| Some((number.parse::<usize>().ok()?, why))) {
        Some((number, why)) => {
            Failure::new(Exit::Usage, format!("line {}: {why}", first + number - 1)).into()
        }
        None => error,
    }
}

/// What is stored, and how to go on.
fn failed(error: &anyhow::Error, stored_lines: usize, args: &Args) -> anyhow::Error {
    let failure = explain(error);
    let stored = match stored_lines {
        0 => "none of the lines is known to be stored".to_owned(),
        lines => format!("lines 1 to {lines} are stored"),
    };
    let from = stored_lines + 1;
    let file = args.file.display();
    let advice =
        format!("{stored}; `tail -n +{from} {file} | ctl kv import -` goes on, and repeating does no harm");
    Failure::new(failure.exit(), failure.to_string()).hint(advice).into()
}

#[cfg(test)]
mod tests {
    use types::ErrorKind;

    use super::*;

    #[test]
    fn lines_are_sent_together_and_keep_their_numbers() {
        let text = "a\n".repeat(CHUNK.0 + 2) + "the end";
        let mut source = text.as_bytes();
        let one = chunk(&mut source, 1).unwrap().unwrap();
        assert_eq!((one.first, one.lines, one.text.len()), (1, CHUNK.0, CHUNK.0 * 2));
        let other = chunk(&mut source, 1 + one.lines).unwrap().unwrap();
        assert_eq!((other.first, other.lines), (CHUNK.0 + 1, 3));
        assert_eq!(other.text, b"a\na\nthe end");
        assert_eq!(chunk(&mut source, 1).unwrap(), None);
        let large = ["x".repeat(CHUNK.1), "y".to_owned()].join("\n");
        assert_eq!(chunk(&mut large.as_bytes(), 1).unwrap().unwrap().lines, 1);
    }

    #[test]
    fn a_mistake_is_told_with_its_line_in_the_file_and_how_to_go_on() {
        let problem = Problem::new(ErrorKind::Invalid, "bad-line", "line 3: the key is empty");
        let error = in_file(ClientError::Problem(Box::new(problem)).into(), 10_001);
        let args = Args { file: "a.ndjson".into(), output: StreamOutputArg { output: StreamFormat::Table } };
        let told = explain(&failed(&error, 10_000, &args));
        let hint = "lines 1 to 10000 are stored; `tail -n +10001 a.ndjson | ctl kv import -` goes on, and repeating \
                    does no harm";
        assert_eq!(told, Failure::new(Exit::Usage, "line 10003: the key is empty").hint(hint));
    }

    #[test]
    fn a_pace_is_told_in_thousands() {
        assert_eq!(pace(1_000_000, Duration::from_secs(41)), "41 s (24 k/s)");
        assert_eq!(pace(3, Duration::from_millis(1_500)), "1.5 s (2/s)");
        assert_eq!(pace(0, Duration::ZERO), "0.0 s (0/s)");
    }
}
