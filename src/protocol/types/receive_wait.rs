//! How long datagrams wait before a node handles them.

/// What the runtime measured since it last told the core.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReceiveWait {
    /// How long the oldest datagram had waited in the receive buffer.
    pub buffered_us: u64,
    /// The same, with the time in the queue of those that are handled after the ones of nodes.
    pub waited_us: u64,
    /// The datagrams that were lost because the receive buffer or the queue was full.
    pub lost: u64,
}
