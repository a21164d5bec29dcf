//! Transfers: frames that are too large for a few datagrams are sent in pieces, and the receiver
//! reports which pieces have arrived. The sender repeats only the missing ones.
//!
//! A transfer is between two addresses. A relay receives a frame as a whole, and sends it on with a
//! transfer of its own. So a sender measures the round trip of one link, and its receiver reports
//! the free space of its own socket. Both halves are here, without clocks and sockets:
//! `TransferSender` and `TransferReceiver`.
//!
//! Small frames are not acknowledged, because the rounds and attempts that they belong to are
//! repeated anyway.

mod both;
mod format;
mod frames;
mod one;
mod path_size;
mod pieces;
mod receive;
mod recent;
mod send;
#[cfg(test)]
mod simulated;
mod window;

use crate::datagram::{
    DATAGRAM_HEADER_SIZE, DATAGRAM_SIZE_TARGET, DATAGRAM_SIZE_TARGET_LOOPBACK, FRAME_HEADER_SIZE,
};
use crate::parts::PIECE_SIZE;

pub use both::{Taken, Transfers};
pub use format::{
    FRAME_BODY_SIZE_MAX, NoPiece, PIECE_HEADER_SIZE, TRANSFER_ACK, TRANSFER_PIECE, TransferAck,
    TransferState,
};
pub use frames::LargeBody;
pub use receive::{AckDue, PoolLimits, ReceiverCounts, TransferReceiver};
pub use send::{Offer, PieceDue, SenderCounts, SenderLimits, TransferSender};

/// A frame of more parts than this is transferred. Where 5 % of the datagrams are lost, 4 parts
/// arrive together four times in five, and rounds are repeated anyway; of 16 parts half would be
/// sent for nothing.
const PARTS_MAX: usize = 4;

/// The largest datagram for an address.
pub fn datagram_size(is_loopback: bool) -> usize {
    match is_loopback {
        true => DATAGRAM_SIZE_TARGET_LOOPBACK,
        false => DATAGRAM_SIZE_TARGET,
    }
}

/// Whether a frame with a body of this size is transferred.
pub fn is_large(is_loopback: bool, body_size: usize) -> bool {
    match is_loopback {
        true => {
            DATAGRAM_HEADER_SIZE + FRAME_HEADER_SIZE + body_size > DATAGRAM_SIZE_TARGET_LOOPBACK
        }
        false => body_size > PARTS_MAX * PIECE_SIZE,
    }
}
