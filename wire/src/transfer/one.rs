//! One transfer, as its sender sees it.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;

use super::format::{PIECE_HEADER_SIZE, Piece, TransferAck};
use super::path_size::PathSize;
use super::window::TransferWindow;
use crate::datagram::{DATAGRAM_HEADER_SIZE, FRAME_HEADER_SIZE, FrameHeader};

/// Until the receiver has said that it has memory for the whole, only this much is sent.
const UNGRANTED_SIZE: usize = 64 << 10;
/// A transfer that makes no progress for this long is given up. The receiver gives up earlier.
const PROGRESS_US_MAX: u64 = 5_000_000;
/// The same while the receiver has no memory for it.
const REFUSED_US_MAX: u64 = 10_000_000;
/// The first wait before the sender requests memory again, and the longest one.
const ASK_US: u64 = 100_000;
const ASK_US_MAX: u64 = 1_000_000;
/// Pieces may overtake each other by this much at least.
const REORDER_US_MIN: u64 = 1_000;
/// After a timeout so many pieces are sent, whatever the window says.
const PROBES: usize = 2;
const BACKOFF_MAX: u32 = 5;
/// The longest wait before the next probe, unless one timeout is longer. So there are some ten
/// probes before a transfer is given up: where a fifth of the datagrams is lost in each direction,
/// three in ten probes bring no answer.
const PROBE_US_MAX: u64 = PROGRESS_US_MAX / 10;
/// What a datagram contains besides a piece.
const HEADERS_SIZE: usize = DATAGRAM_HEADER_SIZE + FRAME_HEADER_SIZE + PIECE_HEADER_SIZE;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whereabouts {
    /// Never sent, or lost.
    Here,
    InFlight,
    Arrived,
}

#[derive(Debug, Clone, Copy)]
struct PieceSent {
    whereabouts: Whereabouts,
    sequence: u32,
    /// It was sent whatever the window says, and does not count there.
    is_forced: bool,
}

/// A sending of a piece.
#[derive(Debug, Clone, Copy)]
struct PieceFlight {
    sequence: u32,
    place: u16,
    sent_us: u64,
}

/// Whether the receiver has memory for the whole body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grant {
    Unknown,
    Given,
    /// The sender requests memory again at `again_us`.
    Refused {
        again_us: u64,
        wait_us: u64,
    },
}

/// Why a transfer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Done,
    GivenUp,
}

#[derive(Debug)]
pub(super) struct SentTransfer {
    pub(super) header: FrameHeader,
    pub(super) number: u64,
    pub(super) digest: u128,
    body: Bytes,
    piece_size: usize,
    pieces: Vec<PieceSent>,
    /// Pieces from here on were never sent.
    fresh: usize,
    lost: BTreeSet<u16>,
    /// In the order of their sequences. Those that no longer count are skipped.
    flights: VecDeque<PieceFlight>,
    in_flight: usize,
    sequence: u32,
    /// The sequence of the piece that tries a larger datagram.
    trial: Option<u32>,
    arrived: usize,
    /// All pieces below this one have arrived.
    below: usize,
    grant: Grant,
    /// The highest sequence that the receiver has reported, and up to which place it reported then.
    newest: Option<u32>,
    told_until: usize,
    /// The pieces that may leave whatever the window says.
    forced: usize,
    timeouts: u32,
    /// When an acknowledgement should have arrived.
    due_us: Option<u64>,
    /// When pieces may turn out to be lost.
    look_us: Option<u64>,
    heard_us: u64,
    pub(super) progress_us: u64,
}

impl SentTransfer {
    pub(super) fn new(
        now_us: u64,
        number: u64,
        digest: u128,
        header: FrameHeader,
        body: Bytes,
    ) -> Self {
        SentTransfer {
            header,
            number,
            digest,
            body,
            piece_size: 0,
            pieces: Vec::new(),
            fresh: 0,
            lost: BTreeSet::new(),
            flights: VecDeque::new(),
            in_flight: 0,
            sequence: 0,
            trial: None,
            arrived: 0,
            below: 0,
            grant: Grant::Unknown,
            newest: None,
            told_until: usize::MAX,
            forced: 0,
            timeouts: 0,
            due_us: None,
            look_us: None,
            heard_us: now_us,
            progress_us: now_us,
        }
    }

    pub(super) fn size(&self) -> usize {
        self.body.len()
    }

    /// Its turn has come. Its pieces travel in datagrams of up to `datagram_size`.
    pub(super) fn begin(&mut self, now_us: u64, datagram_size: usize) {
        self.piece_size = datagram_size - HEADERS_SIZE;
        let piece = PieceSent {
            whereabouts: Whereabouts::Here,
            sequence: 0,
            is_forced: false,
        };
        self.pieces = vec![piece; self.body.len().div_ceil(self.piece_size)];
        (self.progress_us, self.heard_us) = (now_us, now_us);
    }

    /// Begins anew, as another transfer: datagrams of the present size no longer get through.
    pub(super) fn restart(
        &mut self,
        now_us: u64,
        number: u64,
        datagram_size: usize,
        window: &mut TransferWindow,
    ) {
        window.abandoned(self.in_flight);
        let body = std::mem::take(&mut self.body);
        *self = SentTransfer::new(now_us, number, self.digest, self.header, body);
        self.begin(now_us, datagram_size);
    }

    /// What a piece in flight counts in the window.
    fn charge_of(&self, place: usize) -> usize {
        match self.pieces[place].is_forced {
            true => 0,
            false => self.size_of(place),
        }
    }

    fn size_of(&self, place: usize) -> usize {
        (self.body.len() - place * self.piece_size).min(self.piece_size)
    }

    /// The place of the next piece to send, if one may be sent.
    fn next_place(&self, now_us: u64) -> Option<usize> {
        let most = match self.grant {
            Grant::Given => usize::MAX,
            Grant::Unknown => UNGRANTED_SIZE,
            Grant::Refused { again_us, .. } if again_us <= now_us => 1,
            Grant::Refused { .. } => 0,
        };
        let is_held = self.timeouts > 0 || self.in_flight >= most;
        if self.forced == 0 && is_held {
            return None;
        }
        let fresh = (self.fresh < self.pieces.len()).then_some(self.fresh);
        self.lost.first().map(|place| usize::from(*place)).or(fresh)
    }

    /// Whether a piece may leave now. `Err`: when to look again.
    pub(super) fn is_ready(
        &self,
        now_us: u64,
        window: &mut TransferWindow,
    ) -> Result<bool, Option<u64>> {
        let Some(place) = self.next_place(now_us) else {
            return Ok(false);
        };
        if self.forced > 0 {
            return Ok(true);
        }
        window.admits(now_us, self.size_of(place)).map(|()| true)
    }

    /// Writes the next piece into `buffer`; returns its size and whether it was sent before.
    pub(super) fn send(
        &mut self,
        now_us: u64,
        window: &mut TransferWindow,
        patience_us: u64,
        buffer: &mut Vec<u8>,
    ) -> (usize, bool) {
        let place = self.next_place(now_us).expect("it is ready");
        let size = self.size_of(place);
        let is_again = place < self.fresh;
        self.lost.remove(&(place as u16));
        self.fresh = self.fresh.max(place + 1);
        self.sequence += 1;
        let was_forced = self.forced > 0;
        let padding = match is_again || was_forced {
            true => 0,
            false => self.padding(now_us, size, window),
        };
        self.pieces[place] = PieceSent {
            whereabouts: Whereabouts::InFlight,
            sequence: self.sequence,
            is_forced: was_forced,
        };
        self.flights.push_back(PieceFlight {
            sequence: self.sequence,
            place: place as u16,
            sent_us: now_us,
        });
        let charge = self.charge_of(place);
        self.in_flight += charge;
        window.sent(charge);
        self.forced = self.forced.saturating_sub(1);
        self.due_us.get_or_insert(now_us + patience_us);
        let is_last = !matches!(self.is_ready(now_us, window), Ok(true));
        let at = place * self.piece_size;
        let piece = Piece {
            number: self.number,
            total: self.body.len(),
            place,
            piece_size: self.piece_size,
            sequence: self.sequence,
            wants_ack: was_forced || is_last,
            bytes: &self.body[at..at + size],
            padding,
        };
        piece.encode(buffer);
        (size, is_again)
    }

    /// How much is added to a piece of this size, which was never sent before, to try a larger
    /// datagram.
    fn padding(&mut self, now_us: u64, size: usize, window: &mut TransferWindow) -> usize {
        let trial = window.path_size.next_trial(now_us);
        let Some(datagram_size) = trial.filter(|_| self.grant == Grant::Given) else {
            return 0;
        };
        window.path_size.trial_sent(datagram_size);
        self.trial = Some(self.sequence);
        datagram_size - HEADERS_SIZE - size
    }

    /// The sending of a piece ended so. Returns whether it tried a larger datagram.
    fn end_trial(
        &mut self,
        sequence: u32,
        window: &mut TransferWindow,
        end: impl FnOnce(&mut PathSize),
    ) -> bool {
        let is_it = self.trial == Some(sequence);
        if is_it {
            self.trial = None;
            end(&mut window.path_size);
        }
        is_it
    }

    /// Nothing more is heard of this transfer.
    pub(super) fn abandon(&mut self, window: &mut TransferWindow) {
        window.abandoned(std::mem::take(&mut self.in_flight));
        if self.trial.take().is_some() {
            window.path_size.trial_abandoned();
        }
    }

    /// Takes an acknowledgement.
    pub(super) fn heard(
        &mut self,
        now_us: u64,
        ack: &TransferAck,
        window: &mut TransferWindow,
    ) -> Option<Ended> {
        use super::format::TransferState::{Done, Open, Refused};
        if ack.echo == 0 || ack.echo > self.sequence {
            // It answers nothing that was sent.
            return None;
        }
        let is_newer = self.newest.is_none_or(|newest| ack.echo > newest);
        (self.timeouts, self.forced, self.heard_us) = (0, 0, now_us);
        let answered = self.sent_us(ack.echo).map(|at| (at, ack.held_us.into()));
        let ended = match ack.state {
            Done => {
                window.arrived(std::mem::take(&mut self.in_flight));
                if self.trial.take().is_some() {
                    window.path_size.trial_arrived();
                }
                Some(Ended::Done)
            }
            Refused if self.arrived == 0 || is_newer => {
                self.refused(now_us, window);
                None
            }
            Refused => None,
            Open => {
                self.granted(now_us);
                self.note_arrived(now_us, ack, is_newer, window);
                None
            }
        };
        window.heard(now_us, ack.room as usize, answered);
        if is_newer {
            (self.newest, self.told_until) = (Some(ack.echo), ack.told_until());
        }
        if ended.is_none() {
            let waits =
                self.arrived + self.lost.len() < self.fresh || self.arrived == self.pieces.len();
            self.due_us = waits.then(|| now_us + window.timeout_us());
            self.look_for_losses(now_us, window);
        }
        ended
    }

    fn sent_us(&self, sequence: u32) -> Option<u64> {
        let found = self
            .flights
            .binary_search_by_key(&sequence, |flight| flight.sequence);
        found.ok().map(|at| self.flights[at].sent_us)
    }

    fn refused(&mut self, now_us: u64, window: &mut TransferWindow) {
        let wait_us = match self.grant {
            Grant::Refused { wait_us, .. } => (2 * wait_us).min(ASK_US_MAX),
            _ => ASK_US,
        };
        let again_us = now_us + wait_us;
        self.grant = Grant::Refused { again_us, wait_us };
        self.abandon(window);
        self.flights.clear();
        self.lost.clear();
        for piece in &mut self.pieces {
            piece.whereabouts = Whereabouts::Here;
        }
        (self.fresh, self.arrived, self.below, self.forced) = (0, 0, 0, 0);
        self.due_us = None;
    }

    fn granted(&mut self, now_us: u64) {
        if self.grant != Grant::Given {
            self.grant = Grant::Given;
            self.progress_us = now_us;
        }
    }

    fn note_arrived(
        &mut self,
        now_us: u64,
        ack: &TransferAck,
        is_newer: bool,
        window: &mut TransferWindow,
    ) {
        let count = self.pieces.len();
        let below = usize::from(ack.below).min(count);
        let mut told = below;
        (self.below..below).for_each(|place| self.place_arrived(now_us, place, window));
        for &(first, after) in &ack.ranges {
            let range = usize::from(first).min(count)..usize::from(after).min(count);
            told += range.len();
            range.for_each(|place| self.place_arrived(now_us, place, window));
        }
        if is_newer && told < self.arrived && ack.told_until() == usize::MAX {
            // The receiver has dropped what it had, and began anew.
            self.take_back(ack);
        }
        self.below = self.below.max(below);
    }

    fn place_arrived(&mut self, now_us: u64, place: usize, window: &mut TransferWindow) {
        let piece = self.pieces[place];
        match piece.whereabouts {
            Whereabouts::Arrived => return,
            Whereabouts::InFlight => {
                let size = self.charge_of(place);
                self.in_flight -= size;
                window.arrived(size);
                self.end_trial(piece.sequence, window, PathSize::trial_arrived);
            }
            Whereabouts::Here if place >= self.fresh => return,
            Whereabouts::Here => _ = self.lost.remove(&(place as u16)),
        }
        self.pieces[place].whereabouts = Whereabouts::Arrived;
        self.arrived += 1;
        self.progress_us = now_us;
    }

    fn take_back(&mut self, ack: &TransferAck) {
        let holds = |place: usize| {
            let place = place as u16;
            place < ack.below
                || ack
                    .ranges
                    .iter()
                    .any(|range| (range.0..range.1).contains(&place))
        };
        for place in 0..self.pieces.len() {
            if self.pieces[place].whereabouts == Whereabouts::Arrived && !holds(place) {
                self.pieces[place].whereabouts = Whereabouts::Here;
                self.arrived -= 1;
                self.lost.insert(place as u16);
            }
        }
        self.below = 0;
    }

    /// A piece is lost if one that was sent later has arrived, and it has had the time to.
    fn look_for_losses(&mut self, now_us: u64, window: &mut TransferWindow) {
        self.look_us = None;
        let round_trip_us = window.round_trip_us();
        let reorder_us = (round_trip_us / 4).max(REORDER_US_MIN);
        while let Some(&flight) = self.flights.front() {
            // A later acknowledgement may still name it: that gives the round trip.
            if self.newest.is_none_or(|newest| flight.sequence >= newest) {
                return;
            }
            let place = usize::from(flight.place);
            if self.is_current(flight) {
                if place >= self.told_until {
                    return;
                }
                let lost_us = flight.sent_us + round_trip_us + reorder_us;
                if now_us < lost_us {
                    self.look_us = Some(lost_us);
                    return;
                }
                let size = self.bring_back(place);
                match self.end_trial(flight.sequence, window, |path| path.trial_lost(now_us)) {
                    // That says nothing about congestion.
                    true => window.abandoned(size),
                    false => window.lost(size),
                }
            }
            self.flights.pop_front();
        }
    }

    /// Whether the piece is in flight, and was not sent again since.
    fn is_current(&self, flight: PieceFlight) -> bool {
        let piece = self.pieces[usize::from(flight.place)];
        piece.whereabouts == Whereabouts::InFlight && piece.sequence == flight.sequence
    }

    /// A piece that was in flight waits here again.
    fn bring_back(&mut self, place: usize) -> usize {
        let charge = self.charge_of(place);
        self.pieces[place].whereabouts = Whereabouts::Here;
        self.lost.insert(place as u16);
        self.in_flight -= charge;
        charge
    }

    /// What time brings. Returns whether the receiver was silent for too long.
    pub(super) fn handle_time(&mut self, now_us: u64, window: &mut TransferWindow) -> bool {
        if self.look_us.is_some_and(|at_us| at_us <= now_us) {
            self.look_for_losses(now_us, window);
        }
        let is_silent = self.due_us.is_some_and(|at_us| at_us <= now_us);
        if is_silent {
            self.due_us = None;
            self.timeouts = (self.timeouts + 1).min(BACKOFF_MAX);
            self.probe(now_us, window);
        }
        is_silent
    }

    /// Sends a few pieces again, so that the receiver reports what it has. Nothing else is sent
    /// until then.
    fn probe(&mut self, now_us: u64, window: &mut TransferWindow) {
        self.forced = PROBES;
        for at in 0..self.flights.len() {
            let flight = self.flights[at];
            if self.is_current(flight) {
                let charge = self.bring_back(flight.place.into());
                window.abandoned(charge);
                self.end_trial(flight.sequence, window, |path| path.trial_lost(now_us));
            }
        }
        if self.lost.is_empty() && self.fresh == self.pieces.len() {
            // All has arrived, but the last word is missing.
            self.pieces[0].whereabouts = Whereabouts::Here;
            self.arrived -= 1;
            self.below = 0;
            self.lost.insert(0);
            self.forced = 1;
        }
    }

    /// How long to wait for a word of the receiver, longer after each timeout.
    pub(super) fn patience_us(&self, window: &TransferWindow, random: u64) -> u64 {
        let timeout_us = window.timeout_us();
        let most_us = match self.grant {
            Grant::Given => timeout_us.max(PROBE_US_MAX),
            _ => u64::MAX,
        };
        let wait_us = (timeout_us << self.timeouts).min(most_us);
        wait_us + random % (wait_us / 4 + 1)
    }

    /// When the last acknowledgement arrived.
    pub(super) fn heard_us(&self) -> u64 {
        self.heard_us
    }

    pub(super) fn is_hopeless(&self, now_us: u64) -> bool {
        self.hopeless_us() <= now_us
    }

    fn hopeless_us(&self) -> u64 {
        match self.grant {
            Grant::Refused { .. } => self.progress_us + REFUSED_US_MAX,
            _ => self.progress_us + PROGRESS_US_MAX,
        }
    }

    /// When it wants to be looked at, if nothing happens before.
    pub(super) fn wake_us(&self, now_us: u64) -> u64 {
        let again_us = match self.grant {
            Grant::Refused { again_us, .. } if again_us > now_us => Some(again_us),
            _ => None,
        };
        let times = [self.due_us, self.look_us, again_us];
        let first = times.into_iter().flatten().min();
        first.map_or(self.hopeless_us(), |at_us| at_us.min(self.hopeless_us()))
    }
}
