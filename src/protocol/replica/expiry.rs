//! L1: the preferred coordinator of a key deletes it soon after it has expired.

use crate::protocol::keys::work::KeyWork;
use crate::protocol::register::coordinator::{self, Coordinator};
use crate::protocol::replica::Replica;
use crate::protocol::replica::keys::Loaded;
use crate::protocol::types::limits::{
    EXPIRY_TURN_MS, EXPIRY_UNDER_WAY_MAX_BUSY, EXPIRY_UNDER_WAY_MAX_IDLE,
};
use crate::protocol::types::message::Now;
use crate::protocol::types::timer::Timer;

impl Replica {
    /// At each heartbeat, and more often while keys are left over. Reads find an expired key absent
    /// without this; it frees what nobody reads.
    pub(super) fn expire_keys(&mut self, now: Now) {
        let serves = self.runs_rounds() && self.view.hears_quorum() && !self.is_disk_behind();
        if !serves || self.keys.expiry().count() == 0 {
            return;
        }
        let under_way_max = match self.requests.has_operations() {
            true => EXPIRY_UNDER_WAY_MAX_BUSY,
            false => EXPIRY_UNDER_WAY_MAX_IDLE,
        };
        let wall_ms = self.clock.expiry_ms(now);
        let (node, coordinators) = (self.identity.node, self.view.coordinators());
        let index = self.keys.expiry_mut();
        let count_max = under_way_max.saturating_sub(index.under_way(now.mono_us));
        let (keys, is_more) = index.due(wall_ms, now.mono_us, count_max, |key| {
            coordinator::preferred(key, coordinators) == Some(node)
        });
        if is_more && !std::mem::replace(&mut index.is_timer_set, true) {
            let at_us = now.mono_us + EXPIRY_TURN_MS * 1_000;
            self.timers.set(at_us, Timer::Expiry);
        }
        for key in keys {
            self.with_key(now, &key, KeyWork::Expire);
        }
    }

    pub(super) fn expiry_timeout(&mut self, now: Now) {
        self.keys.expiry_mut().is_timer_set = false;
        self.expire_keys(now);
    }

    /// The key may have been written meanwhile: the round looks at what it finds.
    pub(super) fn expire_key(&mut self, now: Now, key: Loaded<'_>) {
        let wall_ms = self.clock.expiry_ms(now);
        let state = self.keys.at(key).state.as_ref();
        let record = state.and_then(|state| state.record.as_ref());
        if record.is_some_and(|record| record.is_expired(wall_ms)) {
            self.counts.expired += 1;
            self.coordinate(now, key.key(), Coordinator::expire);
        }
    }
}
