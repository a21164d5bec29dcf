//! Transfers: frames that are too large for a few datagrams are sent in pieces, and the receiver
//! tells which ones have arrived. Only what is missing is sent again.
//!
//! A transfer is between two addresses. A relay receives a frame as a whole, and sends it on with a
//! transfer of its own: so the round trip that a sender measures, and the room that its receiver
//! tells, are those of one link. Both halves are here, without clocks and sockets: `TransferSender`
//! and `TransferReceiver`.
//!
//! Small frames are not acknowledged, because the rounds and attempts that they belong to are
//! repeated anyway.

mod format;
mod one;
mod pieces;
mod receive;
mod recent;
mod send;
#[cfg(test)]
mod simulated;
mod window;

pub use format::{
    FRAME_BODY_SIZE_MAX, NoPiece, PIECE_HEADER_SIZE, TRANSFER_ACK, TRANSFER_PIECE, TransferAck,
    TransferState,
};
pub use receive::{AckDue, PoolLimits, ReceiverCounts, TransferReceiver};
pub use send::{Offer, PieceDue, SenderCounts, SenderLimits, TransferSender};
