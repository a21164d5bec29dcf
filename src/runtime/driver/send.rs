//! What the loop sends: messages, answers, frames of other nodes, and acknowledgements.

use std::net::SocketAddr;

use wire::datagram::FrameHeader;
use wire::transfer::AckDue;
use wire::{Answer, Outcome};

use super::{Driver, address_of, encode_reply, text};
use crate::protocol::Replica;
use crate::protocol::types::message::{
    ClientReply, Destination, Endpoint, Envelope, Message, NodeId, Now, Relayed, TransitFrame,
};
use crate::protocol::types::record::Record;
use crate::runtime::addresses::AddressBook;
use crate::runtime::decode::{PEER_KIND_MIN, Transit};
use crate::runtime::frame_sender::FrameSender;
use crate::runtime::joiners::PieceSource;
use crate::runtime::packer::Sender;
use crate::runtime::tally::{Cause, Tally};

/// Smaller values are copied in no time.
const LARGE_SIZE: usize = 64 << 10;
/// The rest of a message, with the longest key.
const OTHER_SIZE: usize = 2 << 10;

impl Driver {
    pub(super) fn send(&mut self, now: Now, to: Destination, envelope: &Envelope) {
        let address = match to {
            Destination::Listed(index) => self.addresses.listed(index, now.mono_us),
            Destination::Address(name) => self.addresses.named(&name, now.mono_us),
            Destination::Node(node) => {
                address_of_node(&self.replica, &mut self.addresses, node, now)
            }
        };
        let Some(address) = address else {
            return self.tally.count(Cause::NoAddress);
        };
        let header = FrameHeader {
            kind: envelope.message.kind(),
            flags: 0,
            origin: envelope.origin,
            destination: envelope.destination,
            hops_left: envelope.hops_left,
            incarnation: envelope.incarnation,
            epoch: envelope.epoch,
            message_id: envelope.round,
        };
        let message = (&envelope.message, space_for(&envelope.message));
        self.outbox
            .push_message(now.mono_us, address, header, &mut self.tally, message);
    }

    pub(super) fn reply(&mut self, now: Now, to: Endpoint, mut reply: ClientReply) {
        if let ClientReply::Sessionless { id, outcome } = &reply {
            return match text::answer(*id, outcome) {
                Ok(bytes) => self
                    .outbox
                    .push_plain(address_of(to), bytes, &mut self.tally),
                Err(silence) => self.tally.count(silence.into()),
            };
        }
        if let ClientReply::Status { status, .. } = &mut reply {
            self.complete_status(now, status);
        }
        let header = FrameHeader {
            origin: self.replica.node(),
            ..FrameHeader::default()
        };
        let (to, tally) = (address_of(to), &mut self.tally);
        self.outbox.push(now.mono_us, to, header, tally, |body| {
            body.reserve(space_for_reply(&reply));
            encode_reply(&reply, body)
        });
    }

    /// Sends what waits: small frames first, then a share of the transfers.
    pub(super) fn send_all(&mut self, now: Now) {
        self.acknowledge(now);
        self.flush();
        if !self.send_blocked {
            self.outbox.push_pieces(now.mono_us, &mut self.tally);
            self.flush();
        }
        self.joiners.set_relays(self.outbox.may_relay());
    }

    pub(super) fn flush(&mut self) {
        if self.send_blocked {
            return;
        }
        let sender = Sender {
            node: self.replica.node(),
            cluster: self.replica.cluster(),
            boot: self.boot,
        };
        let socket = &mut self.socket;
        let all = self
            .outbox
            .flush(sender, &mut self.tally, &mut |batch| socket.send(batch));
        self.send_blocked = !all;
    }

    fn acknowledge(&mut self, now: Now) {
        while let Some(due) = self.joiners.poll_ack(now.mono_us) {
            let AckDue { peer, header, ack } = due;
            for (to, header) in self.ways_of_ack(now, peer, header) {
                let tally = &mut self.tally;
                self.outbox.push(now.mono_us, to, header, tally, |body| {
                    ack.encode(body);
                    header.kind
                });
            }
        }
    }

    /// Acknowledgements go back to where the piece came from. The link to a node may work in one
    /// direction only: while messages to it take another way, acknowledgements take both.
    fn ways_of_ack(
        &mut self,
        now: Now,
        to: PieceSource,
        header: FrameHeader,
    ) -> impl Iterator<Item = (SocketAddr, FrameHeader)> + use<> {
        let is_nodes = header.kind >= PEER_KIND_MIN && to.node != 0;
        let (next, hops_left) = self.replica.usual_way(to.node);
        let routed = FrameHeader {
            origin: self.replica.node(),
            destination: to.node,
            hops_left,
            ..header
        };
        let is_detour = is_nodes && next != to.node;
        let relay = is_detour
            .then(|| address_of_node(&self.replica, &mut self.addresses, next, now))
            .flatten();
        let straight = if is_nodes { routed } else { header };
        let detour = relay.map(|relay| (relay, routed));
        std::iter::once((to.address, straight)).chain(detour)
    }
}

/// About the size of a message with a large value, and 0 for others. A buffer that grows while such
/// a message is encoded would be copied.
fn space_for(message: &Message) -> usize {
    let of_record = |record: &Record| record.content_size() + record.applied.size();
    let size = match message {
        Message::Accept(m) => of_record(&m.record),
        Message::Copy(m) => of_record(&m.record),
        Message::Promise(m) => m.record.as_deref().map_or(0, of_record),
        Message::ReadAnswer(m) => m.record.as_deref().map_or(0, of_record),
        Message::Forward(m) => m.operation.action.value_size(),
        Message::ForwardStep(m) => m.operation.action.value_size(),
        _ => 0,
    };
    space_with(size)
}

fn space_for_reply(reply: &ClientReply) -> usize {
    match reply {
        ClientReply::Answer(Answer {
            outcome: Outcome::Value { value, .. },
            ..
        }) => space_with(value.len()),
        _ => 0,
    }
}

fn space_with(size: usize) -> usize {
    match size > LARGE_SIZE {
        true => size + OTHER_SIZE,
        false => 0,
    }
}

/// Where a node's messages are sent.
fn address_of_node(
    replica: &Replica,
    addresses: &mut AddressBook,
    node: NodeId,
    now: Now,
) -> Option<SocketAddr> {
    addresses.named(replica.address_of(node)?, now.mono_us)
}

/// Relays another node's frame, in which only the remaining hops change.
pub(super) fn relay_frame(
    now: Now,
    replica: &mut Replica,
    addresses: &mut AddressBook,
    outbox: &mut FrameSender,
    tally: &mut Tally,
    transit: &Transit<'_>,
) {
    let mut header = transit.header;
    let in_transit = TransitFrame {
        cluster: transit.cluster,
        via: transit.via,
        origin: header.origin,
        destination: header.destination,
        hops_left: header.hops_left,
    };
    let Some(Relayed { next, hops_left }) = replica.relay(now, &in_transit) else {
        return;
    };
    header.hops_left = hops_left;
    match address_of_node(replica, addresses, next, now) {
        Some(to) => outbox.push(now.mono_us, to, header, tally, |body| {
            body.extend_from_slice(&transit.body);
            header.kind
        }),
        None => tally.count(Cause::NoAddress),
    }
}
