//! When the next comparison pass begins, with which members, and what the passes so far have shown
//! (C1).
//!
//! | event | what follows |
//! |---|---|
//! | a member becomes reachable | passes without a wait, one for each reachable member |
//! | ... when none was reachable before | the same, 200 ms later; the first with all at once |
//! | a pass ends incomplete, or much was missing | passes without a wait, one for each member |
//! | a learner's pass ends so | one more pass without a wait |
//! | a pass with all members ends at a voter | passes without a wait, one for each member |
//! | another pass ends | one pass without a wait fewer; after the last one the usual wait |
//! | a configuration is installed | a pass at once, and one for each member that was reachable |
//!
//! The usual wait is longer while this member has operations in progress.

use std::collections::BTreeMap;

use crate::protocol::catchup::comparison::{Pass, PassKind};
use crate::protocol::types::limits::{
    BEHIND_MISSING_MIN, COMPARE_BUSY_MS, COMPARE_MS, FAR_BEHIND_MISSING_MIN, LEARNED_MISSING_MAX,
    LEARNED_PASSES, SETTLE_MS,
};
use crate::protocol::types::message::{NodeId, Now};

/// The result of a check of the reachable members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberArrival {
    Nobody,
    /// A member that was not reachable before.
    Somebody,
    /// The first member after a time in which none was reachable.
    First,
}

#[derive(Debug, Default)]
pub struct Schedule {
    /// Passes begun so far; they take the members in turn.
    passes: u64,
    next_us: u64,
    /// How many passes still begin without a wait.
    immediate_passes: usize,
    /// No member was reachable, or much was missing: the next pass asks all members at once.
    is_far_behind: bool,
    /// The members that were reachable recently, and when last, so that a link that is down for a
    /// moment changes nothing.
    last_reachable_us: BTreeMap<NodeId, u64>,
    checked_us: u64,
    /// Members that did not answer in the last pass; the next pass omits them.
    silent: Vec<NodeId>,
    /// Consecutive complete passes of a learner.
    complete_passes: u32,
    is_caught_up: bool,
}

impl Schedule {
    /// A configuration was installed. Which members are reachable, and whether much is missing,
    /// does not depend on the epoch.
    pub fn restarted(before: Schedule, now: Now) -> Schedule {
        Schedule {
            next_us: now.mono_us,
            immediate_passes: before.last_reachable_us.len(),
            last_reachable_us: before.last_reachable_us,
            checked_us: before.checked_us,
            is_far_behind: before.is_far_behind,
            ..Schedule::default()
        }
    }

    /// Whether a learner holds about what the members hold.
    pub fn is_caught_up(&self) -> bool {
        self.is_caught_up
    }

    /// Whether that member was reachable recently.
    pub fn is_reachable(&self, node: NodeId) -> bool {
        self.last_reachable_us.contains_key(&node)
    }

    /// At each heartbeat: records the members that are reachable now. A member that was unreachable
    /// for `gone_ms` is gone.
    pub fn see(&mut self, now: Now, members: &[NodeId], gone_ms: u64) -> MemberArrival {
        // This comes first, so that a node that was paused considers all others new.
        let is_recent = |seen_us: &u64| now.mono_us < seen_us + gone_ms * 1_000;
        self.last_reachable_us
            .retain(|_, seen_us| is_recent(seen_us));
        let was_alone = self.last_reachable_us.is_empty();
        let mut has_come = false;
        for node in members {
            let seen_us = self.last_reachable_us.insert(*node, now.mono_us);
            has_come |= seen_us.is_none_or(|seen_us| seen_us < self.checked_us);
        }
        self.checked_us = now.mono_us;
        if !has_come {
            return MemberArrival::Nobody;
        }
        self.immediate_passes = members.len();
        self.next_us = now.mono_us;
        if !was_alone {
            return MemberArrival::Somebody;
        }
        self.is_far_behind = true;
        // The other members are about to become reachable, too.
        self.next_us += SETTLE_MS * 1_000;
        MemberArrival::First
    }

    /// Whether a pass begins. `is_busy`: this node is a member with operations in progress.
    pub fn is_due(&self, now: Now, is_busy: bool) -> bool {
        let wait_ms = match is_busy && self.immediate_passes == 0 {
            true => COMPARE_BUSY_MS - COMPARE_MS,
            false => 0,
        };
        now.mono_us >= self.next_us + wait_ms * 1_000
    }

    /// The kind of the next pass, its members and its number. `counts`: this node has a vote, and
    /// all that it holds belongs to its present life. The pass may use only some of the given
    /// members.
    pub fn begin(&mut self, members: &[NodeId], counts: bool) -> (PassKind, Vec<NodeId>, u64) {
        let silent = std::mem::take(&mut self.silent);
        let answering = members.iter().filter(|node| !silent.contains(node));
        let mut sources: Vec<NodeId> = answering.copied().collect();
        if sources.is_empty() {
            sources = members.to_vec();
        }
        let number = self.passes;
        self.passes += 1;
        match !counts || self.is_far_behind {
            true => (PassKind::Bulk, sources, number),
            false => {
                let one = sources[number as usize % sources.len()];
                (PassKind::Pair, vec![one], number)
            }
        }
    }

    /// These members did not answer in this pass.
    pub fn add_silent(&mut self, members: Vec<NodeId>) {
        self.silent.extend(members);
    }

    pub fn end(&mut self, now: Now, pass: &Pass, votes: bool) {
        let few = pass.missing <= LEARNED_MISSING_MAX;
        self.complete_passes = match pass.is_whole() {
            true => self.complete_passes + 1,
            false => 0,
        };
        let is_enough = pass.is_whole() && (few || self.complete_passes >= LEARNED_PASSES);
        self.is_caught_up |= !votes && is_enough;
        self.is_far_behind = pass.missing > FAR_BEHIND_MISSING_MIN;
        let is_behind = pass.missing > BEHIND_MISSING_MIN || pass.is_cut_short;
        self.immediate_passes = match (pass.kind, is_behind) {
            // A node whose records were no votes, or that lacked many, next compares with each
            // member separately.
            (PassKind::Bulk, _) if votes => self.last_reachable_us.len(),
            (PassKind::Bulk, true) if !self.is_caught_up => 1,
            (PassKind::Bulk, _) => 0,
            (PassKind::Pair, true) => self.last_reachable_us.len(),
            (PassKind::Pair, false) => self.immediate_passes.saturating_sub(1),
        };
        let wait_ms = match self.immediate_passes {
            0 => COMPARE_MS,
            _ => 0,
        };
        self.next_us = now.mono_us.max(pass.began_us + wait_ms * 1_000);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::types::digest::Spread;

    const GONE_MS: u64 = 1_000;

    fn at(ms: u64) -> Now {
        Now {
            mono_us: ms * 1_000,
            wall_ms: 0,
        }
    }

    fn pass(kind: PassKind, missing: u64) -> Pass {
        let mut pass = Pass::new(at(0), kind, vec![2], 0, Spread::default());
        pass.missing = missing;
        pass
    }

    #[test]
    fn who_was_alone_asks_all_at_once_when_the_others_have_come() {
        let mut schedule = Schedule::default();
        assert_eq!(
            schedule.see(at(5_000), &[2, 3], GONE_MS),
            MemberArrival::First
        );
        assert!(!schedule.is_due(at(5_000), false));
        assert!(schedule.is_due(at(5_000 + SETTLE_MS), true), "busy or not");
        let (kind, sources, _) = schedule.begin(&[2, 3], true);
        assert_eq!((kind, sources), (PassKind::Bulk, vec![2, 3]));
        assert_eq!(
            schedule.see(at(5_050), &[2, 3], GONE_MS),
            MemberArrival::Nobody
        );
        assert_eq!(
            schedule.see(at(5_100), &[2, 3, 4], GONE_MS),
            MemberArrival::Somebody
        );
        // A link that is down for less than this time changes nothing.
        schedule.see(at(5_150), &[2, 3], GONE_MS);
        assert!(schedule.is_reachable(4));
        schedule.see(at(7_000), &[2, 3], GONE_MS);
        assert!(!schedule.is_reachable(4));
    }

    #[test]
    fn members_that_were_silent_are_omitted_once_unless_all_were() {
        let mut schedule = Schedule::default();
        schedule.add_silent(vec![2]);
        assert_eq!(schedule.begin(&[2, 3], false).1, [3]);
        assert_eq!(schedule.begin(&[2, 3], false).1, [2, 3]);
        schedule.add_silent(vec![2, 3]);
        assert_eq!(schedule.begin(&[2, 3], false).1, [2, 3]);
    }

    #[test]
    fn passes_follow_without_a_wait_while_much_is_missing() {
        let mut schedule = Schedule::default();
        schedule.see(at(1_000), &[2, 3], GONE_MS);
        schedule.end(
            at(1_000),
            &pass(PassKind::Pair, BEHIND_MISSING_MIN + 1),
            true,
        );
        assert_eq!(schedule.immediate_passes, 2);
        for left in [1, 0] {
            schedule.end(at(1_000), &pass(PassKind::Pair, 0), true);
            assert_eq!(schedule.immediate_passes, left);
        }
        assert!(!schedule.is_due(at(COMPARE_MS - 1), false));
        assert!(schedule.is_due(at(COMPARE_MS.max(1_000)), false));
        assert!(
            !schedule.is_due(at(COMPARE_MS.max(1_000)), true),
            "it is busy"
        );
    }

    #[test]
    fn a_learner_has_caught_up_after_a_pass_that_misses_little_or_some_that_are_complete() {
        let mut schedule = Schedule::default();
        let much = LEARNED_MISSING_MAX + 1;
        for _ in 1..LEARNED_PASSES {
            schedule.end(at(1), &pass(PassKind::Bulk, much), false);
            assert!(!schedule.is_caught_up());
        }
        schedule.end(at(1), &pass(PassKind::Bulk, much), false);
        assert!(schedule.is_caught_up());
        let mut schedule = Schedule::default();
        schedule.end(at(1), &pass(PassKind::Bulk, LEARNED_MISSING_MAX), false);
        assert!(schedule.is_caught_up());
    }
}
