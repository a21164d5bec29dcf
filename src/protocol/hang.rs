//! A disk that hangs: its node sends heartbeats, and answers nothing that waits for the disk. Owns how
//! long the oldest group has been on its way, and what is made of what other nodes tell of theirs.

use super::Replica;
use super::message::{Event, GroupNumber, NodeId, Now, Output};

/// The oldest group that is on its way to the disk.
#[derive(Debug, Default)]
pub struct Oldest {
    /// With the first heartbeat that found it there.
    group: Option<(GroupNumber, u64)>,
    unsynced_ms: u64,
    told: bool,
}

impl Replica {
    /// At each heartbeat.
    pub(super) fn look_at_disk(&mut self, now: Now) {
        let group = self.outbox.oldest_unsynced();
        let known = self.oldest.group.filter(|(known, _)| Some(*known) == group);
        self.oldest.group = group.map(|group| known.unwrap_or((group, now.mono_us)));
        let since_us = self.oldest.group.map_or(now.mono_us, |(_, since)| since);
        self.oldest.unsynced_ms = now.mono_us.saturating_sub(since_us) / 1_000;
        let hangs = self.is_hung(self.oldest.unsynced_ms);
        if hangs != self.oldest.told {
            self.oldest.told = hangs;
            let unsynced_ms = self.oldest.unsynced_ms;
            self.outputs.push_back(Output::Event(match hangs {
                true => Event::DiskHangs { unsynced_ms },
                false => Event::DiskGoesOn,
            }));
        }
    }

    /// As rows tell it.
    pub(super) fn unsynced_ms(&self) -> u32 {
        u32::try_from(self.oldest.unsynced_ms).unwrap_or(u32::MAX)
    }

    fn is_hung(&self, unsynced_ms: u64) -> bool {
        unsynced_ms >= self.timings.disk_hung_ms
    }

    /// Whether that node, by what it tells, does not get anything onto its disk: it may be heard, but
    /// counts for no vote.
    pub(super) fn hangs(&self, node: NodeId) -> bool {
        let unsynced_ms = match node == self.node {
            true => self.oldest.unsynced_ms,
            false => self.links.unsynced_ms(node).into(),
        };
        self.is_hung(unsynced_ms)
    }
}
