//! The receiver of transfers: memory for whole bodies, and acknowledgements.

use std::collections::{BTreeMap, VecDeque};

use super::format::{NoPiece, Piece, TRANSFER_ACK, TransferAck, TransferState};
use super::pieces::PlaceSet;
use super::recent::Recent;
use crate::datagram::{DATAGRAM_SIZE_TARGET, FrameHeader};

/// A transfer that makes no progress for this long is given up.
const PROGRESS_US_MAX: u64 = 2_000_000;
const EXPIRE_INTERVAL_US: u64 = 250_000;
/// An acknowledgement is due after so many pieces, if not before.
const PIECES_PER_ACK: u32 = 4;
/// What a transfer costs besides its bytes. It is more than it takes, and so bounds their number.
const OVERHEAD: usize = 8 << 10;
/// Larger bodies leave a quarter of the memory to others, so that a few large ones do not block
/// those of usual sizes.
const USUAL_SIZE_MAX: usize = (1 << 20) + (32 << 10);
/// The most acknowledgements of ended and refused transfers that wait to be polled.
const ENDED_DUE_MAX: usize = 1_024;
/// Each sender may always have two datagrams in the receiver's socket.
const ROOM_MIN: usize = 2 * DATAGRAM_SIZE_TARGET;

/// The memory of a receiver. The whole body counts from its first piece on.
#[derive(Debug, Clone, Copy)]
pub struct PoolLimits {
    pub total: usize,
    pub of_owner: usize,
}

/// What was not received.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReceiverCounts {
    /// Dropped, because pieces were missing for too long.
    pub given_up: u64,
    /// Pieces for whose transfers there was no memory.
    pub refused: u64,
}

/// An acknowledgement to send. The header has its kind and flags.
#[derive(Debug, Clone)]
pub struct AckDue<Peer> {
    pub peer: Peer,
    pub header: FrameHeader,
    pub ack: TransferAck,
}

#[derive(Debug)]
struct Incoming<Owner> {
    owner: Owner,
    header: FrameHeader,
    /// As far as pieces have arrived. What is missing in between is zero.
    bytes: Vec<u8>,
    total: usize,
    piece_size: usize,
    held: PlaceSet,
    /// The sequence of the piece that was sent last, and when it arrived.
    newest: u32,
    newest_us: u64,
    since_ack: u32,
    is_ack_due: bool,
    progress_us: u64,
}

impl<Owner> Incoming<Owner> {
    fn new(owner: Owner, header: FrameHeader, piece: &Piece<'_>, now_us: u64) -> Self {
        Incoming {
            owner,
            header,
            bytes: Vec::with_capacity(piece.total),
            total: piece.total,
            piece_size: piece.piece_size,
            held: PlaceSet::new(piece.total.div_ceil(piece.piece_size)),
            newest: piece.sequence,
            newest_us: now_us,
            since_ack: 0,
            is_ack_due: false,
            progress_us: now_us,
        }
    }

    fn fits(&self, header: &FrameHeader, piece: &Piece<'_>) -> bool {
        self.total == piece.total
            && self.piece_size == piece.piece_size
            && self.header.kind == header.kind
    }

    /// Returns whether an acknowledgement is due soon.
    fn add(&mut self, piece: &Piece<'_>, now_us: u64) -> bool {
        if piece.sequence >= self.newest {
            (self.newest, self.newest_us) = (piece.sequence, now_us);
        }
        self.since_ack += 1;
        let is_gap = piece.place > self.held.end();
        let is_new = self.held.insert(piece.place);
        if is_new {
            self.place(piece.place * self.piece_size, piece.bytes);
            self.progress_us = now_us;
        }
        piece.wants_ack || is_gap || !is_new || self.since_ack >= PIECES_PER_ACK
    }

    /// Most pieces come in order, so nearly nothing is written twice.
    fn place(&mut self, at: usize, piece: &[u8]) {
        let end = at + piece.len();
        if at >= self.bytes.len() {
            self.bytes.resize(at, 0);
            self.bytes.extend_from_slice(piece);
        } else {
            self.bytes[at..end].copy_from_slice(piece);
        }
    }

    fn is_whole(&self) -> bool {
        self.held.len() == self.total.div_ceil(self.piece_size)
    }
}

/// An acknowledgement of a transfer that has ended, or did not begin.
#[derive(Debug)]
struct EndedDue<Peer> {
    peer: Peer,
    kind: u8,
    number: u64,
    echo: u32,
    state: TransferState,
    came_us: u64,
}

/// Receives the transfers of all peers. `Owner` is who answers for a peer's memory: several
/// addresses of one host are one owner. Owners that must not take each other's memory need two
/// receivers.
#[derive(Debug)]
pub struct TransferReceiver<Peer, Owner> {
    limits: PoolLimits,
    /// How many bytes of all senders may wait in the socket.
    socket_room: usize,
    incoming: BTreeMap<(Peer, u64), Incoming<Owner>>,
    size: usize,
    owners: BTreeMap<Owner, usize>,
    /// How many transfers each peer has under way.
    peers: BTreeMap<Peer, usize>,
    recent: Recent<Owner, (Peer, u64)>,
    due: VecDeque<(Peer, u64)>,
    ended_due: VecDeque<EndedDue<Peer>>,
    expire_us: u64,
    counts: ReceiverCounts,
}

impl<Peer: Ord + Copy, Owner: Ord + Copy> TransferReceiver<Peer, Owner> {
    /// `socket_buffer`: the size of the kernel's receive buffer.
    pub fn new(limits: PoolLimits, socket_buffer: usize) -> Self {
        let mut receiver = TransferReceiver {
            limits,
            socket_room: 0,
            incoming: BTreeMap::new(),
            size: 0,
            owners: BTreeMap::new(),
            peers: BTreeMap::new(),
            recent: Recent::default(),
            due: VecDeque::new(),
            ended_due: VecDeque::new(),
            expire_us: 0,
            counts: ReceiverCounts::default(),
        };
        receiver.set_socket_buffer(socket_buffer);
        receiver
    }

    /// The kernel charges up to twice what small datagrams contain, and a sender may have sent its
    /// share again before it hears of a pause. So a quarter is given out.
    pub fn set_socket_buffer(&mut self, size: usize) {
        self.socket_room = size / 4;
    }

    pub fn counts(&self) -> ReceiverCounts {
        self.counts
    }

    /// The memory that is reserved.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Takes a piece; returns the whole frame when all pieces have arrived. `may_begin`: whether
    /// the frame could be used now.
    pub fn take(
        &mut self,
        now_us: u64,
        (peer, owner): (Peer, Owner),
        (header, body): (&FrameHeader, &[u8]),
        may_begin: bool,
    ) -> Result<Option<(FrameHeader, Vec<u8>)>, NoPiece> {
        self.expire(now_us);
        let piece = Piece::open(body)?;
        let id = (peer, piece.number);
        if !self.incoming.contains_key(&id) {
            let state = match self.recent.contains(owner, &id) {
                true => Some(TransferState::Done),
                false if may_begin && self.has_room(owner, piece.total) => None,
                false => Some(TransferState::Refused),
            };
            if let Some(state) = state {
                self.counts.refused += u64::from(state == TransferState::Refused);
                self.ended(now_us, peer, header.kind, &piece, state);
                return Ok(None);
            }
            let flags = header.flags & !super::TRANSFER_PIECE;
            let header = FrameHeader { flags, ..*header };
            self.begin(id, Incoming::new(owner, header, &piece, now_us));
        }
        let incoming = self.incoming.get_mut(&id).expect("begun");
        if !incoming.fits(header, &piece) {
            return Err(NoPiece);
        }
        let is_due = incoming.add(&piece, now_us);
        if incoming.is_whole() {
            let whole = self.remove(id);
            self.recent.add(owner, id);
            self.ended(now_us, peer, header.kind, &piece, TransferState::Done);
            return Ok(Some((whole.header, whole.bytes)));
        }
        if is_due {
            self.ack_soon(id, piece.wants_ack);
        }
        Ok(None)
    }

    /// A sender that wants an acknowledgement has nothing more to send for now, so all its
    /// transfers are acknowledged.
    fn ack_soon(&mut self, (peer, number): (Peer, u64), of_all: bool) {
        let numbers = if of_all {
            0..=u64::MAX
        } else {
            number..=number
        };
        let range = (peer, *numbers.start())..=(peer, *numbers.end());
        for (&id, incoming) in self.incoming.range_mut(range) {
            if incoming.since_ack > 0 && !incoming.is_ack_due {
                incoming.is_ack_due = true;
                self.due.push_back(id);
            }
        }
    }

    fn ended(&mut self, now_us: u64, peer: Peer, kind: u8, piece: &Piece<'_>, to: TransferState) {
        let is_same = |due: &EndedDue<Peer>| {
            due.peer == peer && due.number == piece.number && due.state == to
        };
        if self.ended_due.back().is_some_and(is_same) {
            self.ended_due.pop_back();
        }
        if self.ended_due.len() < ENDED_DUE_MAX {
            self.ended_due.push_back(EndedDue {
                peer,
                kind,
                number: piece.number,
                echo: piece.sequence,
                state: to,
                came_us: now_us,
            });
        }
    }

    pub fn has_ack_due(&self) -> bool {
        !self.due.is_empty() || !self.ended_due.is_empty()
    }

    /// The next acknowledgement that is due.
    pub fn poll_ack(&mut self, now_us: u64) -> Option<AckDue<Peer>> {
        let room = u32::try_from(self.room()).unwrap_or(u32::MAX);
        let held_us = |came_us: u64| u32::try_from(now_us - came_us).unwrap_or(u32::MAX);
        let flagged = |kind| FrameHeader {
            kind,
            flags: TRANSFER_ACK,
            ..FrameHeader::default()
        };
        if let Some(due) = self.ended_due.pop_front() {
            let ack = TransferAck {
                number: due.number,
                echo: due.echo,
                held_us: held_us(due.came_us),
                room,
                below: 0,
                state: due.state,
                ranges: Vec::new(),
            };
            let header = flagged(due.kind);
            let peer = due.peer;
            return Some(AckDue { peer, header, ack });
        }
        while let Some(id) = self.due.pop_front() {
            let Some(incoming) = self.incoming.get_mut(&id) else {
                continue;
            };
            (incoming.is_ack_due, incoming.since_ack) = (false, 0);
            let ack = TransferAck {
                number: id.1,
                echo: incoming.newest,
                held_us: held_us(incoming.newest_us),
                room,
                below: incoming.held.below() as u16,
                state: TransferState::Open,
                ranges: incoming.held.ranges(),
            };
            let header = flagged(incoming.header.kind);
            let peer = id.0;
            return Some(AckDue { peer, header, ack });
        }
        None
    }

    /// Gives up the transfers that make no progress.
    pub fn expire(&mut self, now_us: u64) {
        if now_us < self.expire_us {
            return;
        }
        self.expire_us = now_us + EXPIRE_INTERVAL_US;
        let is_stuck =
            |incoming: &Incoming<Owner>| incoming.progress_us + PROGRESS_US_MAX <= now_us;
        let all = self.incoming.iter();
        let stuck: Vec<_> = all
            .filter(|(_, incoming)| is_stuck(incoming))
            .map(|(id, _)| *id)
            .collect();
        for id in stuck {
            self.remove(id);
            self.counts.given_up += 1;
        }
    }

    fn has_room(&self, owner: Owner, total: usize) -> bool {
        let size = total + OVERHEAD;
        let held = self.owners.get(&owner).copied().unwrap_or_default();
        let PoolLimits {
            total: mut most,
            of_owner,
        } = self.limits;
        if total > USUAL_SIZE_MAX {
            most -= most / 4;
        }
        held + size <= of_owner && self.size + size <= most
    }

    fn begin(&mut self, id: (Peer, u64), incoming: Incoming<Owner>) {
        let size = incoming.total + OVERHEAD;
        self.size += size;
        *self.owners.entry(incoming.owner).or_default() += size;
        *self.peers.entry(id.0).or_default() += 1;
        self.incoming.insert(id, incoming);
    }

    fn remove(&mut self, id: (Peer, u64)) -> Incoming<Owner> {
        let incoming = self.incoming.remove(&id).expect("it is there");
        let size = incoming.total + OVERHEAD;
        self.size -= size;
        take_off(&mut self.owners, incoming.owner, size);
        take_off(&mut self.peers, id.0, 1);
        incoming
    }

    /// The share of the socket's buffer that each sender has.
    fn room(&self) -> usize {
        (self.socket_room / self.peers.len().max(1)).max(ROOM_MIN)
    }
}

fn take_off<Key: Ord + Copy>(held: &mut BTreeMap<Key, usize>, key: Key, many: usize) {
    if let Some(size) = held.get_mut(&key) {
        *size -= many;
        if *size == 0 {
            held.remove(&key);
        }
    }
}
