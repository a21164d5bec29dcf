//! Joins the frames that arrive in several datagrams: in parts, or as transfers.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use wire::VALUE_SIZE_DEFAULT;
use wire::datagram::{Frame, FrameHeader};
use wire::parts::{Joiner, NoPart};
use wire::transfer::{AckDue, NoPiece, PoolLimits, TransferReceiver};

use super::decode::{Datagram, PEER_KIND_MIN, plain};
use super::tally::{Cause, Tally};
use crate::protocol::types::message::NodeId;

/// The memory for incomplete transfers: of nodes, and of all others, each with `extra_size`. One
/// sender may have the largest frame and a few usual ones.
pub const NODES_SIZE_MAX: usize = 32 << 20;
pub const OTHERS_SIZE_MAX: usize = 20 << 20;
const SENDER_SIZE_MAX: usize = 20 << 20;

/// What each pool of large frames has beyond its bound, if values may be larger than usual: space
/// for two more such values.
pub fn extra_size(value_size_max: usize) -> usize {
    2 * value_size_max.saturating_sub(VALUE_SIZE_DEFAULT)
}

/// The sender of the parts of a frame: a node by its id, whatever path they took, or else a host.
/// For IPv6 it is the network of 64 bits, because the owner of one has all addresses in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum PartsSender {
    Node(NodeId),
    Host(IpAddr),
}

impl PartsSender {
    /// The host, and a number that distinguishes its senders, of which a network has several.
    fn of_host(address: SocketAddr) -> (Self, u128) {
        let port = u128::from(address.port());
        let (host, zone) = match (address.ip().to_canonical(), address) {
            (IpAddr::V6(host), SocketAddr::V6(address)) => (host, address.scope_id()),
            (host, _) => return (PartsSender::Host(host), port),
        };
        let network = Ipv6Addr::from_bits(host.to_bits() & !u128::from(u64::MAX));
        let within = host.to_bits() & u128::from(u64::MAX);
        let stream = u128::from(zone) << 80 | within << 16 | port;
        (PartsSender::Host(network.into()), stream)
    }
}

/// Where the pieces of a transfer come from, and so where acknowledgements go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PieceSource {
    pub address: SocketAddr,
    /// 0: a client, or a node without an id.
    pub node: NodeId,
}

/// Joins frames that arrive in parts or pieces. Those of nodes and those from addresses at which no
/// node is known are kept apart, so that no unknown sender displaces what a node sent.
#[derive(Debug)]
pub struct Joiners {
    nodes: Joiner<PartsSender>,
    others: Joiner<PartsSender>,
    nodes_pieces: TransferReceiver<PieceSource, PartsSender>,
    others_pieces: TransferReceiver<PieceSource, PartsSender>,
    /// Frames for other nodes can be sent on.
    relays: bool,
}

impl Default for Joiners {
    fn default() -> Self {
        Joiners::new(0, VALUE_SIZE_DEFAULT)
    }
}

impl Joiners {
    /// `socket_buffer`: the size of the kernel's receive buffer.
    pub fn new(socket_buffer: usize, value_size_max: usize) -> Self {
        let pool = |size_max| {
            let limits = PoolLimits {
                total: size_max + extra_size(value_size_max),
                of_owner: SENDER_SIZE_MAX,
            };
            TransferReceiver::new(limits, socket_buffer)
        };
        Joiners {
            nodes: Joiner::default(),
            others: Joiner::default(),
            nodes_pieces: pool(NODES_SIZE_MAX),
            others_pieces: pool(OTHERS_SIZE_MAX),
            relays: true,
        }
    }

    /// Whether there is memory to send on frames for other nodes. Else their transfers are refused,
    /// and so begin again later.
    pub fn set_relays(&mut self, relays: bool) {
        self.relays = relays;
    }

    /// Takes a piece of a transfer; returns the whole frame once it is complete. A transfer is
    /// between two addresses, so whoever sent the datagram answers for its memory.
    pub fn take_piece(
        &mut self,
        datagram: &Datagram<'_>,
        node: NodeId,
        frame: &Frame<'_>,
        is_transit: bool,
    ) -> Result<Option<(FrameHeader, Vec<u8>)>, NoPiece> {
        let is_nodes = datagram.is_nodes && frame.header.kind >= PEER_KIND_MIN;
        let address = plain(datagram.from);
        let owner = match is_nodes && node != 0 {
            true => PartsSender::Node(node),
            false => PartsSender::of_host(address).0,
        };
        let receiver = match is_nodes {
            true => &mut self.nodes_pieces,
            false => &mut self.others_pieces,
        };
        let from = PieceSource { address, node };
        let may_begin = self.relays || !is_transit;
        let piece = (&frame.header, frame.body);
        let whole = receiver.take(datagram.now_us, (from, owner), piece, may_begin)?;
        // A whole frame has no flags: it is neither a part nor a piece.
        let flagless = |header| FrameHeader { flags: 0, ..header };
        Ok(whole.map(|(header, body)| (flagless(header), body)))
    }

    /// The next acknowledgement that is due.
    pub fn poll_ack(&mut self, now_us: u64) -> Option<AckDue<PieceSource>> {
        let of_nodes = self.nodes_pieces.poll_ack(now_us);
        of_nodes.or_else(|| self.others_pieces.poll_ack(now_us))
    }

    /// Takes a part; returns the body of the whole frame once it is complete.
    pub fn take_part(
        &mut self,
        datagram: &Datagram<'_>,
        frame: &Frame<'_>,
    ) -> Result<Option<Vec<u8>>, NoPart> {
        let FrameHeader {
            kind,
            origin,
            incarnation,
            ..
        } = frame.header;
        let is_nodes = datagram.is_nodes && kind >= PEER_KIND_MIN;
        // A header's origin counts only if a node sent the datagram. Otherwise the host and port
        // count: several clients may share a host, but not a port of it.
        let sender = match is_nodes && origin != 0 {
            true => (PartsSender::Node(origin), u128::from(incarnation)),
            false => PartsSender::of_host(datagram.from.address),
        };
        let joiner = match is_nodes {
            true => &mut self.nodes,
            false => &mut self.others,
        };
        joiner.take(datagram.now_us, sender, kind, frame.body)
    }

    /// Drops the frames that were incomplete for too long, and counts what was dropped so far.
    pub fn report(&mut self, now_us: u64, tally: &mut Tally) {
        let mut missing = 0;
        for joiner in [&mut self.nodes, &mut self.others] {
            joiner.expire(now_us);
            missing += joiner.given_up();
        }
        let mut refused = 0;
        for receiver in [&mut self.nodes_pieces, &mut self.others_pieces] {
            receiver.expire(now_us);
            missing += receiver.counts().given_up;
            refused += receiver.counts().refused;
        }
        tally.raise_to(Cause::PartsMissing, missing);
        tally.raise_to(Cause::PiecesRefused, refused);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(address: &str) -> SocketAddr {
        address.parse().unwrap()
    }

    #[test]
    fn clients_of_one_network_are_told_apart() {
        let one = "[fe80::1%1]:7";
        let all = [one, "[fe80::2%1]:7", "[fe80::1%2]:7", "[fe80::1%1]:8"];
        let [one, others @ ..] = all.map(|at| PartsSender::of_host(source(at)));
        for other in others {
            assert_eq!(one.0, other.0);
            assert_ne!(one.1, other.1);
        }
        let [mapped, plain, other] = ["[::ffff:10.0.0.1]:7", "10.0.0.1:7", "10.0.0.2:7"]
            .map(|at| PartsSender::of_host(source(at)));
        assert_eq!(mapped, plain);
        assert_ne!(other.0, plain.0);
    }
}
