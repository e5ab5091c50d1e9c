//! `ctl kv import`: lines of JSON become keys, several requests at once.
//!
//! Answers are processed in the order of the file. So if a request fails, all lines before it are known to be stored.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use anyhow::Context;
use client::ClientError;
use futures_util::{StreamExt, stream};
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use types::{Problem, ServiceName};

use crate::aside::aside;
use crate::exit::{Exit, Failure, explain};
use crate::hints::quoted;
use crate::interrupt::Interrupt;
use crate::lines::{Chunk, LinesError, chunks};
use crate::out::{Progress, StreamFormat, StreamOutputArg, say};
use crate::owner::{Twice, with_owner};
use crate::pace::{is_long, pace};
use crate::reach::{Cx, Reached};
use crate::render;

pub(super) const AFTER_HELP: &str = "\
Examples:
  ctl kv import users.ndjson
  ctl kv export user/ | ctl --cluster other kv import -

A line is {\"key\":\"user/1\",\"value\":\"text\"}, or has `value_base64` instead; `content_type` and `expires_ms` \
(milliseconds since 1970) may be there too. A key is percent-encoded, as in a URL: a percent sign itself is %25.

An import is not atomic, but it is safe to repeat. If it fails, or at ^C, it reports the line to resume from. A key \
should appear only once: of two lines with the same key, either may win.";

/// Requests in flight.
const IN_FLIGHT: usize = 4;
/// Their total bytes: half of the shard's queue of writes that are not durable yet.
const BYTES_IN_FLIGHT: usize = 16 * 1024 * 1024;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The file with the lines, or - for standard input
    #[arg(default_value = "-", value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    output: StreamOutputArg,
}

/// The progress: the numbers of the last line that was sent, and of the last line that is known to be stored.
#[derive(Debug, Clone, Copy)]
struct Reach {
    sent: usize,
    stored: usize,
}

/// A line with a mistake; a retry fails again until the line is fixed.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
struct BadLine {
    /// Its number in the file.
    line: usize,
    /// The message, with the number.
    message: String,
}

#[derive(Debug, Serialize)]
struct Summary {
    imported: usize,
    seconds: f64,
}

pub(super) async fn run(
    args: &Args,
    service: Option<&ServiceName>,
    cx: &Cx,
    interrupt: &mut Interrupt,
) -> anyhow::Result<Exit> {
    let reached = &interrupt.unless(super::reach(cx, service)).await?;
    let file = (args.file.as_os_str() != "-").then_some(args.file.as_path());
    let source: Box<dyn BufRead + Send> = match file {
        None => Box::new(BufReader::new(io::stdin())),
        Some(path) => {
            let named = path.to_owned();
            let file = interrupt.unless(async { Ok(aside(move || File::open(named)).await) }).await?;
            Box::new(BufReader::new(file.with_context(|| format!("opening {}", path.display()))?))
        }
    };
    let began = Instant::now();
    let (sent_lines, room) = (&Cell::new(0), &Semaphore::new(BYTES_IN_FLIGHT));
    let queue =
        stream::unfold(chunks(source, 0, IN_FLIGHT), async |mut queue| Some((queue.recv().await?, queue)));
    let sending = queue.map(|chunk| {
        sent_lines.set(chunk.as_ref().map_or(sent_lines.get(), Chunk::last));
        send(reached, chunk, room)
    });
    let mut answers = Box::pin(sending.buffered(IN_FLIGHT));
    let (mut imported, mut stored_lines) = (0, 0);
    let mut progress = Progress::new();
    loop {
        let next = interrupt.unless(async { answers.next().await.transpose() });
        let (keys, lines) = match next.await {
            Ok(Some(answer)) => answer,
            Ok(None) => break,
            Err(error) => {
                progress.clear();
                let reach = Reach { sent: sent_lines.get(), stored: stored_lines };
                return Err(failed(error, reach, file));
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

/// Returns the numbers of stored keys and lines.
async fn send(
    reached: &Reached,
    chunk: Result<Chunk, LinesError>,
    room: &Semaphore,
) -> anyhow::Result<(usize, usize)> {
    let chunk = chunk.map_err(unread)?;
    let cost = u32::try_from(chunk.text.len().min(BYTES_IN_FLIGHT)).unwrap_or(u32::MAX);
    let _taken = room.acquire_many(cost).await?;
    let sending = async |member: &client::Client| member.kv_import(chunk.text.clone()).await;
    match with_owner(reached, None, Twice::Harmless, sending).await {
        Ok(keys) => Ok((usize::try_from(keys).unwrap_or(usize::MAX), chunk.lines)),
        Err(error) => Err(in_file(error, chunk.first)),
    }
}

fn unread(error: LinesError) -> anyhow::Error {
    match error {
        LinesError::TooLong { line } => {
            let message = format!("{error}; a value of 8 MiB, the largest, takes less in base64");
            BadLine { line, message }.into()
        }
        LinesError::Io(_) => error.into(),
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
            let line = first + number - 1;
            BadLine { line, message: format!("line {line}: {why}") }.into()
        }
        None => error,
    }
}

/// The error, what is stored, and how to resume.
fn failed(error: anyhow::Error, reach: Reach, file: Option<&Path>) -> anyhow::Error {
    let bad = error.downcast_ref::<BadLine>();
    let unread = error.downcast_ref::<LinesError>();
    let failure = match (bad, unread, file) {
        (Some(BadLine { message, .. }), _, _) => Failure::new(Exit::Usage, message.clone()),
        (None, Some(LinesError::Io(cause)), Some(file)) => {
            Failure::new(Exit::Error, format!("reading {}: {cause}", file.display()))
        }
        (None, Some(LinesError::Io(cause)), None) => {
            Failure::new(Exit::Error, format!("reading standard input: {cause}"))
        }
        _ => explain(&error),
    };
    match advice(reach, bad.map(|bad| bad.line), file) {
        Some(advice) => Failure::new(failure.exit(), failure.to_string()).hint(advice).into(),
        None if unread.is_some() => failure.into(),
        None => error,
    }
}

/// What is stored, and how to resume; `None` if nothing was sent and no line needs a fix. Standard input can't be read
/// again. Pure.
fn advice(reach: Reach, bad_line: Option<usize>, file: Option<&Path>) -> Option<String> {
    if reach.sent == 0 && bad_line.is_none() {
        return None;
    }
    let stored = match reach.stored {
        0 => "none of the lines is known to be stored".to_owned(),
        1 => "line 1 is stored".to_owned(),
        lines => format!("lines 1 to {lines} are stored"),
    };
    let fix = bad_line.map(|line| format!("fix line {line}, then ")).unwrap_or_default();
    let from = reach.stored + 1;
    let file = file.map(|file| quoted(&file.display().to_string()));
    let resume = match (file, reach.stored) {
        (Some(file), 0) => format!("`ctl kv import {file}` starts over"),
        (Some(file), _) => format!("`tail -n +{from} {file} | ctl kv import -` resumes"),
        (None, 0) => "import all lines again".to_owned(),
        (None, _) => format!("import the lines from {from} on again"),
    };
    Some(format!("{stored}; {fix}{resume}, and repeating does no harm"))
}

#[cfg(test)]
mod tests {
    use types::ErrorKind;

    use super::*;

    fn failure(error: anyhow::Error, sent: usize, stored: usize, file: Option<&str>) -> Failure {
        explain(&failed(error, Reach { sent, stored }, file.map(Path::new)))
    }

    fn lost() -> anyhow::Error {
        Failure::new(Exit::NoAgent, "no agent answers").into()
    }

    fn bad() -> anyhow::Error {
        let problem = Problem::new(ErrorKind::Invalid, "bad-line", "line 3: the key is empty");
        in_file(ClientError::Problem(Box::new(problem)).into(), 10_001)
    }

    #[test]
    fn a_mistake_is_reported_with_its_line_in_the_file_and_must_be_fixed() {
        let mistake = Failure::new(Exit::Usage, "line 10003: the key is empty");
        let hint = "lines 1 to 10000 are stored; fix line 10003, then `tail -n +10001 a.ndjson | ctl kv import -` \
                    resumes, and repeating does no harm";
        assert_eq!(failure(bad(), 20_000, 10_000, Some("a.ndjson")), mistake.clone().hint(hint));
        let hint = "none of the lines is known to be stored; fix line 10003, then import all lines again, and \
                    repeating does no harm";
        assert_eq!(failure(bad(), 20_000, 0, None), mistake.hint(hint));
        let long = failure(unread(LinesError::TooLong { line: 1 }), 0, 0, Some("a.ndjson"));
        assert_eq!(long.exit(), Exit::Usage);
        assert!(long.to_string().starts_with("line 1 has more than "), "{long}");
    }

    #[test]
    fn the_hint_says_how_to_resume_from_a_file_and_from_standard_input() {
        for (stored, file, hint) in [
            (7, Some("a.ndjson"), "lines 1 to 7 are stored; `tail -n +8 a.ndjson | ctl kv import -` resumes"),
            (1, None, "line 1 is stored; import the lines from 2 on again"),
            (
                0,
                Some("a.ndjson"),
                "none of the lines is known to be stored; `ctl kv import a.ndjson` starts over",
            ),
            (0, None, "none of the lines is known to be stored; import all lines again"),
        ] {
            let hint = format!("{hint}, and repeating does no harm");
            let expected = Failure::new(Exit::NoAgent, "no agent answers").hint(hint.clone());
            assert_eq!(failure(lost(), 9, stored, file), expected);
            let interrupted = failure(Failure::interrupted().into(), 9, stored, file);
            assert_eq!(interrupted, Failure::interrupted().hint(hint), "^C gives the same hint");
        }
    }

    #[test]
    fn if_nothing_was_read_there_is_nothing_to_repeat() {
        let folder = unread(io::Error::from(io::ErrorKind::IsADirectory).into());
        assert_eq!(
            failure(folder, 0, 0, Some("/tmp")),
            Failure::new(Exit::Error, "reading /tmp: is a directory")
        );
        assert_eq!(failure(lost(), 0, 0, None), Failure::new(Exit::NoAgent, "no agent answers"));
    }
}
