//! Decodes the bytes of a datagram into inputs of the core.
//!
//! The bytes may come from anywhere: nothing here panics on them, and no claim in them is trusted
//! before it is checked. What cannot be decoded is skipped and counted.

use std::borrow::Cow;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};

use wire::datagram::{self, Frame, FrameHeader};
use wire::parts::{self, NoPart};
use wire::transfer::{self, NoPiece, TransferAck};

use super::joiners::Joiners;
use super::tally::{Cause, Tally};
use crate::gateway::text::{self, ParseError};
use crate::protocol::types::configuration;
use crate::protocol::types::message::{
    self, ClientMessage, Endpoint, Envelope, Input, Message, NodeId, is_transit,
};

/// Frames of this kind and above go between nodes; those below, between clients and nodes.
pub const PEER_KIND_MIN: u8 = 16;

/// The meaning of a frame for this node.
#[derive(Debug)]
pub enum Arrival<'a> {
    Input(Input),
    Transit(Transit<'a>),
    /// Of a transfer that this node sends. `from` is the address that must be its destination;
    /// `None` if relays may have brought it.
    Ack {
        from: Option<SocketAddr>,
        ack: TransferAck,
    },
}

/// A frame for another node. It is not decoded here.
#[derive(Debug)]
pub struct Transit<'a> {
    pub cluster: u64,
    /// The previous hop.
    pub via: NodeId,
    pub header: FrameHeader,
    pub body: Cow<'a, [u8]>,
}

/// A datagram that arrived.
#[derive(Debug, Clone, Copy)]
pub struct Datagram<'a> {
    pub bytes: &'a [u8],
    pub from: Source,
    /// On the monotonic clock.
    pub now_us: u64,
    /// The source address is that of a known node.
    pub is_nodes: bool,
    /// Frames of nodes are accepted from any address: there is no configuration yet.
    pub is_open: bool,
}

/// Where a datagram came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    pub address: SocketAddr,
    pub is_own_machine: bool,
}

/// Returns each frame that can be decoded, or that is for another node than `own` (0: this node has
/// no id yet). Frames of nodes count only if they come from a node's address, or if their kind is
/// accepted from any address. `own_cluster` is 0 while there is none.
pub fn decode<'a>(
    datagram: &Datagram<'a>,
    (own_cluster, own): (u64, NodeId),
    joiners: &mut Joiners,
    tally: &mut Tally,
    give: &mut dyn FnMut(Arrival<'a>),
) {
    joiners.report(datagram.now_us, tally);
    let (header, frames) = match datagram::open(datagram.bytes) {
        Ok(opened) => opened,
        Err(error) => return tally.count(error.into()),
    };
    let heading = Heading {
        cluster: header.cluster,
        via: header.sender,
        own,
        is_open: datagram.is_open,
        own_cluster,
    };
    for frame in frames {
        let arrival = match frame {
            Ok(frame) => heading.arrival(datagram, &frame, joiners),
            Err(error) => Err(error.into()),
        };
        match arrival {
            Ok(Some(arrival)) => give(arrival),
            Ok(None) => {}
            Err(cause) => tally.count(cause),
        }
    }
}

/// What all frames of a datagram have in common.
struct Heading {
    cluster: u64,
    via: NodeId,
    own_cluster: u64,
    own: NodeId,
    is_open: bool,
}

impl Heading {
    /// `None`: there is no whole frame yet.
    fn arrival<'a>(
        &self,
        datagram: &Datagram<'_>,
        frame: &Frame<'a>,
        joiners: &mut Joiners,
    ) -> Result<Option<Arrival<'a>>, Cause> {
        let header = frame.header;
        let is_peers = header.kind >= PEER_KIND_MIN;
        if is_peers && !self.is_taken(datagram, &header) {
            return Err(Cause::Stranger);
        }
        if !is_peers && self.via != 0 {
            return Err(Cause::KindMisplaced);
        }
        let is_transit = is_peers && is_transit(self.own, header.destination);
        if header.flags & transfer::TRANSFER_PIECE != 0 {
            let whole = joiners.take_piece(datagram, self.via, frame, is_transit);
            let whole = whole.map_err(|NoPiece| Cause::BodyMalformed)?;
            return match whole {
                None => Ok(None),
                Some((header, body)) if is_transit => Ok(Some(self.transit(header, body.into()))),
                Some((header, body)) => {
                    let body = &body;
                    self.input(datagram.from, &Frame { header, body }).map(Some)
                }
            };
        }
        if is_transit {
            return Ok(Some(self.transit(header, frame.body.into())));
        }
        if header.flags & transfer::TRANSFER_ACK != 0 {
            let ack = TransferAck::open(frame.body);
            let ack = ack.map_err(|NoPiece| Cause::BodyMalformed)?;
            let from = (!is_peers).then(|| plain(datagram.from));
            return Ok(Some(Arrival::Ack { from, ack }));
        }
        if header.flags & parts::PART != 0 {
            let body = joiners.take_part(datagram, frame);
            let Some(body) = body.map_err(|NoPart| Cause::BodyMalformed)? else {
                return Ok(None);
            };
            let body = &body;
            return self.input(datagram.from, &Frame { header, body }).map(Some);
        }
        self.input(datagram.from, frame).map(Some)
    }

    fn is_taken(&self, datagram: &Datagram<'_>, header: &FrameHeader) -> bool {
        datagram.is_nodes
            || self.is_open
            || configuration::is_heard_from_anywhere(
                header.kind,
                self.cluster,
                header.destination,
                (self.own_cluster, self.own),
            )
    }

    fn transit<'a>(&self, header: FrameHeader, body: Cow<'a, [u8]>) -> Arrival<'a> {
        Arrival::Transit(Transit {
            cluster: self.cluster,
            via: self.via,
            header,
            body,
        })
    }

    fn input<'a>(&self, from: Source, frame: &Frame<'_>) -> Result<Arrival<'a>, Cause> {
        let input = match frame.header.kind >= PEER_KIND_MIN {
            true => peer(self.cluster, self.via, frame),
            false => client(from, frame),
        };
        input.map(Arrival::Input)
    }
}

/// The result of a text datagram: an input, or the immediate answer to a request that cannot be
/// done.
pub type Text = Result<Input, Vec<u8>>;

/// Decodes a datagram that begins as text does; `None` if there is no client to answer.
pub fn decode_text(bytes: &[u8], from: Source, tally: &mut Tally) -> Option<Text> {
    match text::parse(bytes) {
        Ok(text::TextRequest { id, key, action }) => Some(Ok(Input::Client {
            from: endpoint_of(from),
            message: ClientMessage::Sessionless { id, key, action },
        })),
        Err(ParseError::Unfit { id }) => Some(Err(text::failed(id))),
        Err(ParseError::NoId) => {
            tally.count(Cause::TextMalformed);
            None
        }
    }
}

fn peer(cluster: u64, via: NodeId, frame: &Frame<'_>) -> Result<Input, Cause> {
    let header = &frame.header;
    let message = Message::decode(header.kind, frame.body)?.ok_or(Cause::KindUnknown)?;
    let envelope = Envelope {
        origin: header.origin,
        destination: header.destination,
        incarnation: header.incarnation,
        epoch: header.epoch,
        round: header.message_id,
        hops_left: header.hops_left,
        via,
        message,
    };
    Ok(Input::Peer { cluster, envelope })
}

fn client(from: Source, frame: &Frame<'_>) -> Result<Input, Cause> {
    let message =
        message::decode_client(frame.header.kind, frame.body)?.ok_or(Cause::KindMisplaced)?;
    Ok(Input::Client {
        from: endpoint_of(from),
        message,
    })
}

/// A client's address as the core represents it: IPv4 is mapped into IPv6.
fn endpoint_of(from: Source) -> Endpoint {
    let (ip, zone) = match from.address {
        SocketAddr::V4(at) => (at.ip().to_ipv6_mapped(), 0),
        SocketAddr::V6(at) => (*at.ip(), at.scope_id()),
    };
    Endpoint {
        ip: ip.to_bits(),
        zone,
        port: from.address.port(),
        is_own_machine: from.is_own_machine,
    }
}

/// The address as it is written when something is sent there.
pub fn plain(from: Source) -> SocketAddr {
    address_of(endpoint_of(from))
}

/// The inverse of `endpoint_of`.
pub fn address_of(endpoint: Endpoint) -> SocketAddr {
    let ip = Ipv6Addr::from_bits(endpoint.ip);
    match ip.to_ipv4_mapped() {
        Some(ip) => (ip, endpoint.port).into(),
        None => SocketAddrV6::new(ip, endpoint.port, 0, endpoint.zone).into(),
    }
}

#[cfg(test)]
mod tests;
