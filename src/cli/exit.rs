//! Exit status of the client commands. Scripts rely on these numbers.

use std::process::ExitCode;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Also a delete of an absent key.
    Done = 0,
    Absent = 1,
    /// clap's own errors have the same status.
    Usage = 2,
    /// For a write: surely not done.
    NoQuorum = 3,
    Conflict = 4,
    /// A write that may have been applied, or may still be.
    Unknown = 5,
    Other = 6,
    /// `bench --check` found that the history is not linearizable.
    Violation = 7,
    /// `lock` lost its lock, and terminated the command.
    Lost = 8,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}
