//! What applications ask for, and what they are told.

use bytes::Bytes;

use wire::{Action, Full, KEY_SIZE_MAX, Outcome, VALUE_SIZE_MAX};

/// One operation to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub key: Bytes,
    pub action: Action,
    /// Whether a write should answer the value before it.
    pub want_old: bool,
    /// `None` takes the session's default.
    pub deadline_us: Option<u64>,
}

impl Call {
    pub fn new(key: impl Into<Bytes>, action: Action) -> Self {
        Call {
            key: key.into(),
            action,
            want_old: false,
            deadline_us: None,
        }
    }

    /// Bounds that are checked before anything is sent.
    pub(super) fn check(&self) -> Result<(), CallError> {
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
        if self.action.value_size() > VALUE_SIZE_MAX {
            return Err(CallError::TooLarge {
                what: "value",
                limit: VALUE_SIZE_MAX as u64,
            });
        }
        Ok(())
    }
}

/// What became of a call. `Ok` holds `Value`, `Absent`, `Written`, `NothingToDelete` or `Conflict`;
/// all other outcomes are errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    pub tag: u64,
    pub result: Result<Outcome, CallError>,
}

/// Why a call did not succeed. For a write all but `UnknownOutcome` mean: not done, now or later.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    #[error("no quorum: {detail}")]
    NoQuorum { detail: String },
    /// Of a read only.
    #[error("timed out")]
    TimedOut,
    /// Of a write only: it may have been done.
    #[error("unknown outcome: the write may have been applied, or may still be")]
    UnknownOutcome,
    /// No node of a cluster was sent it.
    #[error(
        "the given nodes belong to two clusters, {first:016x} and {second:016x}: choose one of \
         them by its id, or correct the list of nodes"
    )]
    TwoClusters { first: u64, second: u64 },
    #[error("busy: too many operations are in progress")]
    Busy,
    /// Of a write that would take more room than there is.
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
    #[error("invalid argument: {0}")]
    InvalidArgument(&'static str),
    #[error("closed")]
    Closed,
}

/// An outcome as its caller sees it, where it is definite.
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
