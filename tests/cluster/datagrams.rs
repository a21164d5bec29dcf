//! Datagrams that any sender may send to a node's port.

use std::net::UdpSocket;

use wire::datagram::{DATAGRAM_SIZE_MAX, DatagramHeader, DatagramWriter, FrameHeader};
use wire::{Hello, kind};

use super::clients::assert_serves;
use super::nodes::{Cluster, Keep, SOON, wait_until};

/// This many datagrams at a time fit any socket's buffer.
const BURST: usize = 100;
/// If hostile datagrams make the address space grow by more than this, the node has trusted a
/// claimed size.
const GROWTH_KIB_MAX: u64 = 256 << 10;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn bytes(&mut self, size: usize) -> Vec<u8> {
        (0..size).map(|_| self.next() as u8).collect()
    }
}

/// A datagram as this build would send it, with the given body.
fn sealed(sender: u8, kind: u8, body: &[u8]) -> Vec<u8> {
    let mut writer = DatagramWriter::default();
    let frame = FrameHeader {
        kind,
        ..FrameHeader::default()
    };
    writer.push(&frame, body);
    let header = DatagramHeader {
        sender,
        cluster: 0,
        boot: 1,
        number: 1,
    };
    writer.seal(&header).to_vec()
}

fn hello() -> Vec<u8> {
    let hello = Hello {
        client: 7,
        nonce: 7,
        library_version: "test".to_owned(),
    };
    let mut body = Vec::new();
    wire::encode(&mut body, &hello);
    sealed(0, kind::HELLO, &body)
}

/// Kinds of hostile datagrams; the node must drop and count each.
fn hostile(random: &mut Random) -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let mut noise: Vec<Vec<u8>> = (1..=BURST).map(|size| random.bytes(size)).collect();
    noise.push(random.bytes(DATAGRAM_SIZE_MAX));
    let real = hello();
    let truncated = (1..real.len()).map(|size| real[..size].to_vec()).collect();
    let flipped = (0..real.len()).map(|at| {
        let mut bytes = real.clone();
        bytes[at] ^= 1 << random.below(8);
        bytes
    });
    let flipped = flipped.collect();
    let versions = (0..=u8::MAX).filter(|v| *v != real[1]).map(|version| {
        let mut bytes = real.clone();
        bytes[1] = version;
        bytes
    });
    let versions = versions.collect();
    let kinds = || (1..=40_u8).map(|kind| (if kind < 16 { 0 } else { 1 }, kind));
    let garbage = kinds().map(|(sender, kind)| sealed(sender, kind, &random.bytes(64)));
    let garbage = garbage.collect();
    // Claims of four gibibytes in an array, in bytes, in text; and nested arrays.
    let claims: [&[u8]; 4] = [
        &[0xDD, 0xFF, 0xFF, 0xFF, 0xFF],
        &[0x93, 0xC6, 0xFF, 0xFF, 0xFF, 0xFF],
        &[0x93, 0xDB, 0xFF, 0xFF, 0xFF, 0xFF],
        &[0x91; 60_000],
    ];
    let claims = kinds()
        .flat_map(|(sender, kind)| claims.map(|claim| sealed(sender, kind, claim)))
        .collect();
    vec![
        ("noise", noise),
        ("truncated datagrams", truncated),
        ("datagrams with a flipped bit", flipped),
        ("other versions", versions),
        ("bodies that are noise", garbage),
        ("bodies that claim too much", claims),
    ]
}

fn address_space_kib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmPeak:"));
    let words = peak.expect("Linux tells it").split_whitespace().next();
    words.expect("a number").parse().expect("a number")
}

#[test]
fn hostile_datagrams_are_dropped_and_counted() {
    let mut cluster = Cluster::start(3, Keep::Memory);
    assert_serves(&cluster.list(), "before");
    let before_kib = address_space_kib(cluster.process_id(1));
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    socket.connect(cluster.address(1)).expect("an address");
    let dropped = |cluster: &Cluster| cluster.status(1).map_or(0, |s| s.datagrams_dropped);
    let mut random = Random(1);
    for (what, datagrams) in hostile(&mut random) {
        for burst in datagrams.chunks(BURST) {
            let before = dropped(&cluster);
            for datagram in burst {
                socket.send(datagram).expect("loopback takes it");
            }
            let expected = before + burst.len() as u64;
            wait_until(SOON, &format!("{what}: {expected} dropped"), || {
                dropped(&cluster) >= expected
            });
        }
        assert_serves(cluster.address(1), what);
    }
    let grown_kib = address_space_kib(cluster.process_id(1)) - before_kib;
    assert!(
        grown_kib < GROWTH_KIB_MAX,
        "the node grew by {grown_kib} KiB"
    );
    assert!((0..3).all(|node| cluster.is_running(node)));
    // The node logs at most one line per second, so unknown senders cannot fill the log.
    let lines = cluster.log(1).matches("left out").count() as u64;
    let uptime_s = cluster.status(1).expect("it serves").uptime_ms / 1_000;
    assert!(lines <= uptime_s + 1, "{lines} lines in {uptime_s} s");
}
