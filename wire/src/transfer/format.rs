//! The bytes of pieces and acknowledgements.

/// A frame's flag: the body is one piece of the frame's body.
pub const TRANSFER_PIECE: u8 = 2;
/// A frame's flag: the body acknowledges pieces of a frame of this kind.
pub const TRANSFER_ACK: u8 = 4;
/// The bytes before a piece in its frame.
pub const PIECE_HEADER_SIZE: usize = 24;
/// The largest body that is transferred: the largest value of all, and what comes with it.
pub const FRAME_BODY_SIZE_MAX: usize = (16 << 20) + (32 << 10);

/// The least size of a piece that is not the last one. It bounds the number of pieces.
const PIECE_SIZE_MIN: usize = 512;
const _: () = assert!(FRAME_BODY_SIZE_MAX.div_ceil(PIECE_SIZE_MIN) <= u16::MAX as usize);
const WANTS_ACK: u8 = 1;
/// The body continues after the piece with bytes that mean nothing.
const IS_PADDED: u8 = 2;

const ACK_HEADER_SIZE: usize = 24;
/// The most ranges in an acknowledgement.
pub(super) const RANGES_MAX: usize = 64;

/// Bytes that no correct node or client makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoPiece;

/// A piece, and what it says about the whole body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece<'a> {
    pub(super) number: u64,
    /// The size of the whole body.
    pub(super) total: usize,
    pub(super) place: usize,
    /// The size of each piece but the last.
    pub(super) piece_size: usize,
    /// Counts what was sent of this transfer, with what was sent again.
    pub(super) sequence: u32,
    pub(super) wants_ack: bool,
    pub(super) bytes: &'a [u8],
    /// How many bytes follow that mean nothing. They show whether a datagram of this size arrives.
    pub(super) padding: usize,
}

impl<'a> Piece<'a> {
    pub(super) fn open(body: &'a [u8]) -> Result<Self, NoPiece> {
        let (head, bytes) = body
            .split_first_chunk::<PIECE_HEADER_SIZE>()
            .ok_or(NoPiece)?;
        let total = u32_at(head, 8) as usize;
        let place = usize::from(u16_at(head, 12));
        let piece_size = usize::from(u16_at(head, 14));
        let at = place * piece_size;
        if piece_size < PIECE_SIZE_MIN || total > FRAME_BODY_SIZE_MAX || at >= total {
            return Err(NoPiece);
        }
        let size = (total - at).min(piece_size);
        let (bytes, padding) = bytes.split_at_checked(size).ok_or(NoPiece)?;
        if !padding.is_empty() && head[20] & IS_PADDED == 0 {
            return Err(NoPiece);
        }
        Ok(Piece {
            number: u64_at(head, 0),
            total,
            place,
            piece_size,
            sequence: u32_at(head, 16),
            wants_ack: head[20] & WANTS_ACK != 0,
            bytes,
            padding: padding.len(),
        })
    }

    pub(super) fn encode(&self, body: &mut Vec<u8>) {
        body.clear();
        body.extend_from_slice(&self.number.to_le_bytes());
        body.extend_from_slice(&(self.total as u32).to_le_bytes());
        body.extend_from_slice(&(self.place as u16).to_le_bytes());
        body.extend_from_slice(&(self.piece_size as u16).to_le_bytes());
        body.extend_from_slice(&self.sequence.to_le_bytes());
        let wants_ack = if self.wants_ack { WANTS_ACK } else { 0 };
        let is_padded = if self.padding > 0 { IS_PADDED } else { 0 };
        body.extend_from_slice(&[wants_ack | is_padded, 0, 0, 0]);
        body.extend_from_slice(self.bytes);
        body.resize(body.len() + self.padding, 0);
    }
}

/// What the receiver says about a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransferState {
    Open,
    /// All pieces have arrived.
    Done,
    /// There is no memory for it now.
    Refused,
}

impl TransferState {
    const ALL: [TransferState; 3] = [
        TransferState::Open,
        TransferState::Done,
        TransferState::Refused,
    ];
}

/// An acknowledgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransferAck {
    pub number: u64,
    /// The sequence of the piece that was sent last, of those that have arrived.
    pub echo: u32,
    /// How long before this acknowledgement that piece arrived.
    pub held_us: u32,
    /// How many bytes of this sender may wait in the receiver's socket.
    pub room: u32,
    /// All pieces below this one are there.
    pub below: u16,
    pub state: TransferState,
    /// The pieces above `below` that are there: first and end, the lowest ranges.
    pub ranges: Vec<(u16, u16)>,
}

impl TransferAck {
    pub fn open(body: &[u8]) -> Result<Self, NoPiece> {
        let (head, rest) = body.split_first_chunk::<ACK_HEADER_SIZE>().ok_or(NoPiece)?;
        let state = TransferState::ALL.get(usize::from(head[22]));
        let count = usize::from(head[23]);
        if count > RANGES_MAX || rest.len() != 4 * count {
            return Err(NoPiece);
        }
        let ranges = rest
            .chunks_exact(4)
            .map(|range| (u16_at(range, 0), u16_at(range, 2)));
        let ack = TransferAck {
            number: u64_at(head, 0),
            echo: u32_at(head, 8),
            held_us: u32_at(head, 12),
            room: u32_at(head, 16),
            below: u16_at(head, 20),
            state: *state.ok_or(NoPiece)?,
            ranges: ranges.collect(),
        };
        let mut end = ack.below;
        let is_rising = ack.ranges.iter().all(|&(first, after)| {
            let is_above = first >= end && first < after;
            end = after;
            is_above
        });
        is_rising.then_some(ack).ok_or(NoPiece)
    }

    pub fn encode(&self, body: &mut Vec<u8>) {
        body.extend_from_slice(&self.number.to_le_bytes());
        body.extend_from_slice(&self.echo.to_le_bytes());
        body.extend_from_slice(&self.held_us.to_le_bytes());
        body.extend_from_slice(&self.room.to_le_bytes());
        body.extend_from_slice(&self.below.to_le_bytes());
        body.extend_from_slice(&[self.state as u8, self.ranges.len() as u8]);
        for (first, after) in &self.ranges {
            body.extend_from_slice(&first.to_le_bytes());
            body.extend_from_slice(&after.to_le_bytes());
        }
    }

    /// Nothing is said about this piece and those above it.
    pub(super) fn told_until(&self) -> usize {
        match self.ranges.last() {
            Some(&(_, after)) if self.ranges.len() == RANGES_MAX => usize::from(after),
            _ => usize::MAX,
        }
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_was_written_is_read() {
        let piece = Piece {
            number: u64::MAX - 1,
            total: 5_000,
            place: 4,
            piece_size: 1_096,
            sequence: 77,
            wants_ack: true,
            bytes: &[7; 616],
            padding: 0,
        };
        let mut body = Vec::new();
        piece.encode(&mut body);
        assert_eq!(Piece::open(&body), Ok(piece));
        assert_eq!(Piece::open(&body[..body.len() - 1]), Err(NoPiece));
        body.push(0);
        assert_eq!(Piece::open(&body), Err(NoPiece), "it is not padded");
        let padded = Piece {
            padding: 300,
            ..piece
        };
        padded.encode(&mut body);
        assert_eq!(Piece::open(&body), Ok(padded));
        let ack = TransferAck {
            number: 5,
            echo: 6,
            held_us: 7,
            room: 8,
            below: 9,
            state: TransferState::Refused,
            ranges: vec![(10, 12), (13, 14)],
        };
        let mut body = Vec::new();
        ack.encode(&mut body);
        assert_eq!(TransferAck::open(&body), Ok(ack.clone()));
        let folded = TransferAck {
            ranges: vec![(10, 12), (11, 14)],
            ..ack
        };
        body.clear();
        folded.encode(&mut body);
        assert_eq!(TransferAck::open(&body), Err(NoPiece));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(piece) = Piece::open(&bytes) {
                prop_assert!(piece.place * piece.piece_size + piece.bytes.len() <= piece.total);
            }
            let _ = TransferAck::open(&bytes);
        }
    }
}
