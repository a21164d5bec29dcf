//! The sender of transfers: which piece leaves next.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::format::{FRAME_BODY_SIZE_MAX, TRANSFER_PIECE, TransferAck};
use super::frames::{FramesSent, LargeBody, digest};
use super::one::{Ended, SentTransfer};
use super::window::TransferWindow;
use crate::datagram::FrameHeader;

/// Transfers to one peer of more than this take turns with all others, and wait while this much is
/// under way already. Smaller ones wait for at most `SMALL_ACTIVE_MAX`.
const SMALL_SIZE: usize = 128 << 10;
const ACTIVE_SIZE_MAX: usize = 16 << 20;
const SMALL_ACTIVE_MAX: usize = 64;
/// A transfer whose turn does not come for this long is given up.
const WAITING_US_MAX: u64 = 10_000_000;
/// A peer is silent if it acknowledged nothing for two timeouts, and at least for this long. Until
/// then a frame that is under way to it takes no other path.
const SILENT_US_MIN: u64 = 30_000;
/// Peers are served in turn, each with so many bytes.
const SLICE: usize = 16 << 10;
/// Above so many peers, those without a transfer are forgotten.
const PEERS_MAX: usize = 1_024;
/// What a transfer costs besides its bytes.
const OVERHEAD: usize = 1_024;

/// The memory of a sender.
#[derive(Debug, Clone, Copy)]
pub struct SenderLimits {
    pub total: usize,
    pub of_peer: usize,
}

/// What became of a frame that was handed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    Begun,
    /// The same frame is under way, or arrived a moment ago.
    UnderWay,
    /// It is too large, or there is no memory for it.
    NoRoom,
}

/// A piece to send, in a frame with this header.
#[derive(Debug)]
pub struct PieceDue<'a, Peer> {
    pub peer: Peer,
    pub header: FrameHeader,
    pub body: &'a [u8],
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SenderCounts {
    pub done: u64,
    /// The receiver did not answer in time, or had no memory.
    pub given_up: u64,
    /// Frames that were under way already, or had just arrived.
    pub repeated: u64,
    pub pieces: u64,
    /// Those of them that had been sent before.
    pub pieces_again: u64,
}

/// The transfers to one peer.
#[derive(Debug)]
struct SendPath {
    window: TransferWindow,
    /// They take turns; the first one is next.
    active: VecDeque<SentTransfer>,
    small: VecDeque<SentTransfer>,
    large: VecDeque<SentTransfer>,
    size: usize,
    /// The last acknowledgement, or when the first transfer began to wait for one.
    heard_us: u64,
    /// The last timeout of a transfer while the peer was silent.
    silent_us: u64,
    wake_us: u64,
}

impl SendPath {
    fn new(datagram_size: usize) -> Self {
        SendPath {
            window: TransferWindow::new(datagram_size),
            active: VecDeque::new(),
            small: VecDeque::new(),
            large: VecDeque::new(),
            size: 0,
            heard_us: 0,
            silent_us: 0,
            wake_us: u64::MAX,
        }
    }

    fn is_idle(&self) -> bool {
        self.size == 0
    }

    fn is_silent(&self, now_us: u64) -> bool {
        let silent_us = (2 * self.window.timeout_us()).max(SILENT_US_MIN);
        self.heard_us + silent_us <= now_us
    }

    /// Lets those begin whose turn has come.
    fn admit(&mut self, now_us: u64) {
        let datagram_size = self.window.path_size.proven();
        let sizes = self.active.iter().map(SentTransfer::size);
        let (small, large): (Vec<_>, Vec<_>) = sizes.partition(|size| *size <= SMALL_SIZE);
        let mut count = small.len();
        while count < SMALL_ACTIVE_MAX
            && let Some(mut next) = self.small.pop_front()
        {
            next.begin(now_us, datagram_size);
            self.active.push_back(next);
            count += 1;
        }
        let mut size: usize = large.iter().sum();
        while let Some(next) = self.large.front()
            && (size == 0 || size + next.size() <= ACTIVE_SIZE_MAX)
            && let Some(mut next) = self.large.pop_front()
        {
            next.begin(now_us, datagram_size);
            size += next.size();
            self.active.push_back(next);
        }
    }

    /// Timers. Returns the transfers that ended.
    fn handle_time(&mut self, now_us: u64) -> Vec<SentTransfer> {
        for transfer in &mut self.active {
            let wait_us = self.window.timeout_us();
            if transfer.handle_time(now_us, &mut self.window)
                && transfer.heard_us().max(self.silent_us) + wait_us <= now_us
            {
                self.silent_us = now_us;
                self.window.timed_out(now_us);
            }
        }
        let is_hopeless = |transfer: &SentTransfer| transfer.is_hopeless(now_us);
        let mut ended = Vec::new();
        if self.active.iter().any(is_hopeless) {
            let all = std::mem::take(&mut self.active).into_iter();
            let (mut hopeless, rest): (Vec<_>, Vec<_>) = all.partition(is_hopeless);
            for transfer in &mut hopeless {
                transfer.abandon(&mut self.window);
            }
            self.active = rest.into();
            ended = hopeless;
        }
        for queue in [&mut self.small, &mut self.large] {
            while queue
                .front()
                .is_some_and(|next| next.progress_us + WAITING_US_MAX <= now_us)
            {
                ended.extend(queue.pop_front());
            }
        }
        ended
    }

    /// The next transfer that may send, at the front. `Err`: when to look again.
    fn turn(&mut self, now_us: u64) -> Result<(), Option<u64>> {
        let mut again = None;
        for _ in 0..self.active.len() {
            match self.active[0].is_ready(now_us, &mut self.window) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(at) => again = again.or(at),
            }
            self.active.rotate_left(1);
        }
        Err(again)
    }

    /// When it wants to be looked at; `again` is when the window may admit more.
    fn next_wake_us(&self, now_us: u64, again: Option<u64>) -> u64 {
        let active = self.active.iter().map(|transfer| transfer.wake_us(now_us));
        let waiting = [self.small.front(), self.large.front()]
            .into_iter()
            .flatten();
        let waiting = waiting.map(|next| next.progress_us + WAITING_US_MAX);
        active.chain(waiting).chain(again).min().unwrap_or(u64::MAX)
    }
}

/// Sends the transfers to all peers.
#[derive(Debug)]
pub struct TransferSender<Peer> {
    limits: SenderLimits,
    /// The number of the last transfer.
    number: u64,
    random: u64,
    paths: BTreeMap<Peer, SendPath>,
    /// When which path wants to be looked at.
    wakes: BTreeSet<(u64, Peer)>,
    /// Which path a transfer takes.
    peers: BTreeMap<u64, Peer>,
    frames: FramesSent<Peer>,
    size: usize,
    /// The peer that was served last.
    last: Option<Peer>,
    counts: SenderCounts,
    buffer: Vec<u8>,
}

impl<Peer: Ord + Copy> TransferSender<Peer> {
    /// Transfers are numbered from `number` on, which differs from start to start: receivers
    /// remember numbers.
    pub fn new(limits: SenderLimits, number: u64) -> Self {
        TransferSender {
            limits,
            number,
            random: number | 1,
            paths: BTreeMap::new(),
            wakes: BTreeSet::new(),
            peers: BTreeMap::new(),
            frames: FramesSent::default(),
            size: 0,
            last: None,
            counts: SenderCounts::default(),
            buffer: Vec::new(),
        }
    }

    pub fn counts(&self) -> SenderCounts {
        self.counts
    }

    /// What all windows count.
    #[cfg(test)]
    pub(super) fn in_flight(&self) -> usize {
        let paths = self.paths.values();
        paths.map(|path| path.window.in_flight()).sum()
    }

    /// The memory in use.
    pub fn size(&self) -> usize {
        self.size
    }

    pub fn is_empty(&self) -> bool {
        self.size == 0
    }

    /// Hands in a frame. Its pieces travel in datagrams of `datagram_size`, which always get
    /// through, or of a larger size that is known to.
    pub fn offer(
        &mut self,
        now_us: u64,
        (peer, datagram_size): (Peer, usize),
        header: FrameHeader,
        body: impl Into<LargeBody>,
    ) -> Offer {
        let body = body.into();
        let size = body.size() + OVERHEAD;
        if body.size() == 0 || body.size() > FRAME_BODY_SIZE_MAX {
            return Offer::NoRoom;
        }
        let digest = digest(&header, &body);
        if self.is_under_way(now_us, peer, &header, digest) {
            self.counts.repeated += 1;
            return Offer::UnderWay;
        }
        let held = self.paths.get(&peer).map_or(0, |path| path.size);
        if self.size + size > self.limits.total || held + size > self.limits.of_peer {
            return Offer::NoRoom;
        }
        if self.paths.len() >= PEERS_MAX {
            self.forget_idle_peers();
        }
        self.number = self.number.wrapping_add(1);
        let number = self.number;
        let transfer = SentTransfer::new(now_us, number, digest, header, body.bytes);
        self.size += size;
        self.peers.insert(number, peer);
        let begin = || SendPath::new(datagram_size);
        let path = self.paths.entry(peer).or_insert_with(begin);
        if path.is_idle() {
            path.heard_us = now_us;
        }
        path.size += size;
        self.frames.begin(digest, peer);
        match transfer.size() <= SMALL_SIZE {
            true => path.small.push_back(transfer),
            false => path.large.push_back(transfer),
        }
        self.wake(peer, now_us);
        Offer::Begun
    }

    /// Whether to send this frame would only repeat what the receiver gets anyway, or has. The
    /// protocol repeats a message over other paths too, because it can't see how far a transfer is.
    /// Each of these would be the whole value once more.
    fn is_under_way(&self, now_us: u64, peer: Peer, header: &FrameHeader, digest: u128) -> bool {
        let is_routed = header.destination != 0;
        if is_routed && self.frames.is_done(now_us, digest) {
            return true;
        }
        self.frames.peers(digest).any(|other| {
            // Clients' frames name no destination, so there the address alone identifies it.
            *other == peer || is_routed && !self.paths[other].is_silent(now_us)
        })
    }

    /// Takes an acknowledgement. `from` is its source, unless relays may have brought it.
    pub fn handle_ack(&mut self, now_us: u64, from: Option<Peer>, ack: &TransferAck) {
        let Some(&peer) = self.peers.get(&ack.number) else {
            return;
        };
        if from.is_some_and(|from| from != peer) {
            return;
        }
        let path = self.paths.get_mut(&peer).expect("a transfer has a path");
        path.heard_us = now_us;
        let is_it = |transfer: &SentTransfer| transfer.number == ack.number;
        let Some(place) = path.active.iter().position(is_it) else {
            return;
        };
        let ended = path.active[place].heard(now_us, ack, &mut path.window);
        if let Some(ended) = ended
            && let Some(transfer) = path.active.remove(place)
        {
            self.remove(now_us, peer, &transfer, ended);
        }
        self.wake(peer, now_us);
    }

    /// When `poll` should be called, if nothing happens before. It may be in the past.
    pub fn next_timeout(&self) -> Option<u64> {
        self.wakes.first().map(|(at_us, _)| *at_us)
    }

    /// Gives the pieces that may leave now, of up to `budget` bytes in all.
    pub fn poll(&mut self, now_us: u64, budget: usize, give: &mut dyn FnMut(PieceDue<'_, Peer>)) {
        let mut ready = self.take_ready(now_us);
        let mut left = budget;
        let mut again: BTreeMap<Peer, Option<u64>> = BTreeMap::new();
        for &peer in &ready {
            self.handle_time(now_us, peer);
        }
        while left > 0
            && let Some(peer) = ready.pop_front()
        {
            self.last = Some(peer);
            match self.send_slice(now_us, peer, &mut left, give) {
                Ok(()) => ready.push_back(peer),
                Err(at) => _ = again.insert(peer, at),
            }
        }
        for peer in ready {
            self.wake(peer, now_us);
        }
        for (peer, at) in again {
            let wake_us = self.paths[&peer].next_wake_us(now_us, at);
            self.wake(peer, wake_us.max(now_us + 1));
        }
    }

    /// The paths that want to be looked at, beginning after the one that was served last.
    fn take_ready(&mut self, now_us: u64) -> VecDeque<Peer> {
        let mut ready = BTreeSet::new();
        while let Some(&(at_us, peer)) = self.wakes.first()
            && at_us <= now_us
        {
            self.wakes.pop_first();
            self.paths.get_mut(&peer).expect("it has a wake").wake_us = u64::MAX;
            ready.insert(peer);
        }
        let (mut before, after): (VecDeque<_>, VecDeque<_>) =
            ready.into_iter().partition(|peer| Some(*peer) <= self.last);
        let mut ready = after;
        ready.append(&mut before);
        ready
    }

    fn handle_time(&mut self, now_us: u64, peer: Peer) {
        let path = self.paths.get_mut(&peer).expect("it is ready");
        for transfer in path.handle_time(now_us) {
            self.remove(now_us, peer, &transfer, Ended::GivenUp);
        }
        let path = self.paths.get_mut(&peer).expect("it stays");
        if path.window.is_blocked(now_us) && path.window.path_size.fall_back() {
            self.restart(now_us, peer);
        }
        let path = self.paths.get_mut(&peer).expect("it stays");
        path.admit(now_us);
    }

    /// The transfers to that peer begin anew, in datagrams that get through.
    fn restart(&mut self, now_us: u64, peer: Peer) {
        let path = self.paths.get_mut(&peer).expect("it is ready");
        let datagram_size = path.window.path_size.proven();
        for transfer in &mut path.active {
            self.peers.remove(&transfer.number);
            self.number = self.number.wrapping_add(1);
            self.peers.insert(self.number, peer);
            transfer.restart(now_us, self.number, datagram_size, &mut path.window);
        }
    }

    /// Sends a slice's worth to one peer. `Err`: no more may leave before that time.
    fn send_slice(
        &mut self,
        now_us: u64,
        peer: Peer,
        left: &mut usize,
        give: &mut dyn FnMut(PieceDue<'_, Peer>),
    ) -> Result<(), Option<u64>> {
        let mut slice = SLICE;
        while *left > 0 && slice > 0 {
            let random = self.next_random();
            let path = self.paths.get_mut(&peer).expect("it is ready");
            path.turn(now_us)?;
            let transfer = &mut path.active[0];
            let patience_us = transfer.patience_us(&path.window, random);
            let window = &mut path.window;
            let (size, is_again) = transfer.send(now_us, window, patience_us, &mut self.buffer);
            let mut header = transfer.header;
            header.flags |= TRANSFER_PIECE;
            path.active.rotate_left(1);
            self.counts.pieces += 1;
            self.counts.pieces_again += u64::from(is_again);
            give(PieceDue {
                peer,
                header,
                body: &self.buffer,
            });
            slice = slice.saturating_sub(size);
            *left = left.saturating_sub(size);
        }
        Ok(())
    }

    fn remove(&mut self, now_us: u64, peer: Peer, transfer: &SentTransfer, ended: Ended) {
        let path = self.paths.get_mut(&peer).expect("a transfer has a path");
        let size = transfer.size() + OVERHEAD;
        path.size -= size;
        self.size -= size;
        self.peers.remove(&transfer.number);
        let is_done = ended == Ended::Done;
        self.frames
            .end(transfer.digest, peer, is_done.then_some(now_us));
        match ended {
            Ended::Done => self.counts.done += 1,
            Ended::GivenUp => self.counts.given_up += 1,
        }
    }

    fn wake(&mut self, peer: Peer, at_us: u64) {
        let path = self.paths.get_mut(&peer).expect("a path of this sender");
        if at_us >= path.wake_us {
            return;
        }
        self.wakes.remove(&(path.wake_us, peer));
        path.wake_us = at_us;
        self.wakes.insert((at_us, peer));
    }

    fn forget_idle_peers(&mut self) {
        self.paths.retain(|_, path| !path.is_idle());
        let paths = &self.paths;
        self.wakes.retain(|(_, peer)| paths.contains_key(peer));
    }

    fn next_random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}
