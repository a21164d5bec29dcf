//! S1: how a page of a scan is judged. Members answer their votes for a range of keys; what a
//! quorum's answers allow is decided for each key alone, as a read round decides (R4).

use std::cmp::Ordering;

use bytes::Bytes;
use wire::Version;

use crate::protocol::register::read_round::{Answered, Decision, decide};
use crate::protocol::types::ballot::Ballot;
use crate::protocol::types::limits::SCAN_READS_MAX;
use crate::protocol::types::message::{Configuration, NodeId, RangeEntry};
use crate::protocol::types::page::{RangeRecord, RangeState};
use crate::protocol::types::quorum::NodeSet;
use crate::protocol::types::record::Key;
use crate::protocol::types::rules::rule;

/// The votes of the coordinator itself.
#[derive(Debug, Clone, Default)]
pub struct OwnVotes {
    /// In order of key.
    pub votes: Vec<(Key, OwnVote)>,
    /// Up to where they are complete; `None`: to the end of the range.
    pub next: Option<Key>,
}

/// Of one key: no more of the record than a page may need, because the table may replace the record
/// while the scan lasts.
#[derive(Debug, Clone)]
pub struct OwnVote {
    pub accepted: Ballot,
    pub chosen: bool,
    /// Whether the record alone says what is told of its key. What a transaction intends, and what
    /// may have expired, is for a read round.
    tells_all: bool,
    /// `None` if the record does not tell all; also for a tombstone, unless deleted keys are told.
    told: Option<ToldRecord>,
}

/// What a page tells of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToldRecord {
    pub version: Version,
    /// `None` if only keys were asked for, and for a deleted key.
    pub value: Option<Bytes>,
}

impl ToldRecord {
    fn of(record: &RangeRecord, terms: ScanTerms) -> Option<Self> {
        let is_told = terms.tells(record.version, record.value.is_some());
        is_told.then(|| ToldRecord {
            version: record.version,
            value: match terms.keys_only {
                true => None,
                false => record.value.clone(),
            },
        })
    }

    /// What is told of a record with this version and value.
    pub fn told(self, terms: ScanTerms) -> Option<Self> {
        let ToldRecord { version, value } = self;
        let is_told = terms.tells(version, value.is_some());
        let value = value.filter(|_| !terms.keys_only);
        is_told.then_some(ToldRecord { version, value })
    }
}

/// How much of a range a page tells.
#[derive(Debug, Clone, Copy)]
pub struct ScanTerms {
    /// Keys, at least one.
    pub length_max: usize,
    pub keys_only: bool,
    /// W3: deleted keys, too.
    pub deleted: bool,
}

impl ScanTerms {
    /// A tombstone without a version is that of a key that never was, as far as anybody knows.
    fn tells(self, version: Version, has_value: bool) -> bool {
        let is_deleted = version > 0 && self.deleted && rule!(W3_deleted);
        has_value || is_deleted
    }
}

impl OwnVote {
    pub fn of(state: &RangeState, terms: ScanTerms) -> Self {
        let record = state.record.as_ref();
        let record = record.filter(|record| !record.has_intent && !record.expires);
        OwnVote {
            accepted: state.accepted,
            chosen: state.chosen,
            tells_all: record.is_some(),
            told: record.and_then(|record| ToldRecord::of(record, terms)),
        }
    }

    pub fn into_told(self) -> Option<ToldRecord> {
        self.told
    }
}

/// What one member answered about the coordinator's range.
#[derive(Debug, Clone)]
pub struct RangeAnswer {
    pub from: NodeId,
    pub floor: Ballot,
    pub votes: RangeVotes,
}

#[derive(Debug, Clone)]
pub enum RangeVotes {
    /// The same as the coordinator's.
    Equal,
    Listed {
        entries: Vec<RangeEntry>,
        /// Up to where they are complete.
        next: Option<Key>,
    },
}

/// What is to be told of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judged {
    /// The record that the coordinator holds, by its index among `OwnVotes`.
    Own(usize),
    /// What a read round of this key finds.
    Read(Key),
}

/// The keys of a page that may be present, in order, and up to where the page reaches.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct JudgedPage {
    pub keys: Vec<Judged>,
    /// `None`: to the end of the range.
    pub next: Option<Key>,
}

/// `None` while the answers are no quorum's. This node's own answer is one of them.
pub fn judge(
    own: &OwnVotes,
    answers: &[RangeAnswer],
    configuration: &Configuration,
) -> Option<JudgedPage> {
    let answered: NodeSet = answers.iter().map(|answer| answer.from).collect();
    if !configuration.has_quorum(&answered) && rule!(R4_quorum) {
        return None;
    }
    let mut merged = Merged::new(own, answers);
    let mut page = JudgedPage {
        keys: Vec::with_capacity(own.votes.len()),
        next: merged.end().cloned(),
    };
    let mut reads = 0;
    let mut last: Option<&Key> = None;
    let mut votes = Vec::with_capacity(answers.len());
    while let Some(key) = merged.next_key() {
        if page.next.as_ref().is_some_and(|next| key > next) {
            break;
        }
        let held = merged.take(key, &mut votes);
        let highest = votes.iter().map(|vote| vote.accepted).max();
        let highest = highest.filter(|ballot| *ballot > Ballot::ZERO);
        let decision = decide(&votes, highest, configuration);
        let own_record = held.filter(|at| {
            let vote = &own.votes[*at].1;
            Some(vote.accepted) == highest && vote.tells_all
        });
        let judged = match (decision, highest) {
            (Decision::Answer, None) => None,
            (Decision::Answer, Some(_)) if own_record.is_some() || !rule!(S2_read) => {
                own_record.map(Judged::Own)
            }
            _ => Some(Judged::Read(key.clone())),
        };
        if let Some(Judged::Read(_)) = judged {
            if reads == SCAN_READS_MAX {
                page.next = last.cloned();
                break;
            }
            reads += 1;
        }
        page.keys.extend(judged);
        last = Some(key);
    }
    Some(page)
}

/// The members' votes side by side, in order of key.
struct Merged<'a> {
    own: &'a OwnVotes,
    /// How many of this node's own votes were taken.
    taken: usize,
    answers: Vec<(&'a RangeAnswer, &'a [RangeEntry])>,
}

impl<'a> Merged<'a> {
    fn new(own: &'a OwnVotes, answers: &'a [RangeAnswer]) -> Self {
        let rest = |answer: &'a RangeAnswer| match &answer.votes {
            RangeVotes::Equal => &[],
            RangeVotes::Listed { entries, .. } => entries.as_slice(),
        };
        Merged {
            own,
            taken: 0,
            answers: answers.iter().map(|a| (a, rest(a))).collect(),
        }
    }

    /// The lowest end of all answers.
    fn end(&self) -> Option<&'a Key> {
        let listed = self.answers.iter().filter_map(|(a, _)| match &a.votes {
            RangeVotes::Listed { next, .. } if rule!(S1_end) => next.as_ref(),
            _ => None,
        });
        listed.chain(&self.own.next).min()
    }

    fn next_key(&self) -> Option<&'a Key> {
        let own = self.own.votes.get(self.taken).map(|(key, _)| key);
        let others = self.answers.iter().filter_map(|(_, rest)| rest.first());
        others.map(|entry| &entry.key).chain(own).min()
    }

    /// Takes all votes for the key, which is the next one. Returns the index of this node's own.
    fn take(&mut self, key: &Key, votes: &mut Vec<Answered>) -> Option<usize> {
        votes.clear();
        let own = self.own.votes.get(self.taken).filter(|(of, _)| of == key);
        let held = own.map(|_| self.taken);
        self.taken += usize::from(own.is_some());
        let own = own.map(|(_, vote)| (vote.accepted, vote.chosen));
        for (answer, rest) in &mut self.answers {
            let vote = match &answer.votes {
                RangeVotes::Equal => own,
                RangeVotes::Listed { .. } => match rest.split_first() {
                    Some((entry, behind)) if entry.key.cmp(key) == Ordering::Equal => {
                        *rest = behind;
                        Some((entry.accepted, entry.chosen))
                    }
                    _ => None,
                },
            };
            let (accepted, chosen) = vote.unwrap_or((Ballot::ZERO, false));
            votes.push(Answered {
                from: answer.from,
                accepted,
                chosen,
                floor: answer.floor,
            });
        }
        held
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::protocol::types::message::Member;
    use crate::protocol::types::record::{AcceptorState, Record};

    fn configuration(base: u64) -> Configuration {
        let member = |node| Member {
            node,
            incarnation: u64::from(node),
            ..Member::default()
        };
        Configuration {
            members: vec![member(1), member(2), member(3)],
            base: Ballot(base),
            ..Configuration::default()
        }
    }

    const ALL: ScanTerms = ScanTerms {
        length_max: 9,
        keys_only: false,
        deleted: false,
    };

    fn own(votes: &[(&str, u64)], next: Option<&str>) -> OwnVotes {
        let vote = |ballot: u64| {
            let state = AcceptorState {
                accepted: Ballot(ballot),
                record: Some(Arc::new(Record::default())),
                ..AcceptorState::default()
            };
            OwnVote::of(&RangeState::from(&state), ALL)
        };
        let votes = votes
            .iter()
            .map(|(key, ballot)| (Key::user(key.as_bytes()), vote(*ballot)));
        OwnVotes {
            votes: votes.collect(),
            next: next.map(|key| Key::user(key.as_bytes())),
        }
    }

    fn equal(from: NodeId) -> RangeAnswer {
        RangeAnswer {
            from,
            floor: Ballot::ZERO,
            votes: RangeVotes::Equal,
        }
    }

    fn listed(from: NodeId, votes: &[(&str, u64, bool)], next: Option<&str>) -> RangeAnswer {
        let entry = |(key, ballot, chosen): &(&str, u64, bool)| RangeEntry {
            key: Key::user(key.as_bytes()),
            accepted: Ballot(*ballot),
            chosen: *chosen,
        };
        RangeAnswer {
            from,
            floor: Ballot::ZERO,
            votes: RangeVotes::Listed {
                entries: votes.iter().map(entry).collect(),
                next: next.map(|key| Key::user(key.as_bytes())),
            },
        }
    }

    fn read(key: &str) -> Judged {
        Judged::Read(Key::user(key.as_bytes()))
    }

    fn judged(own: &OwnVotes, answers: &[RangeAnswer], base: u64) -> (Vec<Judged>, Option<Key>) {
        let page = judge(own, answers, &configuration(base)).expect("a quorum");
        (page.keys, page.next)
    }

    #[test]
    fn equal_votes_of_a_quorum_are_told_unless_they_are_below_the_base() {
        let own = own(&[("a", 5), ("b", 9)], None);
        assert_eq!(judge(&own, &[equal(1)], &configuration(0)), None);
        let answers = [equal(1), equal(3)];
        let both = vec![Judged::Own(0), Judged::Own(1)];
        assert_eq!(judged(&own, &answers, 0), (both, None));
        assert_eq!(judged(&own, &answers, 5).0, [read("a"), Judged::Own(1)]);
    }

    #[test]
    fn what_is_not_known_to_be_chosen_or_not_held_here_is_read() {
        let own = own(&[("a", 5), ("c", 5), ("d", 5)], None);
        let other = [
            ("a", 6, true),
            ("b", 5, false),
            ("c", 5, true),
            ("d", 4, true),
        ];
        let answers = [equal(1), listed(2, &other, None)];
        let expected = [read("a"), read("b"), Judged::Own(1), read("d")];
        assert_eq!(judged(&own, &answers, 0).0, expected);
        // R4 (b): an absence with a higher floor is in doubt.
        let mut absent = listed(2, &[], None);
        absent.floor = Ballot(7);
        let mut chosen = own.clone();
        chosen
            .votes
            .iter_mut()
            .for_each(|(_, vote)| vote.chosen = true);
        let all = vec![Judged::Own(0), Judged::Own(1), Judged::Own(2)];
        let none = listed(2, &[], None);
        assert_eq!(judged(&chosen, &[equal(1), none], 0).0, all);
        let doubted = [read("a"), read("c"), read("d")];
        assert_eq!(judged(&chosen, &[equal(1), absent], 0).0, doubted);
    }

    #[test]
    fn a_page_ends_where_the_first_answer_does() {
        let own = own(&[("a", 5), ("b", 5), ("c", 5)], Some("c"));
        let part = [("a", 5, false), ("b", 5, false)];
        let answers = [equal(1), listed(2, &part, Some("b"))];
        let ends = Some(Key::user(b"b"));
        let expected = vec![Judged::Own(0), Judged::Own(1)];
        assert_eq!(judged(&own, &answers, 0), (expected, ends));
    }

    #[test]
    fn a_page_ends_before_it_needs_too_many_reads() {
        let names: Vec<String> = (0..SCAN_READS_MAX + 9).map(|n| format!("{n:03}")).collect();
        let votes: Vec<(&str, u64, bool)> = names.iter().map(|n| (n.as_str(), 5, true)).collect();
        let answers = [equal(1), listed(2, &votes, None)];
        let (keys, next) = judged(&own(&[], None), &answers, 0);
        assert_eq!(keys.len(), SCAN_READS_MAX);
        let last = &names[SCAN_READS_MAX - 1];
        assert_eq!(next, Some(Key::user(last.as_bytes())));
    }

    #[test]
    fn a_vote_keeps_no_value_that_no_page_tells() {
        let record = Record {
            value: Some("v".into()),
            version: 7,
            ..Record::default()
        };
        let told = |record: &Record, keys_only| {
            let state = AcceptorState {
                record: Some(Arc::new(record.clone())),
                ..AcceptorState::default()
            };
            let terms = ScanTerms { keys_only, ..ALL };
            OwnVote::of(&RangeState::from(&state), terms).into_told()
        };
        let with = |value| {
            let version = 7;
            Some(ToldRecord { version, value })
        };
        assert_eq!(told(&record, false), with(Some("v".into())));
        assert_eq!(told(&record, true), with(None));
        assert_eq!(told(&Record::default(), false), None, "a tombstone");
        let expiry_ms = Some(9);
        let expires = Record {
            expiry_ms,
            ..record
        };
        assert_eq!(told(&expires, false), None);
    }

    /// W3: the client takes a key that it knows, and that a scan does not tell, for deleted.
    #[test]
    fn a_tombstone_without_a_version_hides_no_deletion() {
        let told = |version, deleted| {
            let tombstone = ToldRecord {
                version,
                value: None,
            };
            let terms = ScanTerms { deleted, ..ALL };
            tombstone.told(terms).is_some()
        };
        assert_eq!((told(7, true), told(0, true)), (true, false));
        assert_eq!((told(7, false), told(0, false)), (false, false));
    }
}
