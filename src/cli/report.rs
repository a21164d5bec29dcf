//! The result of a client command, as text or JSON, and its exit status.
//!
//! Results go to standard output, everything else to standard error. Values are printed unchanged,
//! followed by a newline only on a terminal. JSON is one object on one line; versions are strings,
//! and bytes that are not UTF-8 are base64 in a field whose name ends in `_b64`.

use std::io::{self, IsTerminal, Write};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use kvclient::{Call, CallError};
use serde_json::{Map, Value, json};
use wire::{Action, Old, Outcome};

use super::exit::Exit;

/// The form of the report on one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Style {
    pub json: bool,
    /// For a get: the version on a line before the value.
    pub version: bool,
    pub stdout_terminal: bool,
    pub stderr_terminal: bool,
}

impl Style {
    pub fn of_process(json: bool) -> Style {
        Style {
            json,
            version: false,
            stdout_terminal: io::stdout().is_terminal(),
            stderr_terminal: io::stderr().is_terminal(),
        }
    }
}

/// The texts for standard output and standard error, and the exit status.
#[derive(Debug, PartialEq, Eq)]
pub struct Report {
    pub stdout: Vec<u8>,
    pub stderr: String,
    pub exit: Exit,
}

impl Report {
    fn new(exit: Exit) -> Report {
        Report {
            stdout: Vec::new(),
            stderr: String::new(),
            exit,
        }
    }

    /// Prints the report. A closed pipe is not an error of the operation.
    pub fn print(self) -> Exit {
        if !self.stderr.is_empty() {
            complain(&format!("{}\n", self.stderr));
        }
        print_bytes(&self.stdout).map_or_else(|exit| exit, |()| self.exit)
    }
}

/// Writes to standard error. If that fails, the exit status does not change: `eprintln!` would end
/// the process with a panic.
pub fn complain(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Writes to standard output. On failure reports the error and returns the exit status.
pub fn print_bytes(bytes: &[u8]) -> Result<(), Exit> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            complain(&format!(
                "horseshoe: can't write to standard output: {error}\n"
            ));
            Err(Exit::Other)
        }
        _ => Ok(()),
    }
}

/// Adds bytes as text if they are UTF-8.
pub fn insert_bytes(object: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object.insert(name.to_owned(), json!(text)),
        Err(_) => object.insert(format!("{name}_b64"), json!(BASE64_STANDARD.encode(bytes))),
    };
}

/// The report on a call that has ended.
pub fn of_call(call: &Call, result: &Result<Outcome, CallError>, style: Style) -> Report {
    match (style.json, result) {
        (false, Ok(outcome)) => in_words(call, outcome, style),
        (true, Ok(outcome)) => in_json(call, outcome),
        (_, Err(error)) => of_error(call, error, style),
    }
}

fn exit_of(call: &Call, outcome: &Outcome) -> Exit {
    match outcome {
        Outcome::Value { .. }
        | Outcome::Lives { .. }
        | Outcome::Stale { value: Some(_), .. }
        | Outcome::Written { .. }
        | Outcome::NothingToDelete => Exit::Done,
        Outcome::Stale { value: None, .. } => Exit::Absent,
        Outcome::Absent if call.action.is_read() => Exit::Absent,
        Outcome::Conflict { .. } => Exit::Conflict,
        // The client library turns all others into errors.
        _ => Exit::Other,
    }
}

fn in_words(call: &Call, outcome: &Outcome, style: Style) -> Report {
    let mut report = Report::new(exit_of(call, outcome));
    // Hints are for users at a terminal; scripts use JSON.
    let hint = |text: String| match style.stderr_terminal {
        true => text,
        false => String::new(),
    };
    match outcome {
        Outcome::Value { version, value } => {
            if style.version {
                report.stdout = format!("{version}\n").into_bytes();
            }
            push_value(&mut report.stdout, value, style);
        }
        Outcome::Lives { version, left_ms } => {
            let left = left_ms.map_or_else(|| "none".to_owned(), seconds);
            let version = style.version.then(|| format!("{version}\n"));
            report.stdout = format!("{}{left}\n", version.unwrap_or_default()).into_bytes();
        }
        Outcome::Stale {
            version,
            value,
            apart_ms,
        } => {
            if let Some(value) = value {
                if style.version {
                    report.stdout = format!("{version}\n").into_bytes();
                }
                push_value(&mut report.stdout, value, style);
            }
            let absent = value.is_none().then(|| "no such key".to_owned());
            let apart = (*apart_ms > 0).then(|| {
                let apart = seconds(*apart_ms);
                format!("the node has not been joined to a quorum for {apart} s")
            });
            let words: Vec<String> = absent.into_iter().chain(apart).collect();
            report.stderr = words.join("; ");
        }
        Outcome::Absent => report.stderr = "no such key".to_owned(),
        Outcome::Written {
            version,
            old,
            number,
        } => {
            report.stderr = match old {
                Old::Forgotten => "done, old value no longer known".to_owned(),
                Old::Absent => hint(format!("done, version {version}; the key did not exist")),
                Old::NotAsked | Old::Value(_) => hint(format!("done, version {version}")),
            };
            match (old, number) {
                (Old::Value(old), _) => push_value(&mut report.stdout, old, style),
                (Old::NotAsked, Some(number)) => {
                    report.stdout = format!("{number}\n").into_bytes();
                }
                _ => {}
            }
        }
        Outcome::NothingToDelete => report.stderr = hint("the key did not exist".to_owned()),
        Outcome::Conflict { version, old } => {
            report.stderr = conflict(&call.action, *version);
            if let Old::Value(old) = old {
                push_value(&mut report.stdout, old, style);
            }
        }
        other => report.stderr = format!("unexpected answer: {other:?}"),
    }
    report
}

fn push_value(into: &mut Vec<u8>, value: &[u8], style: Style) {
    into.extend_from_slice(value);
    if style.stdout_terminal {
        into.push(b'\n');
    }
}

/// Milliseconds as seconds, without zeroes at the end.
pub fn seconds(ms: u64) -> String {
    match (ms / 1_000, ms % 1_000) {
        (seconds, 0) => seconds.to_string(),
        (seconds, ms) => format!("{seconds}.{ms:03}")
            .trim_end_matches('0')
            .to_owned(),
    }
}

fn conflict(action: &Action, version: u64) -> String {
    match (action, version) {
        (Action::PutIfAbsent { .. } | Action::PutFor { over: Some(0), .. }, version) => {
            format!("conflict: the key exists, version {version}")
        }
        (_, 0) => "conflict: the key does not exist".to_owned(),
        (
            Action::CompareVersion { .. }
            | Action::PutFor { .. }
            | Action::Expire { .. }
            | Action::Persist { .. }
            | Action::DeleteVersion { .. },
            version,
        ) => {
            format!("conflict: the version is {version}")
        }
        (_, version) => format!("conflict: the value is different, version {version}"),
    }
}

fn in_json(call: &Call, outcome: &Outcome) -> Report {
    let mut report = Report::new(exit_of(call, outcome));
    let mut object = Map::new();
    insert_bytes(&mut object, "key", &call.key);
    let result = match outcome {
        Outcome::Value { version, value } => {
            insert_bytes(&mut object, "value", value);
            object.insert("version".to_owned(), json!(version.to_string()));
            "value"
        }
        Outcome::Lives { version, left_ms } => {
            object.insert("version".to_owned(), json!(version.to_string()));
            object.insert("ttl_ms".to_owned(), json!(left_ms));
            "value"
        }
        Outcome::Stale {
            version,
            value,
            apart_ms,
        } => {
            object.insert("apart_ms".to_owned(), json!(apart_ms));
            if let Some(value) = value {
                insert_bytes(&mut object, "value", value);
                object.insert("version".to_owned(), json!(version.to_string()));
            }
            value.as_ref().map_or("absent", |_| "value")
        }
        Outcome::Absent | Outcome::NothingToDelete => "absent",
        Outcome::Written {
            version,
            old,
            number,
        } => {
            object.insert("version".to_owned(), json!(version.to_string()));
            insert_old(&mut object, old);
            if let Some(number) = number {
                object.insert("value".to_owned(), json!(number.to_string()));
            }
            "done"
        }
        Outcome::Conflict { version, old } => {
            let version = (*version > 0).then(|| version.to_string());
            object.insert("version".to_owned(), json!(version));
            insert_old(&mut object, old);
            "conflict"
        }
        other => {
            object.insert("message".to_owned(), json!(format!("{other:?}")));
            "error"
        }
    };
    object.insert("result".to_owned(), json!(result));
    report.stdout = line(object);
    report
}

/// `old` is null for an absent key; `old_known` is false if no node knows it any more.
fn insert_old(object: &mut Map<String, Value>, old: &Old) {
    match old {
        Old::NotAsked => {}
        Old::Absent => {
            object.insert("old".to_owned(), Value::Null);
        }
        Old::Value(value) => insert_bytes(object, "old", value),
        Old::Forgotten => {
            object.insert("old_known".to_owned(), json!(false));
        }
    }
}

pub fn line(object: Map<String, Value>) -> Vec<u8> {
    let mut line = Value::Object(object).to_string().into_bytes();
    line.push(b'\n');
    line
}

/// A short name for an error, for JSON and for counting, and the exit status.
pub fn classify(error: &CallError) -> (&'static str, Exit) {
    match error {
        CallError::NoQuorum { .. } => ("no_quorum", Exit::NoQuorum),
        CallError::TwoClusters { .. } => ("two_clusters", Exit::Usage),
        CallError::UnknownOutcome => ("unknown_outcome", Exit::Unknown),
        CallError::TimedOut => ("timed_out", Exit::Other),
        CallError::Busy => ("busy", Exit::Other),
        CallError::Full(_) => ("full", Exit::Other),
        CallError::TooLarge { .. } => ("too_large", Exit::Other),
        CallError::NotANumber => ("not_a_number", Exit::Other),
        CallError::Overflow => ("overflow", Exit::Other),
        CallError::WrongAnswer(_) => ("wrong_answer", Exit::Other),
        CallError::InvalidArgument(_) => ("invalid_argument", Exit::Usage),
        CallError::Closed => ("closed", Exit::Other),
    }
}

fn of_error(call: &Call, error: &CallError, style: Style) -> Report {
    let (name, exit) = classify(error);
    let mut report = Report::new(exit);
    report.stderr = format!("horseshoe: {error}");
    if style.json {
        let mut object = Map::new();
        insert_bytes(&mut object, "key", &call.key);
        object.insert("result".to_owned(), json!("error"));
        object.insert("error".to_owned(), json!(name));
        object.insert("message".to_owned(), json!(error.to_string()));
        report.stdout = line(object);
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::Full;

    const PLAIN: Style = Style {
        json: false,
        version: false,
        stdout_terminal: false,
        stderr_terminal: false,
    };
    const TERMINAL: Style = Style {
        stdout_terminal: true,
        stderr_terminal: true,
        ..PLAIN
    };
    const JSON: Style = Style {
        json: true,
        ..PLAIN
    };

    fn put() -> Call {
        let value = "v".into();
        Call::new("k", Action::Put { value })
    }

    fn said(call: &Call, result: Result<Outcome, CallError>, style: Style) -> (String, String, u8) {
        let report = of_call(call, &result, style);
        let stdout = String::from_utf8(report.stdout).unwrap();
        (stdout, report.stderr, report.exit as u8)
    }

    fn written(old: Old, number: Option<i64>) -> Result<Outcome, CallError> {
        Ok(Outcome::Written {
            version: 9,
            old,
            number,
        })
    }

    #[test]
    fn a_value_is_printed_as_it_is() {
        let get = Call::new("k", Action::Get);
        let value = |value: &'static [u8]| {
            Ok(Outcome::Value {
                version: u64::MAX,
                value: value.into(),
            })
        };
        assert_eq!(said(&get, value(b"v\n"), PLAIN).0, "v\n");
        assert_eq!(said(&get, value(b"v"), PLAIN).0, "v");
        assert_eq!(said(&get, value(b"v"), TERMINAL).0, "v\n");
        let with_version = Style {
            version: true,
            ..PLAIN
        };
        let (stdout, ..) = said(&get, value(b"v"), with_version);
        assert_eq!(stdout, "18446744073709551615\nv");
        let (stdout, ..) = said(&get, value(b"\xff"), JSON);
        assert_eq!(
            stdout,
            "{\"key\":\"k\",\"result\":\"value\",\"value_b64\":\"/w==\",\"version\":\"18446744073709551615\"}\n"
        );
    }

    #[test]
    fn writes_say_nothing_to_scripts_but_what_was_asked_for() {
        let put = put();
        assert_eq!(
            said(&put, written(Old::Absent, None), PLAIN),
            (String::new(), String::new(), 0)
        );
        assert_eq!(
            said(&put, written(Old::Value("o".into()), None), PLAIN).0,
            "o"
        );
        assert_eq!(
            said(&put, written(Old::Forgotten, None), PLAIN),
            (
                String::new(),
                "done, old value no longer known".to_owned(),
                0
            )
        );
        assert_eq!(
            said(&put, written(Old::NotAsked, None), TERMINAL),
            (String::new(), "done, version 9".to_owned(), 0)
        );
        let add = Call::new("k", Action::Add { delta: 1 });
        assert_eq!(
            said(&add, written(Old::NotAsked, Some(-3)), PLAIN).0,
            "-3\n"
        );
        assert_eq!(
            said(&add, written(Old::Value("-4".into()), Some(-3)), PLAIN).0,
            "-4"
        );
    }

    #[test]
    fn json_tells_absent_old_values_from_empty_and_forgotten_ones() {
        let put = put();
        for (old, reported) in [
            (Old::NotAsked, ""),
            (Old::Absent, "\"old\":null,"),
            (Old::Value("".into()), "\"old\":\"\","),
            (Old::Forgotten, "\"old_known\":false,"),
        ] {
            let (stdout, ..) = said(&put, written(old, None), JSON);
            let all =
                format!("{{\"key\":\"k\",{reported}\"result\":\"done\",\"version\":\"9\"}}\n");
            assert_eq!(stdout, all);
        }
    }

    #[test]
    fn every_end_has_its_exit_status() {
        let conflict = |version| {
            Ok(Outcome::Conflict {
                version,
                old: Old::NotAsked,
            })
        };
        let (get, put, delete) = (
            Call::new("k", Action::Get),
            put(),
            Call::new("k", Action::Delete),
        );
        let cases = [
            (&get, Ok(Outcome::Absent), 1),
            (&delete, Ok(Outcome::NothingToDelete), 0),
            (&put, conflict(0), 4),
            (&put, conflict(7), 4),
            (
                &get,
                Err(CallError::NoQuorum {
                    detail: "x".to_owned(),
                }),
                3,
            ),
            (&put, Err(CallError::UnknownOutcome), 5),
            (&get, Err(CallError::TimedOut), 6),
            (&put, Err(CallError::Busy), 6),
            (&put, Err(CallError::Full(Full::Memory)), 6),
            (
                &put,
                Err(CallError::TooLarge {
                    what: "key",
                    limit: 1,
                }),
                6,
            ),
            (&put, Err(CallError::NotANumber), 6),
            (&put, Err(CallError::Overflow), 6),
            (&get, Err(CallError::WrongAnswer("x")), 6),
            (&put, Err(CallError::InvalidArgument("empty key")), 2),
        ];
        for (call, result, exit) in cases {
            for style in [PLAIN, TERMINAL, JSON] {
                let (stdout, stderr, found) = said(call, result.clone(), style);
                assert_eq!(found, exit, "{result:?}");
                assert_eq!(style.json, !stdout.is_empty(), "{result:?}: {stdout}");
                assert!(exit == 0 || style.json || !stderr.is_empty(), "{result:?}");
            }
        }
    }
}
