//! The operations of a run's clients and the outcomes that they received: the input of the checker.

use std::fmt;

use bytes::Bytes;
use wire::{
    Action, Condition, FailureReason, KeyChange, KeyResult, Old, Outcome, TransactionPart, Version,
};

/// How an operation ended, as its client knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// Still in progress, or its client is gone: a write may happen at any later time, or never.
    Open,
    Answered(Outcome),
    /// The client's deadline passed: for reads, and for writes that were never sent.
    TimedOut,
}

/// One operation of one client. `called` and `ended` are places in the order of the run's events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedCall {
    pub client: usize,
    pub key: Bytes,
    pub action: Action,
    pub want_old: bool,
    pub called: u64,
    pub ended: Option<u64>,
    pub called_us: u64,
    pub ended_us: Option<u64>,
    pub ending: Ending,
}

impl RecordedCall {
    /// Whether it is known that the operation changed nothing and saw nothing.
    pub fn is_void(&self) -> bool {
        let read = self.action.is_read();
        // A stale read may see any state that the key ever had.
        if self.action.is_stale() {
            return true;
        }
        match &self.ending {
            Ending::Open => read,
            Ending::TimedOut => true,
            Ending::Answered(outcome) => match outcome {
                Outcome::NoQuorum { .. }
                | Outcome::Busy { .. }
                | Outcome::Full { .. }
                | Outcome::Remake { .. }
                | Outcome::Ahead { .. } => true,
                Outcome::Unknown => read,
                Outcome::Failed { failure } => failure.reason == FailureReason::Contended,
                // Only an append's size depends on the present value.
                Outcome::TooLarge { .. } => !matches!(self.action, Action::Append { .. }),
                _ => false,
            },
        }
    }

    /// Whether the operation may have happened, or may still happen, without any client knowing.
    pub fn is_maybe(&self) -> bool {
        let unknown = matches!(
            &self.ending,
            Ending::Open | Ending::Answered(Outcome::Unknown)
        );
        unknown && !self.action.is_read()
    }
}

impl fmt::Display for RecordedCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ended = self.ended_us.map_or("...".to_string(), ms);
        write!(
            f,
            "[{} - {}] client {} ",
            ms(self.called_us),
            ended,
            self.client
        )?;
        write!(f, "{}", show_action(&self.action))?;
        if self.want_old {
            write!(f, " (old value wanted)")?;
        }
        write!(f, " -> {}", show_ending(&self.ending))
    }
}

pub fn ms(us: u64) -> String {
    format!("{}.{:03}", us / 1_000, us % 1_000)
}

pub fn show_action(action: &Action) -> String {
    match action {
        Action::Get => "get".into(),
        Action::Put { value } => format!("put {}", show(value)),
        Action::PutIfAbsent { value } => format!("put-if-absent {}", show(value)),
        Action::Delete => "delete".into(),
        Action::CompareVersion { version, value } => {
            format!("if version {version:#x} put {}", show(value))
        }
        Action::CompareValue { expected, value } => {
            format!("if value {} put {}", show(expected), show(value))
        }
        Action::Add { delta } => format!("add {delta}"),
        Action::PutOver {
            value,
            old_size_max,
            old_without,
        } => {
            let without = show(old_without);
            format!(
                "put {} over at most {old_size_max} bytes without any of {without}",
                show(value)
            )
        }
        Action::Append { value } => format!("append {}", show(value)),
        Action::PutFor {
            value,
            ttl_ms,
            over,
        } => format!("{}put {} for {ttl_ms} ms", show_over(*over), show(value)),
        Action::Expire { ttl_ms, over } => format!("{}expire in {ttl_ms} ms", show_over(*over)),
        Action::Persist { over } => format!("{}persist", show_over(*over)),
        Action::TimeToLive => "time to live".into(),
        Action::GetStale => "stale get".into(),
        Action::DeleteVersion { version } => format!("if version {version:#x} delete"),
        Action::Scan { end, limit, .. } => format!("scan up to {} ({limit} keys)", show(end)),
        Action::Watch { end, .. } => format!("watch up to {}", show(end)),
        Action::Transact { transaction } => {
            let parts: Vec<String> = transaction.parts.iter().map(show_part).collect();
            format!("transaction {}", parts.join(", "))
        }
    }
}

fn show_part(part: &TransactionPart) -> String {
    let key = show(&part.key);
    let mut words = Vec::new();
    for condition in &part.conditions {
        words.push(match condition {
            Condition::Absent => format!("if {key} absent"),
            Condition::Present => format!("if {key} present"),
            Condition::Version(version) => format!("if {key} version {version:#x}"),
            Condition::Value(value) => format!("if {key} value {}", show(value)),
        });
    }
    if part.get {
        words.push(format!("get {key}"));
    }
    match &part.change {
        None => {}
        Some(KeyChange::Put(value)) => words.push(format!("put {key} {}", show(value))),
        Some(KeyChange::PutFor { value, ttl_ms }) => {
            words.push(format!("put {key} {} for {ttl_ms} ms", show(value)));
        }
        Some(KeyChange::Delete) => words.push(format!("delete {key}")),
        Some(KeyChange::Add(delta)) => words.push(format!("add {key} {delta}")),
        Some(KeyChange::Append(value)) => words.push(format!("append {key} {}", show(value))),
    }
    words.join(", ")
}

fn show_results(results: &[KeyResult]) -> String {
    let results = results.iter().map(|result| {
        let value = result.value.as_ref().map(show).unwrap_or_default();
        let number = result.number.map(|n| format!(" = {n}")).unwrap_or_default();
        let (found, version) = (result.found, result.version);
        format!("{value} {found:#x} to {version:#x}{number}")
    });
    results.collect::<Vec<_>>().join(", ")
}

fn show_over(over: Option<Version>) -> String {
    over.map_or_else(String::new, |version| format!("if version {version:#x} "))
}

pub fn show_ending(ending: &Ending) -> String {
    match ending {
        Ending::Open => "never answered".into(),
        Ending::TimedOut => "timed out".into(),
        Ending::Answered(outcome) => show_outcome(outcome),
    }
}

pub fn show_outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Value { version, value } => format!("{} at version {version:#x}", show(value)),
        Outcome::Written {
            version,
            old,
            number,
        } => {
            let number = number.map(|n| format!(" = {n}")).unwrap_or_default();
            format!("written{number} at version {version:#x}{}", show_old(old))
        }
        Outcome::Conflict { version, old } => {
            format!("conflict at version {version:#x}{}", show_old(old))
        }
        Outcome::Committed { results } => format!("committed {}", show_results(results)),
        other => format!("{other:?}"),
    }
}

fn show_old(old: &Old) -> String {
    match old {
        Old::NotAsked => String::new(),
        Old::Absent => " over nothing".into(),
        Old::Value(value) => format!(" over {}", show(value)),
        Old::Forgotten => " over what is no longer known".into(),
    }
}

/// Values of the runs are text; of long ones only the beginning and the end are shown.
pub fn show(value: &Bytes) -> String {
    let text = String::from_utf8_lossy(value);
    let count = text.chars().count();
    if count <= 40 {
        return format!("{text:?}");
    }
    let head: String = text.chars().take(16).collect();
    let tail: String = text.chars().skip(count - 16).collect();
    format!("{head:?}..{tail:?} ({count} long)")
}
