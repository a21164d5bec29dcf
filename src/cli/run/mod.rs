//! `horseshoe run`: runs the operations in a file, one after the other, and measures the time of
//! each.

mod figures;
pub(in crate::cli) mod file;
mod plot;

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use kvclient::{Call, CallError, Client, transaction};
use serde_json::{Map, Value, json};
use wire::{Action, KeyResult, Outcome};

use self::figures::{Figures, Summary};
use self::file::Line;
use super::connection::ConnectionArgs;
use super::exit::Exit;
use super::{report, words};

/// Run the operations of a CSV file and time each.
///
/// Lines are PUT,key,value or GET,key or DELETE,key, with quotes as in RFC 4180; a PUT may have a
/// time to live as a fourth field. EXPIRE,key,time and PERSIST,key change a time to live, and
/// TTL,key tells it. The GET, PUT and DELETE lines between BEGIN and COMMIT take effect together or
/// not at all. A file with a bad line is refused before anything is done. An absent key is no
/// failure; the exit status is 6 if an operation failed.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The file; a lone - is standard input
    #[arg(value_name = "FILE", allow_hyphen_values = true)]
    file: PathBuf,

    /// Draw the figures into this file, as SVG: mean, standard deviation and throughput
    #[arg(long, value_name = "OUT.svg")]
    plot: Option<PathBuf>,
}

impl RunArgs {
    fn is_standard_input(&self) -> bool {
        self.file.as_os_str() == "-"
    }
}

pub fn run(arguments: &RunArgs, connection: &ConnectionArgs) -> Exit {
    let lines = match read(arguments) {
        Ok(lines) => lines,
        Err(message) => return connection.refuse("file", Exit::Usage, &message),
    };
    let plot = arguments.plot.as_ref();
    let plot = match plot.map(|path| Plot::open(path, arguments)).transpose() {
        Ok(plot) => plot,
        Err(message) => return connection.refuse("file", Exit::Usage, &message),
    };
    let client = match connection.open() {
        Ok(client) => client,
        Err(exit) => return exit,
    };
    let mut run = Run {
        client,
        json: connection.json,
        plot,
        figures: Figures::default(),
    };
    let started = Instant::now();
    for line in lines {
        if let Err(exit) = run.step(line) {
            return exit;
        }
    }
    run.finish(started.elapsed(), connection)
}

fn read(arguments: &RunArgs) -> Result<Vec<Line>, String> {
    let name = arguments.file.display();
    let mut bytes = Vec::new();
    let read = match arguments.is_standard_input() {
        true => std::io::stdin().lock().read_to_end(&mut bytes),
        false => std::fs::File::open(&arguments.file).and_then(|mut f| f.read_to_end(&mut bytes)),
    };
    read.map_err(|error| format!("can't read {name}: {error}"))?;
    file::parse(&bytes).map_err(|error| format!("{name}, {error}; nothing was done"))
}

/// The file of `--plot`. It is opened before anything is done, and replaced at the end, so a run
/// that is broken off leaves an older picture as it was.
struct Plot {
    file: File,
    name: String,
}

impl Plot {
    fn open(path: &Path, arguments: &RunArgs) -> Result<Plot, String> {
        let name = path.display().to_string();
        let operations = match arguments.is_standard_input() {
            true => Path::new("/dev/stdin"),
            false => &arguments.file,
        };
        if is_same(path, operations) {
            return Err(format!(
                "{name} is the file with the operations: name another one for the picture; nothing \
                 was done"
            ));
        }
        let file = OpenOptions::new().create(true).append(true).open(path);
        let file =
            file.map_err(|error| format!("can't write {name}: {error}; nothing was done"))?;
        Ok(Plot { file, name })
    }

    fn draw(mut self, summary: &Summary) -> Result<(), String> {
        let drawn = plot::draw(summary).map_err(|error| error.to_string());
        let written = drawn.and_then(|svg| {
            let written = self.replace(svg.as_bytes());
            written.map_err(|error| error.to_string())
        });
        written.map_err(|error| format!("can't write {}: {error}", self.name))
    }

    fn replace(&mut self, content: &[u8]) -> io::Result<()> {
        // A pipe or a device has no length.
        if self.file.metadata()?.is_file() {
            self.file.set_len(0)?;
        }
        self.file.write_all(content)
    }
}

fn is_same(one: &Path, other: &Path) -> bool {
    let place = |path: &Path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.dev(), metadata.ino()))
    };
    place(one).is_some_and(|one| place(other) == Some(one))
}

struct Run {
    client: Client,
    json: bool,
    plot: Option<Plot>,
    figures: Figures,
}

impl Run {
    fn step(&mut self, line: Line) -> Result<(), Exit> {
        let started = Instant::now();
        let result = self.client.call(line.call.clone()).and_then(fails);
        let took = started.elapsed();
        let operation = name(&line.call.action);
        self.figures.add(operation, took, result.is_ok());
        let text = match self.json {
            true => in_json(&line, &result, took),
            false => in_words(&line, &result, took),
        };
        report::print_bytes(text.as_bytes())
    }

    fn finish(mut self, took: Duration, connection: &ConnectionArgs) -> Exit {
        let summary = self.figures.summary(took);
        let text = match self.json {
            true => format!("{}\n", summary.in_json()),
            false => format!("\n{}", summary.in_words()),
        };
        let printed = report::print_bytes(text.as_bytes());
        let drawn = self.plot.map_or(Ok(()), |plot| plot.draw(&summary));
        match (printed, drawn) {
            (Err(exit), _) => exit,
            (_, Err(message)) => connection.refuse("file", Exit::Other, &message),
            _ if summary.failed > 0 => Exit::Other,
            _ => Exit::Done,
        }
    }
}

/// A transaction of a file has no conditions, so that it did nothing is an error.
fn fails(outcome: Outcome) -> Result<Outcome, CallError> {
    match outcome {
        Outcome::Failed { failure } => {
            Err(transaction::error_of(failure.reason).unwrap_or(CallError::UnknownOutcome))
        }
        outcome => Ok(outcome),
    }
}

/// The name in the file.
fn name(action: &Action) -> &'static str {
    match action {
        Action::Get => "GET",
        Action::Delete => "DELETE",
        Action::Expire { .. } => "EXPIRE",
        Action::Persist { .. } => "PERSIST",
        Action::TimeToLive => "TTL",
        Action::Transact { .. } => "COMMIT",
        _ => "PUT",
    }
}

fn in_words(line: &Line, result: &Result<Outcome, CallError>, took: Duration) -> String {
    let Line { number, call } = line;
    let end = match result {
        Ok(Outcome::Value { value, .. }) => format!("{} bytes", value.len()),
        Ok(Outcome::Committed { results }) => format!("{} keys", results.len()),
        Ok(Outcome::Lives { left_ms, .. }) => match left_ms {
            Some(left_ms) => format!("{} s left", report::seconds(*left_ms)),
            None => "no time to live".to_owned(),
        },
        Ok(Outcome::Absent | Outcome::NothingToDelete) => "no such key".to_owned(),
        // The conditions of a file's operations are only that the key is there.
        Ok(Outcome::Conflict { .. }) => "no such key".to_owned(),
        Ok(_) => "done".to_owned(),
        Err(error) => format!("FAILED: {error}"),
    };
    let key = String::from_utf8_lossy(&call.key);
    let (operation, ms) = (name(&call.action), took.as_secs_f64() * 1e3);
    format!("{number}  {operation}  {key:?}  {ms:.3} ms  {end}\n")
}

fn in_json(line: &Line, result: &Result<Outcome, CallError>, took: Duration) -> String {
    let mut object = Map::new();
    let mut insert = |name: &str, value: Value| object.insert(name.to_owned(), value);
    insert("line", json!(line.number));
    insert("operation", json!(name(&line.call.action)));
    insert("time_us", json!(took.as_secs_f64() * 1e6));
    match result {
        Ok(Outcome::Value { version, .. }) => {
            insert("result", json!("value"));
            insert("version", json!(version.to_string()));
        }
        Ok(Outcome::Lives { version, left_ms }) => {
            insert("result", json!("value"));
            insert("version", json!(version.to_string()));
            insert("ttl_ms", json!(left_ms));
        }
        Ok(Outcome::Absent | Outcome::NothingToDelete | Outcome::Conflict { .. }) => {
            insert("result", json!("absent"));
        }
        Ok(Outcome::Written { version, .. }) => {
            insert("result", json!("done"));
            insert("version", json!(version.to_string()));
        }
        Ok(Outcome::Committed { results }) => {
            insert("result", json!("committed"));
            insert("results", of_keys(&line.call.action, results));
        }
        Ok(other) => {
            insert("result", json!("error"));
            insert("message", json!(format!("{other:?}")));
        }
        Err(error) => {
            insert("result", json!("error"));
            insert("error", json!(report::classify(error).0));
            insert("message", json!(error.to_string()));
        }
    }
    report::insert_bytes(&mut object, "key", &line.call.key);
    if let Ok(Outcome::Value { value, .. }) = result {
        report::insert_bytes(&mut object, "value", value);
    }
    format!("{}\n", Value::Object(object))
}

/// What a transaction did with each of its keys.
fn of_keys(action: &Action, results: &[KeyResult]) -> Value {
    let Action::Transact { transaction } = action else {
        unreachable!("only transactions commit");
    };
    let keys = transaction.parts.iter().zip(results).map(|(part, result)| {
        let mut object = Map::new();
        report::insert_bytes(&mut object, "key", &part.key);
        match &result.value {
            Some(value) => report::insert_bytes(&mut object, "value", value),
            None => {
                object.insert("value".to_owned(), Value::Null);
            }
        }
        let version = (result.version > 0).then(|| result.version.to_string());
        object.insert("version".to_owned(), json!(version));
        Value::Object(object)
    });
    keys.collect()
}

/// The call for an operation of the file; `None`: there is no such operation.
fn call_of(operation: &[u8], key: &[u8], word: Option<&[u8]>) -> Result<Option<Call>, String> {
    let is = |name: &str| operation.eq_ignore_ascii_case(name.as_bytes());
    let action = match word {
        Some(value) if is("PUT") => Action::Put {
            value: Bytes::copy_from_slice(value),
        },
        Some(time) if is("EXPIRE") => Action::Expire {
            ttl_ms: ttl(time)?,
            over: None,
        },
        None if is("GET") => Action::Get,
        None if is("DELETE") => Action::Delete,
        None if is("PERSIST") => Action::Persist { over: None },
        None if is("TTL") => Action::TimeToLive,
        _ => return Ok(None),
    };
    Ok(Some(Call::new(Bytes::copy_from_slice(key), action)))
}

/// The call for a put with a time to live.
fn put_for(
    operation: &[u8],
    key: &[u8],
    value: &[u8],
    time: &[u8],
) -> Result<Option<Call>, String> {
    if !operation.eq_ignore_ascii_case(b"PUT") {
        return Ok(None);
    }
    let action = Action::PutFor {
        value: Bytes::copy_from_slice(value),
        ttl_ms: ttl(time)?,
        over: None,
    };
    Ok(Some(Call::new(Bytes::copy_from_slice(key), action)))
}

fn ttl(word: &[u8]) -> Result<u64, String> {
    words::ttl(&String::from_utf8_lossy(word))
}
