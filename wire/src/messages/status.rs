//! Parts of what a node says of itself.

use serde::{Deserialize, Serialize};

/// What a learner has done so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LearningStatus {
    /// Parts of the keys that it went through, of so many, in its present pass.
    pub buckets_done: u64,
    pub buckets: u64,
    /// Keys that it has copied.
    pub keys_copied: u64,
}

/// What a node has noted for a member that missed writes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BehindStatus {
    pub node: u8,
    /// Keys that wait to be copied.
    pub keys: u64,
    /// Missed writes that there was no room to note, since this node's start.
    pub overflowed: u64,
}

/// How a node's disk does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskStatus {
    /// How long the oldest write that is not finished has taken so far; 0 if there is none.
    pub unsynced_ms: u64,
    /// From so long on the node has no working disk, and no vote until it has.
    pub hung_after_ms: u64,
    pub hangs: bool,
    /// Of the last writes that were finished.
    pub sync_median_us: u64,
    pub sync_max_us: u64,
    /// Free for the node, what it keeps in reserve included, in bytes; and below what it is full.
    pub free_bytes: u64,
    pub reserve_bytes: u64,
}

/// A link in one direction, as the receiving node measures it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkStatus {
    pub from: u8,
    pub to: u8,
    pub up: bool,
    /// Smoothed; 0 while it is not known.
    pub rtt_us: u32,
    pub loss_permille: u16,
    /// Small datagrams get through, and large ones, which IP cuts into fragments, do not. Only the node at
    /// its end tells this.
    pub drops_large: bool,
}

/// How far a node's wall clock is from the median of the members', as another node measures it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockStatus {
    pub node: u8,
    /// Above zero: it is ahead.
    pub offset_ms: i64,
    /// How wrong that may be where the ways there and back take different times.
    pub error_ms: u32,
}

/// From here on a clock is worth a word.
const CLOCK_OFF_MS: u64 = 1_000;

impl ClockStatus {
    /// From where on it is told.
    pub fn bound_ms(&self) -> u64 {
        CLOCK_OFF_MS.max(self.error_ms.into())
    }

    /// Whether an operator should set the clock right.
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
    /// Whether a working path is known; else the direct link is tried.
    pub works: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberStatus {
    pub node: u8,
    pub address: String,
    /// It reaches the node that tells, and is reached by it.
    pub heard: bool,
    /// As the configuration has it; of a node without a vote as it last told, 0 if it is not known.
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
