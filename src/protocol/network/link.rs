//! One link towards this node: whether it is up, its round-trip time and its loss. It knows its
//! neighbour's id and nothing about the rest of the network.

use std::collections::VecDeque;

use crate::protocol::types::limits::{PROBE_MS, PROBES_MISSED};
use crate::protocol::types::message::{Echo, ReportedLink};
use crate::protocol::types::timings::Timings;

/// Heartbeats whose sending time is remembered, for echoes over slow links: the heartbeats of 2.5 s
/// at the shortest interval.
const SENT_KEPT: usize = 256;
/// The number of recent round trips whose shortest counts as the minimum.
const LEAST_OF: usize = 8;
/// A longer round-trip time counts as this one.
pub const LEAST_RTT_MAX_US: u32 = 2_000_000;
/// Divisor for the weight of one heartbeat in the loss estimate, and of one round trip in the
/// smoothed time.
const WEIGHT: u32 = 16;
/// A longer gap in the numbers shows a silence, not more loss.
const GAP_MAX: u32 = 64;
const LOSS_ONE: u32 = 1 << 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing has ever been received.
    Unheard,
    /// `None`: up since the first datagram.
    Up { since_us: Option<u64> },
    /// `None`: silent. Otherwise on probation: received from again since that time.
    Down { since_us: Option<u64> },
}

#[derive(Debug)]
pub struct Link {
    state: State,
    heard_us: u64,
    /// The length of the probation. It doubles each time that the link was up only briefly, so that
    /// a flapping link does not make routes flap.
    hold_us: u64,
    /// The boot of the neighbour that sent `last`.
    boot: u64,
    /// The neighbour's last heartbeat: its number, and when it arrived.
    last: Option<(u32, u64)>,
    /// Since when heartbeats have arrived without a large datagram, while the link is up.
    without_large_us: Option<u64>,
    /// As a fraction of `LOSS_ONE`.
    loss: u32,
    rtt_us: Option<u32>,
    /// The last round-trip times. A node that pauses makes some of them long, never all.
    rtts_us: VecDeque<u32>,
    /// This node's heartbeats to the neighbour: their count, and when the last ones left.
    sent: u32,
    sent_us: [u64; SENT_KEPT],
}

impl Link {
    pub fn new(timings: &Timings) -> Self {
        Link {
            state: State::Unheard,
            heard_us: 0,
            hold_us: timings.link_down_us(),
            boot: 0,
            last: None,
            without_large_us: None,
            loss: 0,
            rtt_us: None,
            rtts_us: VecDeque::new(),
            sent: 0,
            sent_us: [0; SENT_KEPT],
        }
    }

    pub fn is_up(&self) -> bool {
        matches!(self.state, State::Up { .. })
    }

    /// A datagram arrived. All traffic counts as a sign of life.
    pub fn heard(&mut self, now_us: u64, timings: &Timings) {
        let silent = now_us >= self.heard_us + self.down_after_us(timings);
        self.state = match self.state {
            State::Unheard => State::Up { since_us: None },
            State::Down { since_us } if silent || since_us.is_none() => State::Down {
                since_us: Some(now_us),
            },
            unchanged => unchanged,
        };
        self.heard_us = now_us;
    }

    /// A heartbeat arrived. `echo` refers to a heartbeat of this node.
    pub fn heartbeat(&mut self, boot: u64, number: u32, echo: Option<Echo>, now_us: u64) {
        if self.boot != boot {
            self.boot = boot;
            self.last = None;
        }
        match self.last {
            // Numbers wrap around after some years.
            Some((last, _)) if !is_after(number, last) => return,
            Some((last, _)) => {
                let missing = number.wrapping_sub(last) - 1;
                for _ in 0..missing.min(GAP_MAX) {
                    self.loss += (LOSS_ONE - self.loss) / WEIGHT;
                }
                self.loss -= self.loss / WEIGHT;
            }
            None => {}
        }
        self.last = Some((number, now_us));
        self.without_large_us.get_or_insert(now_us);
        if let Some(rtt_us) = echo.and_then(|echo| self.round_trip(echo, now_us)) {
            self.rtt_us = Some(match self.rtt_us {
                Some(smoothed) => smoothed - smoothed / WEIGHT + rtt_us / WEIGHT,
                None => rtt_us,
            });
            if self.rtts_us.len() >= LEAST_OF {
                self.rtts_us.pop_front();
            }
            self.rtts_us.push_back(rtt_us);
        }
    }

    /// The minimum round-trip time; 0 while it is unknown.
    pub fn least_rtt_us(&self) -> u64 {
        let least_us = self.rtts_us.iter().min().copied().unwrap_or(0);
        u64::from(least_us.min(LEAST_RTT_MAX_US))
    }

    /// The silence after which the link is down. On a slow link some datagrams take longer than
    /// others by about as much as its delay: the arrivals of two consecutive heartbeats may be up
    /// to a round trip further apart. But the link goes down no later than the neighbour's row
    /// expires.
    fn down_after_us(&self, timings: &Timings) -> u64 {
        let apart_us = 2 * timings.heartbeat_ms * 1_000 + self.least_rtt_us();
        let slow_us = apart_us.min(timings.row_stale_ms * 1_000);
        slow_us.max(timings.link_down_us())
    }

    /// A large datagram arrived.
    pub fn probed(&mut self, now_us: u64) {
        self.without_large_us = Some(now_us);
    }

    /// Whether the link delivers small datagrams but not large ones.
    pub fn drops_large(&self, now_us: u64) -> bool {
        let long_us = PROBES_MISSED * PROBE_MS * 1_000;
        let is_long = |since_us: u64| now_us >= since_us + long_us;
        self.is_up() && self.without_large_us.is_some_and(is_long)
    }

    fn round_trip(&self, echo: Echo, now_us: u64) -> Option<u32> {
        let age = self.sent.wrapping_sub(echo.number);
        if echo.number == 0 || age as usize >= SENT_KEPT {
            return None;
        }
        let sent_us = self.sent_us[echo.number as usize % SENT_KEPT];
        let took_us = now_us.checked_sub(sent_us + u64::from(echo.held_us))?;
        u32::try_from(took_us).ok()
    }

    /// The number of the heartbeat that leaves now, and the echo of the neighbour's last one.
    pub fn beat(&mut self, now_us: u64) -> (u32, Option<Echo>) {
        self.sent = self.sent.wrapping_add(1);
        self.sent_us[self.sent as usize % SENT_KEPT] = now_us;
        let echo = self.last.and_then(|(number, came_us)| {
            let held_us = u32::try_from(now_us.saturating_sub(came_us)).ok()?;
            Some(Echo { number, held_us })
        });
        (self.sent, echo)
    }

    /// Updates the state. Returns whether it changed.
    pub fn look(&mut self, now_us: u64, timings: &Timings) -> bool {
        let down_after_us = self.down_after_us(timings);
        let silent = now_us >= self.heard_us + down_after_us;
        match self.state {
            State::Up { since_us } if silent => {
                let quiet_us = timings.link_quiet_ms * 1_000;
                let flaps = since_us.is_some_and(|since_us| self.heard_us < since_us + quiet_us);
                let longer = (2 * self.hold_us).min(timings.link_hold_max_ms * 1_000);
                self.hold_us = if flaps { longer } else { 0 }.max(down_after_us);
                self.without_large_us = None;
                self.state = State::Down { since_us: None };
                true
            }
            State::Down { since_us: Some(_) } if silent => {
                self.state = State::Down { since_us: None };
                true
            }
            State::Down {
                since_us: Some(since_us),
            } if now_us >= since_us + self.hold_us => {
                self.state = State::Up {
                    since_us: Some(now_us),
                };
                true
            }
            _ => false,
        }
    }

    /// Whether the link is up or on probation. A link on probation is used where there is no other
    /// path.
    pub fn is_heard(&self) -> bool {
        match self.state {
            State::Unheard => false,
            State::Up { .. } => true,
            State::Down { since_us } => since_us.is_some(),
        }
    }

    /// The shortest and the longest of the last round-trip times.
    pub fn rtts_us(&self) -> Option<(u32, u32)> {
        let (least_us, most_us) = (self.rtts_us.iter().min()?, self.rtts_us.iter().max()?);
        Some((*least_us, *most_us.max(&self.rtt_us?)))
    }

    /// The link as this node publishes it; `None` if nothing was ever received over it.
    pub fn reported(&self, from: u8) -> Option<ReportedLink> {
        (self.state != State::Unheard).then(|| ReportedLink {
            from,
            up: self.is_up(),
            heard: self.is_heard(),
            rtt_us: self.rtt_us.unwrap_or(0),
            loss_permille: (self.loss * 1_000 / LOSS_ONE) as u16,
        })
    }
}

fn is_after(number: u32, last: u32) -> bool {
    (1..=u32::MAX / 2).contains(&number.wrapping_sub(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timings() -> Timings {
        Timings::new(50, 200, 0)
    }

    /// Receives every 50 ms from `from_ms` until `to_ms`, and checks the state each time.
    fn hear(link: &mut Link, from_ms: u64, to_ms: u64) {
        for ms in (from_ms..to_ms).step_by(50) {
            link.heard(ms * 1_000, &timings());
            link.look(ms * 1_000, &timings());
        }
    }

    fn is_up_at(link: &mut Link, ms: u64) -> bool {
        link.look(ms * 1_000, &timings());
        link.is_up()
    }

    #[test]
    fn a_link_is_up_at_the_first_word_and_down_after_a_silence() {
        let mut link = Link::new(&timings());
        assert!(!is_up_at(&mut link, 0) && link.reported(1).is_none());
        hear(&mut link, 100, 150);
        assert!(is_up_at(&mut link, 299));
        assert!(!is_up_at(&mut link, 300));
    }

    #[test]
    fn it_is_up_again_after_it_was_heard_for_as_long() {
        let mut link = Link::new(&timings());
        hear(&mut link, 0, 20_000);
        assert!(!is_up_at(&mut link, 21_000));
        hear(&mut link, 21_000, 21_151);
        assert!(!is_up_at(&mut link, 21_199));
        assert!(is_up_at(&mut link, 21_201));
    }

    #[test]
    fn a_link_that_flaps_stays_down() {
        let mut link = Link::new(&timings());
        hear(&mut link, 0, 20_000);
        let mut changes = 0;
        let mut was_up = true;
        for ms in (20_000..40_000).step_by(50) {
            // Up for 600 ms, then silent for 600 ms.
            if ms / 600 % 2 == 0 {
                link.heard(ms * 1_000, &timings());
            }
            let is_up = is_up_at(&mut link, ms);
            changes += u32::from(is_up != was_up);
            was_up = is_up;
        }
        assert!(!was_up && changes <= 5, "{changes} changes");
        hear(&mut link, 40_000, 46_000);
        assert!(is_up_at(&mut link, 46_001), "and comes back");
    }

    #[test]
    fn gaps_in_the_numbers_are_loss() {
        let mut link = Link::new(&timings());
        for number in 0..2_000u32 {
            if number % 5 != 0 {
                link.heard(0, &timings());
                link.heartbeat(7, number, None, 0);
            }
        }
        let loss = link.reported(1).unwrap().loss_permille;
        assert!((120..280).contains(&loss), "{loss}");
        link.heartbeat(8, 1, None, 0);
        assert!(
            link.reported(1).unwrap().loss_permille <= loss,
            "a new boot"
        );
    }

    /// Receives a heartbeat every 50 ms whose echo shows the given round-trip time, and checks the
    /// state just before each.
    fn echoes(link: &mut Link, from_ms: u64, rtts_ms: &[u64]) -> bool {
        let mut stays = true;
        for (count, rtt_ms) in rtts_ms.iter().enumerate() {
            let sent_us = (from_ms + 50 * count as u64) * 1_000;
            let (number, _) = link.beat(sent_us);
            let now_us = sent_us + rtt_ms * 1_000;
            stays &= is_up_at(link, now_us / 1_000);
            link.heard(now_us, &timings());
            let last = link.last.map_or(0, |(last, _)| last);
            let echo = Some(Echo { number, held_us: 0 });
            link.heartbeat(7, last + 1, echo, now_us);
        }
        stays
    }

    #[test]
    fn a_slow_link_gets_a_round_trip_more_before_it_is_down() {
        let mut link = Link::new(&timings());
        link.heard(0, &timings());
        echoes(&mut link, 0, &[600; 10]);
        assert_eq!(link.least_rtt_us(), 600_000);
        let heard_ms = link.heard_us / 1_000;
        assert!(is_up_at(&mut link, heard_ms + 699));
        assert!(!is_up_at(&mut link, heard_ms + 700));
    }

    #[test]
    fn pauses_and_small_delays_leave_the_silence_as_it_is_set() {
        for rtts_ms in [[1, 1, 90, 1, 3_000, 3_000, 1, 1], [99; 8]] {
            let mut link = Link::new(&timings());
            link.heard(0, &timings());
            echoes(&mut link, 0, &rtts_ms);
            assert_eq!(link.down_after_us(&timings()), 200_000);
        }
    }

    #[test]
    fn a_link_drops_large_datagrams_if_only_small_ones_come() {
        const EACH: u64 = PROBE_MS;
        const LONG: u64 = PROBES_MISSED * EACH;
        let mut link = Link::new(&timings());
        let mut drops = Vec::new();
        for ms in (0..30 * EACH).step_by(50) {
            let now_us = ms * 1_000;
            // Some probes are lost, later all of them; and for a second nothing arrives at all.
            let is_silent = (20 * EACH..20 * EACH + 1_000).contains(&ms);
            if !is_silent {
                link.heard(now_us, &timings());
                link.heartbeat(7, ms as u32 / 50 + 1, None, now_us);
            }
            if ms % EACH == 0 && !(2 * EACH..9 * EACH).contains(&ms) && ms <= 10 * EACH {
                link.probed(now_us);
            }
            link.look(now_us, &timings());
            drops.push(link.drops_large(now_us));
        }
        let at = |ms: u64| drops[ms as usize / 50];
        assert!(!at(0) && !at(EACH + LONG - 50) && at(EACH + LONG) && at(9 * EACH - 50));
        assert!(!at(9 * EACH) && !at(10 * EACH + LONG - 50) && at(10 * EACH + LONG));
        let up_again = 20 * EACH + 1_000;
        assert!(
            !at(up_again - 500) && !at(up_again + LONG - 1_000),
            "it was down"
        );
        assert!(at(up_again + LONG + 1_000));
    }

    #[test]
    fn numbers_that_come_round_are_no_gap() {
        let mut link = Link::new(&timings());
        link.heard(0, &timings());
        link.sent = u32::MAX - 1;
        for number in [u32::MAX - 1, u32::MAX, 0, 1, 2, u32::MAX] {
            link.beat(0);
            link.heartbeat(7, number, None, 0);
        }
        assert_eq!((link.sent, link.reported(1).unwrap().loss_permille), (4, 0));
        assert_eq!(link.last, Some((2, 0)), "the late one changes nothing");
    }

    #[test]
    fn an_echo_gives_the_time_of_a_round_trip() {
        let mut link = Link::new(&timings());
        link.heard(0, &timings());
        let (number, echo) = link.beat(1_000);
        assert_eq!((number, echo), (1, None));
        let echo = |number, held_us| Some(Echo { number, held_us });
        link.heartbeat(7, 1, echo(1, 50_000), 51_300);
        assert_eq!(link.reported(1).unwrap().rtt_us, 300);
        assert_eq!(link.beat(52_000), (2, echo(1, 700)));
        // Never sent, not sent yet, held longer than is possible: none of them gives a time.
        for (number, held_us) in [(0, 0), (9, 0), (2, 60_000)] {
            assert_eq!(link.round_trip(Echo { number, held_us }, 60_000), None);
        }
    }
}
