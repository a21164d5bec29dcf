//! What a node has no more room of.

use std::fmt;

/// The reason why what would grow is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Full {
    /// A node holds as much in memory as it may.
    Memory,
    /// The disk of a node has no more room than its reserve.
    Disk,
    /// A reason that this release does not know, of a later one.
    Other,
}

impl Full {
    /// As it travels; 0 is free for "not full".
    pub fn code(self) -> u8 {
        match self {
            Full::Memory => 1,
            Full::Disk => 2,
            Full::Other => u8::MAX,
        }
    }

    /// `None` for 0.
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
