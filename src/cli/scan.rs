//! `horseshoe scan`: prints the keys of a range, in order.

use std::ffi::OsString;
use std::io::{self, BufWriter, Write};

use clap::Args;
use kvclient::{CallError, Scan};
use serde_json::{Map, json};
use wire::ScanEntry;

use super::connection::ConnectionArgs;
use super::exit::Exit;
use super::report;
use super::words;

/// Print keys and values in order of the keys' bytes, a line each: the key, a tab, the value.
///
/// Each key is printed as it was at some moment during the scan, which is not a snapshot. Use
/// --json, or `horseshoe export`, where keys or values may contain tabs or newlines. --timeout
/// bounds the time for each page of keys, not for all.
#[derive(Debug, Args)]
pub struct ScanArgs {
    /// Only keys that begin with this
    #[arg(value_name = "PREFIX", allow_hyphen_values = true)]
    prefix: Option<OsString>,

    /// No keys before this one
    #[arg(long, value_name = "KEY", allow_hyphen_values = true)]
    from: Option<OsString>,

    /// Neither this key nor those behind it
    #[arg(long, value_name = "KEY", allow_hyphen_values = true)]
    to: Option<OsString>,

    /// At most this many keys
    #[arg(long, value_name = "N")]
    limit: Option<u64>,

    /// Print no values
    #[arg(long)]
    keys_only: bool,

    /// Print only how many keys there are
    #[arg(long)]
    count: bool,
}

impl ScanArgs {
    fn scan(&self) -> Scan {
        let bytes = |word: &Option<OsString>| word.clone().map(words::key).unwrap_or_default();
        let mut scan = Scan::prefix(&bytes(&self.prefix))
            .starting_at(bytes(&self.from))
            .ending_before(bytes(&self.to));
        if let Some(limit) = self.limit {
            scan = scan.limit(limit);
        }
        match self.keys_only || self.count {
            true => scan.keys_only(),
            false => scan,
        }
    }
}

pub fn run(arguments: &ScanArgs, connection: &ConnectionArgs) -> Exit {
    let json = connection.json;
    if arguments.count {
        return match each(arguments.scan(), connection, Exit::Done, |_, _| Ok(())) {
            Err(exit) => exit,
            Ok(count) => {
                let mut object = Map::new();
                object.insert("result".to_owned(), json!("done"));
                object.insert("count".to_owned(), json!(count));
                let text = match json {
                    true => report::line(object),
                    false => format!("{count}\n").into_bytes(),
                };
                report::print_bytes(&text).map_or_else(|exit| exit, |()| Exit::Done)
            }
        };
    }
    let told = each(
        arguments.scan(),
        connection,
        Exit::Done,
        |out, entry| match json {
            true => write_json(out, entry),
            false => {
                out.write_all(&entry.key)?;
                if let Some(value) = &entry.value {
                    out.write_all(b"\t")?;
                    out.write_all(value)?;
                }
                out.write_all(b"\n")
            }
        },
    );
    told.map_or_else(|exit| exit, |_| Exit::Done)
}

/// A line of JSON, which `import` reads.
pub fn write_json(out: &mut dyn Write, entry: &ScanEntry) -> io::Result<()> {
    let mut object = Map::new();
    report::insert_bytes(&mut object, "key", &entry.key);
    if let Some(value) = &entry.value {
        report::insert_bytes(&mut object, "value", value);
    }
    object.insert("version".to_owned(), json!(entry.version.to_string()));
    out.write_all(&report::line(object))
}

/// Writes each key of a scan to standard output, and returns their number. `closed`: the status if
/// nobody reads that output to its end.
pub fn each(
    scan: Scan,
    connection: &ConnectionArgs,
    closed: Exit,
    mut write: impl FnMut(&mut dyn Write, &ScanEntry) -> io::Result<()>,
) -> Result<u64, Exit> {
    let client = connection.open()?;
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let mut count = 0;
    let mut failed: Option<CallError> = None;
    let mut written = Ok(());
    for entry in client.scan(scan) {
        match entry {
            Ok(entry) => written = write(&mut out, &entry),
            Err(error) => failed = Some(error),
        }
        if written.is_err() || failed.is_some() {
            break;
        }
        count += 1;
    }
    let written = written.and_then(|()| out.flush());
    match (written, failed) {
        (Err(error), _) if error.kind() == io::ErrorKind::BrokenPipe => Err(closed),
        (Err(error), _) => {
            let message = format!("can't write to standard output: {error}");
            report::complain(&format!("horseshoe: {message}\n"));
            Err(Exit::Other)
        }
        (Ok(()), Some(error)) => {
            // What was printed is not all.
            let (name, exit) = report::classify(&error);
            let message = format!("after {count} keys: {error}");
            drop(out);
            Err(connection.refuse(name, exit, &message))
        }
        (Ok(()), None) => Ok(count),
    }
}
