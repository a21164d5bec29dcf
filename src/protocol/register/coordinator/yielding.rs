//! A coordinator lets another one's round end before it begins its own, where both nodes have
//! reason to run rounds of the key: for a large value, and for the steps of transactions.

use wire::latency::allowance_us;

use super::permit::ShortRoundPermit;
use super::{Context, Coordinator};
use crate::protocol::register::waits::RoundKind;

/// How often it looks whether the other round has ended.
const LOOK_US: u64 = 20_000;
/// The same for a step, whose value is small.
const LOOK_STEP_US: u64 = 2_000;
/// The wait takes at most this part (1/4) of the time that an operation has left.
const LEFT_PART: u64 = 4;

impl Coordinator {
    /// When to look again whether a full round may begin: this node has promised a ballot to
    /// another coordinator and has not accepted it yet.
    ///
    /// With a large value that one is probably sending its value. A client whose attempt takes long
    /// tries another node, so both are about the same operation. If they interrupted each other,
    /// the value would be sent over and over. Steps of transactions are left to the key's preferred
    /// coordinator only once another node has promised the key, and are taken back from there. So
    /// several nodes may have steps for a key, and each of them would interrupt the others.
    ///
    /// Before each of its own rounds a coordinator waits only once, and only as long as a round may
    /// take: the other node may be gone.
    pub(super) fn yields_until(&mut self, context: &Context<'_>) -> Option<u64> {
        let sizes = self.queue.iter().map(|p| p.operation.action.value_size());
        let size = sizes.max().unwrap_or_default().max(context.held_size());
        let is_step = self.queue.iter().any(|p| p.step.is_some() && !p.is_read());
        let may_be_short = |right: &ShortRoundPermit| right.is_valid(context);
        let is_alone = allowance_us(size) == 0 && !is_step;
        if is_alone || self.right.as_ref().is_some_and(may_be_short) {
            return None;
        }
        let state = context.state?;
        let is_next = state.accepted.0 > 0 && state.promised == state.accepted.next();
        let is_open = state.promised > state.accepted && !is_next;
        if !is_open || state.promised.node() == context.me {
            return None;
        }
        let now_us = context.now.mono_us;
        let ends_us = *self.yield_ends_us.get_or_insert_with(|| {
            let deadlines_us = self.queue.iter().map(|pending| pending.deadline_us);
            let left_us = deadlines_us.min().unwrap_or(now_us).saturating_sub(now_us);
            let round_us = match is_step {
                true => context.wait_us(RoundKind::Write, 0, size),
                false => 0,
            };
            let round_us = round_us.max(context.waits.round_us(size));
            now_us + round_us.min(left_us / LEFT_PART)
        });
        let look_us = match allowance_us(size) {
            0 => LOOK_STEP_US,
            _ => LOOK_US,
        };
        (now_us < ends_us).then(|| ends_us.min(now_us + look_us))
    }
}
