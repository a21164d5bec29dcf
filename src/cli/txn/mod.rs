//! `horseshoe txn`: runs the transaction in a file.

mod file;

use std::io::Read;
use std::path::PathBuf;

use clap::Args;
use kvclient::{CallError, TransactionDraft, TransactionOutcome, TransactionResults};
use serde_json::{Map, Value, json};
use wire::{Condition, KeyChange};

use self::file::{LineKind, TxnLine};
use super::connection::ConnectionArgs;
use super::exit::Exit;
use super::report;

/// Run operations on several keys, all of them or none.
///
/// The file has a line each: `if KEY absent`, `if KEY present`, `if KEY version V`, `if KEY value
/// X`, `get KEY`, `put KEY VALUE`, `put KEY VALUE ttl TIME`, `del KEY`, `add KEY N` or `append KEY
/// VALUE`, with a single space between words, and quotes as in RFC 4180. If all conditions hold,
/// all operations take effect at one moment. Otherwise nothing is done, the condition that failed
/// is named, and the exit status is 4. Gets and conditions see the state before the transaction. Of
/// each key at most one line may write it.
#[derive(Debug, Args)]
pub struct TxnArgs {
    /// The file; a lone - is standard input
    #[arg(value_name = "FILE", allow_hyphen_values = true)]
    file: PathBuf,
}

pub fn run(arguments: &TxnArgs, connection: &ConnectionArgs) -> Exit {
    let lines = match read(arguments) {
        Ok(lines) => lines,
        Err(message) => return connection.refuse("file", Exit::Usage, &message),
    };
    let mut draft = TransactionDraft::new();
    for line in &lines {
        let key = line.key.clone();
        match &line.kind {
            LineKind::If(condition) => draft.condition(key, condition.clone()),
            LineKind::Get => draft.get(key),
            LineKind::Change(change) => draft.change(key, change.clone()),
        }
    }
    let call = match draft.call() {
        Ok(call) => call,
        Err(error) => return connection.refuse_call(&error),
    };
    let client = match connection.open() {
        Ok(client) => client,
        Err(exit) => return exit,
    };
    let result = draft.outcome(client.call(call));
    let (exit, complaint) = judge(&result);
    if !complaint.is_empty() {
        report::complain(&format!("{complaint}\n"));
    }
    let text = match connection.json {
        true => report::line(in_json(&lines, &result)),
        false => in_words(&lines, &result),
    };
    report::print_bytes(&text).map_or_else(|exit| exit, |()| exit)
}

fn read(arguments: &TxnArgs) -> Result<Vec<TxnLine>, String> {
    let name = arguments.file.display();
    let mut bytes = Vec::new();
    let read = match arguments.file.as_os_str() == "-" {
        true => std::io::stdin().lock().read_to_end(&mut bytes),
        false => std::fs::File::open(&arguments.file).and_then(|mut f| f.read_to_end(&mut bytes)),
    };
    read.map_err(|error| format!("can't read {name}: {error}"))?;
    file::parse(&bytes).map_err(|error| format!("{name}, {error}; nothing was done"))
}

type TxnEnd = Result<TransactionOutcome, CallError>;

fn judge(result: &TxnEnd) -> (Exit, String) {
    match result {
        Ok(TransactionOutcome::Committed(_)) => (Exit::Done, String::new()),
        Ok(TransactionOutcome::Conflict {
            key,
            condition,
            version,
        }) => {
            let is_now = match version {
                0 => "the key does not exist".to_owned(),
                version => format!("the key has version {version}"),
            };
            let condition = in_line(key, condition);
            let complaint = format!("conflict: `{condition}` does not hold: {is_now}");
            (Exit::Conflict, complaint)
        }
        Err(error) => {
            let (_, exit) = report::classify(error);
            (exit, format!("horseshoe: {error}"))
        }
    }
}

/// The condition as in the file, in UTF-8.
fn in_line(key: &[u8], condition: &Condition) -> String {
    let key = String::from_utf8_lossy(key);
    match condition {
        Condition::Absent => format!("if {key} absent"),
        Condition::Present => format!("if {key} present"),
        Condition::Version(version) => format!("if {key} version {version}"),
        Condition::Value(value) => format!("if {key} value {}", String::from_utf8_lossy(value)),
    }
}

/// The values of gets and the sums of adds, a line each, in the order of the file.
fn in_words(lines: &[TxnLine], result: &TxnEnd) -> Vec<u8> {
    let Ok(TransactionOutcome::Committed(results)) = result else {
        return Vec::new();
    };
    let mut text = Vec::new();
    for line in lines {
        let Some(of_key) = results.of(&line.key) else {
            continue;
        };
        match &line.kind {
            LineKind::Get => text.extend_from_slice(of_key.value.as_deref().unwrap_or_default()),
            LineKind::Change(KeyChange::Add(_)) => {
                let sum = of_key.number.map(|sum| sum.to_string());
                text.extend_from_slice(sum.unwrap_or_default().as_bytes());
            }
            LineKind::If(_) | LineKind::Change(_) => continue,
        }
        text.push(b'\n');
    }
    text
}

fn in_json(lines: &[TxnLine], result: &TxnEnd) -> Map<String, Value> {
    let mut object = Map::new();
    let mut insert = |name: &str, value: Value| object.insert(name.to_owned(), value);
    match result {
        Ok(TransactionOutcome::Committed(results)) => {
            insert("result", json!("committed"));
            let lines = lines.iter().map(|line| of_line(line, results));
            insert("results", lines.collect());
        }
        Ok(TransactionOutcome::Conflict {
            key,
            condition,
            version,
        }) => {
            insert("result", json!("conflict"));
            insert("condition", json!(in_line(key, condition)));
            insert(
                "version",
                json!((*version > 0).then(|| version.to_string())),
            );
        }
        Err(error) => {
            insert("result", json!("error"));
            insert("error", json!(report::classify(error).0));
            insert("message", json!(error.to_string()));
        }
    }
    object
}

fn of_line(line: &TxnLine, results: &TransactionResults) -> Value {
    let mut object = Map::new();
    report::insert_bytes(&mut object, "key", &line.key);
    let Some(of_key) = results.of(&line.key) else {
        return Value::Object(object);
    };
    let version = match &line.kind {
        LineKind::If(_) | LineKind::Get => of_key.found,
        LineKind::Change(_) => of_key.version,
    };
    match (&line.kind, &of_key.value, of_key.number) {
        (LineKind::Get, Some(value), _) => report::insert_bytes(&mut object, "value", value),
        (LineKind::Change(KeyChange::Add(_)), _, Some(sum)) => {
            object.insert("value".to_owned(), json!(sum.to_string()));
        }
        _ => {
            object.insert("value".to_owned(), Value::Null);
        }
    }
    let version = (version > 0).then(|| version.to_string());
    object.insert("version".to_owned(), json!(version));
    Value::Object(object)
}
