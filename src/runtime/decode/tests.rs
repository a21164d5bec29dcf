use super::*;
use crate::protocol::types::message::{ClientMessage, Heartbeat, Row};
use proptest::prelude::*;
use wire::Hello;
use wire::datagram::{DATAGRAM_HEADER_SIZE, DatagramHeader, DatagramWriter};
use wire::transfer::{SenderLimits, TransferSender};

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
            other => panic!("for nobody else: {other:?}"),
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
    let keys =
        (0..200).map(|n| crate::protocol::types::record::Key::user(format!("key {n}").as_bytes()));
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
                        assert_eq!(transit.header.flags, parts::PART);
                        transits += 1;
                    }
                    Arrival::Ack { .. } => panic!("nothing was sent"),
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
    let names =
        (0..200).map(|n| crate::protocol::types::record::Key::user(format!("key {n}").as_bytes()));
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

/// Gives a datagram of one frame with this header to node 1 of cluster 9.
fn taken<'a>(bytes: &'a [u8], joiners: &mut Joiners, tally: &mut Tally) -> Vec<Arrival<'a>> {
    let mut given = Vec::new();
    let datagram = datagram(bytes, true);
    decode(&datagram, (9, 1), joiners, tally, &mut |arrival| {
        given.push(arrival);
    });
    given
}

fn datagram_of(sender: u8, header: &FrameHeader, body: &[u8]) -> Vec<u8> {
    let mut writer = DatagramWriter::default();
    writer.push(header, body);
    let header = DatagramHeader {
        sender,
        cluster: 9,
        ..DatagramHeader::default()
    };
    writer.seal(&header).to_vec()
}

/// A transfer is between neighbours: a relay sends the whole frame on.
#[test]
fn the_pieces_of_a_frame_for_another_node_come_together_here() {
    let (mut tally, mut joiners) = (Tally::default(), Joiners::default());
    let limits = SenderLimits {
        total: 1 << 20,
        of_peer: 1 << 20,
    };
    let mut sender = TransferSender::new(limits, 5);
    let header = FrameHeader {
        destination: 3,
        hops_left: 1,
        ..frame(19)
    };
    let whole: Vec<u8> = (0..20_000).map(|at| (at % 251) as u8).collect();
    sender.offer(0, (from().address, 1_200), header, whole.clone());
    let mut pieces = Vec::new();
    sender.poll(0, 1 << 20, &mut |due| {
        pieces.push(datagram_of(2, &due.header, due.body));
    });
    let (last, pieces) = pieces.split_last().unwrap();
    for piece in pieces {
        assert!(taken(piece, &mut joiners, &mut tally).is_empty());
    }
    let due = joiners.poll_ack(2).expect("it is due");
    assert_eq!((due.peer.address, due.peer.node), (from().address, 2));
    assert_eq!(due.header.flags, transfer::TRANSFER_ACK);
    let all = taken(last, &mut joiners, &mut tally);
    let [Arrival::Transit(transit)] = &all[..] else {
        panic!("of another node: {all:?}");
    };
    assert!(transit.header == header && transit.body[..] == whole);
    assert_eq!(tally.total(), 0);
    let due = joiners.poll_ack(2).expect("it is due");
    sender.handle_ack(2, None, &due.ack);
    assert!(sender.is_empty());
}

#[test]
fn acknowledgements_are_for_this_node_or_passed_on() {
    let (mut tally, mut joiners) = (Tally::default(), Joiners::default());
    let ack = TransferAck {
        number: 1,
        echo: 2,
        held_us: 3,
        room: 4,
        below: 5,
        state: transfer::TransferState::Open,
        ranges: vec![(6, 7)],
    };
    let mut body = Vec::new();
    ack.encode(&mut body);
    let header = |kind, destination| FrameHeader {
        flags: transfer::TRANSFER_ACK,
        destination,
        ..frame(kind)
    };
    for (sender, kind, destination) in [(2, 19, 1), (2, 19, 3), (0, wire::kind::ANSWER, 0)] {
        let bytes = datagram_of(sender, &header(kind, destination), &body);
        let all = taken(&bytes, &mut joiners, &mut tally);
        match (&all[..], destination) {
            ([Arrival::Transit(transit)], 3) => assert_eq!(&transit.body[..], &body),
            ([Arrival::Ack { from: at, ack: got }], _) => {
                assert_eq!(got, &ack);
                assert_eq!(*at, (sender == 0).then(|| from().address));
            }
            other => panic!("{other:?}"),
        }
    }
    let bytes = datagram_of(2, &header(19, 1), &body[1..]);
    assert!(taken(&bytes, &mut joiners, &mut tally).is_empty());
    assert_eq!(tally.of(Cause::BodyMalformed), 1);
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
        configuration: Default::default(),
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
