//! Histories as text, one line per operation.

use bytes::Bytes;
use wire::{Action, Old, Outcome};

use crate::sim::history::{Ending, RecordedCall};

/// `called-ended action -> outcome`: `1-2 put a+ -> w@5 over -`, where `+` requests the old value.
pub fn history(text: &str) -> Vec<RecordedCall> {
    text.lines()
        .filter(|l| !l.trim().is_empty())
        .enumerate()
        .map(|(n, l)| line(n, l))
        .collect()
}

fn line(client: usize, line: &str) -> RecordedCall {
    let (left, right) = line.split_once(" -> ").expect("an arrow");
    let (times, action) = left.trim().split_once(' ').expect("times, then an action");
    let (called, ended) = times.split_once('-').expect("called-ended");
    let (action, want_old) = match action.strip_suffix('+') {
        Some(action) => (action, true),
        None => (action, false),
    };
    // Each time becomes two positions, so that an end comes before a call of the same time.
    let called: u64 = called.parse::<u64>().unwrap() * 2 + 1;
    let ended: Option<u64> = ended.parse::<u64>().ok().map(|e| e * 2);
    RecordedCall {
        client,
        key: Bytes::from_static(b"k"),
        action: parse_action(action),
        want_old,
        called,
        ended,
        called_us: called * 1_000,
        ended_us: ended.map(|e| e * 1_000),
        ending: parse_ending(right.trim()),
    }
}

fn bytes(word: &str) -> Bytes {
    Bytes::copy_from_slice(word.as_bytes())
}

fn parse_action(text: &str) -> Action {
    let words: Vec<&str> = text.split(' ').collect();
    match words[..] {
        ["get"] => Action::Get,
        ["put", value] => Action::Put {
            value: bytes(value),
        },
        ["pia", value] => Action::PutIfAbsent {
            value: bytes(value),
        },
        ["del"] => Action::Delete,
        ["casv", version, value] => Action::CompareVersion {
            version: version.parse().unwrap(),
            value: bytes(value),
        },
        ["cas", expected, value] => Action::CompareValue {
            expected: bytes(expected),
            value: bytes(value),
        },
        ["add", delta] => Action::Add {
            delta: delta.parse().unwrap(),
        },
        ["app", value] => Action::Append {
            value: bytes(value),
        },
        ["for", ttl_ms, value] => Action::PutFor {
            value: bytes(value),
            ttl_ms: ttl_ms.parse().unwrap(),
            over: None,
        },
        ["expire", ttl_ms] => Action::Expire {
            ttl_ms: ttl_ms.parse().unwrap(),
            over: None,
        },
        ["persist"] => Action::Persist { over: None },
        _ => panic!("no action: {text}"),
    }
}

fn parse_ending(text: &str) -> Ending {
    let (head, old) = match text.split_once(" over ") {
        Some((head, "-")) => (head, Old::Absent),
        Some((head, "?")) => (head, Old::Forgotten),
        Some((head, value)) => (head, Old::Value(bytes(value))),
        None => (text, Old::NotAsked),
    };
    let (head, number) = match head.split_once(" = ") {
        Some((head, number)) => (head, Some(number.parse().unwrap())),
        None => (head, None),
    };
    let outcome = match head.split_once('@') {
        Some(("w", version)) => Outcome::Written {
            version: version.parse().unwrap(),
            old,
            number,
        },
        Some(("c", version)) => Outcome::Conflict {
            version: version.parse().unwrap(),
            old,
        },
        Some((value, version)) => Outcome::Value {
            version: version.parse().unwrap(),
            value: bytes(value),
        },
        None => match head {
            "absent" => Outcome::Absent,
            "nothing" => Outcome::NothingToDelete,
            "nan" => Outcome::NotANumber,
            "overflow" => Outcome::Overflow,
            "noquorum" => Outcome::NoQuorum { reached: vec![] },
            "busy" => Outcome::Busy { after_ms: 0 },
            "unknown" => Outcome::Unknown,
            "timeout" => return Ending::TimedOut,
            "open" => return Ending::Open,
            _ => panic!("no outcome: {text}"),
        },
    };
    Ending::Answered(outcome)
}
