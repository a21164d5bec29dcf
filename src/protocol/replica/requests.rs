//! What clients and operators have asked for and was not answered yet.

use std::collections::VecDeque;

use crate::protocol::clients::sessions::Sessions;
use crate::protocol::register::latency::Pace;
use crate::protocol::types::message::{ClientReply, Endpoint, GroupNumber};

#[derive(Debug, Default)]
pub(super) struct Requests {
    pub(super) sessions: Sessions,
    /// Operations of clients and forwarders that are not answered yet.
    pub(super) operations: usize,
    /// What they take in memory, about.
    pub(super) operations_size: usize,
    /// Answers to operators that wait for their groups.
    pub(super) held_replies: VecDeque<(GroupNumber, Endpoint, ClientReply)>,
    /// How long rounds take.
    pub(super) pace: Pace,
}
