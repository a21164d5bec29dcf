//! The largest datagram that gets through to one address (RFC 8899).
//!
//! It is found with pieces that are filled up to a larger size. Their acknowledgements show which
//! sizes arrive, whatever the way back is, and whether or not the network reports anything.

/// The sizes to try: over tunnels, PPPoE and IPv6, Ethernet, and Ethernet with large frames.
const SIZES: [usize; 4] = [1_372, 1_452, 1_472, 8_952];
/// After so many losses a size counts as too large. Where 5 % of all datagrams are lost, one search
/// in 8,000 ends too early.
const LOSSES_MAX: u32 = 3;
/// Then it is tried again after this time.
const AGAIN_US: u64 = 600_000_000;

#[derive(Debug)]
pub(super) struct PathSize {
    /// Datagrams of this size always get through.
    least: usize,
    /// The largest size that got through.
    proven: usize,
    /// The size that is being tried, while it is under way.
    trial: Option<usize>,
    losses: u32,
    again_us: u64,
}

impl PathSize {
    pub(super) fn new(least: usize) -> Self {
        PathSize {
            least,
            proven: least,
            trial: None,
            losses: 0,
            again_us: 0,
        }
    }

    /// The size for new transfers.
    pub(super) fn proven(&self) -> usize {
        self.proven
    }

    /// The size to try now.
    pub(super) fn next_trial(&self, now_us: u64) -> Option<usize> {
        let next = SIZES.into_iter().find(|size| *size > self.proven);
        next.filter(|_| self.trial.is_none() && now_us >= self.again_us)
    }

    pub(super) fn trial_sent(&mut self, size: usize) {
        self.trial = Some(size);
    }

    pub(super) fn trial_arrived(&mut self) {
        if let Some(size) = self.trial.take() {
            self.proven = self.proven.max(size);
            self.losses = 0;
        }
    }

    pub(super) fn trial_lost(&mut self, now_us: u64) {
        if self.trial.take().is_none() {
            return;
        }
        self.losses += 1;
        if self.losses >= LOSSES_MAX {
            self.losses = 0;
            self.again_us = now_us + AGAIN_US;
        }
    }

    /// Nobody will report its fate.
    pub(super) fn trial_abandoned(&mut self) {
        self.trial = None;
    }

    /// The proven size may no longer get through. Returns whether there is a smaller one.
    pub(super) fn fall_back(&mut self) -> bool {
        let had_more = self.proven > self.least;
        if had_more {
            *self = PathSize::new(self.least);
        }
        had_more
    }
}
