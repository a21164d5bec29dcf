//! `horseshoe watch`: prints the changes of a key or of all keys with a prefix, or runs a command
//! for each.

use std::ffi::{OsStr, OsString};
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, ExitStatus, Stdio};

use bytes::Bytes;
use clap::{ArgGroup, Args};
use kvclient::{Watch, WatchEvent};
use serde_json::{Map, Value, json};

use super::connection::ConnectionArgs;
use super::exit::Exit;
use super::report;
use super::words;

/// The variables with which the command gets the change.
const EVENT_VARIABLE: &str = "HORSESHOE_WATCH_EVENT";
const KEY_VARIABLE: &str = "HORSESHOE_WATCH_KEY";
const VERSION_VARIABLE: &str = "HORSESHOE_WATCH_VERSION";

/// Print the present state of a key, or of all keys with a prefix, and from then on each change.
///
/// Each line is `put`, the key, the version and the value, or `del`, the key and the version, with
/// tabs between them. The last state of each key is always printed; states in between may be left
/// out. With a command, that is run for each change instead, one after the other: it finds `put` or
/// `del` in HORSESHOE_WATCH_EVENT, the rest in HORSESHOE_WATCH_KEY and HORSESHOE_WATCH_VERSION, and
/// the value in its standard input. The watch survives the death of nodes, and ends only with
/// --limit, or when nobody reads its output.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("watched").required(true).args(["key", "prefix"]))]
pub struct WatchArgs {
    /// The key, 1 to 1024 bytes
    #[arg(value_name = "KEY", allow_hyphen_values = true)]
    key: Option<OsString>,

    /// All keys that begin with this; all keys if it is empty
    #[arg(long, value_name = "PREFIX", allow_hyphen_values = true)]
    prefix: Option<OsString>,

    /// Print no states up to this version
    #[arg(long, value_name = "VERSION", default_value_t = 0)]
    from_version: u64,

    /// End after so many changes
    #[arg(long, value_name = "N")]
    limit: Option<u64>,

    /// The command to run for each change, and its arguments
    #[arg(value_name = "COMMAND", last = true, num_args = 1..)]
    command: Vec<OsString>,
}

impl WatchArgs {
    fn watch(&self) -> Watch {
        let watch = match (&self.key, &self.prefix) {
            (Some(key), _) => Watch::key(words::key(key.clone())),
            (None, prefix) => {
                let prefix = prefix.clone().unwrap_or_default();
                Watch::prefix(&words::key(prefix))
            }
        };
        watch.from_version(self.from_version)
    }
}

/// One change.
struct ToldChange {
    key: Bytes,
    version: u64,
    value: Option<Bytes>,
}

impl ToldChange {
    fn event(&self) -> &'static str {
        match self.value {
            Some(_) => "put",
            None => "del",
        }
    }

    fn print(&self, out: &mut dyn Write, json: bool) -> io::Result<()> {
        if json {
            let mut object = Map::new();
            object.insert("event".to_owned(), json!(self.event()));
            report::insert_bytes(&mut object, "key", &self.key);
            object.insert("version".to_owned(), json!(self.version.to_string()));
            if let Some(value) = &self.value {
                report::insert_bytes(&mut object, "value", value);
            }
            return out.write_all(&report::line(object));
        }
        write!(out, "{}\t", self.event())?;
        out.write_all(&self.key)?;
        write!(out, "\t{}", self.version)?;
        if let Some(value) = &self.value {
            out.write_all(b"\t")?;
            out.write_all(value)?;
        }
        out.write_all(b"\n")
    }

    /// Runs the command and waits for it.
    fn pass_to(&self, command: &[OsString]) -> io::Result<ExitStatus> {
        let mut child = Command::new(&command[0])
            .args(&command[1..])
            .env(EVENT_VARIABLE, self.event())
            .env(KEY_VARIABLE, OsStr::from_bytes(&self.key))
            .env(VERSION_VARIABLE, self.version.to_string())
            .stdin(Stdio::piped())
            .spawn()?;
        if let (Some(mut input), Some(value)) = (child.stdin.take(), &self.value) {
            // A command need not read it.
            let _ = input.write_all(value);
        }
        child.wait()
    }
}

/// Why the watch ends.
enum End {
    Printed(io::Error),
    Command(io::Error),
    Limit,
}

/// Where changes go.
struct Told<'a> {
    arguments: &'a WatchArgs,
    json: bool,
    out: BufWriter<io::StdoutLock<'static>>,
    count: u64,
    is_apart: bool,
}

impl Told<'_> {
    fn take(&mut self, event: WatchEvent) -> Result<(), End> {
        match event {
            WatchEvent::Changed {
                key,
                version,
                value,
            } => self.change(&ToldChange {
                key,
                version,
                value,
            }),
            WatchEvent::Current { behind_ms } => self.current(behind_ms).map_err(End::Printed),
            WatchEvent::Apart(error) => self.apart(&error.to_string()).map_err(End::Printed),
        }
    }

    fn change(&mut self, change: &ToldChange) -> Result<(), End> {
        let command = &self.arguments.command;
        if command.is_empty() {
            change
                .print(&mut self.out, self.json)
                .map_err(End::Printed)?;
        } else if change.key.contains(&0) {
            let key = String::from_utf8_lossy(&change.key).replace('\0', "\\0");
            let text = "contains a zero byte, which no variable can hold: no command is run for it";
            report::complain(&format!("horseshoe: the key {key} {text}\n"));
        } else {
            let status = change.pass_to(command).map_err(End::Command)?;
            if !status.success() {
                let command = command[0].to_string_lossy();
                report::complain(&format!("horseshoe: {command} ended with {status}\n"));
            }
        }
        self.count += 1;
        match self
            .arguments
            .limit
            .is_some_and(|limit| self.count >= limit)
        {
            true => Err(End::Limit),
            false => Ok(()),
        }
    }

    fn current(&mut self, behind_ms: Option<u64>) -> io::Result<()> {
        if std::mem::take(&mut self.is_apart) {
            report::complain("horseshoe: a node serves the watch again\n");
        }
        if self.json && self.arguments.command.is_empty() {
            let behind_ms = behind_ms.map_or(Value::Null, |ms| json!(ms));
            let mut object = Map::new();
            object.insert("event".to_owned(), json!("current"));
            object.insert("behind_ms".to_owned(), behind_ms);
            self.out.write_all(&report::line(object))?;
        }
        self.out.flush()
    }

    fn apart(&mut self, error: &str) -> io::Result<()> {
        if !std::mem::replace(&mut self.is_apart, true) {
            let text = "no node serves the watch, which goes on trying";
            report::complain(&format!("horseshoe: {text}: {error}\n"));
        }
        self.out.flush()
    }
}

pub fn run(arguments: &WatchArgs, connection: &ConnectionArgs) -> Exit {
    let client = match connection.open() {
        Ok(client) => client,
        Err(exit) => return exit,
    };
    if arguments.limit == Some(0) {
        return Exit::Done;
    }
    let mut told = Told {
        arguments,
        json: connection.json,
        out: BufWriter::with_capacity(1 << 16, io::stdout().lock()),
        count: 0,
        is_apart: false,
    };
    for event in client.watch(arguments.watch()) {
        let end = match event {
            Ok(event) => told.take(event),
            Err(error) => {
                // What was found before is printed.
                let _ = told.out.flush();
                drop(told);
                return connection.refuse_call(&error);
            }
        };
        if let Err(end) = end {
            return ended(end, &mut told);
        }
    }
    unreachable!("a watch ends with an error")
}

fn ended(end: End, told: &mut Told<'_>) -> Exit {
    let printed = match end {
        End::Limit => told.out.flush(),
        End::Printed(error) => Err(error),
        End::Command(error) => {
            let command = told.arguments.command[0].to_string_lossy();
            report::complain(&format!("horseshoe: can't run {command}: {error}\n"));
            return Exit::Other;
        }
    };
    match printed {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            report::complain(&format!(
                "horseshoe: can't write to standard output: {error}\n"
            ));
            Exit::Other
        }
        _ => Exit::Done,
    }
}
