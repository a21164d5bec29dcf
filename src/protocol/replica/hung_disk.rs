//! Hung disks: the node of a hung disk sends heartbeats, and answers nothing that waits for the
//! disk. This module owns the time for which the oldest group has been in progress, and the
//! consequences of what other nodes report about their disks.

use wire::DiskStatus;

use crate::protocol::register::coordinator::Coordinator;
use crate::protocol::replica::Replica;
use crate::protocol::types::message::{Event, GroupNumber, NodeId, Now, Output};
use crate::protocol::types::rules::rule;

/// How long the longest write is remembered, at least.
const LONGEST_OF_US: u64 = 10_000_000;

/// The oldest group whose write is in progress.
#[derive(Debug, Default)]
pub(super) struct OldestGroup {
    /// The group, and the time of the first heartbeat that found its write in progress.
    group: Option<(GroupNumber, u64)>,
    /// As of the last heartbeat.
    unsynced_ms: u64,
    /// The longest of the last ten to twenty seconds: of this interval, and of the previous one.
    longest_ms: [u64; 2],
    longest_of_us: u64,
    /// Whether the disk hung at the last heartbeat.
    hung: bool,
}

impl OldestGroup {
    /// At each heartbeat: `group` is in progress now. Returns whether the disk hangs, if that has
    /// changed.
    pub(super) fn observe(
        &mut self,
        now: Now,
        group: Option<GroupNumber>,
        hung_after_ms: u64,
    ) -> Option<bool> {
        let known = self.group.filter(|(known, _)| Some(*known) == group);
        self.group = group.map(|group| known.unwrap_or((group, now.mono_us)));
        self.unsynced_ms = self.unsynced_ms_at(now);
        if now.mono_us >= self.longest_of_us + LONGEST_OF_US {
            self.longest_of_us = now.mono_us;
            self.longest_ms = [0, self.longest_ms[0]];
        }
        self.longest_ms[0] = self.longest_ms[0].max(self.unsynced_ms);
        let hangs = self.unsynced_ms >= hung_after_ms;
        let was_hung = std::mem::replace(&mut self.hung, hangs);
        (hangs != was_hung).then_some(hangs)
    }

    /// About how long the disk takes for a group, as of the last seconds.
    pub(super) fn slow_ms(&self) -> u64 {
        self.longest_ms[0].max(self.longest_ms[1])
    }

    pub(super) fn unsynced_ms(&self) -> u64 {
        self.unsynced_ms
    }

    pub(super) fn unsynced_ms_at(&self, now: Now) -> u64 {
        let since_us = self.group.map_or(now.mono_us, |(_, since)| since);
        now.mono_us.saturating_sub(since_us) / 1_000
    }
}

impl Replica {
    /// At each heartbeat.
    pub(super) fn check_disk(&mut self, now: Now) {
        let hung_after_ms = self.timings.disk_hung_ms;
        let news = self.durable.observe_oldest_group(now, hung_after_ms);
        let slow_ms = self.durable.oldest_group().slow_ms();
        self.clock.expect_slow_disk(slow_ms);
        if let Some(hangs) = news {
            let unsynced_ms = self.durable.oldest_group().unsynced_ms();
            self.sending.push(Output::Event(match hangs {
                true => Event::DiskHangs { unsynced_ms },
                false => Event::DiskGoesOn,
            }));
            self.check_links(now, true, false);
            if !self.runs_rounds() {
                self.hand_over_rounds(now);
            }
        }
    }

    /// Rounds in progress would wait for the disk; other nodes have a working one.
    fn hand_over_rounds(&mut self, now: Now) {
        for key in self.timers.keys() {
            if !self.runs_rounds_of(&key) {
                self.coordinate(now, &key, Coordinator::hand_over);
            }
        }
    }

    /// Without a vote or a working disk a node runs no rounds: its messages wait for a durable
    /// ceiling (B1).
    pub(super) fn runs_rounds(&self) -> bool {
        self.identity.votes && !(self.hangs(self.identity.node) && rule!(X5_hung))
    }

    pub(super) fn disk_status(&self, now: Now) -> DiskStatus {
        DiskStatus {
            unsynced_ms: self.durable.oldest_group().unsynced_ms_at(now),
            hung_after_ms: self.timings.disk_hung_ms,
            hangs: self.hangs(self.identity.node),
            ..DiskStatus::default()
        }
    }

    /// As rows report it.
    pub(super) fn unsynced_ms(&self) -> u32 {
        u32::try_from(self.durable.oldest_group().unsynced_ms()).unwrap_or(u32::MAX)
    }

    /// Whether this node's own disk is hung, so that it accepts nothing that would wait for the
    /// disk.
    pub fn has_hung_disk(&self) -> bool {
        self.hangs(self.identity.node)
    }

    /// Whether that node, according to its reports, cannot write to its disk: it may be reachable,
    /// but does not count as a vote.
    pub(super) fn hangs(&self, node: NodeId) -> bool {
        self.timings.is_hung(self.unsynced_ms_of(node))
    }

    /// The age of that node's oldest write in progress, as it reports it.
    pub(super) fn unsynced_ms_of(&self, node: NodeId) -> u64 {
        match node == self.identity.node {
            true => self.durable.oldest_group().unsynced_ms(),
            false => self.links.unsynced_ms(node).into(),
        }
    }
}
