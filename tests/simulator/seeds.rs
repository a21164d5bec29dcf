//! The initial inputs of the fuzz targets: conversations of simulated nodes, stored in
//! `fuzz/seeds/` as pieces (see `fuzz/src/lib.rs`).

use std::path::{Path, PathBuf};

use bytes::Bytes;
use horseshoe::protocol::types::message::{
    Accept, Message, ReadAnswer, decode_client, encode_reply,
};
use horseshoe::protocol::types::record::{Key, Record};
use wire::{Action, Change, ChangeRequest, kind};

use crate::sim::codec::encode_request;
use crate::sim::event::{Parcel, Passing};
use crate::sim::network::Place;
use crate::sim::script::{Script, any, append, put, swap};

/// The flags of the target `replica`.
const ORIGIN: u8 = 0b11;
const AGAIN: u8 = 1 << 5;
const PAUSE_SHORT: u8 = 1 << 6;
const PAUSE_OF_A_HEARTBEAT: u8 = 2 << 6;
/// A larger seed is truncated.
const SEED_SIZE_MAX: usize = 12 << 10;

fn piece(kind: u8, flags: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).expect("a short body");
    let [low, high] = length.to_le_bytes();
    [&[kind, flags, low, high], body].concat()
}

fn of_message(origin: u8, flags: u8, message: &Message) -> Vec<u8> {
    let mut body = Vec::new();
    message.encode_body(&mut body);
    piece(message.kind(), (origin - 1) | flags, &body)
}

/// The messages to node 0, whose id is 1.
fn to_node(passing: &Passing) -> Option<Vec<u8>> {
    match &passing.parcel {
        _ if !passing.is_to(0) => None,
        Parcel::Peer { envelope, .. } if envelope.origin > 0 => {
            let pause = match envelope.message {
                Message::Heartbeat(_) => PAUSE_OF_A_HEARTBEAT,
                _ => PAUSE_SHORT,
            };
            Some(of_message(envelope.origin, pause, &envelope.message))
        }
        Parcel::Request { message, .. } => {
            let mut body = Vec::new();
            let kind = encode_request(message, &mut body);
            Some(piece(kind, PAUSE_SHORT, &body))
        }
        _ => None,
    }
}

fn to_client(passing: &Passing) -> Option<Vec<u8>> {
    let (Place::Node(node), Parcel::Reply { reply }) = (passing.from, &passing.parcel) else {
        return None;
    };
    let mut body = Vec::new();
    let kind = encode_reply(reply, &mut body);
    Some(piece(kind, node as u8 & ORIGIN, &body))
}

fn joined(pieces: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut seed = Vec::new();
    for piece in pieces {
        if seed.len() + piece.len() > SEED_SIZE_MAX {
            break;
        }
        seed.extend(piece);
    }
    seed
}

fn script(nodes: usize) -> Script {
    let mut c = Script::cold(nodes);
    c.cluster.settings.shrink_after_ms = 1_000;
    c.cluster.settings.tuning.buckets = 4;
    c.cluster.start_all();
    c.until("a configuration", |c| c.is_formed());
    c.run_ms(300);
    c
}

/// Reads, writes of each kind, and the rounds of two competing coordinators.
fn writes() -> Script {
    let mut c = script(3);
    let clients = [c.client_of(&[0]), c.client_of(&[1])];
    c.put(clients[0], "k", "1");
    let others = [append("2"), swap("12", "3"), Action::Add { delta: 4 }];
    for action in others {
        c.run(clients[0], "k", action);
    }
    let both = clients.map(|client| c.begin(client, "k", put("5")));
    for call in both {
        c.end(call);
    }
    c.run(clients[1], "k", Action::Delete);
    c.get(clients[0], "k");
    c
}

/// A member misses a write, is removed, and admitted again.
fn changes() -> Script {
    let mut c = script(4);
    let client = c.client_of(&[0]);
    c.put(client, "a", "1");
    c.isolate(3);
    c.put(client, "b", "2");
    c.run_ms(1_600);
    c.heal_nodes();
    c.run_ms(3_000);
    c
}

/// The configuration's register is read for a change, and contains a value that is not a
/// configuration.
fn garbage() -> Vec<u8> {
    let c = script(3);
    let heard = c.sent(any().to(0));
    let heartbeats = heard.iter().filter(|p| p.name() == "Heartbeat");
    let mut seed: Vec<Vec<u8>> = heartbeats.take(20).filter_map(to_node).collect();
    let hello = wire::Hello {
        client: 7,
        nonce: 1,
        library_version: "x".into(),
    };
    let request = ChangeRequest {
        token: 0,
        attempt: 0,
        change: Change::TransferMaster { node: 2 },
    };
    let mut bodies = [Vec::new(), Vec::new()];
    wire::encode(&mut bodies[0], &hello);
    wire::encode(&mut bodies[1], &request);
    seed.push(piece(kind::HELLO, 0, &bodies[0]));
    seed.push(piece(kind::CHANGE_REQUEST, 0, &bodies[1]));
    let record = Record {
        value: Some(Bytes::from_static(b"no configuration")),
        version: 1 << 20,
        ..Record::default()
    };
    let answer = ReadAnswer {
        accepted: horseshoe::protocol::types::ballot::Ballot::new(1 << 12, 2),
        chosen: true,
        record: Some(record.into()),
        floor: Default::default(),
    };
    let answer = Message::from(answer);
    seed.extend([2, 3].map(|origin| of_message(origin, PAUSE_SHORT, &answer)));
    seed.concat()
}

/// A ballot arrives with one record, then with another.
fn twice() -> Vec<u8> {
    let accept = |value: &'static [u8]| {
        let record = Record {
            value: Some(Bytes::from_static(value)),
            version: 1 << 20,
            ..Record::default()
        };
        let accept = Accept {
            key: Key::user(b"k"),
            ballot: horseshoe::protocol::types::ballot::Ballot::new(1 << 12, 2),
            record: record.into(),
        };
        Message::from(accept)
    };
    let first = of_message(2, PAUSE_SHORT, &accept(b"1"));
    [first, of_message(2, PAUSE_SHORT | AGAIN, &accept(b"2"))].concat()
}

fn seeds_of(script: &Script, name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let sent = script.sent(any());
    let named = |target: &str, seed| (Path::new(target).join(name), seed);
    vec![
        named("replica", joined(sent.iter().filter_map(to_node))),
        named("client_frame", joined(sent.iter().filter_map(to_client))),
    ]
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds")
}

/// Each piece of a seed is a message of the current wire format.
fn check(path: &Path) {
    let seed = std::fs::read(path).expect("a seed");
    let mut rest = seed.as_slice();
    while let Some((&[kind, _, low, high], behind)) = rest.split_first_chunk() {
        let (body, behind) = behind.split_at(u16::from_le_bytes([low, high]).into());
        rest = behind;
        let of_peer = matches!(Message::decode(kind, body), Ok(Some(_)));
        let of_client = matches!(decode_client(kind, body), Ok(Some(_)));
        let of_node = matches!(
            kind,
            kind::HELLO_ANSWER | kind::ANSWER | kind::NO_SESSION | kind::CHANGE_ANSWER
        );
        let known = of_peer || of_client || of_node;
        let again = "REWRITE=1 cargo test --test simulator seeds";
        assert!(known, "{}: kind {kind} is stale: {again}", path.display());
    }
    assert!(rest.is_empty(), "{}", path.display());
}

#[test]
fn seeds_of_the_fuzzer_are_what_nodes_say() {
    if std::env::var_os("REWRITE").is_some() {
        let mut seeds = seeds_of(&writes(), "writes");
        seeds.extend(seeds_of(&changes(), "changes"));
        seeds.push(("replica/garbage".into(), garbage()));
        seeds.push(("replica/twice".into(), twice()));
        for (name, seed) in seeds {
            let path = directory().join(name);
            std::fs::create_dir_all(path.parent().expect("a target's")).unwrap();
            std::fs::write(path, seed).unwrap();
        }
    }
    for (target, count) in [("replica", 4), ("client_frame", 2)] {
        let files = std::fs::read_dir(directory().join(target)).expect("seeds");
        let files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
        assert_eq!(files.len(), count);
        files.iter().for_each(|path| check(path));
    }
}
