//! Parts of a node's status.

use serde::{Deserialize, Serialize};

/// The progress of a learner.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LearningStatus {
    /// Buckets compared so far in the present pass, and their total.
    pub buckets_done: u64,
    pub buckets: u64,
    /// Keys that the learner copied.
    pub keys_copied: u64,
}

/// The hints that a node holds for a member that missed writes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BehindStatus {
    pub node: u8,
    /// Keys pending copy.
    pub keys: u64,
    /// Missed writes that exceeded the hint limit since this node started.
    pub overflowed: u64,
}

/// The state of a node's disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskStatus {
    /// The time since the oldest unfinished write began; 0 if there is none.
    pub unsynced_ms: u64,
    /// A write that takes this long makes the disk hung; the node has no vote until the write
    /// finishes.
    pub hung_after_ms: u64,
    pub hangs: bool,
    /// The median of the last finished writes.
    pub sync_median_us: u64,
    pub sync_max_us: u64,
    /// The space that is free for the node, including its reserve, in bytes; and the amount below
    /// which the node is full.
    pub free_bytes: u64,
    pub reserve_bytes: u64,
}

/// A link in one direction, as the receiving node measures it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkStatus {
    pub from: u8,
    pub to: u8,
    pub up: bool,
    /// Smoothed; 0 if it is not known.
    pub rtt_us: u32,
    pub loss_permille: u16,
    /// Small datagrams arrive, and large ones, which IP cuts into fragments, do not. Only the
    /// receiving node reports this.
    pub drops_large: bool,
}

/// The offset of a node's wall clock from the median of the members' clocks, as another node
/// measures it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockStatus {
    pub node: u8,
    /// Positive if the clock is ahead.
    pub offset_ms: i64,
    /// The largest error of the offset; it arises if the two directions take different times.
    pub error_ms: u32,
}

/// A smaller offset is never reported.
const CLOCK_OFF_MS: u64 = 1_000;

impl ClockStatus {
    /// The offset from which on it is reported.
    pub fn bound_ms(&self) -> u64 {
        CLOCK_OFF_MS.max(self.error_ms.into())
    }

    /// Whether an operator should correct the clock.
    pub fn is_off(&self) -> bool {
        self.offset_ms.unsigned_abs() >= self.bound_ms()
    }

    /// `3.2 s ahead of the median`.
    pub fn in_words(&self) -> String {
        let ms = self.offset_ms.unsigned_abs();
        let (unit_ms, unit) = match ms {
            0..120_000 => (1_000, "s"),
            120_000..7_200_000 => (60_000, "min"),
            7_200_000..172_800_000 => (3_600_000, "h"),
            _ => (86_400_000, "days"),
        };
        let tenth_ms = unit_ms / 10;
        let tenths = ms.saturating_add(tenth_ms / 2) / tenth_ms;
        let (whole, tenths) = (tenths / 10, tenths % 10);
        let way = if self.offset_ms < 0 {
            "behind"
        } else {
            "ahead of"
        };
        format!("{whole}.{tenths} {unit} {way} the median")
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteStatus {
    pub to: u8,
    /// The nodes that relay, in order; empty for a direct link.
    pub through: Vec<u8>,
    /// Whether a working path is known; if not, the node tries the direct link.
    pub works: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberStatus {
    pub node: u8,
    pub address: String,
    /// The member is reachable for the reporting node.
    pub heard: bool,
    /// The incarnation in the configuration; for a node without a vote the one that it last
    /// announced, 0 if none is known.
    pub incarnation: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_in_words() {
        let clock = |offset_ms, error_ms| ClockStatus {
            node: 1,
            offset_ms,
            error_ms,
        };
        for (offset_ms, words) in [
            (3_249, "3.2 s ahead of the median"),
            (-1_000, "1.0 s behind the median"),
            (-150_000, "2.5 min behind the median"),
            (8 * 3_600_000, "8.0 h ahead of the median"),
            (27_393 * 86_400_000, "27393.0 days ahead of the median"),
        ] {
            assert_eq!(clock(offset_ms, 0).in_words(), words);
        }
        let off = [(999, 0), (-1_000, 1_000), (1_400, 1_401), (i64::MIN, 9)];
        let off = off.map(|(offset_ms, error_ms)| clock(offset_ms, error_ms).is_off());
        assert_eq!(off, [false, true, false, true]);
    }
}
