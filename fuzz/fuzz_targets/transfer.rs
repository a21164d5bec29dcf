//! What both halves of transfers do with arbitrary frames: they never panic, they hold bounded
//! memory, and what is sent ends.
#![no_main]

use horseshoe_fuzz::pieces;
use libfuzzer_sys::fuzz_target;
use wire::datagram::{Frame, FrameHeader};
use wire::transfer::{
    PoolLimits, SenderLimits, TRANSFER_ACK, TRANSFER_PIECE, TransferAck, TransferReceiver,
    TransferSender,
};

const POOL: usize = 2 << 20;

fuzz_target!(|bytes: &[u8]| {
    let limits = PoolLimits {
        total: POOL,
        of_owner: POOL / 2,
    };
    let mut receiver = TransferReceiver::<u8, u8>::new(limits, 1 << 16);
    let limits = SenderLimits {
        total: POOL,
        of_peer: POOL,
    };
    let mut sender = TransferSender::<u8>::new(limits, 0);
    for peer in 0..2 {
        let body = vec![peer; 100_000];
        sender.offer(0, (peer, 1_200), FrameHeader::default(), body);
    }
    let mut now_us = 0;
    for piece in pieces(bytes) {
        now_us += u64::from(piece.kind) * 1_000;
        let peer = piece.flags >> 4 & 1;
        let header = FrameHeader {
            flags: piece.flags & (TRANSFER_ACK | TRANSFER_PIECE),
            ..FrameHeader::default()
        };
        let frame = Frame {
            header,
            body: piece.body,
        };
        if header.flags & TRANSFER_ACK == 0 {
            let part = (&frame.header, frame.body);
            let _ = receiver.take(now_us, (peer, peer), part, piece.flags & 1 == 0);
            assert!(receiver.size() <= POOL);
        } else if let Ok(ack) = TransferAck::open(frame.body) {
            sender.handle_ack(now_us, Some(peer), &ack);
        }
        sender.poll(now_us, 20_000, &mut |_| {});
        while receiver.poll_ack(now_us).is_some() {}
    }
    let last_us = now_us + 60_000_000;
    while let Some(at_us) = sender.next_timeout().filter(|_| !sender.is_empty()) {
        assert!(at_us < last_us);
        now_us = now_us.max(at_us);
        sender.poll(now_us, 20_000, &mut |_| {});
    }
    receiver.expire(now_us + 60_000_000);
    assert_eq!((sender.size(), receiver.size()), (0, 0));
});
