//! `ctl index import`: lines of JSON become documents, several requests at once.
//!
//! Answers are processed in the order of the file. So if a request fails, it is known what became of all lines before it.

mod batch;

use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use client::{ClientError, Imported};
use futures_util::{StreamExt, stream};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};
use types::range::NumberIn;
use types::{Backoff, ServiceName};

use super::{IndexName, create, show};
use crate::aside::aside;
use crate::complete;
use crate::exit::{Exit, Failure, explain};
use crate::hints::quoted;
use crate::interrupt::Interrupt;
use crate::lines::{Chunk, LinesError, chunks};
use crate::out::{Progress, StreamFormat, StreamOutputArg, say};
use crate::owner::{Twice, with_owner};
use crate::pace::{is_long, pace};
use crate::reach::{Cx, Reached};
use crate::render;
use crate::service::{self, INDEXES};
use batch::{Batch, Refused};

pub(super) const AFTER_HELP: &str = "\
Examples:
  ctl index import packages packages.ndjson
  ctl index import books books.ndjson --create --id isbn
  ctl index import books - --refused refused.ndjson < books.ndjson
  ctl index import books books.ndjson --skip-lines 20000

A line is a document: a JSON object. Its id is the value of the field that the index names as its id; without one, each \
line becomes a new document. An import is not atomic. If it fails, or at ^C, it prints the command that resumes it, \
which does no harm if documents have ids. Of two lines with the same id, either may win.

Exit code 1 if lines were refused: each is reported with its number and the reason, and the others are stored.";

/// Requests in flight.
const IN_FLIGHT: usize = 4;
/// Their total bytes: a quarter of what a shard takes before it refuses more.
const BYTES_IN_FLIGHT: usize = 16 * 1024 * 1024;
/// How long lines are sent again that a member refuses for now, since the last that it took.
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSES: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
/// Refused lines that are shown.
const SHOWN: usize = 100;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The index
    #[arg(add = complete::indexes())]
    index: IndexName,
    /// The file with the lines, or - for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The field whose value is a document's id: for an index that is created; of another one it must be the id
    #[arg(long, value_name = "FIELD")]
    id: Option<String>,
    /// Create the index if there is none; all fields of the documents are indexed
    #[arg(long)]
    create: bool,
    /// Leave the first N lines out, up to 1000000000000, to resume [default: 0]
    #[arg(long, value_name = "N")]
    skip_lines: Option<NumberIn<0, 1_000_000_000_000>>,
    /// Keep the refused lines in this file; with --skip-lines they are added to it
    #[arg(long, value_name = "FILE")]
    refused: Option<PathBuf>,
    #[command(flatten)]
    output: StreamOutputArg,
}

#[derive(Debug, Serialize)]
struct Summary {
    imported: usize,
    refused: usize,
    seconds: f64,
}

/// What became of a chunk.
#[derive(Debug, Default)]
struct Sent {
    lines: usize,
    indexed: usize,
    refused: Vec<Refused>,
}

/// What a failed import needs to say how to resume.
#[derive(Debug)]
struct Resume<'a> {
    args: &'a Args,
    service: Option<&'a ServiceName>,
    has_ids: bool,
}

pub(super) async fn run(
    args: &Args,
    service: Option<&ServiceName>,
    cx: &Cx,
    interrupt: &mut Interrupt,
) -> anyhow::Result<Exit> {
    let prepared = async {
        let reached = service::reach(cx, service, &INDEXES).await?;
        let id = id_field(&reached, args).await?;
        Ok((reached, id))
    };
    let (reached, id) = interrupt.unless(prepared).await?;
    let source = interrupt.unless(source(&args.file)).await?;
    let skipped = args.skip_lines.map_or(0, NumberIn::as_usize);
    let mut kept = args.refused.as_deref().map(|path| Kept::open(path, skipped > 0)).transpose()?;
    let began = Instant::now();
    let (sent_to, room) = (&Cell::new(skipped), &Semaphore::new(BYTES_IN_FLIGHT));
    let queue = chunks(source, skipped, IN_FLIGHT);
    let queue = stream::unfold(queue, async |mut queue| Some((queue.recv().await?, queue)));
    let sending = queue.map(|chunk| {
        sent_to.set(chunk.as_ref().map_or(sent_to.get(), Chunk::last));
        send(&reached, &args.index, chunk, room)
    });
    let mut answers = Box::pin(sending.buffered(IN_FLIGHT));
    let (mut imported, mut refused, mut done) = (0, 0, skipped);
    let mut progress = Progress::new();
    loop {
        let next = interrupt.unless(async { answers.next().await.transpose() }).await;
        let sent = match next {
            Ok(Some(sent)) => sent,
            Ok(None) => break,
            Err(error) => {
                progress.clear();
                let resume = Resume { args, service, has_ids: id.is_some() };
                return Err(resume.failed(error, sent_to.get() > skipped, done));
            }
        };
        imported += sent.indexed;
        done += sent.lines;
        if !sent.refused.is_empty() {
            progress.clear();
            report(&sent.refused, refused, args.refused.is_some());
            refused += sent.refused.len();
        }
        if let Some(kept) = &mut kept {
            kept.add(&sent.refused)?;
        }
        if is_long(began) {
            let documents = render::count(imported, "document");
            progress.show(&format!("imported {documents}, {}", pace(imported, began.elapsed())));
        }
    }
    drop(answers);
    progress.clear();
    let refreshing = async |member: &client::Client| member.refresh_index(args.index.as_str()).await;
    let refreshed = interrupt.unless(with_owner(&reached, None, Twice::Harmless, refreshing)).await;
    if args.output.output == StreamFormat::Json {
        cx.out.json_line(&Summary { imported, refused, seconds: began.elapsed().as_secs_f64() })?;
    }
    say(&format!("imported {} in {}", render::count(imported, "document"), pace(imported, began.elapsed())));
    if let Err(error) = refreshed {
        say(&format!("searches may not find all of them yet: {}", explain(&error)));
    }
    if refused == 0 {
        return Ok(Exit::Ok);
    }
    say(&format!("refused {}", render::count(refused, "line")));
    Ok(Exit::Error)
}

/// The field that is the id of the index's documents. Creates the index if that is wanted.
async fn id_field(reached: &Reached, args: &Args) -> anyhow::Result<Option<String>> {
    let index = &args.index;
    let shown = match show::fetch(reached, index).await {
        Ok(shown) => shown,
        Err(error) if args.create && show::is_missing(&error) => {
            let mut definition = json!({});
            if let Some(id) = &args.id {
                definition["id"] = Value::from(id.as_str());
            }
            if create::create(reached, index, &definition).await?.created {
                say(&format!("created {index}"));
            }
            return Ok(args.id.clone());
        }
        Err(error) if show::is_missing(&error) => {
            let failure = explain(&error);
            let name = quoted(index.as_str());
            let hint = format!(
                "`ctl index create {name}` creates it, and so does --create; `ctl index ls` lists others"
            );
            return Err(Failure::new(failure.exit(), failure.to_string()).hint(hint).into());
        }
        Err(error) => return Err(error),
    };
    let id = shown.pointer("/definition/id").and_then(Value::as_str);
    Ok(agreed(index, id, args.id.as_deref())?.map(str::to_owned))
}

/// The id field of an index, if it is the one that was given. Pure.
fn agreed<'a>(
    index: &IndexName,
    id: Option<&'a str>,
    given: Option<&str>,
) -> Result<Option<&'a str>, Failure> {
    match (id, given) {
        (id, None) => Ok(id),
        (Some(id), Some(given)) if id == given => Ok(Some(id)),
        (id, Some(given)) => {
            let is = id.map_or_else(|| "is in no field".to_owned(), |id| format!("is in the field `{id}`"));
            Err(Failure::new(Exit::Usage, format!("the id of a document of {index} {is}, not in `{given}`"))
                .hint("leave --id out, or import into another index"))
        }
    }
}

async fn source(file: &Path) -> anyhow::Result<Box<dyn BufRead + Send>> {
    if file.as_os_str() == "-" {
        return Ok(Box::new(BufReader::new(io::stdin())));
    }
    let named = file.to_owned();
    let opened = aside(move || File::open(named)).await;
    Ok(Box::new(BufReader::new(opened.with_context(|| format!("opening {}", file.display()))?)))
}

/// Sends a chunk until each of its lines is stored or refused for good.
async fn send(
    reached: &Reached,
    index: &IndexName,
    chunk: Result<Chunk, LinesError>,
    room: &Semaphore,
) -> anyhow::Result<Sent> {
    let chunk = chunk?;
    let cost = u32::try_from(chunk.text.len().min(BYTES_IN_FLIGHT)).unwrap_or(u32::MAX);
    let _taken = room.acquire_many(cost).await?;
    let mut sent = Sent { lines: chunk.lines, ..Sent::default() };
    // What is left to send; the next batch is the last one.
    let mut left = vec![Batch::of(chunk)];
    let mut retries = PAUSES.retries();
    let mut since = Instant::now();
    while let Some(batch) = left.pop() {
        let sending =
            async |member: &client::Client| member.import_documents(index.as_str(), batch.text.clone()).await;
        let answer = match with_owner(reached, None, Twice::Harmless, sending).await {
            Ok(answer) => answer,
            Err(error) => {
                let Some(detail) = too_large(&error) else { return Err(error) };
                match batch.halves() {
                    Ok((first, rest)) => left.extend([rest, first]),
                    Err(batch) => sent.refused.extend(batch.refused(&detail)),
                }
                continue;
            }
        };
        let (again, why, after) = match answer {
            Imported::Later { why, after } => (batch, why, after),
            Imported::Done { indexed, refused } => {
                let (again, lost) = batch.divided(&refused);
                sent.indexed += usize::try_from(indexed).unwrap_or(usize::MAX);
                sent.refused.extend(lost);
                if indexed > 0 {
                    (retries, since) = (PAUSES.retries(), Instant::now());
                }
                let why = refused.into_iter().find(|line| matches!(line.status, 429 | 503));
                (again, why.map(|line| line.detail).unwrap_or_default(), None)
            }
        };
        if again.is_empty() {
            continue;
        }
        left.push(again);
        if since.elapsed() > PATIENCE {
            return Err(Failure::new(Exit::Error, format!("for {} s: {why}", PATIENCE.as_secs())).into());
        }
        sleep(retries.failed(random()).max(after.unwrap_or_default().min(PATIENCE))).await;
    }
    sent.refused.sort_by_key(|refused| refused.line);
    Ok(sent)
}

/// Why a request was too large, if it was: a service may be set to take less at once.
fn too_large(error: &anyhow::Error) -> Option<String> {
    let problem = error.downcast_ref::<ClientError>()?.problem()?;
    (problem.status == 413).then(|| problem.detail.clone())
}

/// A number from 0 to 1 that spreads the retries of several programs.
fn random() -> f64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    f64::from(now.subsec_micros() % 1_000) / 1_000.0
}

/// Shows refused lines, as long as there are few.
fn report(refused: &[Refused], before: usize, are_kept: bool) {
    for line in refused.iter().take(SHOWN.saturating_sub(before)) {
        say(&line.message);
    }
    if before <= SHOWN && before + refused.len() > SHOWN {
        let where_else = if are_kept { "" } else { "; --refused FILE keeps them" };
        say(&format!("further refused lines are not shown{where_else}"));
    }
}

/// The file of refused lines.
#[derive(Debug)]
struct Kept {
    file: BufWriter<File>,
    path: PathBuf,
}

impl Kept {
    fn open(path: &Path, is_resumed: bool) -> anyhow::Result<Self> {
        let mut how = OpenOptions::new();
        how.create(true).write(true).append(is_resumed).truncate(!is_resumed);
        let file = how.open(path).with_context(|| format!("creating {}", path.display()))?;
        Ok(Self { file: BufWriter::new(file), path: path.to_owned() })
    }

    fn add(&mut self, refused: &[Refused]) -> anyhow::Result<()> {
        let mut write = || {
            for line in refused {
                self.file.write_all(&line.text)?;
                self.file.write_all(b"\n")?;
            }
            self.file.flush()
        };
        write().with_context(|| format!("writing {}", self.path.display()))
    }
}

impl Resume<'_> {
    /// The error, what is stored, and the command that resumes.
    fn failed(&self, error: anyhow::Error, is_sent: bool, done: usize) -> anyhow::Error {
        let file = &self.args.file;
        let failure = match error.downcast_ref::<LinesError>() {
            Some(LinesError::Io(cause)) if file.as_os_str() == "-" => {
                Failure::new(Exit::Error, format!("reading standard input: {cause}"))
            }
            Some(LinesError::Io(cause)) => {
                Failure::new(Exit::Error, format!("reading {}: {cause}", file.display()))
            }
            Some(LinesError::TooLong { .. }) => Failure::new(Exit::Usage, error.to_string()),
            None if !is_sent => return error,
            None => explain(&error),
        };
        if !is_sent {
            return failure.into();
        }
        let stored = match done {
            0 => "none of the lines is known to be stored".to_owned(),
            1 => "line 1 is done".to_owned(),
            lines => format!("lines 1 to {lines} are done"),
        };
        let input = if file.as_os_str() == "-" { " with the same input" } else { "" };
        let twice = match self.has_ids {
            true => "repeating does no harm",
            false => "some of the next lines may then be stored twice, since they have no ids",
        };
        let hint = format!("{stored}; `ctl {}` resumes{input}, and {twice}", self.command(done));
        Failure::new(failure.exit(), failure.to_string()).hint(hint).into()
    }

    fn command(&self, done: usize) -> String {
        let Args { index, file, refused, .. } = self.args;
        let service = self.service.map(|service| format!(" --service {service}")).unwrap_or_default();
        let file = quoted(&file.display().to_string());
        let mut command = format!("index{service} import {} {file}", quoted(index.as_str()));
        if done > 0 {
            command.push_str(&format!(" --skip-lines {done}"));
        }
        if let Some(path) = refused {
            command.push_str(&format!(" --refused {}", quoted(&path.display().to_string())));
        }
        command
    }
}

#[cfg(test)]
mod tests;
