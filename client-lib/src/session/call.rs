//! The calls of applications, and their results.

use bytes::Bytes;

use wire::{Action, Full, KEY_SIZE_MAX, Outcome, TTL_MS_MAX, VALUE_SIZE_MAX};

/// One operation to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub key: Bytes,
    pub action: Action,
    /// Whether a write should return the old value.
    pub want_old: bool,
    /// `None`: the session's default.
    pub deadline_us: Option<u64>,
    /// Of a read: only the node with this id is asked. If it hears no quorum, the call ends.
    pub node: Option<u8>,
}

impl Call {
    pub fn new(key: impl Into<Bytes>, action: Action) -> Self {
        Call {
            key: key.into(),
            action,
            want_old: false,
            deadline_us: None,
            node: None,
        }
    }

    /// Checks the bounds before anything is sent.
    pub(crate) fn check(&self) -> Result<(), CallError> {
        if self.key.is_empty() {
            return Err(CallError::InvalidArgument(
                "the key is empty: it must have at least one byte",
            ));
        }
        if self.key.len() > KEY_SIZE_MAX {
            return Err(CallError::TooLarge {
                what: "key",
                limit: KEY_SIZE_MAX as u64,
            });
        }
        if let Action::Scan { end, .. } | Action::Watch { end, .. } = &self.action
            && end.len() > KEY_SIZE_MAX
        {
            return Err(CallError::TooLarge {
                what: "key",
                limit: KEY_SIZE_MAX as u64,
            });
        }
        if self.action.value_size() > VALUE_SIZE_MAX {
            return Err(CallError::TooLarge {
                what: "value",
                limit: VALUE_SIZE_MAX as u64,
            });
        }
        let ttl_ms = self.action.ttl_ms();
        if ttl_ms.is_some_and(|ttl_ms| !(1..=TTL_MS_MAX).contains(&ttl_ms)) {
            return Err(CallError::InvalidArgument(
                "the time to live is not from 1 ms to a hundred years",
            ));
        }
        Ok(())
    }
}

/// The result of a call. `Ok` contains `Value`, `Absent`, `Page`, `Watched`, `Lives`, `Stale`,
/// `Written`, `NothingToDelete` or `Conflict`, or, of a transaction, `Committed` or `Failed`; all
/// other outcomes are errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    pub tag: u64,
    pub result: Result<Outcome, CallError>,
}

/// Why a call failed. For a write, every error except `UnknownOutcome` means: not applied, now or
/// later.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    #[error("no quorum: {detail}")]
    NoQuorum { detail: String },
    /// For a read only.
    #[error("timed out")]
    TimedOut,
    /// For a write only: it may have been applied.
    #[error("unknown outcome: the write may have been applied, or may still be")]
    UnknownOutcome,
    /// The operation was not sent to a node of either cluster.
    #[error(
        "the given nodes belong to two clusters, {first:016x} and {second:016x}: choose one of \
         them by its id, or correct the list of nodes"
    )]
    TwoClusters { first: u64, second: u64 },
    #[error("busy: too many operations are in progress")]
    Busy,
    /// For a write that needs more space than there is.
    #[error(
        "full: a node is out of {0}, so writes that grow are refused; delete keys, or give the \
         nodes more"
    )]
    Full(Full),
    #[error("too large: a {what} is limited to {limit} bytes")]
    TooLarge { what: &'static str, limit: u64 },
    #[error("not a number: the value is not a signed 64-bit decimal")]
    NotANumber,
    #[error("overflow: the sum does not fit signed 64 bits")]
    Overflow,
    /// Of a scan: a node gave an answer that no sound node gives.
    #[error("wrong answer of a node: {0}")]
    WrongAnswer(&'static str),
    #[error("invalid argument: {0}")]
    InvalidArgument(&'static str),
    #[error("closed")]
    Closed,
}

/// The caller's view of an outcome, if the outcome is definite.
pub(super) fn settled(outcome: Outcome, is_read: bool) -> Result<Outcome, CallError> {
    match outcome {
        Outcome::NotANumber => Err(CallError::NotANumber),
        Outcome::Overflow => Err(CallError::Overflow),
        Outcome::TooLarge { limit } => Err(CallError::TooLarge {
            what: "value",
            limit,
        }),
        Outcome::Full { full } => Err(CallError::Full(full)),
        Outcome::Unknown if !is_read => Err(CallError::UnknownOutcome),
        definite => Ok(definite),
    }
}
