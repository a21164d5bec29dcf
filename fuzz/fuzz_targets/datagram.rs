//! What a node does with a datagram, up to the inputs of the core: nothing panics, and every frame
//! is either delivered to the core or counted as dropped.
#![no_main]

use std::net::SocketAddr;

use horseshoe::runtime::decode::{Datagram, Source, decode};
use horseshoe::runtime::joiners::Joiners;
use horseshoe::runtime::tally::Tally;
use horseshoe_fuzz::{pieces, seal};
use wire::datagram::{FrameHeader, open};
use libfuzzer_sys::fuzz_target;

fn decoded(bytes: &[u8]) -> u64 {
    let from = Source {
        address: SocketAddr::from(([127, 0, 0, 1], 7)),
        is_own_machine: true,
    };
    let mut tally = Tally::default();
    let mut given = 0;
    let datagram = Datagram {
        bytes,
        from,
        now_us: 0,
        is_nodes: true,
        is_open: false,
    };
    let mut joiners = Joiners::default();
    decode(&datagram, (0, 1), &mut joiners, &mut tally, &mut |_| given += 1);
    given + tally.total()
}

fuzz_target!(|bytes: &[u8]| {
    let frames = open(bytes).map_or(1, |(_, frames)| frames.count() as u64);
    assert_eq!(decoded(bytes), frames);
    for piece in pieces(bytes) {
        let header = FrameHeader {
            kind: piece.kind,
            ..FrameHeader::default()
        };
        let sealed = seal(piece.flags & 1, 0, &header, piece.body);
        assert_eq!(decoded(&sealed), 1);
    }
});
