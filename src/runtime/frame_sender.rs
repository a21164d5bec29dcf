//! What leaves: small frames share datagrams, and large ones become transfers.
//!
//! Small frames go first. Transfers get a bounded share of each turn of the loop, and only while
//! the socket takes everything, so that no small frame waits behind them.

use std::net::SocketAddr;
use std::sync::Arc;

use wire::datagram::FrameHeader;
use wire::transfer::{
    self, FRAME_BODY_SIZE_MAX, LargeBody, Offer, SenderLimits, TransferAck, TransferSender,
};

use super::joiners::extra_size;
use super::packer::{Outgoing, Packer, SendError, Sender};
use super::tally::{Cause, Tally};
use crate::protocol::types::message::Message;

/// The memory for frames that are being transferred, beside `extra_size`.
pub const TRANSFERS_SIZE_MAX: usize = 40 << 20;
/// The most that transfers send in one turn of the loop.
const TURN_SIZE_MAX: usize = 64 << 10;

/// What one node sends.
#[derive(Debug)]
pub struct FrameSender {
    packer: Packer,
    transfers: TransferSender<SocketAddr>,
    /// Above this, nothing is taken in for other nodes.
    relayed_size_max: usize,
    body: Vec<u8>,
    /// The last large message, until pieces are sent: a round sends the same one to several
    /// members.
    last_large: Option<(Message, LargeBody)>,
}

impl FrameSender {
    /// Transfers and frames that are cut into parts are numbered from `number` on, so that the
    /// numbers differ from those before a restart.
    pub fn new(number: u64, value_size_max: usize) -> Self {
        let total = TRANSFERS_SIZE_MAX + extra_size(value_size_max);
        let limits = SenderLimits {
            total,
            of_peer: total / 2,
        };
        FrameSender {
            packer: Packer::new(number),
            transfers: TransferSender::new(limits, number),
            relayed_size_max: total / 2,
            body: Vec::new(),
            last_large: None,
        }
    }

    pub fn packer(&self) -> &Packer {
        &self.packer
    }

    /// Bytes that wait.
    pub fn size(&self) -> usize {
        self.packer.size() + self.transfers.size()
    }

    pub fn is_empty(&self) -> bool {
        self.packer.is_empty() && self.transfers.is_empty()
    }

    /// Whether there is memory to send on frames for other nodes.
    pub fn may_relay(&self) -> bool {
        self.transfers.size() < self.relayed_size_max
    }

    /// Adds a frame; `encode` appends its body and returns its kind, which need not be in the
    /// header. A frame for which there is no memory is dropped and counted.
    pub fn push(
        &mut self,
        now_us: u64,
        to: SocketAddr,
        mut header: FrameHeader,
        tally: &mut Tally,
        encode: impl FnOnce(&mut Vec<u8>) -> u8,
    ) {
        let mut body = std::mem::take(&mut self.body);
        body.clear();
        header.kind = encode(&mut body);
        if transfer::is_large(to.ip().is_loopback(), body.len()) {
            self.transfer(now_us, to, header, tally, &body.into());
        } else {
            self.packer.push(to, header, tally, &body);
            self.body = body;
        }
    }

    /// The same for a message, whose kind need not be in the header either. `space`: about its
    /// size, if that is large.
    pub fn push_message(
        &mut self,
        now_us: u64,
        to: SocketAddr,
        mut header: FrameHeader,
        tally: &mut Tally,
        (message, space): (&Message, usize),
    ) {
        header.kind = message.kind();
        if let Some((last, body)) = &self.last_large
            && is_same(last, message)
            && transfer::is_large(to.ip().is_loopback(), body.size())
        {
            let body = body.clone();
            return self.transfer(now_us, to, header, tally, &body);
        }
        if space == 0 {
            return self.push(now_us, to, header, tally, |body| {
                message.encode_body(body);
                message.kind()
            });
        }
        let mut body = Vec::with_capacity(space);
        message.encode_body(&mut body);
        let body = LargeBody::from(body);
        self.transfer(now_us, to, header, tally, &body);
        self.last_large = Some((message.clone(), body));
    }

    fn transfer(
        &mut self,
        now_us: u64,
        to: SocketAddr,
        header: FrameHeader,
        tally: &mut Tally,
        body: &LargeBody,
    ) {
        if body.size() > FRAME_BODY_SIZE_MAX {
            return tally.count_too_large(Message::name_of(header.kind), body.size());
        }
        let to = (to, transfer::datagram_size(to.ip().is_loopback()));
        match self.transfers.offer(now_us, to, header, body.clone()) {
            Offer::Begun | Offer::UnderWay => {}
            Offer::NoRoom => tally.count(Cause::SendOverflow),
        }
    }

    /// Adds a datagram that is sent unchanged.
    pub fn push_plain(&mut self, to: SocketAddr, bytes: Vec<u8>, tally: &mut Tally) {
        self.packer.push_plain(to, bytes, tally);
    }

    /// Takes an acknowledgement. `from` is its source, unless relays may have brought it.
    pub fn handle_ack(&mut self, now_us: u64, from: Option<SocketAddr>, ack: &TransferAck) {
        self.transfers.handle_ack(now_us, from, ack);
    }

    /// Adds the pieces of transfers that may leave in this turn.
    pub fn push_pieces(&mut self, now_us: u64, tally: &mut Tally) {
        self.last_large = None;
        if self
            .transfers
            .next_timeout()
            .is_none_or(|at_us| at_us > now_us)
        {
            return;
        }
        let packer = &mut self.packer;
        self.transfers.poll(now_us, TURN_SIZE_MAX, &mut |piece| {
            packer.push(piece.peer, piece.header, tally, piece.body);
        });
        tally.raise_to(Cause::NotTaken, self.transfers.counts().given_up);
    }

    /// When transfers want to send, if nothing happens before. It may be in the past.
    pub fn next_timeout(&self) -> Option<u64> {
        self.transfers.next_timeout()
    }

    /// Sends what waits in datagrams. `false` if the socket's send buffer is full.
    pub fn flush(
        &mut self,
        sender: Sender,
        tally: &mut Tally,
        send: &mut dyn FnMut(&[Outgoing<'_>]) -> Result<usize, SendError>,
    ) -> bool {
        self.packer.flush(sender, tally, send)
    }
}

/// Whether both have the same encoding. The record of the first one is held, so that no other
/// record can be in its place.
fn is_same(one: &Message, other: &Message) -> bool {
    match (one, other) {
        (Message::Accept(one), Message::Accept(other)) => {
            Arc::ptr_eq(&one.record, &other.record)
                && (one.ballot, &one.key) == (other.ballot, &other.key)
        }
        (Message::Copy(one), Message::Copy(other)) => {
            Arc::ptr_eq(&one.record, &other.record)
                && (one.ballot, &one.key) == (other.ballot, &other.key)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::{Duration, Instant};

    use wire::VALUE_SIZE_MAX;
    use wire::datagram::DATAGRAM_SIZE_TARGET_LOOPBACK;

    use super::*;
    use crate::protocol::types::ballot::Ballot;
    use crate::protocol::types::message::Accept;
    use crate::protocol::types::record::{Key, Record};
    use crate::runtime::decode::{Arrival, Datagram, Source, decode};
    use crate::runtime::joiners::Joiners;

    const SENDER: Sender = Sender {
        node: 2,
        cluster: 9,
        boot: 5,
    };

    /// One end of a link on which every 20th datagram is lost.
    struct End {
        own: u8,
        socket: UdpSocket,
        outbox: FrameSender,
        joiners: Joiners,
        tally: Tally,
        sent: u64,
        got: Vec<(FrameHeader, Vec<u8>)>,
    }

    impl End {
        fn new(own: u8) -> Self {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            let wait = Some(Duration::from_micros(500));
            socket.set_read_timeout(wait).unwrap();
            End {
                own,
                socket,
                outbox: FrameSender::new(77, VALUE_SIZE_MAX),
                joiners: Joiners::new(200_000, VALUE_SIZE_MAX),
                tally: Tally::default(),
                sent: 0,
                got: Vec::new(),
            }
        }

        fn send(&mut self, now_us: u64) {
            let (socket, tally, sent) = (&self.socket, &mut self.tally, &mut self.sent);
            while let Some(due) = self.joiners.poll_ack(now_us) {
                self.outbox
                    .push(now_us, due.peer.address, due.header, tally, |body| {
                        due.ack.encode(body);
                        due.header.kind
                    });
            }
            self.outbox.push_pieces(now_us, tally);
            self.outbox.flush(SENDER, tally, &mut |batch| {
                for one in batch {
                    assert!(one.bytes.len() <= DATAGRAM_SIZE_TARGET_LOOPBACK);
                    *sent += 1;
                    if *sent % 20 != 0 {
                        socket.send_to(one.bytes, one.to).unwrap();
                    }
                }
                Ok(batch.len())
            });
        }

        fn receive(&mut self, now_us: u64) {
            let mut buffer = [0; 65_536];
            while let Ok((size, from)) = self.socket.recv_from(&mut buffer) {
                let datagram = Datagram {
                    bytes: &buffer[..size],
                    from: Source {
                        address: from,
                        is_own_machine: true,
                    },
                    now_us,
                    is_nodes: true,
                    is_open: false,
                };
                let (joiners, tally) = (&mut self.joiners, &mut self.tally);
                let (outbox, got) = (&mut self.outbox, &mut self.got);
                decode(
                    &datagram,
                    (9, self.own),
                    joiners,
                    tally,
                    &mut |arrival| match arrival {
                        Arrival::Transit(transit) => {
                            got.push((transit.header, transit.body.into_owned()));
                        }
                        Arrival::Ack { from, ack } => outbox.handle_ack(now_us, from, &ack),
                        Arrival::Input(input) => panic!("for another node: {input:?}"),
                    },
                );
            }
        }
    }

    /// Frames that this node relays, so that it need not understand them.
    #[test]
    fn large_and_small_frames_arrive_over_sockets_that_lose_datagrams() {
        let mut ends = [End::new(2), End::new(1)];
        let to = ends[1].socket.local_addr().unwrap();
        let sizes = [10, 20_000, 65_600, 1 << 20, FRAME_BODY_SIZE_MAX];
        for (id, size) in (1..).zip(sizes) {
            let header = FrameHeader {
                kind: 19,
                destination: 3,
                message_id: id,
                ..FrameHeader::default()
            };
            let End { outbox, tally, .. } = &mut ends[0];
            outbox.push(0, to, header, tally, |body| {
                body.resize(size, id as u8);
                19
            });
        }
        let began = Instant::now();
        while ends[1].got.len() < sizes.len() {
            assert!(began.elapsed() < Duration::from_secs(60));
            for end in &mut ends {
                let now_us = began.elapsed().as_micros() as u64;
                end.send(now_us);
                end.receive(now_us);
            }
        }
        let [sender, receiver] = ends;
        let mut got: Vec<_> = receiver
            .got
            .iter()
            .map(|(header, body)| {
                assert!(
                    body.iter()
                        .all(|byte| u64::from(*byte) == header.message_id)
                );
                (header.message_id, body.len())
            })
            .collect();
        got.sort_unstable();
        assert_eq!(got, (1..).zip(sizes).collect::<Vec<_>>());
        let last = &receiver.got[sizes.len() - 1];
        assert_eq!(last.1.len(), FRAME_BODY_SIZE_MAX, "the largest is last");
        assert_eq!((sender.tally.total(), receiver.tally.total()), (0, 0));
    }

    fn accept(name: &[u8], record: &Arc<Record>) -> Message {
        Accept {
            key: Key::user(name),
            ballot: Ballot::new(7, 1),
            record: record.clone(),
        }
        .into()
    }

    fn encoded(message: &Message) -> Vec<u8> {
        let mut body = Vec::new();
        message.encode_body(&mut body);
        body
    }

    /// Two nodes receive the same Accept, and the second one then another one with the same record.
    #[test]
    fn a_large_message_to_several_nodes_arrives_at_each() {
        let mut ends = [End::new(2), End::new(1), End::new(4)];
        let record = Arc::new(Record {
            value: Some(vec![5; 300_000].into()),
            ..Record::default()
        });
        let messages = [accept(b"a", &record), accept(b"b", &record)];
        for (message, end) in [(0, 1), (0, 2), (1, 2)] {
            let header = FrameHeader {
                destination: 10 + end as u8,
                ..FrameHeader::default()
            };
            let to = ends[end].socket.local_addr().unwrap();
            let End { outbox, tally, .. } = &mut ends[0];
            let message = &messages[message];
            outbox.push_message(0, to, header, tally, (message, 400_000));
        }
        let expected = [
            vec![encoded(&messages[0])],
            vec![encoded(&messages[0]), encoded(&messages[1])],
        ];
        let began = Instant::now();
        let got = |end: &End| -> Vec<Vec<u8>> {
            let mut bodies: Vec<_> = end.got.iter().map(|(_, body)| body.clone()).collect();
            bodies.sort_by_key(|body| encoded(&messages[1]) == *body);
            bodies
        };
        while got(&ends[1]) != expected[0] || got(&ends[2]) != expected[1] {
            assert!(began.elapsed() < Duration::from_secs(60));
            for end in &mut ends {
                let now_us = began.elapsed().as_micros() as u64;
                end.send(now_us);
                end.receive(now_us);
            }
        }
        assert!(ends[0].outbox.last_large.is_none(), "only within a turn");
    }

    #[test]
    fn what_has_no_room_is_counted() {
        let (mut outbox, mut tally) = (FrameSender::new(1, VALUE_SIZE_MAX), Tally::default());
        let to = SocketAddr::from(([192, 0, 2, 1], 7));
        for (id, size) in [(1, 15 << 20), (2, 15 << 20), (3, 15 << 20), (4, 17 << 20)] {
            let header = FrameHeader {
                message_id: id,
                ..FrameHeader::default()
            };
            outbox.push(0, to, header, &mut tally, |body| {
                body.resize(size, 1);
                19
            });
        }
        assert_eq!(tally.of(Cause::SendOverflow), 1);
        assert_eq!(tally.of(Cause::SendTooBig), 1);
        assert!(outbox.may_relay() && !outbox.is_empty());
    }
}
