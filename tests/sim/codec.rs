//! Encodes and decodes messages with their real encoding.

use horseshoe::gateway;
use horseshoe::protocol::types::message::{
    ClientMessage, ClientReply, Group, Message, decode_client, encode_reply,
};
use wire::kind;
use wire::transfer::FRAME_BODY_SIZE_MAX;

use super::event::{Parcel, Passing};
use super::text;

/// Fails on a message that the runtime would drop.
fn fits_a_frame(what: &str, body: &[u8]) {
    let size = body.len();
    assert!(
        size <= FRAME_BODY_SIZE_MAX,
        "{what} takes {size} bytes, more than a frame"
    );
}

/// Encodes and decodes a message, which must fit a frame and decode to itself; returns a digest
/// of its bytes.
pub fn round_trip(parcel: Parcel) -> (Parcel, u64) {
    let mut body = Vec::with_capacity(128);
    match parcel {
        Parcel::Peer {
            cluster,
            mut envelope,
        } => {
            envelope.message.encode_body(&mut body);
            fits_a_frame(envelope.message.name(), &body);
            let frame_kind = envelope.message.kind();
            let decoded = Message::decode(frame_kind, &body);
            let decoded = decoded.unwrap_or_else(|e| panic!("{e}: {:?}", envelope.message));
            let decoded = decoded.expect("its own kind is known");
            assert_eq!(decoded, envelope.message, "comes out as it went in");
            envelope.message = decoded;
            for word in [envelope.incarnation, envelope.epoch, envelope.round] {
                body.extend_from_slice(&word.to_le_bytes());
            }
            (
                Parcel::Peer { cluster, envelope },
                xxhash_rust::xxh3::xxh3_64(&body),
            )
        }
        Parcel::Request {
            from,
            message: ClientMessage::Sessionless { id, key, action },
        } => {
            let said = text::datagram(id, &key, &action);
            let read = gateway::text::parse(&said);
            let request = gateway::text::TextRequest { id, key, action };
            assert_eq!(read, Ok(request.clone()), "comes out as it went in");
            let gateway::text::TextRequest { id, key, action } = request;
            let message = ClientMessage::Sessionless { id, key, action };
            (
                Parcel::Request { from, message },
                xxhash_rust::xxh3::xxh3_64(&said),
            )
        }
        Parcel::Reply {
            reply: ClientReply::Sessionless { id, outcome },
        } => {
            let said = gateway::text::answer(id, &outcome);
            let said = said.expect("what is not told is not sent");
            let reply = ClientReply::Sessionless { id, outcome };
            (Parcel::Reply { reply }, xxhash_rust::xxh3::xxh3_64(&said))
        }
        Parcel::Request { from, message } => {
            let frame_kind = encode_request(&message, &mut body);
            let decoded = decode_client(frame_kind, &body)
                .expect("decodes")
                .expect("known");
            assert_eq!(decoded, message, "comes out as it went in");
            (
                Parcel::Request {
                    from,
                    message: decoded,
                },
                xxhash_rust::xxh3::xxh3_64(&body),
            )
        }
        Parcel::Reply { reply } => {
            let frame_kind = encode_reply(&reply, &mut body);
            fits_a_frame("a reply", &body);
            let decoded = decode_reply(frame_kind, &body);
            assert_eq!(decoded, reply, "comes out as it went in");
            (
                Parcel::Reply { reply: decoded },
                xxhash_rust::xxh3::xxh3_64(&body),
            )
        }
    }
}

/// Checks that the group, encoded as on disk, decodes to itself.
pub fn is_read_again(group: &Group) {
    let mut bytes = Vec::new();
    for (key, state) in &group.registers {
        bytes.clear();
        wire::encode(&mut bytes, state);
        assert_eq!(wire::decode(&bytes).as_ref(), Ok(state), "{key:?}");
        if let Some(record) = &state.record {
            record.check().unwrap_or_else(|e| panic!("{e}: {record:?}"));
        }
    }
    if let Some(meta) = &group.meta {
        bytes.clear();
        wire::encode(&mut bytes, meta);
        assert_eq!(wire::decode(&bytes).as_ref(), Ok(meta));
    }
}

pub fn encode_request(message: &ClientMessage, into: &mut Vec<u8>) -> u8 {
    match message {
        ClientMessage::Hello(body) => {
            wire::encode(into, body);
            kind::HELLO
        }
        ClientMessage::Request(body) => {
            wire::encode(into, body);
            kind::REQUEST
        }
        ClientMessage::StatusRequest(body) => {
            wire::encode(into, body);
            kind::STATUS_REQUEST
        }
        ClientMessage::Change(body) => {
            wire::encode(into, body);
            kind::CHANGE_REQUEST
        }
        ClientMessage::Sessionless { .. } => unreachable!("text has no frames"),
    }
}

fn decode_reply(frame_kind: u8, body: &[u8]) -> ClientReply {
    let known = "a reply decodes";
    match frame_kind {
        kind::HELLO_ANSWER => ClientReply::Hello(wire::decode(body).expect(known)),
        kind::ANSWER => ClientReply::Answer(wire::decode(body).expect(known)),
        kind::NO_SESSION => ClientReply::NoSession(wire::decode(body).expect(known)),
        kind::CHANGE_ANSWER => {
            let wire::ChangeAnswer { attempt, outcome } = wire::decode(body).expect(known);
            ClientReply::Change { attempt, outcome }
        }
        kind::STATUS_ANSWER => {
            let wire::StatusAnswer { attempt, status } = wire::decode(body).expect(known);
            ClientReply::Status {
                attempt,
                status: Box::new(status),
            }
        }
        other => panic!("no reply has kind {other}"),
    }
}

/// One line for human readers.
pub fn describe(passing: &Passing) -> String {
    let what = match &passing.parcel {
        Parcel::Peer { envelope, .. } => format!("r{:x} {:?}", envelope.round, envelope.message),
        Parcel::Request { message, .. } => format!("{message:?}"),
        Parcel::Reply { reply } => format!("{reply:?}"),
    };
    let what: String = what.chars().take(400).collect();
    format!("    {} -> {}: {what}", passing.from, passing.to)
}
