//! Arbitrary datagrams beside normal load.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use wire::datagram::{DatagramHeader, DatagramWriter, FrameHeader};

use crate::bench::{self, part_left, seconds};
use crate::nodes::{Cluster, Keep};

const SOURCES: u64 = 16;
/// All sources share the machine with the nodes, so each sends only so many datagrams in a
/// millisecond.
const PER_MILLISECOND: u64 = 2;
/// Different datagrams of one source. It sends each to each node in turn.
const DATAGRAMS: usize = 2_003;
const SIZE_MAX: u64 = 1_400;
const GROWTH_MAX: u64 = 64 << 20;
/// Part of the speed without strangers that must be left.
const LEFT_MIN: f64 = 0.7;

/// SplitMix64.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Any bytes, or a datagram of the right format with any frame.
fn arbitrary(state: &mut u64) -> Vec<u8> {
    let size = 1 + next(state) % SIZE_MAX;
    let body: Vec<u8> = (0..size).map(|_| next(state) as u8).collect();
    if next(state).is_multiple_of(2) {
        return body;
    }
    let header = FrameHeader {
        kind: next(state) as u8 % 64,
        origin: next(state) as u8 % 8,
        destination: next(state) as u8 % 8,
        ..FrameHeader::default()
    };
    let mut writer = DatagramWriter::default();
    writer.push(&header, &body);
    writer.seal(&DatagramHeader::default()).to_vec()
}

/// Sends to all nodes in turn until `stop`; returns how many datagrams.
fn flood(cluster: &Cluster, source: u64, stop: &AtomicBool) -> u64 {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let mut state = source;
    // Made before, because the source shares the machine with the nodes.
    let datagrams: Vec<Vec<u8>> = (0..DATAGRAMS).map(|_| arbitrary(&mut state)).collect();
    let addresses = (0..cluster.count()).map(|node| cluster.address(node).parse());
    let addresses: Vec<SocketAddr> = addresses.map(|a| a.expect("numeric")).collect();
    let began = Instant::now();
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        while sent < PER_MILLISECOND * began.elapsed().as_millis() as u64 {
            let (datagram, to) = (
                sent as usize % datagrams.len(),
                sent as usize % addresses.len(),
            );
            // A full buffer of the sender is no failure.
            let _ = socket.send_to(&datagrams[datagram], addresses[to]);
            sent += 1;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    sent
}

/// Clients keep most of their speed while strangers send from 16 ports, and the nodes keep nothing
/// of it.
#[test]
fn arbitrary_datagrams_beside_normal_load() {
    let cluster = Cluster::start(5, Keep::Memory);
    let words = format!("bench --clients 64 {}", seconds(20, 3));
    // The machine's own speed changes within minutes, so the load is measured before and after.
    let alone = format!("bench --clients 64 {}", seconds(10, 3));
    let before = bench::run(&cluster.list(), &alone);
    let memory_before = bench::resident_max(&cluster);
    let stop = AtomicBool::new(false);
    let beside = std::thread::scope(|scope| {
        let (cluster, stop) = (&cluster, &stop);
        let start = |source| scope.spawn(move || flood(cluster, source, stop));
        let sources: Vec<_> = (1..=SOURCES).map(start).collect();
        let figures = bench::run(&cluster.list(), &words);
        stop.store(true, Ordering::Relaxed);
        let sent: u64 = sources
            .into_iter()
            .map(|source| source.join().expect("it sends"))
            .sum();
        println!("{sent} arbitrary datagrams");
        figures
    });
    let after = bench::run(&cluster.list(), &alone);
    for figures in [&before, &beside, &after] {
        figures.expect_errors(&[]);
    }
    let (before, beside) = (before.per_second(), beside.per_second());
    let after = after.per_second();
    println!("{beside:.0}/s, {before:.0}/s before and {after:.0}/s after");
    let alone = (before + after) / 2.0;
    assert!(
        beside >= part_left(LEFT_MIN) * alone,
        "{beside} of {alone} per second"
    );
    let grown = bench::resident_max(&cluster).saturating_sub(memory_before);
    assert!(grown < GROWTH_MAX, "by {grown} bytes");
}
