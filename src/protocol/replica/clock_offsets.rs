//! The offsets of the nodes' wall clocks from the median of the members' clocks, for the operator.
//! No decision depends on them: `clocks` and `clock/bound.rs` have the clocks that count for
//! ballots.
//!
//! A heartbeat contains the clock at the time of its sending, so the clock seems to be behind by
//! the time that the heartbeat was in transit. Half a round trip is added for that, and of several
//! heartbeats the fastest one counts. The remaining error is at most half of the round trip, for
//! each of the two clocks that are compared.

use std::collections::BTreeMap;

use wire::ClockStatus;
use wire::clock::{self, READING_MAX};

use crate::protocol::replica::Replica;
use crate::protocol::types::backoff::{Backoff, Waits};
use crate::protocol::types::limits::{REPORT_WAIT_MAX_MS, REPORT_WAIT_MS};
use crate::protocol::types::message::{Event, NodeId, Now, Output};
use crate::protocol::types::quorum::NodeSet;

const REPORT_WAITS: Waits = Waits {
    min_us: REPORT_WAIT_MS * 1_000,
    max_us: REPORT_WAIT_MAX_MS * 1_000,
};
/// The fastest heartbeat of the present window and of the one before counts. A clock that was set
/// back is detected once both windows are over; so is a link that became slow.
const WINDOW_US: u64 = 8_000_000;

/// The fastest heartbeats of one node: the wall clock in them minus this node's monotonic clock.
#[derive(Debug, Clone, Copy)]
struct Fastest {
    since_us: u64,
    offset_ms: i64,
    before_ms: Option<i64>,
}

impl Fastest {
    fn new(offset_ms: i64, now_us: u64) -> Self {
        Fastest {
            since_us: now_us,
            offset_ms,
            before_ms: None,
        }
    }

    fn hear(&mut self, offset_ms: i64, now_us: u64) {
        if now_us < self.since_us + WINDOW_US {
            self.offset_ms = self.offset_ms.max(offset_ms);
            return;
        }
        let before_ms = self.at(now_us).map(|_| self.offset_ms);
        *self = Fastest {
            before_ms,
            ..Fastest::new(offset_ms, now_us)
        };
    }

    /// `None` if the last heartbeat was received too long ago.
    fn at(&self, now_us: u64) -> Option<i64> {
        let is_fresh = now_us < self.since_us + 2 * WINDOW_US;
        is_fresh.then(|| self.before_ms.unwrap_or(i64::MIN).max(self.offset_ms))
    }
}

#[derive(Debug, Default)]
pub struct Offsets {
    heard: BTreeMap<NodeId, Fastest>,
    /// Clocks that are off, or were: when the log reports it again, and whether its last report
    /// said so.
    reported: BTreeMap<NodeId, (Backoff, bool)>,
}

impl Offsets {
    /// A node reported its own wall clock.
    pub fn hear(&mut self, node: NodeId, wall_ms: u64, now: Now) {
        let offset_ms = less_mono(wall_ms, now);
        let new = Fastest::new(offset_ms, now.mono_us);
        let fastest = self.heard.entry(node).or_insert(new);
        fastest.hear(offset_ms, now.mono_us);
    }

    fn of(&self, node: NodeId, now: Now) -> Option<i64> {
        self.heard.get(&node)?.at(now.mono_us)
    }

    /// Whether the log must report a clock now, and whether it reports the clock as off.
    fn report(&mut self, clock: &ClockStatus, now: Now) -> Option<bool> {
        if clock.is_off() {
            let (backoff, is_told) = self.reported.entry(clock.node).or_default();
            let is_due = backoff.is_due(now.mono_us, REPORT_WAITS);
            *is_told |= is_due;
            return is_due.then_some(true);
        }
        // A clock that is close to the bound is not reported as right and wrong in alternation.
        let (_, is_told) = self.reported.get_mut(&clock.node)?;
        let is_right = 2 * clock.offset_ms.unsigned_abs() < clock.bound_ms();
        (is_right && std::mem::take(is_told)).then_some(false)
    }
}

fn less_mono(wall_ms: u64, now: Now) -> i64 {
    wall_ms.min(clock::to_ms(READING_MAX)) as i64 - (now.mono_us / 1_000) as i64
}

impl Replica {
    /// The known offset of each node's clock; none unless those of a quorum are known.
    pub(super) fn clock_offsets(&self, now: Now) -> Vec<ClockStatus> {
        let Some(configuration) = self.identity.configuration.as_deref() else {
            return Vec::new();
        };
        let mut clocks: Vec<(NodeId, i64)> = Vec::new();
        let mut error_us = 0;
        for node in configuration.nodes().map(|member| member.node) {
            if node == self.identity.node {
                clocks.push((node, less_mono(now.wall_ms, now)));
            } else if let Some((least_us, most_us)) = self.links.straight_rtts_us(node)
                && let Some(offset_ms) = self.watch.offsets.of(node, now)
            {
                clocks.push((node, offset_ms + i64::from(least_us / 2_000)));
                error_us = error_us.max(most_us);
            }
        }
        let of_voters = clocks.iter();
        let of_voters = of_voters.filter(|(node, _)| configuration.voter(*node).is_some());
        let voters: NodeSet = of_voters.clone().map(|(node, _)| *node).collect();
        let mut offsets: Vec<i64> = of_voters.map(|(_, offset_ms)| *offset_ms).collect();
        offsets.sort_unstable();
        // The lower of two middle values, as in B2.
        let middle = offsets.len().saturating_sub(1) / 2;
        let Some(median_ms) = offsets.get(middle) else {
            return Vec::new();
        };
        if !configuration.has_quorum(&voters) {
            return Vec::new();
        }
        clocks.sort_unstable();
        clocks.dedup();
        let reported = clocks.into_iter().map(|(node, offset_ms)| ClockStatus {
            node,
            offset_ms: offset_ms - median_ms,
            error_ms: error_us.div_ceil(1_000),
        });
        reported.collect()
    }

    /// At each heartbeat.
    pub(super) fn report_offsets(&mut self, now: Now) {
        for clock in self.clock_offsets(now) {
            let Some(is_off) = self.watch.offsets.report(&clock, now) else {
                continue;
            };
            let ClockStatus {
                node, offset_ms, ..
            } = clock;
            let event = match is_off {
                true => Event::ClockOff { node, offset_ms },
                false => Event::ClockRight { node },
            };
            self.sending.push(Output::Event(event));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_US: u64 = 1_000_000;

    #[test]
    fn the_fastest_heartbeat_counts_until_two_windows_are_over() {
        let mut fastest = Fastest::new(100, 0);
        for (at_us, offset_ms, expected) in [
            (1, 60, 100),
            (2, 103, 103),
            (WINDOW_US, -5_000, 103),
            (2 * WINDOW_US - 1, -5_001, 103),
            (2 * WINDOW_US, -5_002, -5_000),
        ] {
            fastest.hear(offset_ms, at_us);
            assert_eq!(fastest.at(at_us), Some(expected), "at {at_us}");
        }
        assert_eq!(fastest.at(4 * WINDOW_US), None);
        fastest.hear(7, 4 * WINDOW_US);
        assert_eq!(fastest.at(4 * WINDOW_US), Some(7), "nothing of before");
    }

    #[test]
    fn the_log_says_it_ever_less_often_and_once_that_it_is_over() {
        let mut offsets = Offsets::default();
        let mut said = Vec::new();
        for second in 0..200 {
            let offset_ms = match second {
                0..100 => 3_200,
                100..110 => -999,
                _ => 20,
            };
            let clock = ClockStatus {
                node: 3,
                offset_ms,
                error_ms: 1,
            };
            let now = Now {
                mono_us: second * SECOND_US,
                ..Now::default()
            };
            said.extend(offsets.report(&clock, now).map(|is_off| (second, is_off)));
        }
        let expected = [(0, true), (10, true), (30, true), (70, true), (110, false)];
        assert_eq!(said, expected);
    }
}
