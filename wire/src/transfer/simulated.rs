//! Senders and a receiver with simulated links between them.

use std::collections::{BTreeSet, VecDeque};

use super::*;
use crate::datagram::FrameHeader;
use proptest::prelude::*;

const TICK_US: u64 = 100;
const HEADERS_SIZE: usize = 44 + 36 + 24;

/// Pseudo-random numbers, the same in each run.
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

#[derive(Debug, Clone, Copy)]
struct LinkPlan {
    delay_us: u64,
    jitter_us: u64,
    loss_percent: u64,
    repeats_percent: u64,
    bytes_per_ms: u64,
    queue_size: u64,
    /// The size that transfers begin with, and the largest one that gets through.
    datagram_size: usize,
    datagram_size_max: usize,
    socket_buffer: usize,
    /// How often the receiver empties its socket.
    read_every_us: u64,
}

const LAN: LinkPlan = LinkPlan {
    delay_us: 100,
    jitter_us: 0,
    loss_percent: 0,
    repeats_percent: 0,
    bytes_per_ms: 100_000,
    queue_size: 256 << 10,
    datagram_size: 1_200,
    datagram_size_max: 1_200,
    socket_buffer: 208 << 10,
    read_every_us: 300,
};

const FAR: LinkPlan = LinkPlan {
    delay_us: 300_000,
    bytes_per_ms: 5_000,
    ..LAN
};

/// One direction of a link. What is under way: when it arrives, and the frame.
#[derive(Debug, Default)]
struct SimulatedLink {
    free_us: u64,
    under_way: Vec<(u64, FrameHeader, Vec<u8>)>,
    lost_bytes: usize,
    sent_bytes: usize,
    /// The sizes of the datagrams that got through, and how many were too large.
    sizes: BTreeSet<usize>,
    too_large: usize,
}

impl SimulatedLink {
    fn send(
        &mut self,
        now_us: u64,
        plan: &LinkPlan,
        dice: &mut Dice,
        header: FrameHeader,
        body: &[u8],
    ) {
        let datagram_size = body.len() + 80;
        let size = datagram_size as u64;
        self.sent_bytes += body.len();
        if datagram_size > plan.datagram_size.max(plan.datagram_size_max) {
            self.lost_bytes += body.len();
            self.too_large += 1;
            return;
        }
        self.sizes.insert(datagram_size);
        let waits_us = self.free_us.saturating_sub(now_us);
        let is_lost = dice.roll(100) < plan.loss_percent;
        if is_lost || waits_us * plan.bytes_per_ms / 1_000 > plan.queue_size {
            self.lost_bytes += body.len();
            return;
        }
        self.free_us = self.free_us.max(now_us) + size * 1_000 / plan.bytes_per_ms;
        let times = 1 + u64::from(dice.roll(100) < plan.repeats_percent);
        for _ in 0..times {
            let at_us = self.free_us + plan.delay_us + dice.roll(plan.jitter_us + 1);
            self.under_way.push((at_us, header, body.to_vec()));
        }
    }

    fn arrived(&mut self, now_us: u64) -> Vec<(FrameHeader, Vec<u8>)> {
        let all = std::mem::take(&mut self.under_way);
        let (mut here, later): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|(at, ..)| *at <= now_us);
        self.under_way = later;
        here.sort_by_key(|(at, ..)| *at);
        here.into_iter()
            .map(|(_, header, body)| (header, body))
            .collect()
    }
}

struct Simulation {
    plan: LinkPlan,
    now_us: u64,
    dice: Dice,
    senders: Vec<TransferSender<u8>>,
    there: Vec<SimulatedLink>,
    back: Vec<SimulatedLink>,
    receiver: TransferReceiver<u8, u8>,
    socket: VecDeque<(u8, FrameHeader, Vec<u8>)>,
    socket_size: usize,
    overflown: usize,
    read_us: u64,
    got: Vec<(u64, u8, u64, usize)>,
    pool: usize,
}

fn body(size: usize, seed: u64) -> Vec<u8> {
    (0..size)
        .map(|at| (at as u64 * 7 % 251 + seed) as u8)
        .collect()
}

impl Simulation {
    fn new(plan: LinkPlan, senders: usize, pool: usize, seed: u64) -> Self {
        let limits = SenderLimits {
            total: 64 << 20,
            of_peer: 64 << 20,
        };
        let pool_limits = PoolLimits {
            total: pool,
            of_owner: pool / 2,
        };
        Simulation {
            plan,
            now_us: 1_000_000,
            dice: Dice(seed),
            senders: (0..senders)
                .map(|at| TransferSender::new(limits, seed + at as u64 * 1_000))
                .collect(),
            there: (0..senders).map(|_| SimulatedLink::default()).collect(),
            back: (0..senders).map(|_| SimulatedLink::default()).collect(),
            receiver: TransferReceiver::new(pool_limits, plan.socket_buffer),
            socket: VecDeque::new(),
            socket_size: 0,
            overflown: 0,
            read_us: 0,
            got: Vec::new(),
            pool,
        }
    }

    fn offer(&mut self, sender: usize, id: u64, size: usize) {
        let header = FrameHeader {
            kind: 19,
            message_id: id,
            ..FrameHeader::default()
        };
        let to = (0, self.plan.datagram_size);
        let offer = self.senders[sender].offer(self.now_us, to, header, body(size, id));
        assert_eq!(offer, Offer::Begun);
    }

    fn tick(&mut self) {
        self.now_us += TICK_US;
        let now_us = self.now_us;
        for (at, sender) in self.senders.iter_mut().enumerate() {
            for (header, body) in self.back[at].arrived(now_us) {
                assert_eq!((header.kind, header.flags), (19, TRANSFER_ACK));
                sender.handle_ack(now_us, Some(0), &TransferAck::open(&body).unwrap());
            }
            if sender.next_timeout().is_some_and(|at_us| at_us <= now_us) {
                let (link, plan, dice) = (&mut self.there[at], &self.plan, &mut self.dice);
                sender.poll(now_us, 64 << 10, &mut |due| {
                    link.send(now_us, plan, dice, due.header, due.body)
                });
            }
            for (header, body) in self.there[at].arrived(now_us) {
                // The kernel charges small datagrams for more than they contain.
                let charge = body.len() + 1_000;
                if self.socket_size + charge > self.plan.socket_buffer {
                    self.overflown += body.len();
                    continue;
                }
                self.socket_size += charge;
                self.socket.push_back((at as u8, header, body));
            }
        }
        if now_us >= self.read_us {
            self.read_us = now_us + self.plan.read_every_us;
            self.read();
        }
    }

    fn read(&mut self) {
        let now_us = self.now_us;
        self.socket_size = 0;
        for (from, header, bytes) in std::mem::take(&mut self.socket) {
            let whole = self
                .receiver
                .take(now_us, (from, from), (&header, &bytes), true)
                .unwrap();
            assert!(self.receiver.size() <= self.pool);
            if let Some((header, bytes)) = whole {
                assert_eq!(header.flags, 0);
                assert!(bytes == body(bytes.len(), header.message_id));
                self.got
                    .push((now_us, from, header.message_id, bytes.len()));
            }
        }
        while let Some(due) = self.receiver.poll_ack(now_us) {
            let mut body = Vec::new();
            due.ack.encode(&mut body);
            let (link, plan) = (&mut self.back[usize::from(due.peer)], &self.plan);
            link.send(now_us, plan, &mut self.dice, due.header, &body);
        }
        self.receiver.expire(now_us);
    }

    /// Runs until all senders are done; returns the time that it took.
    #[track_caller]
    fn run(&mut self, most_us: u64) -> u64 {
        let began_us = self.now_us;
        while self.senders.iter().any(|sender| !sender.is_empty()) {
            assert!(
                self.now_us < began_us + most_us,
                "{:?} {:?}",
                self.counts(),
                self.got.len()
            );
            self.tick();
        }
        assert!(self.senders.iter().all(|sender| sender.in_flight() == 0));
        self.now_us - began_us
    }

    fn counts(&self) -> Vec<SenderCounts> {
        self.senders.iter().map(TransferSender::counts).collect()
    }

    /// Bytes are sent again for what was lost, and for little else.
    #[track_caller]
    fn assert_frugal(&self, needed: usize) {
        let sent: usize = self.there.iter().map(|link| link.sent_bytes).sum();
        let lost: usize =
            self.there.iter().map(|link| link.lost_bytes).sum::<usize>() + self.overflown;
        let most = needed * 3 / 2 + lost + self.senders.len() * 64 * HEADERS_SIZE;
        assert!(
            sent <= most,
            "sent {sent}, needed {needed}, lost {lost}: {:?}",
            self.counts()
        );
    }
}

#[test]
fn one_large_frame_arrives_over_links_of_all_kinds() {
    for datagram_size in [1_200, 16_384] {
        for delay_us in [0, 100, 20_000, 100_000, 600_000] {
            for loss_percent in [0, 5, 20] {
                let plan = LinkPlan {
                    delay_us: delay_us / 2,
                    loss_percent,
                    datagram_size,
                    ..LAN
                };
                let mut run = Simulation::new(plan, 1, 32 << 20, 1 + delay_us + loss_percent);
                run.offer(0, 1, 1 << 20);
                run.run(60_000_000);
                assert_eq!(run.got.len(), 1);
                run.assert_frugal(1 << 20);
            }
        }
    }
}

#[test]
fn a_mebibyte_takes_a_few_seconds_at_600_ms_and_5_percent_loss() {
    for seed in 1..20 {
        let plan = LinkPlan {
            loss_percent: 5,
            ..FAR
        };
        let mut run = Simulation::new(plan, 1, 32 << 20, seed);
        run.offer(0, 1, 1 << 20);
        let took_us = run.run(60_000_000);
        assert!(took_us < 5_000_000, "{took_us}");
        run.assert_frugal(1 << 20);
    }
}

/// The sizes that a link takes are not known. What was tried in vain is sent again.
#[test]
fn the_largest_datagram_that_gets_through_is_found() {
    for (datagram_size_max, found) in [
        (1_252, 1_200),
        (1_380, 1_372),
        (1_472, 1_472),
        (9_000, 8_952),
    ] {
        for (delay_us, loss_percent) in [(100, 0), (100, 5), (50_000, 5)] {
            let plan = LinkPlan {
                delay_us,
                loss_percent,
                datagram_size_max,
                ..LAN
            };
            let mut run = Simulation::new(plan, 1, 32 << 20, 9);
            for id in 1..6 {
                run.offer(0, id, 1 << 20);
                run.run(20_000_000);
            }
            let link = &mut run.there[0];
            assert!(
                link.too_large <= 6,
                "{datagram_size_max}: {}",
                link.too_large
            );
            link.sizes.clear();
            run.offer(0, 6, 1 << 20);
            run.run(20_000_000);
            assert_eq!(run.there[0].sizes.last(), Some(&found), "{plan:?}");
            assert_eq!(run.got.len(), 6);
            run.assert_frugal(6 << 20);
        }
    }
}

/// As after a change of the route, of which the network says nothing.
#[test]
fn transfers_heal_when_their_datagrams_become_too_large() {
    for (delay_us, loss_percent) in [(100, 0), (20_000, 5), (100_000, 0)] {
        let plan = LinkPlan {
            delay_us,
            loss_percent,
            datagram_size_max: 1_472,
            ..LAN
        };
        let mut run = Simulation::new(plan, 1, 32 << 20, 3);
        for id in 1..4 {
            run.offer(0, id, 1 << 20);
            run.run(20_000_000);
        }
        assert_eq!(run.there[0].sizes.last(), Some(&1_472));
        run.offer(0, 4, 4 << 20);
        run.offer(0, 5, 4 << 20);
        (0..50 + 3 * delay_us / TICK_US).for_each(|_| run.tick());
        run.plan.datagram_size_max = 1_252;
        let took_us = run.run(30_000_000);
        assert_eq!((run.got.len(), run.counts()[0].given_up), (5, 0));
        assert!(took_us < 3_000_000 + 40 * delay_us, "{took_us}");
        run.plan.datagram_size_max = 1_472;
    }
}

#[test]
fn the_transfers_of_many_senders_all_end() {
    // A thin link, a socket of the usual size that is emptied rarely, and datagrams that overtake
    // each other.
    for (loss_percent, datagram_size) in [(0, 1_200), (5, 16_384), (5, 1_200), (20, 1_200)] {
        let plan = LinkPlan {
            delay_us: 2_000,
            jitter_us: 1_500,
            loss_percent,
            repeats_percent: 3,
            bytes_per_ms: 2_000,
            queue_size: 64 << 10,
            datagram_size,
            read_every_us: 4_000,
            ..LAN
        };
        let mut run = Simulation::new(plan, 8, 16 << 20, loss_percent + 1);
        let mut needed = 0;
        for sender in 0..8 {
            for id in 0..6 {
                let size = [20_000, 70_000, 300_000, 5_000, 1 << 20, 40_000][id];
                needed += size;
                run.offer(sender, id as u64 + 1, size);
            }
        }
        run.run(60_000_000);
        let ended: u64 = run.counts().iter().map(|counts| counts.done).sum();
        assert_eq!((ended, run.got.len()), (48, 48));
        run.assert_frugal(needed);
        assert_eq!(run.receiver.size(), 0);
    }
}

#[test]
fn a_receiver_with_memory_for_few_serves_all_in_turn() {
    let mut run = Simulation::new(LAN, 10, 5 << 20, 3);
    for sender in 0..10 {
        (1..5).for_each(|id| run.offer(sender, id, 1 << 20));
    }
    run.run(20_000_000);
    assert_eq!(run.got.len(), 40);
    assert!(run.receiver.counts().refused > 0);
    run.assert_frugal(40 << 20);
}

#[test]
fn small_socket_buffers_are_not_overrun_for_long() {
    for (socket_buffer, datagram_size) in [(20_000, 16_384), (5_000, 1_200), (40_000, 1_200)] {
        let plan = LinkPlan {
            socket_buffer,
            datagram_size,
            ..LAN
        };
        let mut run = Simulation::new(plan, 2, 32 << 20, 7);
        run.offer(0, 1, 1 << 20);
        run.offer(1, 1, 1 << 20);
        run.run(20_000_000);
        assert_eq!(run.got.len(), 2);
        assert!(run.overflown < 2 << 20, "{}", run.overflown);
    }
}

#[test]
fn a_small_transfer_is_not_stuck_behind_the_largest() {
    let mut run = Simulation::new(LAN, 1, 64 << 20, 5);
    run.offer(0, 1, 16 << 20);
    run.offer(0, 2, 16 << 20);
    (0..200).for_each(|_| run.tick());
    run.offer(0, 3, 100_000);
    let began_us = run.now_us;
    run.run(60_000_000);
    let [first, ..] = run.got[..] else {
        panic!("three frames arrive");
    };
    assert_eq!((first.2, first.3), (3, 100_000));
    let took_us = first.0 - began_us;
    assert!(took_us < 20_000, "{took_us}");
    assert_eq!(run.got.len(), 3);
}

#[test]
fn the_same_frame_is_sent_once_while_it_is_under_way() {
    let mut run = Simulation::new(LAN, 1, 64 << 20, 5);
    run.offer(0, 1, 100_000);
    let sender = &mut run.senders[0];
    let header = |hops_left, message_id| FrameHeader {
        kind: 19,
        message_id,
        hops_left,
        ..FrameHeader::default()
    };
    let to = (0, 1_200);
    assert_eq!(
        sender.offer(1, to, header(3, 1), body(100_000, 1)),
        Offer::UnderWay
    );
    let other = sender.offer(1, to, header(3, 2), body(100_000, 2));
    assert_eq!(other, Offer::Begun);
    let most = body(FRAME_BODY_SIZE_MAX, 3);
    assert_eq!(sender.offer(1, to, header(3, 3), most), Offer::Begun);
    let over = body(FRAME_BODY_SIZE_MAX + 1, 1);
    assert_eq!(sender.offer(1, to, header(3, 3), over), Offer::NoRoom);
    run.run(20_000_000);
    assert_eq!(run.got.len(), 3);
    run.offer(0, 1, 100_000);
    run.run(20_000_000);
    assert_eq!(run.got.len(), 4, "it is a new transfer");
}

/// A frame between nodes names the node that it is for. While it is under way there, or has just
/// arrived, the protocol's repetitions send no second copy of it over other paths.
#[test]
fn a_frame_for_a_node_takes_another_path_only_if_the_first_is_silent() {
    let header = FrameHeader {
        kind: 19,
        message_id: 1,
        destination: 3,
        ..FrameHeader::default()
    };
    let (direct, detour) = ((0, 1_200), (1, 1_200));
    let offer = |run: &mut Simulation, to| {
        let now_us = run.now_us;
        run.senders[0].offer(now_us, to, header, body(1 << 20, 1))
    };
    let mut run = Simulation::new(LAN, 1, 64 << 20, 5);
    assert_eq!(offer(&mut run, direct), Offer::Begun);
    (0..50).for_each(|_| run.tick());
    assert_eq!(offer(&mut run, detour), Offer::UnderWay);
    run.run(5_000_000);
    assert_eq!(offer(&mut run, detour), Offer::UnderWay, "it has arrived");
    assert_eq!((run.got.len(), run.counts()[0].repeated), (1, 2));
    (0..1_500).for_each(|_| run.tick());
    assert_eq!(offer(&mut run, direct), Offer::Begun, "an answer was lost");
    run.plan.loss_percent = 100;
    (0..1_000).for_each(|_| run.tick());
    assert_eq!(offer(&mut run, detour), Offer::Begun, "the peer is silent");
}

#[test]
fn a_receiver_that_starts_anew_gets_all_pieces() {
    let mut run = Simulation::new(LAN, 1, 64 << 20, 5);
    run.offer(0, 1, 4 << 20);
    (0..200).for_each(|_| run.tick());
    let limits = PoolLimits {
        total: 64 << 20,
        of_owner: 32 << 20,
    };
    run.receiver = TransferReceiver::new(limits, LAN.socket_buffer);
    run.run(20_000_000);
    assert_eq!(run.got.len(), 1);
}

/// The waits between probes are shorter than the time after which a transfer is given up.
#[test]
fn a_transfer_outlives_an_outage_of_four_seconds() {
    let plan = LinkPlan {
        delay_us: 90_000,
        ..LAN
    };
    let mut run = Simulation::new(plan, 1, 32 << 20, 5);
    run.offer(0, 1, 100_000);
    (0..2_500).for_each(|_| run.tick());
    assert!(run.got.is_empty() && run.receiver.size() > 0);
    run.plan.loss_percent = 100;
    (0..40_000).for_each(|_| run.tick());
    run.plan.loss_percent = 0;
    run.run(10_000_000);
    assert_eq!(run.got.len(), 1);
}

#[test]
fn a_peer_that_is_silent_or_has_no_memory_is_given_up() {
    let plan = LinkPlan {
        loss_percent: 100,
        ..LAN
    };
    let mut run = Simulation::new(plan, 1, 64 << 20, 5);
    (1..20).for_each(|id| run.offer(0, id, 1 << 20));
    run.run(15_000_000);
    assert_eq!(run.counts()[0].given_up, 19);
    let sent = run.there[0].sent_bytes;
    assert!(sent < 300_000, "{sent}");

    let mut run = Simulation::new(LAN, 1, 1 << 20, 5);
    run.offer(0, 1, 1 << 20);
    let took_us = run.run(15_000_000);
    assert_eq!(run.counts()[0].given_up, 1);
    assert!(took_us >= 9_000_000, "it may get memory yet: {took_us}");
    let sent = run.there[0].sent_bytes;
    assert!(sent < 150_000, "{sent}");
}

#[test]
fn half_frames_hold_memory_for_a_short_time_and_little_of_it() {
    let limits = PoolLimits {
        total: 64 << 20,
        of_owner: 20 << 20,
    };
    let mut receiver = TransferReceiver::<u32, u32>::new(limits, 1 << 20);
    let mut sender = TransferSender::new(
        SenderLimits {
            total: 1 << 30,
            of_peer: 1 << 30,
        },
        1,
    );
    let header = FrameHeader::default();
    for id in 0..60 {
        let to = (id, 1_200);
        sender.offer(0, to, header, body(16 << 20, 1));
    }
    let mut taken = 0;
    sender.poll(0, 60 * (16 << 10), &mut |due| {
        let before = receiver.size();
        // Each host has several addresses.
        let from = (due.peer, due.peer / 20);
        receiver
            .take(0, from, (&due.header, due.body), true)
            .unwrap();
        taken += usize::from(receiver.size() > before);
    });
    assert_eq!(taken, 2, "a quarter is left to smaller ones");
    let mut sender = TransferSender::new(
        SenderLimits {
            total: 1 << 30,
            of_peer: 1 << 30,
        },
        1,
    );
    sender.offer(0, (7, 1_200), header, body(100_000, 1));
    sender.poll(0, 1, &mut |due| {
        receiver
            .take(0, (99, 99), (&due.header, due.body), true)
            .unwrap();
    });
    assert_eq!(receiver.counts().given_up, 0);
    receiver.expire(2_300_000);
    assert_eq!((receiver.size(), receiver.counts().given_up), (0, 3));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn each_frame_arrives_whatever_the_link_does(
        seed in 1u64..1_000_000,
        loss_percent in 0u64..20,
        delay_us in 0u64..100_000,
        jitter_us in 0u64..20_000,
        sizes in prop::collection::vec(1usize..400_000, 1..6),
        is_large in any::<bool>(),
    ) {
        let datagram_size = if is_large { 16_384 } else { 1_200 };
        let plan = LinkPlan {
            delay_us,
            jitter_us,
            loss_percent,
            repeats_percent: 5,
            datagram_size,
            bytes_per_ms: 10_000,
            ..LAN
        };
        let mut run = Simulation::new(plan, 2, 32 << 20, seed);
        for (at, size) in sizes.iter().enumerate() {
            run.offer(at % 2, at as u64 + 1, *size);
        }
        run.run(60_000_000);
        prop_assert_eq!(run.got.len(), sizes.len());
    }

    #[test]
    fn pieces_that_claim_anything_cost_no_more_than_the_pool(
        frames in prop::collection::vec(
            (0u8..3, 0u64..4, prop_oneof![0u32..5_000, Just(1 << 20), any::<u32>()], 0u16..5, prop_oneof![Just(512u16), Just(1_096), any::<u16>()], 0usize..1_200),
            0..200,
        )
    ) {
        let limits = PoolLimits { total: 3 << 20, of_owner: 2 << 20 };
        let mut receiver = TransferReceiver::<u8, u8>::new(limits, 1 << 16);
        for (now_us, (from, number, total, place, size, length)) in (1u64..).zip(frames) {
            let mut body = number.to_le_bytes().to_vec();
            body.extend_from_slice(&total.to_le_bytes());
            body.extend_from_slice(&place.to_le_bytes());
            body.extend_from_slice(&size.to_le_bytes());
            body.extend_from_slice(&[7; 8]);
            let rest = (total as usize).saturating_sub(usize::from(place) * usize::from(size));
            let length = if length % 2 == 0 { rest.min(usize::from(size)) } else { length };
            body.resize(PIECE_HEADER_SIZE + length, 1);
            let _ = receiver.take(now_us, (from, from), (&FrameHeader::default(), &body), true);
            prop_assert!(receiver.size() <= 3 << 20);
            while let Some(due) = receiver.poll_ack(now_us) {
                let mut body = Vec::new();
                due.ack.encode(&mut body);
                prop_assert_eq!(TransferAck::open(&body), Ok(due.ack));
            }
        }
        receiver.expire(10_000_000);
        prop_assert_eq!(receiver.size(), 0);
    }

    #[test]
    fn acknowledgements_that_claim_anything_do_no_harm(
        acks in prop::collection::vec((0u32..90, 0u16..100, prop::collection::vec((0u16..120, 1u16..9), 0..4), 0usize..9, any::<u32>()), 0..60)
    ) {
        let limits = SenderLimits { total: 1 << 20, of_peer: 1 << 20 };
        let mut sender = TransferSender::<u8>::new(limits, 1);
        sender.offer(0, (1, 1_200), FrameHeader::default(), body(100_000, 1));
        for (turn, (echo, below, ranges, state, room)) in (1u64..).zip(acks) {
            let now_us = turn * 10_000;
            sender.poll(now_us, 64 << 10, &mut |_| {});
            let state = match state {
                0 => TransferState::Refused,
                _ => TransferState::Open,
            };
            let ranges = ranges.into_iter().map(|(first, many)| (first, first + many)).collect();
            let ack = TransferAck { number: 2, echo, held_us: room, room, below, state, ranges };
            sender.handle_ack(now_us, Some(1), &ack);
        }
        let mut now_us = 1_000_000;
        while !sender.is_empty() {
            now_us = now_us.max(sender.next_timeout().unwrap());
            sender.poll(now_us, 64 << 10, &mut |_| {});
            prop_assert!(now_us < 30_000_000);
        }
    }
}
