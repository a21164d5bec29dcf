//! The lines of a transaction, read as a whole and checked before anything is done.

use bytes::Bytes;
use csv::ByteRecord;
use wire::{Condition, KeyChange};

use crate::cli::run::file::records;
use crate::cli::words;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxnLine {
    pub key: Bytes,
    pub kind: LineKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LineKind {
    If(Condition),
    Get,
    Change(KeyChange),
}

/// The error names the line.
pub fn parse(bytes: &[u8]) -> Result<Vec<TxnLine>, String> {
    let lines = records(bytes, b' ', line)?;
    Ok(lines.into_iter().map(|(_, line)| line).collect())
}

fn line(record: &ByteRecord) -> Result<TxnLine, String> {
    let words: Vec<&[u8]> = record.iter().collect();
    let bytes = Bytes::copy_from_slice;
    let number = |word: &[u8]| -> Result<i64, String> {
        let text = String::from_utf8_lossy(word);
        text.parse()
            .map_err(|_| format!("{text:?} is not a number"))
    };
    let version = |word: &[u8]| -> Result<u64, String> {
        let text = String::from_utf8_lossy(word);
        text.parse()
            .map_err(|_| format!("{text:?} is not a version"))
    };
    let ttl = |word: &[u8]| {
        let text = String::from_utf8_lossy(word);
        words::ttl(&text).map_err(|error| format!("ttl {text:?}: {error}"))
    };
    let (key, kind) = match words[..] {
        [b"if", key, b"absent"] => (key, LineKind::If(Condition::Absent)),
        [b"if", key, b"present"] => (key, LineKind::If(Condition::Present)),
        [b"if", key, b"version", word] => match version(word)? {
            // The version of an absent key.
            0 => (key, LineKind::If(Condition::Absent)),
            version => (key, LineKind::If(Condition::Version(version))),
        },
        [b"if", key, b"value", value] => (key, LineKind::If(Condition::Value(bytes(value)))),
        [b"get", key] => (key, LineKind::Get),
        [b"put", key, value] => (key, LineKind::Change(KeyChange::Put(bytes(value)))),
        [b"put", key, value, b"ttl", time] => {
            let (value, ttl_ms) = (bytes(value), ttl(time)?);
            (key, LineKind::Change(KeyChange::PutFor { value, ttl_ms }))
        }
        [b"del", key] => (key, LineKind::Change(KeyChange::Delete)),
        [b"add", key, word] => (key, LineKind::Change(KeyChange::Add(number(word)?))),
        [b"append", key, value] => (key, LineKind::Change(KeyChange::Append(bytes(value)))),
        _ => {
            let text: Vec<_> = words.iter().map(|w| String::from_utf8_lossy(w)).collect();
            return Err(format!(
                "{:?} is not `if KEY absent`, `if KEY present`, `if KEY version V`, `if KEY value \
                 X`, `get KEY`, `put KEY VALUE`, `put KEY VALUE ttl TIME`, `del KEY`, `add KEY N` or \
                 `append KEY VALUE`",
                text.join(" ")
            ));
        }
    };
    let key = bytes(key);
    Ok(TxnLine { key, kind })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_with_their_quotes() {
        let text = "if a absent\nif a version 7\nif a version 0\nif a value \"x \"\"y\"\"\"\n\nget a\r\nput \"k k\" \
                    \"\"\ndel a\nadd n -5\nappend l +x\nif a present\nput t v ttl 1500ms";
        let kinds: Vec<(Bytes, LineKind)> = parse(text.as_bytes())
            .unwrap()
            .into_iter()
            .map(|line| (line.key, line.kind))
            .collect();
        let condition = |condition| ("a".into(), LineKind::If(condition));
        let change = |key: &'static str, change| (key.into(), LineKind::Change(change));
        let expected = [
            condition(Condition::Absent),
            condition(Condition::Version(7)),
            condition(Condition::Absent),
            condition(Condition::Value("x \"y\"".into())),
            ("a".into(), LineKind::Get),
            change("k k", KeyChange::Put("".into())),
            change("a", KeyChange::Delete),
            change("n", KeyChange::Add(-5)),
            change("l", KeyChange::Append("+x".into())),
            condition(Condition::Present),
            change(
                "t",
                KeyChange::PutFor {
                    value: "v".into(),
                    ttl_ms: 1_500,
                },
            ),
        ];
        assert_eq!(kinds, expected);
    }

    #[test]
    fn a_bad_line_is_named() {
        for (text, expected) in [
            ("get a\nput a", "line 2: \"put a\" is not"),
            ("add n x", "line 1: \"x\" is not a number"),
            ("if a version x", "line 1: \"x\" is not a version"),
            ("put a b ttl 0", "line 1: ttl \"0\": "),
            ("put a b for 5s", "line 1: \"put a b for 5s\" is not"),
            ("put a \"b", "line 1: a quote is not closed"),
            ("put a b\"", "line 1: there is a quote in a field"),
            ("get  a", "line 1: \"get  a\""),
        ] {
            let error = parse(text.as_bytes()).unwrap_err();
            assert!(error.starts_with(expected), "{text:?}: {error}");
        }
    }
}
