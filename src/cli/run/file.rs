//! The file of operations: CSV, read as a whole and checked before any operation is run.

use csv::{ByteRecord, ReaderBuilder};
use kvclient::{Call, TransactionDraft};
use wire::{Action, KEY_SIZE_MAX, KeyChange, VALUE_SIZE_MAX};

use super::{call_of, put_for};

/// An operation, or a transaction, and its position in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The number of its first line, from 1.
    pub number: u64,
    pub call: Call,
}

/// The error names the line.
pub fn parse(bytes: &[u8]) -> Result<Vec<Line>, String> {
    group(records(bytes, b',', entry)?)
}

enum FileEntry {
    Begin,
    Commit,
    Operation(Call),
}

fn entry(record: &ByteRecord) -> Result<FileEntry, String> {
    let is = |name: &str| record.len() == 1 && record[0].eq_ignore_ascii_case(name.as_bytes());
    match () {
        () if is("BEGIN") => Ok(FileEntry::Begin),
        () if is("COMMIT") => Ok(FileEntry::Commit),
        () => operation(record).map(FileEntry::Operation),
    }
}

/// The operations between BEGIN and COMMIT are one transaction.
fn group(entries: Vec<(u64, FileEntry)>) -> Result<Vec<Line>, String> {
    let mut lines = Vec::new();
    let mut open: Option<(u64, TransactionDraft)> = None;
    for (number, entry) in entries {
        let at = |error: &str| format!("line {number}: {error}");
        match (entry, &mut open) {
            (FileEntry::Operation(call), None) => lines.push(Line { number, call }),
            (FileEntry::Operation(call), Some((_, draft))) => {
                add(draft, call).map_err(|error| at(&error))?;
            }
            (FileEntry::Begin, None) => open = Some((number, TransactionDraft::new())),
            (FileEntry::Begin, Some((began, _))) => {
                return Err(at(&format!("BEGIN in the transaction of line {began}")));
            }
            (FileEntry::Commit, None) => return Err(at("COMMIT without BEGIN")),
            (FileEntry::Commit, Some((began, draft))) => {
                let (number, call) = (*began, draft.call());
                let call = call.map_err(|error| format!("line {number}: {error}"))?;
                lines.push(Line { number, call });
                open = None;
            }
        }
    }
    match open {
        Some((began, _)) => Err(format!("line {began}: BEGIN without COMMIT")),
        None => Ok(lines),
    }
}

fn add(draft: &mut TransactionDraft, call: Call) -> Result<(), String> {
    match call.action {
        Action::Get => draft.get(call.key),
        Action::Put { value } => draft.change(call.key, KeyChange::Put(value)),
        Action::PutFor { value, ttl_ms, .. } => {
            draft.change(call.key, KeyChange::PutFor { value, ttl_ms });
        }
        Action::Delete => draft.change(call.key, KeyChange::Delete),
        _ => return Err("a transaction has GET, PUT and DELETE only".to_owned()),
    }
    Ok(())
}

/// What `read` makes of each record, with the number of its first line.
pub fn records<T>(
    bytes: &[u8],
    delimiter: u8,
    read: impl Fn(&ByteRecord) -> Result<T, String>,
) -> Result<Vec<(u64, T)>, String> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut reader = ReaderBuilder::new()
        .has_headers(false)
        .delimiter(delimiter)
        .flexible(true)
        .from_reader(bytes);
    let mut lines = Vec::new();
    let mut record = ByteRecord::new();
    // The number of the line at `counted`. Counting continues from the last record, so that the
    // cost is linear in the length of the file.
    let mut number = 1;
    let mut counted = 0;
    loop {
        // The data that was read and not returned yet starts here, with the empty lines before it.
        let start = reader.position().byte() as usize;
        let more = reader
            .read_byte_record(&mut record)
            .map_err(|error| error.to_string())?;
        if !more {
            return Ok(lines);
        }
        let end = reader.position().byte() as usize;
        let empty = bytes[start..end].iter().take_while(|b| b"\r\n".contains(b));
        let start = start + empty.count();
        number += bytes[counted..start]
            .iter()
            .filter(|&&b| b == b'\n')
            .count() as u64;
        counted = start;
        let line = check_quotes(&bytes[start..end], delimiter)
            .and_then(|()| read(&record))
            .map_err(|error| format!("line {number}: {error}"))?;
        lines.push((number, line));
    }
}

fn operation(record: &ByteRecord) -> Result<Call, String> {
    let fields: Vec<&[u8]> = record.iter().collect();
    let call = match fields[..] {
        [operation, key] => call_of(operation, key, None)?,
        [operation, key, word] => call_of(operation, key, Some(word))?,
        [operation, key, value, time] => put_for(operation, key, value, time)?,
        _ => None,
    };
    let Some(call) = call else {
        return Err(format!(
            "{:?} with {} more fields is not PUT,key,value or PUT,key,value,time or GET,key or \
             DELETE,key or EXPIRE,key,time or PERSIST,key or TTL,key or BEGIN or COMMIT",
            String::from_utf8_lossy(fields.first().copied().unwrap_or_default()),
            fields.len().saturating_sub(1)
        ));
    };
    if call.key.is_empty() {
        return Err("the key is empty".to_owned());
    }
    if call.key.len() > KEY_SIZE_MAX {
        return Err(format!(
            "the key has {} bytes; the limit is {KEY_SIZE_MAX} bytes",
            call.key.len()
        ));
    }
    if call.action.value_size() > VALUE_SIZE_MAX {
        return Err(format!(
            "the value has {} bytes; the limit is {VALUE_SIZE_MAX} bytes",
            call.action.value_size()
        ));
    }
    Ok(call)
}

/// The csv crate accepts a quote in the middle of a field, text after a closing quote, and an end
/// of the file in a quoted field; RFC 4180 allows none of these.
fn check_quotes(record: &[u8], delimiter: u8) -> Result<(), String> {
    let mut rest = record.iter().copied().peekable();
    let mut at_start = true;
    while let Some(byte) = rest.next() {
        match byte {
            b'"' if at_start => {
                at_start = false;
                loop {
                    match rest.next() {
                        None => return Err("a quote is not closed".to_owned()),
                        Some(b'"') if rest.peek() == Some(&b'"') => rest.next(),
                        Some(b'"') => break,
                        Some(_) => continue,
                    };
                }
                let ends = |byte: &u8| *byte == delimiter || b"\r\n".contains(byte);
                if !rest.peek().is_none_or(ends) {
                    return Err("there is text after a closing quote".to_owned());
                }
            }
            b'"' => return Err("there is a quote in a field that is not in quotes".to_owned()),
            byte => at_start = byte == delimiter,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;

    fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Call {
        let value = value.into();
        Call::new(key, Action::Put { value })
    }

    fn get(key: &'static str) -> Call {
        Call::new(key, Action::Get)
    }

    fn error(text: &str) -> String {
        parse(text.as_bytes()).unwrap_err()
    }

    #[test]
    fn the_three_operations_are_read() {
        let text = "PUT,k,v\r\nget,k\n\nDELETE,\"a,\"\"b\"\"\nc\"\nPUT,k,\nGET,\u{fc}";
        let calls: Vec<(u64, Call)> = parse(text.as_bytes())
            .unwrap()
            .into_iter()
            .map(|line| (line.number, line.call))
            .collect();
        let expected = [
            (1, put("k", "v")),
            (2, get("k")),
            (4, Call::new("a,\"b\"\nc", Action::Delete)),
            (6, put("k", "")),
            (7, get("\u{fc}")),
        ];
        assert_eq!(calls, expected);
        assert_eq!(parse(b"\xef\xbb\xbf\"GET\",k"), parse(b"GET,k"));
        assert_eq!(parse(b""), Ok(Vec::new()));
        assert_eq!(parse(b"\n\r\n"), Ok(Vec::new()));
    }

    #[test]
    fn times_to_live_are_read() {
        let text = "PUT,k,v,10s\nexpire,k,1.5\nPERSIST,k\nTTL,k";
        let actions = parse(text.as_bytes()).unwrap().into_iter();
        let actions: Vec<Action> = actions.map(|line| line.call.action).collect();
        let (value, over) = (Bytes::from_static(b"v"), None);
        let expected = [
            Action::PutFor {
                value,
                ttl_ms: 10_000,
                over,
            },
            Action::Expire {
                ttl_ms: 1_500,
                over,
            },
            Action::Persist { over },
            Action::TimeToLive,
        ];
        assert_eq!(actions, expected);
    }

    #[test]
    fn lines_between_begin_and_commit_are_a_transaction() {
        let text = "GET,k\nBEGIN\nGET,a\nPUT,b,v\nDELETE,c\nPUT,d,v,5\nGET,b\ncommit\nGET,k";
        let lines = parse(text.as_bytes()).unwrap();
        let numbers: Vec<u64> = lines.iter().map(|line| line.number).collect();
        assert_eq!(numbers, [1, 2, 9]);
        let Action::Transact { transaction } = &lines[1].call.action else {
            panic!("{:?}", lines[1]);
        };
        let value = Bytes::from_static(b"v");
        let parts = transaction.parts.iter();
        let parts: Vec<_> = parts
            .map(|p| (&p.key[..], p.get, p.change.clone()))
            .collect();
        let put_for = KeyChange::PutFor {
            value: value.clone(),
            ttl_ms: 5_000,
        };
        let expected: [(&[u8], bool, Option<KeyChange>); 4] = [
            (b"a", true, None),
            (b"b", true, Some(KeyChange::Put(value))),
            (b"c", false, Some(KeyChange::Delete)),
            (b"d", false, Some(put_for)),
        ];
        assert_eq!(parts, expected);
    }

    #[test]
    fn bytes_need_not_be_text() {
        let lines = parse(b"PUT,\xff,\xfe\n").unwrap();
        assert_eq!(lines[0].call, put(vec![0xff], vec![0xfe]));
    }

    /// When lines were counted from the start of the file for each record, this took minutes.
    #[test]
    fn a_long_file_costs_its_length() {
        let began = std::time::Instant::now();
        let text = "PUT,some-key,some-value\n".repeat(200_000);
        let lines = parse(text.as_bytes()).unwrap();
        assert_eq!(lines.last().map(|line| line.number), Some(200_000));
        assert!(began.elapsed().as_secs() < 30, "{:?}", began.elapsed());
    }

    #[test]
    fn a_bad_line_is_named() {
        for (text, expected) in [
            ("PUT,k", "line 1: \"PUT\" with 1 more fields"),
            ("GET,k\nGET,k,v", "line 2: \"GET\" with 2"),
            ("GET,k\nHAS,k", "line 2: \"HAS\""),
            ("PUT,k,v,w", "line 1: a time is a number of seconds"),
            ("GET,k,v,1s", "line 1: \"GET\" with 3"),
            ("TTL,k\nEXPIRE,k,0", "line 2: a time has to be above zero"),
            ("EXPIRE,k,200y", "line 1: a time is a number of seconds"),
            ("GET,a\n\nGET,\n", "line 3: the key is empty"),
            ("PUT,a,\"b\nc\"\nDEL", "line 3: \"DEL\" with 0"),
            ("PUT,a,\"b\nc", "line 1: a quote is not closed"),
            ("PUT,a,b\"c", "line 1: there is a quote in a field"),
            ("PUT,a,\"b\"c", "line 1: there is text after"),
            (" GET,k", "line 1: \" GET\""),
            ("GET,k\nCOMMIT", "line 2: COMMIT without BEGIN"),
            ("BEGIN\nGET,k", "line 1: BEGIN without COMMIT"),
            ("BEGIN\nBEGIN", "line 2: BEGIN in the transaction of line 1"),
            (
                "GET,k\nBEGIN\nCOMMIT",
                "line 2: invalid argument: the transaction names",
            ),
            ("BEGIN\nTTL,k\nCOMMIT", "line 2: a transaction has GET"),
            (
                "BEGIN\nPUT,k,v\nDELETE,k\nCOMMIT",
                "line 1: invalid argument: a key has two",
            ),
        ] {
            let found = error(text);
            assert!(found.starts_with(expected), "{text:?}: {found}");
        }
        let long = "k".repeat(KEY_SIZE_MAX + 1);
        assert!(error(&format!("GET,{long}")).contains("1024 bytes"));
        let long = "v".repeat(VALUE_SIZE_MAX + 1);
        assert!(error(&format!("PUT,k,{long}")).contains("16777216 bytes"));
    }

    proptest! {
        #[test]
        fn what_the_csv_crate_writes_is_read(key in prop::collection::vec(any::<u8>(), 1..20), value in prop::collection::vec(any::<u8>(), 0..20)) {
            let mut writer = csv::Writer::from_writer(Vec::new());
            writer.write_record([b"GET" as &[u8], b"first"]).unwrap();
            let bytes = writer.into_inner().unwrap();
            let mut writer = csv::Writer::from_writer(bytes);
            writer.write_record([b"PUT", key.as_slice(), value.as_slice()]).unwrap();
            let lines = parse(&writer.into_inner().unwrap()).unwrap();
            prop_assert_eq!(&lines[1].call, &put(key, value));
        }

        #[test]
        fn arbitrary_files_never_panic(bytes in prop::collection::vec(prop::sample::select(b"PUTGET,k\"\r\n\xff".to_vec()), 0..80)) {
            let _ = parse(&bytes);
        }
    }
}
