//! How large the files of a store become. The defaults depend on the size of the file system: on a
//! small one, what a checkpoint needs for a moment must be small too.

const MIB: u64 = 1 << 20;
/// What a checkpoint may collect in memory: this, or if that is more this fraction (1/8) of the
/// parts.
const CHANGES_PART: u64 = 8;
/// A checkpoint begins once the log is half as large as the parts.
const LOG_PART: u64 = 2;

/// Sizes in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreSizes {
    /// A log segment that reaches it is followed by the next one.
    pub segment: u64,
    /// Space is allocated to the log in steps of this; 0: with each write.
    pub ahead: u64,
    /// A part that exceeds it is divided.
    pub part: u64,
    /// A checkpoint begins once the log exceeds it, and half of the parts.
    pub log: u64,
    /// What a checkpoint may collect in memory at least.
    pub changes: u64,
}

impl StoreSizes {
    pub fn for_file_system(total: u64) -> Self {
        StoreSizes {
            segment: (total / 128).clamp(MIB, 16 * MIB),
            ahead: (total / 1_024).clamp(64 << 10, MIB),
            part: (total / 32).clamp(MIB, 32 * MIB),
            log: (total / 16).clamp(4 * MIB, 64 * MIB),
            changes: 16 * MIB,
        }
    }

    /// The size of the log from which on a checkpoint is due.
    pub(super) fn log_max(&self, parts: u64) -> u64 {
        self.log.max(parts / LOG_PART)
    }

    pub(super) fn changes_max(&self, parts: u64) -> usize {
        let size = self.changes.max(parts / CHANGES_PART);
        usize::try_from(size).unwrap_or(usize::MAX)
    }
}
