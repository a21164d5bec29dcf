//! Whether the recorded operations are linearizable, key by key.
//!
//! Each key is written before the load begins, so earlier values do not matter. If a get
//! nevertheless finds a value that this run did not write, its version tells why: if it is newer
//! than the first put of this run, another client wrote to the key, and the key can't be judged; if
//! it is older, the put was lost.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use checker::history::{Ending, RecordedCall};
use checker::{CheckVerdict, check};
use wire::{Action, Full, Old, Outcome};

use super::record::{OperationRecord, RecordLog, RecordedEnd, UniqueValues};
use super::tally::Kind;

/// The maximum of states that the checker visits for a key: so many, and more per operation.
const EFFORT_BASE: u64 = 1_000_000;
const EFFORT_PER_OPERATION: u64 = 50;
/// Keys whose histories are shown.
const SHOWN_MAX: usize = 10;

/// A key whose history is not linearizable, with a line for each operation that shows it.
#[derive(Debug, PartialEq, Eq)]
pub struct KeyViolation {
    pub key: u32,
    pub lines: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum UndecidedKey {
    /// Another client wrote to the key during the run.
    OtherWriter,
    /// The search was given up.
    TooHard,
}

#[derive(Debug, Default)]
pub struct CheckReport {
    pub operations: u64,
    pub keys: u64,
    /// Puts that may have been done.
    pub unknown: u64,
    /// Keys of which the last get, after the load, failed.
    pub unread: u64,
    /// The number of keys in violation; `shown` has the first of them.
    pub violations: u64,
    pub shown: Vec<KeyViolation>,
    pub undecided: Vec<(u32, UndecidedKey)>,
    pub took: Duration,
}

impl CheckReport {
    /// `None`: some keys could not be judged, and no others are in violation.
    pub fn is_linearizable(&self) -> Option<bool> {
        match (self.violations, self.undecided.is_empty()) {
            (0, true) => Some(true),
            (0, false) => None,
            _ => Some(false),
        }
    }
}

pub fn judge(mut log: RecordLog, values: &UniqueValues) -> CheckReport {
    let began = Instant::now();
    log.records.sort_unstable_by_key(|r| (r.key, r.called_ns));
    let mut report = CheckReport {
        operations: log.records.len() as u64,
        ..CheckReport::default()
    };
    for records in log.records.chunk_by(|one, other| one.key == other.key) {
        let history = KeyHistory {
            records,
            values,
            samples: &log.samples,
        };
        let key = records[0].key;
        report.keys += 1;
        let unknown = records.iter().filter(|r| r.end == RecordedEnd::Unknown);
        report.unknown += unknown.count() as u64;
        match history.verdict() {
            Ok(CheckVerdict::Linearizable) => {}
            Ok(CheckVerdict::Violation(calls)) => {
                report.violations += 1;
                if report.shown.len() < SHOWN_MAX {
                    let lines = history.lines(&calls);
                    report.shown.push(KeyViolation { key, lines });
                }
            }
            Ok(CheckVerdict::Undecided) => report.undecided.push((key, UndecidedKey::TooHard)),
            Err(why) => report.undecided.push((key, why)),
        }
    }
    report.took = began.elapsed();
    report
}

/// The operations of one key.
struct KeyHistory<'a> {
    records: &'a [OperationRecord],
    values: &'a UniqueValues,
    samples: &'a BTreeMap<u64, Bytes>,
}

impl KeyHistory<'_> {
    fn verdict(&self) -> Result<CheckVerdict, UndecidedKey> {
        if self.has_other_writer() {
            return Err(UndecidedKey::OtherWriter);
        }
        let calls: Vec<RecordedCall> = self.records.iter().map(|r| self.call(r)).collect();
        let effort = EFFORT_BASE + EFFORT_PER_OPERATION * calls.len() as u64;
        Ok(check(&calls, effort))
    }

    fn has_other_writer(&self) -> bool {
        let written = self
            .records
            .iter()
            .filter(|r| r.end == RecordedEnd::Written);
        let first = written.map(|r| r.version).min();
        let mut others = self
            .records
            .iter()
            .filter(|r| r.end == RecordedEnd::OtherValue);
        others.any(|r| first.is_none_or(|first| r.version > first))
    }

    /// The name of a value of this run, or a text for any other; the checker only compares them.
    fn value(&self, record: &OperationRecord) -> Bytes {
        match (record.end, u32::try_from(record.value)) {
            (RecordedEnd::DamagedValue | RecordedEnd::OtherValue, _) | (_, Err(_)) => {
                let hash = record.value;
                let sample = self.samples.get(&hash).cloned().unwrap_or_default();
                let shown = String::from_utf8_lossy(&sample);
                format!("{shown}.. (a value of hash {hash:016x})").into()
            }
            (_, Ok(number)) => self.values.name_of(number),
        }
    }

    fn call(&self, record: &OperationRecord) -> RecordedCall {
        let (value, version) = (self.value(record), record.version);
        let outcome = match record.end {
            RecordedEnd::Value | RecordedEnd::DamagedValue | RecordedEnd::OtherValue => {
                let value = value.clone();
                Some(Outcome::Value { version, value })
            }
            RecordedEnd::Absent => Some(Outcome::Absent),
            RecordedEnd::Written => Some(Outcome::Written {
                version,
                old: Old::NotAsked,
                number: None,
            }),
            RecordedEnd::Unknown => Some(Outcome::Unknown),
            RecordedEnd::NoQuorum => Some(Outcome::NoQuorum {
                reached: Vec::new(),
            }),
            RecordedEnd::Busy => Some(Outcome::Busy { after_ms: 0 }),
            RecordedEnd::Full => Some(Outcome::Full { full: Full::Memory }),
            // No answer, or refused by the library.
            RecordedEnd::TimedOut | RecordedEnd::Refused => None,
        };
        let (called, ended) = places(record);
        RecordedCall {
            client: record.client as usize,
            key: Bytes::new(),
            action: match record.kind {
                Kind::Get => Action::Get,
                Kind::Put => Action::Put { value },
                Kind::Add => unreachable!("--check refuses adds"),
            },
            want_old: false,
            called,
            ended: Some(ended),
            called_us: record.called_ns / 1_000,
            ended_us: Some(record.ended_ns / 1_000),
            ending: outcome.map_or(Ending::TimedOut, Ending::Answered),
        }
    }

    /// The calls that show a violation, and the puts of values that they read.
    fn lines(&self, calls: &[RecordedCall]) -> Vec<String> {
        let mut lines: Vec<String> = calls.iter().map(|call| self.line(call)).collect();
        let is_shown = |r: &&OperationRecord| {
            let (client, (called, _)) = (r.client as usize, places(r));
            calls
                .iter()
                .any(|c| c.client == client && c.called == called)
        };
        for read in self.records.iter().filter(is_shown) {
            let is_writer = |r: &&OperationRecord| r.kind == Kind::Put && r.value == read.value;
            let writer = self.records.iter().find(is_writer);
            if read.end == RecordedEnd::Value
                && let Some(writer) = writer.filter(|writer| !is_shown(writer))
            {
                let line = self.line(&self.call(writer));
                lines.push(format!("what was read was put by {line}"));
            }
        }
        lines
    }

    /// The call, with its intended start if that was earlier.
    fn line(&self, call: &RecordedCall) -> String {
        let is_of_call =
            |r: &&OperationRecord| r.client as usize == call.client && places(r).0 == call.called;
        let record = self.records.iter().find(is_of_call);
        match record.filter(|r| r.intended_ns < r.called_ns) {
            Some(record) => {
                let intended_us = record.intended_ns / 1_000;
                format!("{call} (to start at {})", checker::history::ms(intended_us))
            }
            None => call.to_string(),
        }
    }
}

/// The order of call and end. Of two at the same time the call comes first, so the operations
/// overlap.
fn places(record: &OperationRecord) -> (u64, u64) {
    (record.called_ns * 2, record.ended_ns * 2 + 1)
}

#[cfg(test)]
mod tests {
    use kvclient::CallError;

    use super::*;
    use crate::cli::bench::record::{Flight, Recording};

    const MS: Duration = Duration::from_millis(1);

    /// Records operations as the loops do, one every 2 ms, on one key.
    struct Forger {
        recording: Recording,
        log: RecordLog,
        time: Instant,
    }

    impl Forger {
        fn new() -> Forger {
            let recording = Recording::new(UniqueValues::new(0xbe, 20), 100);
            Forger {
                time: recording.base,
                log: RecordLog::default(),
                recording,
            }
        }

        fn push(&mut self, kind: Kind, number: u32, result: Result<Outcome, CallError>) {
            let flight = Flight {
                kind,
                key: 7,
                number,
                intended: self.time,
                called: self.time + MS / 2,
            };
            let ended = self.time + MS;
            self.time += MS * 2;
            self.log.push(&self.recording, &flight, 3, ended, &result);
        }

        fn put(&mut self, number: u32, result: Result<Outcome, CallError>) -> &mut Self {
            self.push(Kind::Put, number, result);
            self
        }

        fn written(&mut self, number: u32, version: u64) -> &mut Self {
            self.put(
                number,
                Ok(Outcome::Written {
                    version,
                    old: Old::NotAsked,
                    number: None,
                }),
            )
        }

        fn read(&mut self, number: u32, version: u64) -> &mut Self {
            let value = self.recording.values.value(number);
            self.read_bytes(value, version)
        }

        fn read_bytes(&mut self, value: Bytes, version: u64) -> &mut Self {
            self.push(Kind::Get, 0, Ok(Outcome::Value { version, value }));
            self
        }

        fn absent(&mut self) -> &mut Self {
            self.push(Kind::Get, 0, Ok(Outcome::Absent));
            self
        }

        fn judged(&mut self) -> CheckReport {
            judge(std::mem::take(&mut self.log), &self.recording.values)
        }
    }

    #[track_caller]
    fn violation(forger: &mut Forger) -> Vec<String> {
        let mut report = forger.judged();
        assert_eq!(report.is_linearizable(), Some(false), "{report:?}");
        assert_eq!((report.violations, report.shown[0].key), (1, 7));
        report.shown.remove(0).lines
    }

    #[test]
    fn what_a_register_explains_is_linearizable() {
        let mut forger = Forger::new();
        forger.written(1, 10).read(1, 10);
        forger.put(2, Err(CallError::UnknownOutcome)).read(1, 10);
        forger.read(2, 20).written(3, 30).read(3, 30);
        forger.put(4, Err(CallError::Busy)).read(3, 30);
        let report = forger.judged();
        assert_eq!(report.is_linearizable(), Some(true), "{report:?}");
        assert_eq!((report.operations, report.keys, report.unknown), (9, 1, 1));
    }

    #[test]
    fn a_lost_write_is_found() {
        let lines = violation(Forger::new().written(1, 10).written(2, 20).read(1, 10));
        assert_eq!(lines.len(), 3, "{lines:#?}");
        assert!(lines[2].starts_with("what was read was put by [0.500"));
        assert!(lines[0].contains("client 3 put \"000000be00000002\" -> written"));
        assert!(lines[0].ends_with("(to start at 2.000)"), "{lines:#?}");
        assert!(lines[1].contains("[4.500 - 5.000] client 3 get -> \"000000be00000001\" at"));
        let lines = violation(Forger::new().written(1, 10).absent());
        assert!(lines[1].contains("get -> Absent"), "{lines:#?}");
    }

    #[test]
    fn a_stale_read_is_found() {
        let mut forger = Forger::new();
        forger.written(1, 10).put(2, Err(CallError::UnknownOutcome));
        let lines = violation(forger.read(2, 20).read(1, 10));
        assert_eq!(lines.len(), 4, "{lines:#?}");
        assert!(lines[1].contains("get -> \"000000be00000001\" at"));
        assert!(lines[2].ends_with("-> Unknown (to start at 2.000)"));
    }

    #[test]
    fn a_refused_write_that_was_done_is_found_and_named() {
        let mut forger = Forger::new();
        let refused = CallError::NoQuorum {
            detail: String::new(),
        };
        let lines = violation(forger.written(1, 10).put(2, Err(refused)).read(2, 20));
        let last = lines.last().unwrap();
        assert!(last.starts_with("what was read was put by [2.500 - 3.000]"));
        assert!(last.contains("NoQuorum"), "{lines:#?}");
    }

    #[test]
    fn a_damaged_value_is_found() {
        let mut forger = Forger::new();
        let mut torn = forger.recording.values.value(1).to_vec();
        torn[19] ^= 1;
        violation(forger.written(1, 10).read_bytes(torn.into(), 10));
    }

    #[test]
    fn the_value_of_another_is_a_lost_write_only_if_it_is_older() {
        let mut forger = Forger::new();
        forger.written(1, 10).read_bytes("older".into(), 9);
        let lines = violation(&mut forger);
        assert!(lines[1].contains("older.."), "{lines:#?}");
        let mut forger = Forger::new();
        forger.written(1, 10).read_bytes("newer".into(), 11);
        let report = forger.judged();
        assert_eq!(report.undecided, [(7, UndecidedKey::OtherWriter)]);
        assert_eq!(report.is_linearizable(), None);
    }

    #[test]
    fn what_meets_at_one_time_overlaps() {
        let mut forger = Forger::new();
        forger.written(1, 10).written(2, 20).read(1, 10);
        forger.log.records[2].called_ns = forger.log.records[1].ended_ns;
        assert_eq!(forger.judged().is_linearizable(), Some(true));
    }
}
