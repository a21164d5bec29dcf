//! Changes of the configuration.

use super::Replica;
use super::message::{Envelope, Now, RoundId};

impl Replica {
    pub(super) fn is_sealing(&self, _round: RoundId) -> bool {
        false
    }

    pub(super) fn handle_seal_told(&mut self, _now: Now, _envelope: Envelope) {
        self.counters.stray += 1;
    }

    pub(super) fn handle_admission_asked(&mut self, _now: Now, _envelope: &Envelope) {
        self.counters.stray += 1;
    }
}
