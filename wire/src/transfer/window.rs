//! How much may be under way to one address, and how fast it is sent.
//!
//! A window bounds the bytes in flight. It grows until round trips take longer, and does not shrink
//! for a few lost datagrams: on a radio link 5 % are lost at any rate. Credit bounds how much the
//! receiver's socket has to hold while the receiver is busy.

use super::path_size::PathSize;
use crate::latency::{LatencyEstimate, WaitBounds};

/// What is sent before the first acknowledgement: half of what the smallest usual socket buffer
/// holds of small datagrams.
pub(super) const BLIND_SIZE: usize = 32 << 10;
const SIZE_MAX: usize = 4 << 20;
/// Loss does not bring the window below this.
const SIZE_MIN: usize = 16 << 10;
/// Once the round trip is known, the window starts at this rate.
const START_BYTES_PER_MS: u64 = 640;
const START_SIZE_MAX: usize = 512 << 10;
/// Round trips that take this much longer than the shortest one show that a queue grows. Less would
/// take a busy receiver for a full network.
const QUEUE_US: u64 = 5_000;
/// The least space of a receiver's socket that a sender assumes, whatever the receiver reports.
const ROOM_MIN: usize = 2_400;
/// The receiver empties its socket at least so often, usually.
const ROOM_US: u64 = 5_000;
/// Losses count in a round if they are more than one in this many, and at least `LOSSES_MIN`.
const LOSS_SHARE: usize = 8;
const LOSSES_MIN: usize = 4;
/// So many timeouts, and so long after the first one, show that a path is blocked. A receiver that
/// is only busy answers sooner.
const BLOCKED_TIMEOUTS_MIN: u32 = 3;
const BLOCKED_US_MIN: u64 = 100_000;
/// The shortest round trip is looked for again after this time.
const LEAST_US: u64 = 10_000_000;

const BOUNDS: WaitBounds = WaitBounds {
    initial_us: 200_000,
    least_us: 4_000,
    most_us: 2_000_000,
};

/// What happened since a round trip ago.
#[derive(Debug, Default)]
struct WindowRound {
    began_us: u64,
    arrived: usize,
    lost: usize,
    least_us: Option<u64>,
    /// The window held something back.
    was_full: bool,
}

#[derive(Debug)]
pub(super) struct TransferWindow {
    size: usize,
    /// Below this the window doubles in each round.
    doubles_to: usize,
    in_flight: usize,
    largest: usize,
    latency: LatencyEstimate,
    last_us: Option<u64>,
    /// The shortest round trip of this period and of the one before.
    least_us: [Option<u64>; 2],
    period_ends_us: u64,
    round: WindowRound,
    room: usize,
    credit: usize,
    credited_us: u64,
    /// Timeouts since an acknowledgement, and when the first one was.
    timeouts: u32,
    silent_us: u64,
    pub(super) path_size: PathSize,
}

impl TransferWindow {
    /// `datagram_size`: a size that gets through.
    pub(super) fn new(datagram_size: usize) -> Self {
        TransferWindow {
            size: BLIND_SIZE,
            doubles_to: SIZE_MAX,
            in_flight: 0,
            largest: 0,
            latency: LatencyEstimate::default(),
            last_us: None,
            least_us: [None; 2],
            period_ends_us: 0,
            round: WindowRound::default(),
            room: BLIND_SIZE,
            credit: BLIND_SIZE,
            credited_us: 0,
            timeouts: 0,
            silent_us: 0,
            path_size: PathSize::new(datagram_size),
        }
    }

    #[cfg(test)]
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// The wait before something is sent again without a word of the receiver.
    pub(super) fn timeout_us(&self) -> u64 {
        self.latency.wait_us(BOUNDS)
    }

    /// The last round trip.
    pub(super) fn round_trip_us(&self) -> u64 {
        self.last_us.unwrap_or(BOUNDS.initial_us)
    }

    fn least_us(&self) -> Option<u64> {
        self.least_us.into_iter().flatten().min()
    }

    /// Whether a piece may leave now; else when to look again, if only time is missing.
    pub(super) fn admits(&mut self, now_us: u64, size: usize) -> Result<(), Option<u64>> {
        self.largest = self.largest.max(size);
        self.earn(now_us);
        let after = self.in_flight + size;
        if self.in_flight > 0 && (after > self.size || after > self.flight_max()) {
            self.round.was_full |= after > self.size;
            return Err(None);
        }
        if size > self.credit {
            let missing = (size - self.credit) as u64;
            let wait_us = (missing * ROOM_US).div_ceil(self.earned_per_room_us() as u64);
            return Err(Some(now_us + wait_us));
        }
        Ok(())
    }

    /// What may be in flight: what the socket holds, and what its owner reads in a round trip.
    fn flight_max(&self) -> usize {
        let turns = self.least_us().unwrap_or_default() / ROOM_US;
        self.room.saturating_mul(1 + turns as usize)
    }

    /// The credit that is earned in `ROOM_US`.
    fn earned_per_room_us(&self) -> usize {
        match (self.least_us(), self.last_us) {
            // The window would leave at once, and fill queues on the way.
            (Some(least_us), Some(last_us)) if least_us > ROOM_US => {
                let turns = (last_us / ROOM_US).max(1) as usize;
                (2 * self.size / turns)
                    .min(self.room)
                    .max(self.largest.max(1))
            }
            _ => self.room,
        }
    }

    fn earn(&mut self, now_us: u64) {
        let per_turn = self.earned_per_room_us();
        let passed_us = now_us.saturating_sub(self.credited_us).min(ROOM_US);
        let earned = per_turn * passed_us as usize / ROOM_US as usize;
        if earned > 0 {
            self.credited_us = now_us;
            self.credit = (self.credit + earned).min(per_turn.max(2 * self.largest));
        }
    }

    pub(super) fn sent(&mut self, size: usize) {
        self.in_flight += size;
        self.credit = self.credit.saturating_sub(size);
    }

    /// Pieces that arrived, or of whose transfer nothing is needed any more.
    pub(super) fn arrived(&mut self, size: usize) {
        self.in_flight -= size;
        self.round.arrived += size;
        // They have left the receiver's socket.
        self.credit = (self.credit + size).min(self.earned_per_room_us().max(2 * self.largest));
    }

    pub(super) fn lost(&mut self, size: usize) {
        self.in_flight -= size;
        self.round.lost += size;
    }

    /// Pieces whose fate is unknown. They count neither as arrived nor as lost.
    pub(super) fn abandoned(&mut self, size: usize) {
        self.in_flight -= size;
    }

    /// An acknowledgement came; `sent_us` is when the piece left that it answers, and `held_us` how
    /// long the receiver had it.
    pub(super) fn heard(&mut self, now_us: u64, room: usize, answered: Option<(u64, u64)>) {
        self.timeouts = 0;
        self.room = room.max(ROOM_MIN);
        let Some((sent_us, held_us)) = answered else {
            return;
        };
        let took_us = (now_us - sent_us).saturating_sub(held_us);
        let is_first = self.last_us.is_none();
        self.latency.sample(took_us, None, BOUNDS);
        self.last_us = Some(took_us);
        self.note_least(now_us, took_us);
        let round = &mut self.round;
        round.least_us = Some(round.least_us.map_or(took_us, |least| least.min(took_us)));
        if is_first {
            let start = usize::try_from(START_BYTES_PER_MS * took_us / 1_000);
            let start = start.unwrap_or(START_SIZE_MAX).min(START_SIZE_MAX);
            self.size = self.size.max(start);
        }
        if sent_us >= self.round.began_us {
            self.end_round(now_us);
        }
    }

    fn note_least(&mut self, now_us: u64, took_us: u64) {
        if now_us >= self.period_ends_us {
            self.period_ends_us = now_us + LEAST_US;
            self.least_us = [None, self.least_us[0]];
        }
        let least = &mut self.least_us[0];
        *least = Some(least.map_or(took_us, |least| least.min(took_us)));
    }

    fn end_round(&mut self, now_us: u64) {
        let next = WindowRound {
            began_us: now_us,
            ..WindowRound::default()
        };
        let round = std::mem::replace(&mut self.round, next);
        let least_us = self.least_us().unwrap_or_default();
        let queue_us = round.least_us.unwrap_or_default().saturating_sub(least_us);
        let piece = self.largest.max(1);
        let is_lossy = round.lost >= LOSSES_MIN * piece
            && round.lost * LOSS_SHARE > round.lost + round.arrived;
        if is_lossy {
            self.cut_to(self.size * 7 / 10);
        } else if queue_us >= QUEUE_US {
            let over_us = (queue_us - QUEUE_US).min(queue_us);
            let cut = self.size as u64 * over_us / (2 * queue_us);
            self.cut_to(self.size - cut as usize);
        } else if round.was_full && self.size < self.doubles_to {
            self.size = (2 * self.size).min(SIZE_MAX);
        } else if round.was_full {
            self.size = (self.size + piece.max(self.size / 16)).min(SIZE_MAX);
        }
    }

    fn cut_to(&mut self, size: usize) {
        self.size = size.max(SIZE_MIN).max(2 * self.largest);
        self.doubles_to = self.size;
    }

    /// No acknowledgement of a transfer arrived for `timeout_us`. One such wait may be a lost
    /// acknowledgement.
    pub(super) fn timed_out(&mut self, now_us: u64) {
        self.timeouts += 1;
        if self.timeouts == 1 {
            self.silent_us = now_us;
        }
        if self.timeouts == 2 {
            self.doubles_to = (self.size / 2).max(SIZE_MIN);
            self.size = 2 * self.largest.max(1);
        }
    }

    /// Whether the receiver is silent for so long that datagrams of this size may no longer get
    /// through.
    pub(super) fn is_blocked(&self, now_us: u64) -> bool {
        self.timeouts >= BLOCKED_TIMEOUTS_MIN && now_us >= self.silent_us + BLOCKED_US_MIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE: usize = 1_096;

    /// Rounds of `rtt_us` in which all that the window admits is sent; a share is lost.
    fn after_rounds(rounds: usize, rtt_us: u64, lost_of_100: usize) -> TransferWindow {
        let mut window = TransferWindow::new(1_200);
        let mut now_us = 1_000_000;
        window.heard(now_us, 1 << 20, Some((now_us - rtt_us, 0)));
        for _ in 0..rounds {
            let mut sent = 0;
            let began_us = now_us;
            while now_us < began_us + rtt_us {
                while window.admits(now_us, PIECE).is_ok() {
                    window.sent(PIECE);
                    sent += 1;
                }
                now_us += 1_000;
            }
            let lost = sent * lost_of_100 / 100;
            window.lost(lost * PIECE);
            window.arrived((sent - lost) * PIECE);
            window.heard(now_us, 1 << 20, Some((now_us - rtt_us, 0)));
        }
        window
    }

    #[test]
    fn a_window_opens_without_delay_and_does_not_mind_a_few_losses() {
        for lost in [0, 5, 10] {
            let window = after_rounds(12, 20_000, lost);
            assert_eq!(window.size, SIZE_MAX, "{lost} %");
        }
        let window = after_rounds(40, 20_000, 20);
        assert!(window.size <= 2 * SIZE_MIN, "{}", window.size);
    }

    #[test]
    fn it_shrinks_as_round_trips_grow() {
        let mut window = after_rounds(12, 20_000, 0);
        let now_us = 10_000_000;
        for round in 1..20 {
            let now_us = now_us + round * 100_000;
            window.heard(now_us, 1 << 20, Some((now_us - 80_000, 0)));
        }
        assert!(window.size <= 4 * SIZE_MIN, "{}", window.size);
    }

    #[test]
    fn a_small_socket_is_not_sent_more_than_it_holds() {
        let mut window = TransferWindow::new(1_200);
        let mut now_us = 1_000_000;
        window.heard(now_us, 20_000, Some((now_us - 100, 0)));
        let mut sent = 0;
        for _ in 0..10 {
            while window.admits(now_us, PIECE).is_ok() {
                window.sent(PIECE);
                sent += PIECE;
            }
            assert!(window.in_flight <= 20_000);
            now_us += 100;
        }
        assert!(sent <= 20_000, "{sent}");
    }
}
