//! Comparing what nodes hold, and copying what one of them lacks (C1): learners, and members that
//! missed more than hints remember.

use super::Replica;
use super::digest::Bucket;
use super::message::{Envelope, Now};
use super::record::{AcceptorState, Key};

impl Replica {
    pub(super) fn handle_copies_asked(&mut self, _now: Now, _envelope: Envelope) {
        self.counters.stray += 1;
    }

    pub(super) fn handle_copy_learned(&mut self, _now: Now, _envelope: Envelope) {
        self.counters.stray += 1;
    }

    pub(super) fn handle_sync_told(&mut self, _now: Now, _envelope: Envelope) {
        self.counters.stray += 1;
    }

    pub(super) fn handle_own_bucket(
        &mut self,
        _now: Now,
        _bucket: Bucket,
        _states: &[(Key, AcceptorState)],
    ) {
    }

    pub(super) fn handle_purge(&mut self, _now: Now, _envelope: Envelope) {
        self.counters.stray += 1;
    }

    /// R1: what was compared in another epoch counts no more.
    pub(super) fn restart_sync(&mut self, _now: Now) {}

    /// Whether a learner holds about what the members hold.
    pub(super) fn has_learned(&self) -> bool {
        true
    }
}
