//! Decodes the bytes of a datagram into inputs of the core.
//!
//! The bytes may come from anywhere: nothing here panics on them, and no claim in them is trusted
//! before it is checked. What cannot be decoded is skipped and counted.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

use wire::datagram::{self, Frame, FrameHeader};
use wire::parts::{self, Joiner, NoPart};

use super::tally::{Cause, Tally};
use crate::gateway::text::{self, ParseError};
use crate::protocol::types::configuration;
use crate::protocol::types::message::{
    self, ClientMessage, Endpoint, Envelope, Input, Message, NodeId, is_transit,
};

/// Frames of this kind and above go between nodes; those below, between clients and nodes.
const PEER_KIND_MIN: u8 = 16;

/// The meaning of a frame for this node.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // handled at once, never stored
pub enum Arrival<'a> {
    Input(Input),
    Transit(Transit<'a>),
}

/// A frame for another node. It is not decoded here.
#[derive(Debug)]
pub struct Transit<'a> {
    pub cluster: u64,
    /// The previous hop.
    pub via: NodeId,
    pub frame: Frame<'a>,
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

/// Joins frames that arrive in parts. Those of nodes and those from addresses at which no node is
/// known are kept apart, so that no unknown sender displaces the parts that a node sent.
#[derive(Debug, Default)]
pub struct Joiners {
    nodes: Joiner<PartsSender>,
    others: Joiner<PartsSender>,
}

impl Joiners {
    /// Takes a part; returns the body of the whole frame once it is complete.
    fn take(
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

    /// Drops frames that were incomplete for too long; returns how many were dropped so far.
    fn given_up(&mut self, now_us: u64) -> u64 {
        let all = [&mut self.nodes, &mut self.others];
        let each = all.map(|joiner| {
            joiner.expire(now_us);
            joiner.given_up()
        });
        each.iter().sum()
    }
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
    tally.raise_to(Cause::PartsMissing, joiners.given_up(datagram.now_us));
    let from = datagram.from;
    let (header, frames) = match datagram::open(datagram.bytes) {
        Ok(opened) => opened,
        Err(error) => return tally.count(error.into()),
    };
    for frame in frames {
        let (cluster, via) = (header.cluster, header.sender);
        let is_peers = |frame: &Frame<'_>| frame.header.kind >= PEER_KIND_MIN;
        let is_taken = |frame: &Frame<'_>| {
            let FrameHeader {
                kind, destination, ..
            } = frame.header;
            datagram.is_nodes
                || datagram.is_open
                || configuration::is_heard_from_anywhere(
                    kind,
                    cluster,
                    destination,
                    (own_cluster, own),
                )
        };
        let arrival = match frame {
            Ok(frame) if is_peers(&frame) && !is_taken(&frame) => Err(Cause::Stranger),
            Ok(frame) if is_peers(&frame) && is_transit(own, frame.header.destination) => {
                Ok(Arrival::Transit(Transit {
                    cluster,
                    via,
                    frame,
                }))
            }
            Ok(frame) if !is_peers(&frame) && via != 0 => Err(Cause::KindMisplaced),
            Ok(frame) if frame.header.flags & parts::PART != 0 => {
                match joiners.take(datagram, &frame) {
                    Ok(Some(body)) => {
                        let frame = Frame {
                            header: frame.header,
                            body: &body,
                        };
                        input(cluster, via, from, &frame).map(Arrival::Input)
                    }
                    Ok(None) => continue,
                    Err(NoPart) => Err(Cause::BodyMalformed),
                }
            }
            Ok(frame) => input(cluster, via, from, &frame).map(Arrival::Input),
            Err(error) => Err(error.into()),
        };
        match arrival {
            Ok(arrival) => give(arrival),
            Err(cause) => tally.count(cause),
        }
    }
}

fn input(cluster: u64, via: NodeId, from: Source, frame: &Frame<'_>) -> Result<Input, Cause> {
    match frame.header.kind >= PEER_KIND_MIN {
        true => peer(cluster, via, frame),
        false => client(from, frame),
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

/// The inverse of `endpoint_of`.
pub fn address_of(endpoint: Endpoint) -> SocketAddr {
    let ip = Ipv6Addr::from_bits(endpoint.ip);
    match ip.to_ipv4_mapped() {
        Some(ip) => (ip, endpoint.port).into(),
        None => SocketAddrV6::new(ip, endpoint.port, 0, endpoint.zone).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::types::message::{ClientMessage, Heartbeat, Row};
    use proptest::prelude::*;
    use wire::Hello;
    use wire::datagram::{DATAGRAM_HEADER_SIZE, DatagramHeader, DatagramWriter};

    fn from() -> Source {
        source("127.0.0.1:4711")
    }

    fn source(address: &str) -> Source {
        Source {
            address: address.parse().unwrap(),
            is_own_machine: true,
        }
    }

    fn frame(kind: u8) -> FrameHeader {
        FrameHeader {
            kind,
            origin: 2,
            destination: 1,
            incarnation: 3,
            epoch: 4,
            message_id: 5,
            ..FrameHeader::default()
        }
    }

    /// A datagram of the given frames, with a correct checksum.
    fn sealed(sender: u8, frames: &[(u8, Vec<u8>)]) -> Vec<u8> {
        let mut writer = DatagramWriter::default();
        for (kind, body) in frames {
            writer.push(&frame(*kind), body);
        }
        let header = DatagramHeader {
            sender,
            cluster: 9,
            ..DatagramHeader::default()
        };
        writer.seal(&header).to_vec()
    }

    fn datagram(bytes: &[u8], is_nodes: bool) -> Datagram<'_> {
        Datagram {
            bytes,
            from: from(),
            now_us: 1,
            is_nodes,
            is_open: false,
        }
    }

    fn decoded(bytes: &[u8]) -> (Vec<Input>, Tally) {
        let mut tally = Tally::default();
        let mut inputs = Vec::new();
        decode(
            &datagram(bytes, true),
            (0, 1),
            &mut Joiners::default(),
            &mut tally,
            &mut |arrival| match arrival {
                Arrival::Input(input) => inputs.push(input),
                Arrival::Transit(transit) => panic!("for nobody else: {transit:?}"),
            },
        );
        (inputs, tally)
    }

    fn heartbeat() -> Message {
        let row = Row {
            node: 2,
            incarnation: 3,
            boot: 1,
            starts: 1,
            found: 0,
            synced: 0,
            clock: 3,
            wall_ms: 2,
            unsynced_ms: 0,
            seen: Vec::new(),
            full: 0,
            links: Vec::new(),
        };
        Heartbeat {
            number: 1,
            echo: None,
            rows: vec![row],
        }
        .into()
    }

    fn body(message: &Message) -> Vec<u8> {
        let mut body = Vec::new();
        message.encode_body(&mut body);
        body
    }

    fn hello() -> Vec<u8> {
        let mut body = Vec::new();
        let hello = Hello {
            client: 7,
            nonce: 8,
            library_version: "x".to_owned(),
        };
        wire::encode(&mut body, &hello);
        body
    }

    #[test]
    fn what_can_be_read_is_given_and_the_rest_is_counted() {
        let mut trailing = body(&heartbeat());
        trailing.push(0);
        let frames = [
            (26, body(&heartbeat())),
            (200, vec![1, 2]),
            (16, vec![0xc1]),
            (26, trailing),
            (26, body(&heartbeat())),
        ];
        let (inputs, tally) = decoded(&sealed(2, &frames));
        assert_eq!(inputs.len(), 2);
        let Input::Peer { cluster, envelope } = &inputs[0] else {
            panic!("a peer's message: {:?}", inputs[0]);
        };
        assert_eq!(*cluster, 9);
        assert_eq!((envelope.origin, envelope.destination), (2, 1));
        assert_eq!(
            (envelope.incarnation, envelope.epoch, envelope.round),
            (3, 4, 5)
        );
        assert_eq!(envelope.message, heartbeat());
        for cause in [
            Cause::KindUnknown,
            Cause::BodyMalformed,
            Cause::BodyTrailing,
        ] {
            assert_eq!(tally.of(cause), 1, "{cause:?}");
        }
        assert_eq!(tally.total(), 3);
    }

    #[test]
    fn clients_are_told_from_nodes_by_kind_and_sender() {
        let (inputs, tally) = decoded(&sealed(0, &[(wire::kind::HELLO, hello())]));
        let Input::Client { from: end, message } = &inputs[0] else {
            panic!("a client's message: {:?}", inputs[0]);
        };
        assert_eq!(address_of(*end), from().address);
        assert!(end.is_own_machine);
        assert!(matches!(message, ClientMessage::Hello(hello) if hello.client == 7));
        assert_eq!(tally.total(), 0);

        let (inputs, tally) = decoded(&sealed(3, &[(wire::kind::HELLO, hello())]));
        assert!(inputs.is_empty());
        assert_eq!(tally.of(Cause::KindMisplaced), 1);
        let (inputs, tally) = decoded(&sealed(0, &[(wire::kind::ANSWER, hello())]));
        assert!(inputs.is_empty());
        assert_eq!(tally.of(Cause::KindMisplaced), 1);
    }

    #[test]
    fn text_is_an_input_or_an_answer_or_counted() {
        let mut tally = Tally::default();
        let input = decode_text(b"GET [k] [5]", from(), &mut tally);
        let Some(Ok(Input::Client { from: end, message })) = input else {
            panic!("a client's message: {input:?}");
        };
        assert_eq!(end, endpoint_of(from()));
        assert!(matches!(message, ClientMessage::Sessionless { id: 5, .. }));
        let answer = decode_text(b"GET [5]", from(), &mut tally);
        assert_eq!(answer, Some(Err(b"FL [5]".to_vec())));
        assert_eq!(tally.total(), 0);
        assert_eq!(decode_text(b"GET", from(), &mut tally), None);
        assert_eq!(tally.of(Cause::TextMalformed), 1);
    }

    /// A relay treats each part of a frame like a whole frame.
    #[test]
    fn parts_give_one_input_and_are_passed_on_one_by_one() {
        let keys = (0..200)
            .map(|n| crate::protocol::types::record::Key::user(format!("key {n}").as_bytes()));
        let asked = message::CopiesRequest {
            keys: keys.collect(),
        };
        let message = Message::from(asked);
        let (mut tally, mut joiners) = (Tally::default(), Joiners::default());
        let (mut inputs, mut transits) = (Vec::new(), 0);
        let parts: Vec<Vec<u8>> = parts::cut(&body(&message), 77).collect();
        for part in parts.iter().chain(&parts).rev() {
            let header = FrameHeader {
                flags: parts::PART,
                ..frame(message.kind())
            };
            let mut writer = DatagramWriter::default();
            writer.push(&header, part);
            let bytes = writer.seal(&DatagramHeader {
                sender: 2,
                cluster: 9,
                ..DatagramHeader::default()
            });
            for own in [1, 3] {
                let own = (9, own);
                decode(
                    &datagram(bytes, true),
                    own,
                    &mut joiners,
                    &mut tally,
                    &mut |arrival| match arrival {
                        Arrival::Input(input) => inputs.push(input),
                        Arrival::Transit(transit) => {
                            assert_eq!(transit.frame.header.flags, parts::PART);
                            transits += 1;
                        }
                    },
                );
            }
        }
        assert_eq!(
            (inputs.len(), transits, tally.total()),
            (1, 2 * parts.len(), 0)
        );
        let Input::Peer { envelope, .. } = &inputs[0] else {
            panic!("of a node");
        };
        assert_eq!(envelope.message, message);
    }

    /// A datagram with one part of a frame.
    fn part_of(sender: u8, kind: u8, part: &[u8]) -> Vec<u8> {
        let header = FrameHeader {
            flags: parts::PART,
            ..frame(kind)
        };
        let mut writer = DatagramWriter::default();
        writer.push(&header, part);
        let header = DatagramHeader {
            sender,
            cluster: 9,
            ..DatagramHeader::default()
        };
        writer.seal(&header).to_vec()
    }

    /// Forged parts of any kind, from an address of no known node.
    #[test]
    fn a_flood_of_parts_does_not_stop_the_frames_of_a_node_or_another_client() {
        flood(|number| format!("10.0.0.8:{}", 1 + number % 60_000));
        // One machine may have all addresses of such a network.
        flood(|number| format!("[2001:db8::{:x}:{number:x}]:7", number % 5));
    }

    fn flood(stranger: fn(u64) -> String) {
        let names = (0..200)
            .map(|n| crate::protocol::types::record::Key::user(format!("key {n}").as_bytes()));
        let asked = Message::from(message::CopiesRequest {
            keys: names.collect(),
        });
        let mut hello = Vec::new();
        let said = Hello {
            client: 7,
            nonce: 8,
            library_version: "x".repeat(3_000),
        };
        wire::encode(&mut hello, &said);
        let other = source("10.0.0.7:4711");
        let node: Vec<Vec<u8>> = parts::cut(&body(&asked), 1).collect();
        let client: Vec<Vec<u8>> = parts::cut(&hello, 1).collect();
        let (mut tally, mut joiners, mut given) = (Tally::default(), Joiners::default(), 0);
        let mut take = |bytes: &[u8], from, is_nodes| {
            let datagram = Datagram {
                from,
                ..datagram(bytes, is_nodes)
            };
            decode(&datagram, (9, 1), &mut joiners, &mut tally, &mut |_| {
                given += 1
            });
        };
        take(&part_of(2, asked.kind(), &node[0]), from(), true);
        take(&part_of(0, wire::kind::HELLO, &client[0]), other, false);
        let piece = vec![1; node[0].len() - 10];
        for number in 0u64..40_000 {
            let forged = [&number.to_le_bytes()[..], &[0, 59], &piece].concat();
            let stranger = source(&stranger(number));
            for kind in [wire::kind::HELLO, 29, asked.kind()] {
                take(&part_of(0, kind, &forged), stranger, false);
            }
        }
        for part in &node[1..] {
            take(&part_of(2, asked.kind(), part), from(), true);
        }
        for part in &client[1..] {
            take(&part_of(0, wire::kind::HELLO, part), other, false);
        }
        assert_eq!(given, 2);
        assert!(tally.of(Cause::PartsMissing) > 30_000);
    }

    #[test]
    fn clients_of_one_network_are_told_apart() {
        let one = "[fe80::1%1]:7";
        let all = [one, "[fe80::2%1]:7", "[fe80::1%2]:7", "[fe80::1%1]:8"];
        let [one, others @ ..] = all.map(|at| PartsSender::of_host(source(at).address));
        for other in others {
            assert_eq!(one.0, other.0);
            assert_ne!(one.1, other.1);
        }
        let [mapped, plain, other] = ["[::ffff:10.0.0.1]:7", "10.0.0.1:7", "10.0.0.2:7"]
            .map(|at| PartsSender::of_host(source(at).address));
        assert_eq!(mapped, plain);
        assert_ne!(other.0, plain.0);
    }

    #[test]
    fn frames_of_nodes_from_elsewhere_are_counted_and_clients_are_heard() {
        let frames = [(26, body(&heartbeat())), (wire::kind::HELLO, hello())];
        let bytes = sealed(0, &frames);
        let (mut tally, mut given) = (Tally::default(), 0);
        let joiners = &mut Joiners::default();
        decode(
            &datagram(&bytes, false),
            (0, 1),
            joiners,
            &mut tally,
            &mut |arrival| {
                given += usize::from(matches!(arrival, Arrival::Input(Input::Client { .. })));
            },
        );
        assert_eq!((given, tally.total(), tally.of(Cause::Stranger)), (1, 1, 1));
    }

    /// The other nodes may have moved to addresses that this node does not know (E8).
    #[test]
    fn a_configuration_of_the_own_cluster_is_heard_from_elsewhere() {
        let told = message::ConfigurationUpdate {
            configuration: message::Configuration::default(),
        };
        let frames = [(29, body(&told.into())), (26, body(&heartbeat()))];
        let bytes = sealed(0, &frames);
        // The frames are for node 1, and of cluster 9.
        for (own, given, strangers) in [
            ((0, 1), 0, 2),
            ((8, 1), 0, 2),
            ((9, 2), 0, 2),
            ((9, 1), 1, 1),
        ] {
            let (mut tally, mut count) = (Tally::default(), 0);
            let joiners = &mut Joiners::default();
            let datagram = datagram(&bytes, false);
            decode(&datagram, own, joiners, &mut tally, &mut |_| count += 1);
            // It is malformed, so it is counted as that, and not as an unknown sender's.
            assert_eq!(tally.of(Cause::Stranger), strangers, "{own:?}");
            assert_eq!(count + tally.total() - strangers, given, "{own:?}");
        }
    }

    #[test]
    fn a_node_without_an_id_is_heard() {
        let (inputs, _) = decoded(&sealed(0, &[(26, body(&heartbeat()))]));
        assert!(matches!(inputs[0], Input::Peer { .. }));
    }

    #[test]
    fn addresses_survive_the_way_through_the_core() {
        for address in [
            "1.2.3.4:5",
            "[2001:db8::1]:65535",
            "127.0.0.1:1",
            "[fe80::1%7]:8",
        ] {
            let from = source(address);
            assert_eq!(address_of(endpoint_of(from)), from.address);
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_counted(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
            let (inputs, tally) = decoded(&bytes);
            prop_assert!(inputs.is_empty());
            prop_assert_eq!(tally.total(), 1);
        }

        #[test]
        fn arbitrary_frames_are_given_or_counted(
            sender in 0u8..4,
            frames in prop::collection::vec((0u8..40, prop::collection::vec(any::<u8>(), 0..120)), 0..8),
        ) {
            let (inputs, tally) = decoded(&sealed(sender, &frames));
            prop_assert_eq!(inputs.len() as u64 + tally.total(), frames.len() as u64);
        }

        /// Bodies that are almost right get further than random ones.
        #[test]
        fn damaged_bodies_are_given_or_counted(at in any::<prop::sample::Index>(), with in any::<u8>(), cut in any::<bool>()) {
            let mut hello = hello();
            let at = at.index(hello.len());
            hello[at] = with;
            if cut {
                hello.truncate(at);
            }
            let (inputs, tally) = decoded(&sealed(0, &[(wire::kind::HELLO, hello)]));
            prop_assert_eq!(inputs.len() as u64 + tally.total(), 1);
        }

        #[test]
        fn damaged_datagrams_are_counted(at in any::<prop::sample::Index>(), bit in 0u32..8) {
            let mut bytes = sealed(0, &[(wire::kind::HELLO, hello())]);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let (inputs, tally) = decoded(&bytes);
            prop_assert!(inputs.is_empty());
            prop_assert_eq!(tally.total(), 1);
            prop_assert!(bytes.len() > DATAGRAM_HEADER_SIZE);
        }
    }
}
