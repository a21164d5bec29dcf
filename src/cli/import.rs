//! `horseshoe import`: puts the keys that `export` has printed.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use clap::Args;
use kvclient::{Call, CallError, Client};
use serde_json::{Map, Value, json};
use wire::{Action, KEY_SIZE_MAX, VALUE_SIZE_MAX};

use super::connection::ConnectionArgs;
use super::exit::Exit;
use super::report;

/// Puts in progress at the same time.
const WINDOW: usize = 1_024;
/// The size of their values, in bytes, beyond the largest one.
const WINDOW_SIZE_MAX: usize = 4 << 20;
/// A put that the nodes refused as busy was surely not done, and is tried again this often.
const BUSY_TRIES_MAX: u32 = 20;
/// Before puts that were refused as busy are tried again.
const BUSY_WAIT: Duration = Duration::from_millis(10);
/// A line with the largest key and value, each byte of them as `\u0000`.
const LINE_SIZE_MAX: u64 = 6 * (KEY_SIZE_MAX + VALUE_SIZE_MAX) as u64 + 256;

/// Put the keys of a file that `horseshoe export` has printed.
///
/// Each line is an object with `key` or `key_b64`, and `value` or `value_b64`; other fields are
/// ignored. The keys are put as they are read, and later lines replace earlier ones. The import
/// ends at the first line that is wrong or cannot be put, with its number; the lines before it are
/// put then, and lines behind it may be. It can be repeated. Keys are put without a time to live,
/// because an export has none.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The file; a lone - is standard input
    #[arg(value_name = "FILE", allow_hyphen_values = true, default_value = "-")]
    file: PathBuf,
}

pub fn run(arguments: &ImportArgs, connection: &ConnectionArgs) -> Exit {
    let name = arguments.file.display().to_string();
    let input: Box<dyn BufRead> = match arguments.file.as_os_str() == "-" {
        true => Box::new(io::stdin().lock()),
        false => match File::open(&arguments.file) {
            Ok(file) => Box::new(BufReader::with_capacity(1 << 16, file)),
            Err(error) => {
                let message = format!("can't read {name}: {error}");
                return connection.refuse("file", Exit::Usage, &message);
            }
        },
    };
    let client = match connection.open() {
        Ok(client) => client,
        Err(exit) => return exit,
    };
    let mut import = Import {
        client,
        puts: HashMap::new(),
        keys: HashSet::new(),
        size: 0,
        done: 0,
        failed: None,
        untaken: Vec::new(),
    };
    import.read(input);
    let done = import.done;
    match import.failed {
        Some(FailedLine {
            line,
            name: kind,
            exit,
            why,
        }) => {
            let message = format!("{name}, line {line}: {why}; {done} keys were put");
            connection.refuse(kind, exit, &message)
        }
        None => {
            let mut object = Map::new();
            object.insert("result".to_owned(), json!("done"));
            object.insert("count".to_owned(), json!(done));
            let text = match connection.json {
                true => report::line(object),
                false => format!("{done} keys were put\n").into_bytes(),
            };
            report::print_bytes(&text).map_or_else(|exit| exit, |()| Exit::Done)
        }
    }
}

/// The first line that was not put.
#[derive(Debug)]
struct FailedLine {
    line: u64,
    name: &'static str,
    exit: Exit,
    why: String,
}

#[derive(Debug)]
struct Put {
    key: Bytes,
    value: Bytes,
    tries: u32,
}

struct Import {
    client: Client,
    /// In progress, by the number of the line.
    puts: HashMap<u64, Put>,
    keys: HashSet<Bytes>,
    size: usize,
    done: u64,
    failed: Option<FailedLine>,
    /// Lines whose puts the client library did not take, because too many wait in it already.
    untaken: Vec<u64>,
}

impl Import {
    fn read(&mut self, mut input: Box<dyn BufRead>) {
        let mut text = Vec::new();
        let mut line = 0;
        while self.failed.is_none() {
            line += 1;
            text.clear();
            let mut limited = io::Read::take(&mut input, LINE_SIZE_MAX);
            match limited.read_until(b'\n', &mut text) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => {
                    self.fail(line, "file", Exit::Usage, error.to_string());
                    break;
                }
            }
            let is_blank = text.iter().all(u8::is_ascii_whitespace);
            match parse(&text) {
                _ if is_blank => {}
                Ok((key, value)) => self.put(line, key, value),
                Err(why) => self.fail(line, "file", Exit::Usage, why),
            }
        }
        while !self.puts.is_empty() {
            self.wait();
        }
    }

    fn put(&mut self, line: u64, key: Bytes, value: Bytes) {
        let is_full = |import: &Import| {
            let is_large = import.size > 0 && import.size + value.len() > WINDOW_SIZE_MAX;
            // Puts of one key that are in progress together may be applied in any order.
            import.puts.len() >= WINDOW || is_large || import.keys.contains(&key)
        };
        while is_full(self) {
            self.wait();
        }
        if self.failed.is_some() {
            return;
        }
        self.size += value.len();
        self.keys.insert(key.clone());
        let put = Put {
            key,
            value,
            tries: 0,
        };
        self.submit(line, put);
    }

    fn submit(&mut self, line: u64, put: Put) {
        let value = put.value.clone();
        let call = Call::new(put.key.clone(), Action::Put { value });
        let submitted = self.client.submit(call, line);
        self.puts.insert(line, put);
        match submitted {
            Ok(()) => {}
            Err(CallError::Busy) if self.failed.is_none() => self.untaken.push(line),
            Err(error) => self.end(line, Err(error)),
        }
    }

    /// Waits for puts that have ended.
    fn wait(&mut self) {
        let mut completions = Vec::new();
        self.client.wait(Duration::from_millis(100));
        self.client.completions(&mut completions, WINDOW);
        let mut busy = std::mem::take(&mut self.untaken);
        for completion in completions {
            let (line, result) = (completion.tag, completion.result.map(drop));
            match self.takes_again(line, &result) {
                true => busy.push(line),
                false => self.end(line, result),
            }
        }
        if !busy.is_empty() {
            std::thread::sleep(BUSY_WAIT);
        }
        for line in busy {
            let put = self.puts.remove(&line).expect("it was looked at");
            self.submit(line, put);
        }
    }

    /// Whether the put was refused, and is to be tried again.
    fn takes_again(&mut self, line: u64, result: &Result<(), CallError>) -> bool {
        let put = self.puts.get_mut(&line).expect("a put ends once");
        put.tries += 1;
        let is_busy = matches!(result, Err(CallError::Busy));
        is_busy && put.tries <= BUSY_TRIES_MAX && self.failed.is_none()
    }

    fn end(&mut self, line: u64, result: Result<(), CallError>) {
        let put = self.puts.remove(&line).expect("a put ends once");
        self.size -= put.value.len();
        self.keys.remove(&put.key);
        match result {
            Ok(()) => self.done += 1,
            Err(error) => {
                let (name, exit) = report::classify(&error);
                self.fail(line, name, exit, error.to_string());
            }
        }
    }

    fn fail(&mut self, line: u64, name: &'static str, exit: Exit, why: String) {
        if self.failed.as_ref().is_none_or(|first| line < first.line) {
            self.failed = Some(FailedLine {
                line,
                name,
                exit,
                why,
            });
        }
    }
}

/// The key and the value of a line.
fn parse(text: &[u8]) -> Result<(Bytes, Bytes), String> {
    let object: Map<String, Value> =
        serde_json::from_slice(text).map_err(|error| format!("not a JSON object: {error}"))?;
    let key = bytes_of(&object, "key")?;
    let value = bytes_of(&object, "value")?;
    match key.len() {
        1..=KEY_SIZE_MAX => Ok((key, value)),
        size => Err(format!("the key has {size} bytes, not 1 to {KEY_SIZE_MAX}")),
    }
}

fn bytes_of(object: &Map<String, Value>, name: &str) -> Result<Bytes, String> {
    let in_base64 = format!("{name}_b64");
    match (object.get(name), object.get(&in_base64)) {
        (Some(Value::String(text)), None) => Ok(text.clone().into()),
        (None, Some(Value::String(text))) => {
            let decoded = BASE64_STANDARD.decode(text);
            let decoded =
                decoded.map_err(|error| format!("`{in_base64}` is no base64: {error}"))?;
            Ok(decoded.into())
        }
        (Some(_), Some(_)) => Err(format!("both `{name}` and `{in_base64}`")),
        (None, None) => Err(format!("neither `{name}` nor `{in_base64}`")),
        _ => Err(format!("`{name}` is not a string")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::scan::write_json;
    use wire::ScanEntry;

    #[test]
    fn what_is_exported_is_read_again() {
        for (key, value) in [
            (&b"k"[..], &b"v"[..]),
            (b"\"\n\t", b""),
            (b"\xff\x00", b"\xfe"),
            ("schl\u{fc}ssel".as_bytes(), b"\0"),
        ] {
            let entry = ScanEntry {
                key: Bytes::from_static(key),
                version: 7,
                value: Some(Bytes::from_static(value)),
            };
            let mut line = Vec::new();
            write_json(&mut line, &entry).expect("memory");
            assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            let expected = (entry.key, entry.value.expect("just set"));
            assert_eq!(parse(&line), Ok(expected));
        }
    }

    #[test]
    fn wrong_lines_are_refused_with_a_reason() {
        let said = |text: &str| parse(text.as_bytes()).expect_err(text);
        for (text, expected) in [
            ("[]", "not a JSON object"),
            ("{\"key\":\"k\"", "not a JSON object"),
            ("{\"key\":\"k\"}", "neither `value` nor `value_b64`"),
            (
                "{\"key\":\"k\",\"key_b64\":\"aw==\",\"value\":\"\"}",
                "both",
            ),
            ("{\"key\":\"\",\"value\":\"\"}", "the key has 0 bytes"),
            ("{\"key\":1,\"value\":\"\"}", "not a string"),
            ("{\"key\":\"k\",\"value_b64\":\"?\"}", "no base64"),
        ] {
            assert!(said(text).contains(expected), "{}", said(text));
        }
    }
}
