//! The acceptor of one key: what it promises and accepts. This module owns the rules of Prepare and
//! Accept; the caller persists the state before it answers (R2).

use std::sync::Arc;

use crate::protocol::types::ballot::Ballot;
use crate::protocol::types::record::{AcceptorState, Record};
use crate::protocol::types::rules::rule;

/// The result of a Prepare, an Accept or a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Granted, and the state changed.
    Granted,
    /// The very same message was granted before.
    Repeated,
    /// Refused because of this conflicting ballot.
    Refused(Ballot),
    /// The acceptor holds another record at this very ballot, though no ballot is issued twice. The
    /// message is not answered.
    Contradicted,
}

/// Bounds that hold for all keys of a node.
#[derive(Debug, Clone, Copy, Default)]
pub struct AcceptorBounds {
    /// B3: nothing at or below it is promised or accepted.
    pub base: Ballot,
    /// P1: the promise for keys without state.
    pub floor: Ballot,
    /// E5: the present life. State of an earlier life is a cache, not a vote.
    pub life: u32,
}

impl AcceptorBounds {
    /// The state if it is a vote. A key without such state reads as promised at the floor. `kept`
    /// is a switch of the calling place, so that tests detect the absence of E5 at each place
    /// alone.
    pub fn vote<'a>(
        &self,
        state: &'a Option<AcceptorState>,
        kept: bool,
    ) -> Option<&'a AcceptorState> {
        state.as_ref().filter(|state| self.is_vote(state, kept))
    }

    pub fn is_vote(&self, state: &AcceptorState, kept: bool) -> bool {
        self.is_vote_of(state.life, kept)
    }

    pub fn is_vote_of(&self, life: u32, kept: bool) -> bool {
        life == self.life || !kept || !rule!(E5)
    }

    fn promised(&self, state: &Option<AcceptorState>) -> Ballot {
        let vote = self.vote(state, rule!(E5_promised));
        vote.map_or(self.floor, |state| state.promised)
    }
}

pub fn prepare(
    state: &mut Option<AcceptorState>,
    ballot: Ballot,
    terms: AcceptorBounds,
) -> Verdict {
    let promised = terms.promised(state);
    let above_base = ballot > terms.base || !rule!(B3);
    if ballot > promised && above_base {
        let vote = terms.vote(state, rule!(E5_found));
        let mut promising = vote.cloned().unwrap_or_default();
        promising.promised = ballot;
        promising.life = terms.life;
        *state = Some(promising);
        Verdict::Granted
    } else if ballot == promised && above_base && terms.vote(state, true).is_some() {
        Verdict::Repeated
    } else {
        Verdict::Refused(promised.max(terms.base))
    }
}

pub fn accept(
    state: &mut Option<AcceptorState>,
    ballot: Ballot,
    record: &Arc<Record>,
    terms: AcceptorBounds,
) -> Verdict {
    let promised = terms.promised(state);
    if let Some(state) = terms.vote(state, rule!(E5_accepted))
        && state.accepted == ballot
    {
        return match state.record.as_ref() == Some(record) {
            true => Verdict::Repeated,
            false => Verdict::Contradicted,
        };
    }
    if ballot < promised || (ballot <= terms.base && rule!(B3)) {
        return Verdict::Refused(promised.max(terms.base));
    }
    store(state, ballot, record, false, terms)
}

/// C1: a copy of a record known to be chosen at `ballot` is handled like a late Accept, except that
/// the base does not block it. `Repeated` if the acceptor holds this record or a later one.
pub fn copy(
    state: &mut Option<AcceptorState>,
    ballot: Ballot,
    record: &Arc<Record>,
    terms: AcceptorBounds,
) -> Verdict {
    let promised = terms.promised(state);
    if let Some(state) = terms.vote(state, rule!(E5_taken))
        && state.accepted >= ballot
    {
        return match state.accepted > ballot || state.record.as_ref() == Some(record) {
            true => Verdict::Repeated,
            false => Verdict::Contradicted,
        };
    }
    if ballot < promised && rule!(C1_promised) {
        return Verdict::Refused(promised);
    }
    store(state, ballot, record, true, terms)
}

fn store(
    state: &mut Option<AcceptorState>,
    ballot: Ballot,
    record: &Arc<Record>,
    chosen: bool,
    terms: AcceptorBounds,
) -> Verdict {
    *state = Some(AcceptorState {
        promised: ballot.next(),
        accepted: ballot,
        chosen,
        record: Some(record.clone()),
        life: terms.life,
    });
    Verdict::Granted
}

/// Records that the record accepted at `ballot` is chosen. Returns whether that was unknown before.
pub fn mark_chosen(state: &mut Option<AcceptorState>, ballot: Ballot) -> bool {
    match state {
        Some(state) if state.accepted == ballot && !state.chosen => {
            state.chosen = true;
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn b(reading: u64) -> Ballot {
        Ballot::new(reading, 1)
    }

    fn terms(base: Ballot, floor: Ballot) -> AcceptorBounds {
        AcceptorBounds {
            base,
            floor,
            life: 3,
        }
    }

    fn record(version: u64) -> Arc<Record> {
        Arc::new(Record {
            version,
            ..Record::default()
        })
    }

    /// R4: a reader takes a marked record for chosen. That a later ballot was chosen shows nothing
    /// about the record held here: perhaps no other node has it.
    #[test]
    fn only_the_ballot_that_a_notice_names_is_marked() {
        let mut state = None;
        accept(&mut state, b(5), &record(1), terms(b(0), b(0)));
        for other in [b(4), b(6), b(5).next()] {
            assert!(!mark_chosen(&mut state, other), "{other}");
            assert!(!state.as_ref().unwrap().chosen, "{other}");
        }
        assert!(mark_chosen(&mut state, b(5)));
        assert!(!mark_chosen(&mut state, b(5)), "it is no news");
        assert!(state.unwrap().chosen);
        assert!(!mark_chosen(&mut None, b(5)));
    }

    /// E5: whatever the state of an earlier life contains, rounds and copies see no state.
    #[test]
    fn state_of_an_earlier_life_is_none() {
        type Question = fn(&mut Option<AcceptorState>, Ballot, AcceptorBounds) -> Verdict;
        let questions: [Question; 3] = [
            prepare,
            |state, ballot, terms| accept(state, ballot, &record(1), terms),
            |state, ballot, terms| copy(state, ballot, &record(1), terms),
        ];
        let cache = AcceptorState {
            promised: b(6),
            accepted: b(4),
            chosen: true,
            record: Some(record(1)),
            life: 2,
        };
        for (ballot, floor) in (1..9).flat_map(|ballot| [0, 5, 8].map(|floor| (ballot, floor))) {
            for (n, question) in questions.iter().enumerate() {
                let (mut cached, mut none) = (Some(cache.clone()), None);
                let terms = terms(b(2), b(floor));
                let verdict = question(&mut cached, b(ballot), terms);
                assert_eq!(
                    verdict,
                    question(&mut none, b(ballot), terms),
                    "question {n}, ballot {ballot}, floor {floor}"
                );
                if verdict == Verdict::Granted {
                    assert_eq!(cached, none);
                }
            }
        }
    }

    #[test]
    fn promises_only_rise_and_repeats_are_answered_again() {
        let mut state = None;
        assert_eq!(
            prepare(&mut state, b(5), terms(b(0), b(0))),
            Verdict::Granted
        );
        assert_eq!(
            prepare(&mut state, b(5), terms(b(0), b(0))),
            Verdict::Repeated
        );
        assert_eq!(
            prepare(&mut state, b(4), terms(b(0), b(0))),
            Verdict::Refused(b(5))
        );
        assert_eq!(
            prepare(&mut state, b(6), terms(b(0), b(0))),
            Verdict::Granted
        );
    }

    #[test]
    fn an_accept_promises_the_next_ballot() {
        let mut state = None;
        prepare(&mut state, b(5), terms(b(0), b(0)));
        assert_eq!(
            accept(&mut state, b(5), &record(1), terms(b(0), b(0))),
            Verdict::Granted
        );
        assert_eq!(state.as_ref().unwrap().promised, b(6));
        assert_eq!(
            accept(&mut state, b(5), &record(1), terms(b(0), b(0))),
            Verdict::Repeated
        );
        assert_eq!(
            accept(&mut state, b(6), &record(2), terms(b(0), b(0))),
            Verdict::Granted
        );
        assert_eq!(
            accept(&mut state, b(5), &record(1), terms(b(0), b(0))),
            Verdict::Refused(b(7))
        );
    }

    #[test]
    fn a_higher_promise_refuses_an_accept() {
        let mut state = None;
        prepare(&mut state, b(9), terms(b(0), b(0)));
        assert_eq!(
            accept(&mut state, b(8), &record(1), terms(b(0), b(0))),
            Verdict::Refused(b(9))
        );
        assert_eq!(state.unwrap().accepted, Ballot::ZERO);
    }

    #[test]
    fn base_and_floor_bind_keys_without_state() {
        let mut state = None;
        assert_eq!(
            prepare(&mut state, b(5), terms(b(5), b(0))),
            Verdict::Refused(b(5))
        );
        assert_eq!(
            prepare(&mut state, b(5), terms(b(0), b(5))),
            Verdict::Refused(b(5))
        );
        assert_eq!(
            accept(&mut state, b(5), &record(1), terms(b(5), b(0))),
            Verdict::Refused(b(5))
        );
        assert_eq!(
            accept(&mut state, b(4), &record(1), terms(b(0), b(5))),
            Verdict::Refused(b(5))
        );
        assert_eq!(state, None);
    }

    #[test]
    fn another_record_at_the_ballot_that_is_held_changes_nothing() {
        let mut state = None;
        let none = Ballot::ZERO;
        accept(&mut state, b(5), &record(1), terms(none, none));
        let held = state.clone();
        let accepted = accept(&mut state, b(5), &record(2), terms(none, none));
        let copied = copy(&mut state, b(5), &record(2), terms(none, none));
        assert_eq!([accepted, copied], [Verdict::Contradicted; 2]);
        assert_eq!(state, held);
    }

    #[test]
    fn a_copy_is_a_late_accept_that_is_known_to_be_chosen() {
        let mut state = None;
        let none = Ballot::ZERO;
        assert_eq!(
            copy(&mut state, b(5), &record(1), terms(none, none)),
            Verdict::Granted
        );
        let held = state.clone().unwrap();
        assert!(held.chosen && (held.accepted, held.promised) == (b(5), b(6)));
        for ballot in [b(4), b(5)] {
            let again = copy(&mut state, ballot, &record(1), terms(none, none));
            assert_eq!(again, Verdict::Repeated);
        }
        assert_eq!(state, Some(held));
    }

    #[test]
    fn a_copy_undoes_no_promise_and_keeps_to_the_floor() {
        let none = Ballot::ZERO;
        let mut state = None;
        prepare(&mut state, b(9), terms(none, none));
        let before = state.clone();
        let late = copy(&mut state, b(8), &record(1), terms(none, none));
        assert_eq!((late, &state), (Verdict::Refused(b(9)), &before));
        let mut state = None;
        let at_base = copy(&mut state, b(5), &record(1), terms(b(5), none));
        assert_eq!(at_base, Verdict::Granted);
        let mut state = None;
        let below_floor = copy(&mut state, b(4), &record(1), terms(none, b(5)));
        assert_eq!((below_floor, &state), (Verdict::Refused(b(5)), &None));
    }

    #[test]
    fn chosen_is_of_the_accepted_ballot_only() {
        let mut state = None;
        accept(&mut state, b(5), &record(1), terms(b(0), b(0)));
        assert!(!mark_chosen(&mut state, b(4)));
        assert!(mark_chosen(&mut state, b(5)) && !mark_chosen(&mut state, b(5)));
        accept(&mut state, b(6), &record(2), terms(b(0), b(0)));
        assert!(!state.unwrap().chosen);
    }

    #[test]
    fn state_of_an_earlier_admission_is_no_vote() {
        let none = Ballot::ZERO;
        let earlier = Some(AcceptorState {
            promised: b(9),
            accepted: b(8),
            record: Some(record(8)),
            life: 2,
            ..AcceptorState::default()
        });
        let mut state = earlier.clone();
        let below_floor = prepare(&mut state, b(4), terms(none, b(5)));
        assert_eq!((below_floor, &state), (Verdict::Refused(b(5)), &earlier));
        assert_eq!(
            prepare(&mut state, b(6), terms(none, b(5))),
            Verdict::Granted
        );
        let promised = state.unwrap();
        assert_eq!((promised.promised, promised.life), (b(6), 3));
        assert_eq!((promised.accepted, promised.record), (none, None));
        let mut state = earlier.clone();
        let at_floor = prepare(&mut state, b(9), terms(none, b(9)));
        assert_eq!((at_floor, &state), (Verdict::Refused(b(9)), &earlier));
        for ballot in [b(7), b(8)] {
            let mut state = earlier.clone();
            let late = accept(&mut state, ballot, &record(8), terms(none, none));
            assert_eq!(late, Verdict::Granted);
            assert_eq!(state.unwrap().life, 3);
            let mut state = earlier.clone();
            let copied = copy(&mut state, ballot, &record(8), terms(none, none));
            assert_eq!(copied, Verdict::Granted);
            assert_eq!(state.map(|s| (s.accepted, s.life)), Some((ballot, 3)));
        }
    }
}
