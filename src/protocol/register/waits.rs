//! How long a round waits before it sends again, and how long a coordinator that lost a round waits
//! before the next.

use std::collections::VecDeque;

use wire::latency::{LatencyEstimate, WaitBounds, allowance_us};

use crate::protocol::clients::pending::Pending;
use crate::protocol::register::coordinator::Context;
use crate::protocol::types::limits::{
    BACKOFF_INITIAL_US, BACKOFF_MAX_US, RETRANSMIT_INITIAL_US, RETRANSMIT_MAX_US, RETRANSMIT_MIN_US,
};
use crate::protocol::types::record::Record;

/// A busy machine may need eight times as long for a large value as usual.
const SIZE_DOUBLINGS_MAX: u32 = 3;
/// A wait allows a large value this many times what the last ones took, ...
const PACES: u64 = 2;
/// ... and at most this long.
const SIZE_US_MAX: u64 = 2_000_000;
/// Below this pace `allowance_us` is the longer wait.
const PACE_NS_MIN: u64 = 31_000;

/// A round waits for this many times the wait of a datagram in this node's receive buffer. The
/// other members are probably as busy, and each of them needs that time too.
const DELAYS: u64 = 4;

/// Rounds of different kinds take different times: a read needs no disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoundKind {
    Read,
    Write,
}

#[derive(Debug, Default)]
pub struct RoundWaits {
    reads: LatencyEstimate,
    writes: LatencyEstimate,
    /// What writes of large values take for each KiB, in nanoseconds, beyond what those of small
    /// ones do. Over slow or lossy links this is many times what `allowance_us` assumes, and a
    /// second node that begins a round with the value before the first has ended its own only
    /// delays both.
    pace_ns: u64,
    /// A lower bound of all waits, from the measured links.
    least_us: u64,
    /// The longest recent wait of a datagram in this node's receive buffer.
    delay_us: u64,
}

impl RoundWaits {
    /// Sets the lower bound of all waits: before any round is completed, the links show how long
    /// one takes at least.
    pub fn set_least_us(&mut self, least_us: u64) {
        self.least_us = least_us;
    }

    /// Records how long a datagram waited in the receive buffer. A busy node sends nothing again
    /// whose answer is probably there already: each such message costs several more, and then
    /// all of them wait longer.
    pub fn sample_delay(&mut self, delay_us: u64) {
        self.delay_us = delay_us.max(self.delay_us - self.delay_us / 8);
    }

    /// Records that a write round, or another exchange, carried that value in this time. What was
    /// sent again meanwhile does not matter: a transfer that is under way is not begun again. The
    /// pace follows within bounds, so that a node that stood still once does not wait long for
    /// everything after that.
    pub fn sample_size(&mut self, took_us: u64, size: usize) {
        let excess_us = took_us.saturating_sub(self.wait_us(RoundKind::Write, 0));
        let kib = (size >> 10).max(1) as u64;
        let sampled_ns = excess_us.saturating_mul(1_000) / kib;
        let pace_ns = self.pace_ns.max(PACE_NS_MIN);
        self.pace_ns = sampled_ns.clamp(pace_ns / 4 * 3, 2 * pace_ns);
    }

    /// How much longer a write may take because it carries a value of this size.
    pub fn size_us(&self, size: usize) -> u64 {
        let allowance_us = allowance_us(size);
        match allowance_us {
            0 => 0,
            _ => {
                let usual_us = self.pace_ns.saturating_mul(size as u64 >> 10) / 1_000;
                allowance_us.max((PACES * usual_us).min(SIZE_US_MAX))
            }
        }
    }

    /// How long a round of another coordinator with such a value may take.
    pub fn round_us(&self, size: usize) -> u64 {
        let slow_us = allowance_us(size) << SIZE_DOUBLINGS_MAX;
        slow_us.min(SIZE_US_MAX).max(self.size_us(size))
    }

    /// Records the end of a write round, which began at `began_us` and was last sent again at
    /// `again_us`. A large record travels as a transfer.
    pub fn sample_write(
        &mut self,
        record: &Record,
        now_us: u64,
        began_us: u64,
        again_us: Option<u64>,
    ) {
        let size = record.content_size();
        match allowance_us(size) > 0 {
            true => self.sample_size(now_us - began_us, size),
            false => self.sample(RoundKind::Write, now_us, began_us, again_us),
        }
    }

    /// The same for a round without a large record.
    pub fn sample(&mut self, kind: RoundKind, now_us: u64, began_us: u64, again_us: Option<u64>) {
        let bounds = self.bounds();
        let latency = match kind {
            RoundKind::Read => &mut self.reads,
            RoundKind::Write => &mut self.writes,
        };
        let since_again_us = again_us.map(|again_us| now_us - again_us);
        latency.sample(now_us - began_us, since_again_us, bounds);
    }

    /// The wait before the first retransmission (`sent_again` 0), doubled at each further one.
    pub fn wait_us(&self, kind: RoundKind, sent_again: u32) -> u64 {
        let bounds = self.bounds();
        let latency = match kind {
            RoundKind::Read => &self.reads,
            RoundKind::Write => &self.writes,
        };
        let first_us = latency.wait_us(bounds);
        let wait_us = first_us.saturating_mul(1 << sent_again.min(16));
        wait_us.min(bounds.most_us)
    }

    fn bounds(&self) -> WaitBounds {
        let delayed_us = (DELAYS * self.delay_us).min(RETRANSMIT_MAX_US / 2);
        WaitBounds {
            initial_us: RETRANSMIT_INITIAL_US,
            least_us: RETRANSMIT_MIN_US.max(self.least_us).max(delayed_us),
            most_us: RETRANSMIT_MAX_US.max(2 * self.least_us),
        }
    }

    /// The longest wait of a coordinator that lost this many rounds in a row: long enough for the
    /// competing round to complete, with a value of that size.
    pub fn backoff_us(&self, lost: u32, size: usize) -> u64 {
        let first_us = BACKOFF_INITIAL_US.max(self.least_us / 2);
        let most_us = BACKOFF_MAX_US.max(2 * self.least_us);
        let size_us = allowance_us(size) << lost.min(SIZE_DOUBLINGS_MAX);
        let size_us = size_us.max(self.size_us(size));
        (first_us << lost.min(10)).min(most_us) + size_us
    }
}

impl Context<'_> {
    /// The wait before a round's messages are sent again, if they carry a value of that size.
    pub fn wait_us(&self, kind: RoundKind, sent_again: u32, size: usize) -> u64 {
        let size_us = match kind {
            // Usually the answers to a read carry no value.
            RoundKind::Read => allowance_us(size),
            RoundKind::Write => self.waits.size_us(size),
        };
        self.waits.wait_us(kind, sent_again) + size_us
    }

    /// The longest wait of a coordinator that lost this many rounds and has these operations.
    pub fn backoff_us(&self, lost: u32, operations: &VecDeque<Pending>) -> u64 {
        let sizes = operations.iter().map(|p| p.operation.action.value_size());
        let size = sizes.max().unwrap_or_default().max(self.held_size());
        self.waits.backoff_us(lost, size)
    }

    /// The size of the content that this node holds. Other members probably hold the same, and
    /// answer with it.
    pub fn held_size(&self) -> usize {
        let record = self.state.and_then(|state| state.record.as_ref());
        record.map_or(0, |record| record.content_size())
    }
}

#[cfg(test)]
mod tests {
    use super::RoundKind::{Read, Write};
    use super::*;

    #[test]
    fn the_wait_follows_what_rounds_of_its_kind_take_and_doubles() {
        let mut waits = RoundWaits::default();
        assert_eq!(waits.wait_us(Write, 0), RETRANSMIT_INITIAL_US);
        for _ in 0..100 {
            waits.sample(Write, 20_000, 0, None);
            for _ in 0..9 {
                waits.sample(Read, 300, 0, None);
            }
        }
        let first_us = waits.wait_us(Write, 0);
        assert!((20_000..25_000).contains(&first_us), "{first_us}");
        assert_eq!(waits.wait_us(Write, 1), 2 * first_us);
        assert_eq!(waits.wait_us(Write, 30), RETRANSMIT_MAX_US);
        assert_eq!(waits.wait_us(Read, 0), RETRANSMIT_MIN_US);
    }

    #[test]
    fn no_wait_is_shorter_than_the_links_allow() {
        let mut waits = RoundWaits::default();
        let backoffs = (waits.backoff_us(1, 0), waits.backoff_us(10, 0));
        assert_eq!(backoffs, (4_000, 64_000));
        waits.set_least_us(600_000);
        let first = [0, 1, 9].map(|again| waits.wait_us(Write, again));
        assert_eq!(first, [600_000, 1_200_000, 1_200_000]);
        for _ in 0..100 {
            waits.sample(Write, 2_000_000, 0, None);
        }
        let longest_us = waits.wait_us(Write, 0);
        assert_eq!(longest_us, 1_200_000, "a lost message is missed by then");
        let backoffs = (waits.backoff_us(1, 0), waits.backoff_us(9, 0));
        assert_eq!(backoffs, (600_000, 1_200_000));
    }

    /// Rounds with large values or intents would make all others wait.
    #[test]
    fn rounds_with_large_records_are_not_sampled_with_the_others() {
        let bytes = Some(vec![0; 1 << 20].into());
        let value = Record {
            value: bytes.clone(),
            ..Record::default()
        };
        let intent = Record {
            intent: bytes.map(Into::into),
            ..Record::default()
        };
        let mut waits = RoundWaits::default();
        for _ in 0..100 {
            waits.sample_write(&Record::default(), 5_000, 0, None);
        }
        let usual_us = waits.wait_us(Write, 0);
        for record in [value, intent] {
            for _ in 0..100 {
                waits.sample_write(&record, 150_000, 0, None);
            }
            assert_eq!(waits.wait_us(Write, 0), usual_us);
        }
    }

    #[test]
    fn a_node_whose_messages_wait_sends_again_later() {
        let mut waits = RoundWaits::default();
        waits.sample(Read, 300, 0, None);
        assert_eq!(waits.wait_us(Read, 0), RETRANSMIT_MIN_US);
        waits.sample_delay(10_000);
        waits.sample_delay(0);
        assert_eq!(waits.wait_us(Read, 0), DELAYS * 8_750);
        assert_eq!(waits.wait_us(Read, 1), 2 * DELAYS * 8_750);
        waits.sample_delay(1_000_000);
        assert_eq!(waits.wait_us(Read, 0), RETRANSMIT_MAX_US / 2);
        (0..100).for_each(|_| waits.sample_delay(0));
        assert_eq!(waits.wait_us(Read, 0), RETRANSMIT_MIN_US);
    }

    /// While one coordinator's Accept with the value is under way, the others keep quiet for long
    /// enough that it arrives.
    #[test]
    fn coordinators_of_large_values_compete_less_often() {
        let waits = RoundWaits::default();
        let size_us = allowance_us(1 << 20);
        let backoffs = [1, 2, 10].map(|lost| waits.backoff_us(lost, 1 << 20));
        let expected = [
            4_000 + 2 * size_us,
            8_000 + 4 * size_us,
            64_000 + 8 * size_us,
        ];
        assert_eq!(backoffs, expected);
    }

    #[test]
    fn a_large_value_gets_twice_the_time_that_the_last_ones_took() {
        const MIB: usize = 1 << 20;
        let mut waits = RoundWaits::default();
        let usual_us = waits.wait_us(Write, 0);
        let unknown_us = waits.size_us(MIB);
        assert_eq!(unknown_us, allowance_us(MIB));
        for _ in 0..4 {
            waits.sample_size(usual_us + 400_000, MIB);
        }
        assert!((790_000..=800_000).contains(&waits.size_us(MIB)));
        assert!((390_000..=400_000).contains(&waits.size_us(MIB / 2)));
        assert_eq!(waits.size_us(1 << 10), 0, "a small one is no transfer");
        assert!(waits.backoff_us(1, MIB) >= 790_000);
        for _ in 0..10 {
            waits.sample_size(60_000_000, MIB);
        }
        assert_eq!(waits.size_us(16 * MIB), SIZE_US_MAX);
        for _ in 0..50 {
            waits.sample_size(usual_us + 10_000, MIB);
        }
        assert_eq!(waits.size_us(MIB), unknown_us, "a fast network");
    }

    #[test]
    fn one_stall_only_doubles_the_pace() {
        let mut waits = RoundWaits::default();
        waits.sample_size(1_000_000, 20 << 10);
        let wait_us = waits.size_us(1 << 20);
        assert!(wait_us < 300_000, "{wait_us}");
    }

    #[test]
    fn what_was_sent_again_does_not_count_from_the_first() {
        let mut waits = RoundWaits::default();
        for _ in 0..100 {
            waits.sample(Write, 50_400, 0, Some(50_000));
        }
        let wait_us = waits.wait_us(Write, 0);
        assert!(wait_us <= 2 * RETRANSMIT_MIN_US, "{wait_us}");
    }
}
