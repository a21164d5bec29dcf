//! Counts of a node's actions, for the operator. No rule reads them.

use std::fmt;

use wire::{Action, Outcome};

/// An enumeration whose variants are the values of a label.
macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $variant:ident = $label:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$of])* $variant),* }

        impl $name {
            pub const ALL: &[$name] = &[$($name::$variant),*];

            pub fn label(self) -> &'static str {
                match self { $($name::$variant => $label),* }
            }
        }
    };
}

labels! {
    /// The kinds of operations.
    OperationKind {
        Get = "get",
        Put = "put",
        PutIfAbsent = "put_if_absent",
        PutOver = "put_over",
        Delete = "delete",
        CompareVersion = "compare_version",
        CompareValue = "compare_value",
        Add = "add",
        Append = "append",
        PutFor = "put_for",
        Expire = "expire",
        Persist = "persist",
        TimeToLive = "ttl",
        GetStale = "get_stale",
        DeleteVersion = "delete_version",
        Scan = "scan",
        Watch = "watch",
        Transaction = "transaction",
    }
}

labels! {
    /// How an operation ended on this node.
    OperationEnd {
        Value = "value",
        Absent = "absent",
        /// Of a scan.
        Page = "page",
        /// Of a poll of a watch.
        Watched = "watched",
        Done = "done",
        Conflict = "conflict",
        NotANumber = "not_a_number",
        Overflow = "overflow",
        TooLarge = "too_large",
        NoQuorum = "no_quorum",
        Busy = "busy",
        Full = "full",
        Unknown = "unknown",
        /// The client repeats it under a new number (X1).
        Remake = "remake",
        /// The client's clock is too far ahead (B5).
        Ahead = "ahead",
        /// Of a stale read: this node knows no chosen state.
        NotKnown = "not_known",
        /// No answer was sent.
        Unanswered = "unanswered",
    }
}

labels! {
    /// The source from which an operation came to this node.
    OperationSource {
        Client = "client",
        Text = "text",
        /// Another node, which forwarded it.
        Node = "node",
        /// This node itself, which changes the configuration.
        Membership = "membership",
        /// A scan of this node, which reads single keys.
        Scan = "scan",
    }
}

labels! {
    /// The kinds of rounds that a coordinator begins.
    RoundStart {
        Read = "read",
        /// A write round with both phases.
        Full = "full",
        /// A write round without the first phase (R3, T1).
        Short = "short",
        /// A full round that no operation requested.
        Repair = "repair",
    }
}

labels! {
    /// How a round ended.
    RoundEnd {
        Completed = "completed",
        /// Another round conflicted, or the epoch, the vote or the quorum changed. The operations
        /// of the round continue in another round.
        Lost = "lost",
        /// No client waited for its outcomes any more.
        Abandoned = "abandoned",
    }
}

labels! {
    /// A message that was sent again because its answer was late.
    Retransmission {
        Prepare = "prepare",
        Accept = "accept",
        Read = "read",
        Forward = "forward",
        Range = "range",
    }
}

impl OperationKind {
    pub fn of(action: &Action) -> Self {
        match action {
            Action::Get => OperationKind::Get,
            Action::TimeToLive => OperationKind::TimeToLive,
            Action::GetStale => OperationKind::GetStale,
            Action::PutFor { .. } => OperationKind::PutFor,
            Action::Expire { .. } => OperationKind::Expire,
            Action::Persist { .. } => OperationKind::Persist,
            Action::DeleteVersion { .. } => OperationKind::DeleteVersion,
            Action::Put { .. } => OperationKind::Put,
            Action::PutIfAbsent { .. } => OperationKind::PutIfAbsent,
            Action::PutOver { .. } => OperationKind::PutOver,
            Action::Delete => OperationKind::Delete,
            Action::CompareVersion { .. } => OperationKind::CompareVersion,
            Action::CompareValue { .. } => OperationKind::CompareValue,
            Action::Add { .. } => OperationKind::Add,
            Action::Append { .. } => OperationKind::Append,
            Action::Scan { .. } => OperationKind::Scan,
            Action::Watch { .. } => OperationKind::Watch,
            Action::Transact { .. } => OperationKind::Transaction,
        }
    }
}

impl OperationEnd {
    pub fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Value { .. } | Outcome::Lives { .. } => OperationEnd::Value,
            Outcome::Stale { value: Some(_), .. } => OperationEnd::Value,
            Outcome::Stale { value: None, .. } => OperationEnd::Absent,
            Outcome::NotKnown => OperationEnd::NotKnown,
            Outcome::Absent | Outcome::NothingToDelete => OperationEnd::Absent,
            Outcome::Page(_) => OperationEnd::Page,
            Outcome::Watched(_) => OperationEnd::Watched,
            Outcome::Written { .. } | Outcome::Committed { .. } => OperationEnd::Done,
            Outcome::Conflict { .. } | Outcome::Failed { .. } => OperationEnd::Conflict,
            Outcome::NotANumber => OperationEnd::NotANumber,
            Outcome::Overflow => OperationEnd::Overflow,
            Outcome::TooLarge { .. } => OperationEnd::TooLarge,
            Outcome::NoQuorum { .. } => OperationEnd::NoQuorum,
            Outcome::Busy { .. } => OperationEnd::Busy,
            Outcome::Full { .. } => OperationEnd::Full,
            Outcome::Unknown | Outcome::Placed { .. } => OperationEnd::Unknown,
            Outcome::Remake { .. } => OperationEnd::Remake,
            Outcome::Ahead { .. } => OperationEnd::Ahead,
        }
    }

    /// Whether a round determined the outcome, so that its duration is that of an operation.
    pub fn is_of_a_round(self) -> bool {
        matches!(
            self,
            OperationEnd::Value
                | OperationEnd::Absent
                | OperationEnd::Page
                | OperationEnd::Done
                | OperationEnd::Conflict
        )
    }
}

/// Upper bounds of the buckets of durations, in microseconds.
pub const DURATION_BOUNDS_US: &[u64] = &[
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000,
];

/// How often values of a certain size occurred.
#[derive(Debug, Clone)]
pub struct Distribution {
    bounds: &'static [u64],
    /// One per bound, and one for values above all bounds.
    counts: Vec<u64>,
    sum: u64,
}

impl Distribution {
    /// `bounds` must rise. A value counts in the first bucket whose bound it does not exceed.
    pub fn new(bounds: &'static [u64]) -> Self {
        Distribution {
            bounds,
            counts: vec![0; bounds.len() + 1],
            sum: 0,
        }
    }

    pub fn add(&mut self, value: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket] += 1;
        self.sum = self.sum.saturating_add(value);
    }

    pub fn sum(&self) -> u64 {
        self.sum
    }

    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Each bound with the count of its bucket; no bound: above all of them.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        let bounds = self.bounds.iter().copied().map(Some).chain([None]);
        bounds.zip(self.counts.iter().copied())
    }
}

/// By source, kind and end.
type OperationCounts =
    [[[u64; OperationEnd::ALL.len()]; OperationKind::ALL.len()]; OperationSource::ALL.len()];

/// Counters of what was dropped on purpose.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Misdirected messages: from another cluster, from a node that is no member, of another epoch,
    /// or a hello under a client id that is reserved for text clients.
    pub stray: u64,
    /// Attempts outside of a session or received before (X4).
    pub repeated: u64,
    /// Operations below their client's low mark, and text operations of too long ago (X1).
    pub stragglers: u64,
    /// Operations abandoned after their clients stopped waiting.
    pub given_up: u64,
    /// R3: records that conflict with those held at their ballots.
    pub contradictions: u64,
    /// Messages dropped at a limit.
    pub overflow: u64,
    /// Messages of other nodes that could not be relayed: no path, or none that they may still
    /// take.
    pub unroutable: u64,
    /// B5: messages of other nodes, and clients' operations, that were too far ahead of this node's
    /// clock.
    pub ahead: u64,
}

/// The actions of this node since it started.
#[derive(Clone)]
pub struct NodeCounts {
    /// The time of the input in progress.
    now_us: u64,
    pub dropped: Counters,
    operations: OperationCounts,
    /// For clients' operations, by kind, in microseconds.
    durations_us: Vec<Distribution>,
    begun: [u64; RoundStart::ALL.len()],
    ended: [u64; RoundEnd::ALL.len()],
    sent_again: [u64; Retransmission::ALL.len()],
    /// Clients' operations that were sent to another node.
    pub forwarded: u64,
    /// Of these, operations that were not answered and then executed here.
    pub reclaimed: u64,
    /// L1: rounds that this node began to delete an expired key.
    pub expired: u64,
}

impl Default for NodeCounts {
    fn default() -> Self {
        let empty = Distribution::new(DURATION_BOUNDS_US);
        NodeCounts {
            now_us: 0,
            dropped: Counters::default(),
            operations: OperationCounts::default(),
            durations_us: vec![empty; OperationKind::ALL.len()],
            begun: Default::default(),
            ended: Default::default(),
            sent_again: Default::default(),
            forwarded: 0,
            reclaimed: 0,
            expired: 0,
        }
    }
}

/// Two nodes in the same state may differ in these counts. The exhaustive search compares states as
/// text, so the text omits them.
impl fmt::Debug for NodeCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeCounts")
    }
}

impl NodeCounts {
    pub(in crate::protocol) fn begin_input(&mut self, now_us: u64) {
        self.now_us = now_us;
    }

    pub(in crate::protocol) fn operation_ended(
        &mut self,
        source: OperationSource,
        kind: OperationKind,
        end: OperationEnd,
        arrived_us: u64,
    ) {
        self.operations[source as usize][kind as usize][end as usize] += 1;
        if source == OperationSource::Client && end.is_of_a_round() {
            let took_us = self.now_us.saturating_sub(arrived_us);
            self.durations_us[kind as usize].add(took_us);
        }
    }

    pub(in crate::protocol) fn round_began(&mut self, kind: RoundStart) {
        self.begun[kind as usize] += 1;
    }

    pub(in crate::protocol) fn round_ended(&mut self, end: RoundEnd) {
        self.ended[end as usize] += 1;
    }

    pub(in crate::protocol) fn sent_again(&mut self, what: Retransmission) {
        self.sent_again[what as usize] += 1;
    }

    pub fn operations(
        &self,
        source: OperationSource,
        kind: OperationKind,
        end: OperationEnd,
    ) -> u64 {
        self.operations[source as usize][kind as usize][end as usize]
    }

    pub fn durations_us(&self, kind: OperationKind) -> &Distribution {
        &self.durations_us[kind as usize]
    }

    pub fn rounds_begun(&self, kind: RoundStart) -> u64 {
        self.begun[kind as usize]
    }

    pub fn rounds_ended(&self, end: RoundEnd) -> u64 {
        self.ended[end as usize]
    }

    pub fn retransmissions(&self, what: Retransmission) -> u64 {
        self.sent_again[what as usize]
    }
}

/// Work that waits in a node, and state that it keeps in memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueDepths {
    /// Operations that are not answered yet, and their approximate memory in bytes.
    pub operations: usize,
    pub operations_size: usize,
    /// Clients' operations that another node executes.
    pub forwards: usize,
    /// Rounds of this node that are in progress.
    pub rounds: usize,
    /// Messages that wait until a group is durable.
    pub held_messages: usize,
    /// Groups that the disk has not made durable yet, and their approximate memory in bytes.
    pub unsynced_groups: usize,
    pub unsynced_size: usize,
    /// Keys whose state is in memory beside the table, and their approximate memory in bytes.
    pub resident_keys: usize,
    pub resident_size: usize,
    /// L1: keys with a time to live.
    pub expiring_keys: usize,
    pub sessions: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_at_a_bound_is_in_the_bucket_of_that_bound() {
        let mut sizes = Distribution::new(&[1, 10]);
        for value in [0, 1, 2, 10, 11, 100] {
            sizes.add(value);
        }
        let buckets: Vec<_> = sizes.buckets().collect();
        assert_eq!(buckets, [(Some(1), 2), (Some(10), 2), (None, 2)]);
        assert_eq!((sizes.count(), sizes.sum()), (6, 124));
    }

    #[test]
    fn only_what_rounds_decided_for_clients_has_a_duration() {
        let (kind, done, busy) = (OperationKind::Put, OperationEnd::Done, OperationEnd::Busy);
        let mut counts = NodeCounts::default();
        counts.begin_input(5_000);
        counts.operation_ended(OperationSource::Client, kind, done, 3_000);
        counts.operation_ended(OperationSource::Client, kind, busy, 3_000);
        counts.operation_ended(OperationSource::Node, kind, done, 3_000);
        let took = counts.durations_us(kind);
        assert_eq!((took.count(), took.sum()), (1, 2_000));
        for (source, end) in [
            (OperationSource::Client, done),
            (OperationSource::Client, busy),
            (OperationSource::Node, done),
        ] {
            assert_eq!(counts.operations(source, kind, end), 1);
        }
        assert_eq!(counts.operations(OperationSource::Node, kind, busy), 0);
    }
}
