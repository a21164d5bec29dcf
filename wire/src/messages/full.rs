//! Which capacity of a node is exhausted.

use std::fmt;

/// The reason why writes that grow are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Full {
    /// A node uses as much memory as it may.
    Memory,
    /// The free space on a node's disk is down to its reserve.
    Disk,
    /// A reason that a later release defined and this one does not know.
    Other,
}

impl Full {
    /// The code on the wire; 0 means "not full".
    pub fn code(self) -> u8 {
        match self {
            Full::Memory => 1,
            Full::Disk => 2,
            Full::Other => u8::MAX,
        }
    }

    /// Returns `None` for 0.
    pub fn of_code(code: u64) -> Option<Full> {
        match code {
            0 => None,
            1 => Some(Full::Memory),
            2 => Some(Full::Disk),
            _ => Some(Full::Other),
        }
    }
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Full::Memory => "memory",
            Full::Disk => "disk space",
            Full::Other => "a resource that this release does not know",
        })
    }
}
