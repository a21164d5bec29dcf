//! Both halves for one socket that has few peers, each of which may take equal shares.

use super::{
    NoPiece, Offer, PoolLimits, SenderLimits, TRANSFER_ACK, TRANSFER_PIECE, TransferAck,
    TransferReceiver, TransferSender,
};
use crate::datagram::{Frame, FrameHeader};

const SEND: SenderLimits = SenderLimits {
    total: 64 << 20,
    of_peer: 32 << 20,
};
const RECEIVE: PoolLimits = PoolLimits {
    total: 64 << 20,
    of_owner: 20 << 20,
};
/// The most that `poll` gives at once.
const TURN_SIZE_MAX: usize = 64 << 10;

/// What a frame that arrived means.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is no frame of a transfer.
    Plain,
    /// The last piece of a frame, which is whole now.
    Whole(FrameHeader, Vec<u8>),
    /// Another piece, or an acknowledgement.
    Noted,
}

/// The transfers of a client, or of a node of a test.
#[derive(Debug)]
pub struct Transfers<Peer> {
    sender: TransferSender<Peer>,
    receiver: TransferReceiver<Peer, Peer>,
    body: Vec<u8>,
}

impl<Peer: Ord + Copy> Transfers<Peer> {
    /// `number`: see `TransferSender::new`; `socket_buffer`: see `TransferReceiver::new`.
    pub fn new(number: u64, socket_buffer: usize) -> Self {
        Transfers {
            sender: TransferSender::new(SEND, number),
            receiver: TransferReceiver::new(RECEIVE, socket_buffer),
            body: Vec::new(),
        }
    }

    /// Hands in a frame for a peer that takes datagrams of this size.
    pub fn offer(
        &mut self,
        now_us: u64,
        to: (Peer, usize),
        header: FrameHeader,
        body: Vec<u8>,
    ) -> Offer {
        self.sender.offer(now_us, to, header, body)
    }

    /// Takes a frame that arrived.
    pub fn take(&mut self, now_us: u64, from: Peer, frame: &Frame<'_>) -> Result<Taken, NoPiece> {
        let Frame { header, body } = frame;
        if header.flags & TRANSFER_ACK != 0 {
            let ack = TransferAck::open(body)?;
            self.sender.handle_ack(now_us, Some(from), &ack);
            return Ok(Taken::Noted);
        }
        if header.flags & TRANSFER_PIECE == 0 {
            return Ok(Taken::Plain);
        }
        let whole = self
            .receiver
            .take(now_us, (from, from), (header, body), true)?;
        Ok(whole.map_or(Taken::Noted, |(header, body)| Taken::Whole(header, body)))
    }

    /// Whether `poll` would give something.
    pub fn is_due(&self, now_us: u64) -> bool {
        let sends = self.next_timeout().is_some_and(|at_us| at_us <= now_us);
        sends || self.receiver.has_ack_due()
    }

    /// Gives the acknowledgements that are due, and the pieces that may leave now.
    pub fn poll(&mut self, now_us: u64, give: &mut dyn FnMut(Peer, &FrameHeader, &[u8])) {
        while let Some(due) = self.receiver.poll_ack(now_us) {
            self.body.clear();
            due.ack.encode(&mut self.body);
            give(due.peer, &due.header, &self.body);
        }
        if self.next_timeout().is_some_and(|at_us| at_us <= now_us) {
            self.sender.poll(now_us, TURN_SIZE_MAX, &mut |piece| {
                give(piece.peer, &piece.header, piece.body);
            });
        }
    }

    /// When `poll` should be called, if nothing arrives before. It may be in the past.
    pub fn next_timeout(&self) -> Option<u64> {
        self.sender.next_timeout()
    }
}
