//! The loop's reports about its node: to operators as `status`, and to the HTTP thread.

use std::time::Instant;

use wire::NodeStatus;

use super::{Driver, allocator};
use crate::protocol::types::message::Now;
use crate::runtime::disk::Disk;
use crate::runtime::observation::Observation;
use crate::runtime::tally::Cause;

impl Driver {
    /// Adds the fields of the status that the replica does not know.
    pub(super) fn complete_status(&self, now: Now, status: &mut NodeStatus) {
        status.keys = self.table.keys();
        status.records = self.table.records();
        status.memory_live_bytes = allocator::live_bytes();
        status.memory_max_bytes = self.memory.max();
        status.durability = self.durability.to_owned();
        status.version = env!("CARGO_PKG_VERSION").to_owned();
        status.uptime_ms = now.mono_us / 1_000;
        status.datagrams_dropped = self.tally.total();
        status.strangers_dropped = self.tally.of(Cause::Stranger);
        status.datagrams_lost = self.tally.of(Cause::ReceiveOverflow);
        status.exposed = self.is_exposed;
        status.warnings.extend(self.socket.granted().warning());
        match &self.disk {
            None => status.disk = None,
            Some(disk) => report_disk(status, disk),
        }
    }

    pub(super) fn observe(&self, now: Now) -> Observation {
        let mut status = self.replica.status(now);
        self.complete_status(now, &mut status);
        let dropped = Cause::ALL.iter().map(|cause| self.tally.of(*cause));
        Observation {
            taken: Instant::now(),
            status,
            counts: self.replica.counts().clone(),
            counters: self.replica.counters(),
            depths: self.replica.queue_depths(),
            dropped: dropped.collect(),
            traffic: self.socket.traffic(),
            send_queue: (self.outbox.packer().len(), self.outbox.size()),
            commits: self.disk.as_ref().map(Disk::figures),
            turns: self.turns,
            is_stopping: self.stop_at_us.is_some(),
        }
    }

    /// Records the end of a turn, if the node serves HTTP.
    pub(super) fn count_turn(&mut self, began: Instant) {
        if let Some(pulse) = &self.pulse {
            let now = Instant::now();
            pulse.turn(now);
            self.turns.count += 1;
            self.turns.busy += now.saturating_duration_since(began);
        }
    }
}

fn report_disk(status: &mut NodeStatus, disk: &Disk) {
    if let Some(reported) = &mut status.disk {
        reported.sync_median_us = disk.sync_times().median_us();
        reported.sync_max_us = disk.sync_times().max_us();
        reported.free_bytes = disk.space().free;
        reported.reserve_bytes = disk.space().wanted;
    }
}
