//! What a caller asks for and what it gets back: calls, completions, errors.

use bytes::Bytes;

use crate::wire::{Action, Outcome, Version};

/// One operation on one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// 1 to `KEY_SIZE_MAX` bytes.
    pub key: Bytes,
    pub action: Action,
    /// Whether the value before a write is wanted.
    pub want_old: bool,
    /// How long to wait for the outcome, from now on; `None`: as long as the client was opened with.
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

    pub fn get(key: impl Into<Bytes>) -> Self {
        Call::new(key, Action::Get)
    }

    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        let value = value.into();
        Call::new(key, Action::Put { value })
    }

    pub fn put_if_absent(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        let value = value.into();
        Call::new(key, Action::PutIfAbsent { value })
    }

    pub fn delete(key: impl Into<Bytes>) -> Self {
        Call::new(key, Action::Delete)
    }

    /// Writes only over the record of this version.
    pub fn compare_version(
        key: impl Into<Bytes>,
        version: Version,
        value: impl Into<Bytes>,
    ) -> Self {
        let value = value.into();
        Call::new(key, Action::CompareVersion { version, value })
    }

    /// Writes only over this value.
    pub fn compare_value(
        key: impl Into<Bytes>,
        expected: impl Into<Bytes>,
        value: impl Into<Bytes>,
    ) -> Self {
        let (expected, value) = (expected.into(), value.into());
        Call::new(key, Action::CompareValue { expected, value })
    }

    pub fn add(key: impl Into<Bytes>, delta: i64) -> Self {
        Call::new(key, Action::Add { delta })
    }

    pub fn append(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        let value = value.into();
        Call::new(key, Action::Append { value })
    }

    /// Asks for the value before the write.
    pub fn want_old(mut self) -> Self {
        self.want_old = true;
        self
    }

    pub fn deadline_us(mut self, deadline_us: u64) -> Self {
        self.deadline_us = Some(deadline_us);
        self
    }
}

/// The end of a submitted call; each has exactly one.
///
/// `Ok` holds what the store answered: `Value` and `Absent` of a get; `Written`, `NothingToDelete`
/// and `Conflict` of a write. All else is an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    pub tag: u64,
    pub result: Result<Outcome, CallError>,
}

/// Why a call has no outcome. Of a write every error but `UnknownOutcome` says that it was surely
/// not done, now or later (X5).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No node that answers reaches a quorum; one entry for each given node, in the order given.
    #[error("no quorum ({})", describe(.0))]
    NoQuorum(Vec<NodeReach>),
    /// Of reads only.
    #[error("timed out")]
    TimedOut,
    /// Of writes only: it may have been done, now or later, and nobody can know.
    #[error("unknown outcome: the write may have been done, or may still be")]
    UnknownOutcome,
    #[error("busy, try again later")]
    Busy,
    #[error("the value is too large, the limit is {limit} bytes")]
    TooLarge { limit: u64 },
    #[error("the value is not a number")]
    NotANumber,
    #[error("the sum does not fit 64 bits")]
    Overflow,
    #[error("{0}")]
    InvalidArgument(&'static str),
    #[error("the client is closed")]
    Closed,
}

/// What a given node told of whom it reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeReach {
    /// Place in the list of given nodes, from 0.
    pub index: usize,
    /// The node's id; 0 if it is not known.
    pub node: u8,
    /// Ids of the nodes that it hears; `None`: it does not answer.
    pub reached: Option<Vec<u8>>,
}

fn describe(nodes: &[NodeReach]) -> String {
    let describe_one = |node: &NodeReach| {
        let name = match node.node {
            0 => format!("given node {}", node.index + 1),
            id => format!("node {id}"),
        };
        match &node.reached {
            None => format!("{name} does not answer"),
            Some(ids) if ids.is_empty() => format!("{name} reaches no other"),
            Some(ids) => {
                let ids: Vec<String> = ids.iter().map(u8::to_string).collect();
                format!("{name} reaches {}", ids.join(", "))
            }
        }
    };
    let parts: Vec<String> = nodes.iter().map(describe_one).collect();
    parts.join("; ")
}
