//! All waits that depend on how often nodes send heartbeats. This module owns the settings' bounds
//! and derives the other waits from the settings, once, when a node starts.

use std::ops::RangeInclusive;

use crate::protocol::types::limits::{
    ADMISSION_ASKED_MS, CHANGE_STAGGER_MS, CONFIGURATION_LOOK_MS, DISK_HUNG_MS_DEFAULT,
    FETCH_RETRY_MS, FETCH_TRIES_MIN, FOLLOW_AFTER_MS, LINK_HOLD_MAX_MS, LINK_QUIET_MS, MARKS_MS,
    NODES_MAX, PROOF_OVERDUE_MS, QUORUM_LOST_MS, READMISSION_DELAY_MS, ROW_STALE_MS,
    SOURCE_GONE_MS,
};

/// The allowed values of the setting.
const DISK_HUNG_MS: RangeInclusive<u64> = 500..=600_000;

/// Settings with which no cluster can work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TimingsError {
    #[error("a heartbeat every {0} ms is not possible: 10 to 1,000 ms")]
    Heartbeat(u64),
    #[error(
        "a link can't count as down after {down} ms with a heartbeat every {heartbeat} ms: at \
         least three heartbeats ({least} ms), at most 10,000 ms",
        least = 3 * .heartbeat
    )]
    LinkDown { down: u64, heartbeat: u64 },
    #[error("members can't be removed after {0} ms: 500 ms to 1 h, or 0 for never")]
    ShrinkAfter(u64),
    #[error(
        "members can't be removed after {shrink_after} ms with a heartbeat every {heartbeat} ms: at \
         least two heartbeats ({least} ms), or 0 for never",
        least = 2 * .heartbeat
    )]
    ShrinkAfterHeartbeats { shrink_after: u64, heartbeat: u64 },
    #[error("a disk can't count as hung after {0} ms: 500 ms to 10 min")]
    DiskHung(u64),
}

/// `heartbeat_ms`, `link_down_ms`, `shrink_after_ms` and `disk_hung_ms` are settings; the other
/// waits follow from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timings {
    pub heartbeat_ms: u64,
    /// A link is down after this much silence.
    pub link_down_ms: u64,
    /// A member that was unreachable for this long is removed. 0: no member is removed
    /// automatically.
    pub shrink_after_ms: u64,
    /// If a link goes down after it was up for less than this, its next probation is doubled.
    pub link_quiet_ms: u64,
    /// The longest probation of a link.
    pub link_hold_max_ms: u64,
    /// A row expires after this time. That is longer than a silent link stays up, since a row may
    /// arrive later, over another path.
    pub row_stale_ms: u64,
    /// After this time no node has a row any more: each node accepts it once, and relays it until
    /// it expires.
    pub row_gone_ms: u64,
    /// X5: a node that had no paths to and from a quorum for this long starts no round.
    pub quorum_lost_ms: u64,
    /// A learner's request for admission expires this long after it was last received. The learner
    /// repeats it with each heartbeat.
    pub admission_asked_ms: u64,
    /// How long a node must be continuously reachable before it is admitted.
    pub steady_ms: u64,
    /// How long each member waits for the members before it in order to make a change. They check
    /// at each heartbeat.
    pub change_patience_ms: u64,
    /// A member that was unreachable for this long is asked for nothing more in a pass.
    pub source_gone_ms: u64,
    /// How often a fetch is tried. The tries last until another source has been found, before keys
    /// are abandoned.
    pub fetch_tries_max: u32,
    /// E1: how long after its start a node waits for members that are not reachable yet.
    pub proof_ms: u64,
    /// E1: how long a node waits whose configuration names no other node. Other nodes send their
    /// configuration to unreachable nodes now and then, so it would arrive within this time.
    pub proof_alone_ms: u64,
    /// E1: the time after which the missing confirmations are reported to the operator.
    pub proof_overdue_ms: u64,
    /// A disk that has not finished a write for this long is hung. A node checks its own disk at
    /// each heartbeat.
    pub disk_hung_ms: u64,
    /// B5: a member whose clock is far ahead in all of its heartbeats for this long is followed.
    pub follow_after_ms: u64,
    /// Chosen marks that no group has taken along are written once in this many heartbeats.
    pub marks_every: u64,
}

impl Timings {
    /// Accepts any settings; `check` reports whether they are possible.
    pub fn new(heartbeat_ms: u64, link_down_ms: u64, shrink_after_ms: u64) -> Self {
        let beats = |count: u64| heartbeat_ms.saturating_mul(count);
        let source_gone_ms = SOURCE_GONE_MS.max(beats(3));
        let found_gone_ms = link_down_ms
            .saturating_add(source_gone_ms)
            .saturating_add(beats(2));
        let row_stale_ms = ROW_STALE_MS.max(link_down_ms.saturating_mul(2));
        let tries = (found_gone_ms / FETCH_RETRY_MS).saturating_add(1);
        let tries = u32::try_from(tries).unwrap_or(u32::MAX);
        let proof_ms = link_down_ms.saturating_add(beats(2));
        Timings {
            heartbeat_ms,
            link_down_ms,
            shrink_after_ms,
            link_quiet_ms: LINK_QUIET_MS.max(link_down_ms.saturating_mul(4)),
            link_hold_max_ms: LINK_HOLD_MAX_MS.max(link_down_ms.saturating_mul(2)),
            row_stale_ms,
            row_gone_ms: row_stale_ms.saturating_mul(NODES_MAX as u64),
            quorum_lost_ms: QUORUM_LOST_MS.max(beats(2)),
            admission_asked_ms: ADMISSION_ASKED_MS.max(link_down_ms.saturating_add(beats(2))),
            steady_ms: READMISSION_DELAY_MS.max(beats(3)),
            change_patience_ms: CHANGE_STAGGER_MS.max(beats(2)),
            source_gone_ms,
            proof_ms,
            proof_alone_ms: proof_ms.saturating_add(CONFIGURATION_LOOK_MS),
            proof_overdue_ms: PROOF_OVERDUE_MS.max(proof_ms.saturating_mul(2)),
            disk_hung_ms: DISK_HUNG_MS_DEFAULT.max(beats(3)),
            follow_after_ms: FOLLOW_AFTER_MS.max(beats(4)),
            fetch_tries_max: tries.max(FETCH_TRIES_MIN),
            marks_every: (MARKS_MS / heartbeat_ms.max(1)).max(1),
        }
    }

    /// Whether a disk hangs whose oldest write has been in progress for so long.
    pub fn is_hung(&self, unsynced_ms: u64) -> bool {
        unsynced_ms >= self.disk_hung_ms
    }

    /// Sets `disk_hung_ms`, at least three heartbeats, since a node checks its disk at each
    /// heartbeat. A value out of bounds is kept, so that the error shows it.
    pub fn with_disk_hung(self, disk_hung_ms: u64) -> Self {
        let least_ms = self.heartbeat_ms.saturating_mul(3);
        let disk_hung_ms = match DISK_HUNG_MS.contains(&disk_hung_ms) {
            true => disk_hung_ms.max(least_ms),
            false => disk_hung_ms,
        };
        Timings {
            disk_hung_ms,
            ..self
        }
    }

    pub fn check(&self) -> Result<(), TimingsError> {
        let (heartbeat, down) = (self.heartbeat_ms, self.link_down_ms);
        let shrink_after = self.shrink_after_ms;
        if !(10..=1_000).contains(&heartbeat) {
            return Err(TimingsError::Heartbeat(heartbeat));
        }
        if !(3 * heartbeat..=10_000).contains(&down) {
            return Err(TimingsError::LinkDown { down, heartbeat });
        }
        if !matches!(shrink_after, 0 | 500..=3_600_000) {
            return Err(TimingsError::ShrinkAfter(shrink_after));
        }
        if shrink_after != 0 && shrink_after < 2 * heartbeat {
            return Err(TimingsError::ShrinkAfterHeartbeats {
                shrink_after,
                heartbeat,
            });
        }
        let disk_hung = self.disk_hung_ms;
        if !DISK_HUNG_MS.contains(&disk_hung) {
            return Err(TimingsError::DiskHung(disk_hung));
        }
        Ok(())
    }

    pub fn link_down_us(&self) -> u64 {
        self.link_down_ms * 1_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::types::limits::{HEARTBEAT_MS_DEFAULT, LINK_DOWN_MS_DEFAULT};
    use proptest::prelude::*;

    #[test]
    fn with_the_defaults_a_lost_quorum_is_known_within_half_a_second() {
        let t = Timings::new(HEARTBEAT_MS_DEFAULT, LINK_DOWN_MS_DEFAULT, 3_000);
        t.check().unwrap();
        assert!(t.link_down_ms + 2 * t.heartbeat_ms + t.quorum_lost_ms <= 500);
    }

    #[test]
    fn a_disk_that_hangs_too_soon_is_refused_with_what_was_given() {
        for given in [1, 499, 600_001] {
            let t = Timings::new(50, 200, 0).with_disk_hung(given);
            assert_eq!(t.check(), Err(TimingsError::DiskHung(given)));
        }
    }

    #[test]
    fn what_is_impossible_is_refused_with_what_is_possible() {
        for (heartbeat, down, shrink, part) in [
            (9, 200, 0, "10 to 1,000 ms"),
            (1_001, 4_000, 0, "10 to 1,000 ms"),
            (100, 299, 0, "three heartbeats (300 ms)"),
            (100, 10_001, 0, "at most 10,000 ms"),
            (50, 200, 499, "500 ms to 1 h"),
            (50, 200, 3_600_001, "500 ms to 1 h"),
            (1_000, 3_000, 1_999, "two heartbeats (2000 ms)"),
        ] {
            let refused = Timings::new(heartbeat, down, shrink).check();
            let text = refused.unwrap_err().to_string();
            assert!(text.contains(part), "{text}");
        }
    }

    proptest! {
        /// Nothing that a heartbeat carries expires before the next heartbeat but one has arrived,
        /// nor before the link over which it arrived is down.
        #[test]
        fn waits_outlast_heartbeats(
            heartbeat in 10u64..=1_000,
            down in 30u64..=10_000,
            shrink in 500u64..=3_600_000,
        ) {
            let t = Timings::new(heartbeat, down, shrink);
            prop_assume!(t.check().is_ok());
            let two = 2 * heartbeat;
            prop_assert!(t.row_stale_ms >= two && t.row_stale_ms > down);
            prop_assert!(t.admission_asked_ms >= two && t.admission_asked_ms > down);
            prop_assert!(t.quorum_lost_ms >= two && t.change_patience_ms >= two);
            prop_assert!(t.steady_ms > two && t.source_gone_ms > two && shrink >= two);
            let hung_ms = t.with_disk_hung(500).disk_hung_ms;
            prop_assert!(t.disk_hung_ms > two && hung_ms > two && t.follow_after_ms > two);
            prop_assert!(t.link_hold_max_ms >= down && t.link_quiet_ms > t.link_hold_max_ms);
            let given_up_ms = u64::from(t.fetch_tries_max) * FETCH_RETRY_MS;
            prop_assert!(given_up_ms > down + t.source_gone_ms + two);
            prop_assert!((500..=2_000).contains(&(t.marks_every * heartbeat)));
        }
    }
}
