//! Writes the initial corpus: one well-formed example of each kind of frame, and one conversation.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use horseshoe::protocol::types::ballot::Ballot;
use horseshoe::protocol::types::digest::{Spread, Sums};
use horseshoe::protocol::types::message::*;
use horseshoe::protocol::types::range::KeyRange;
use horseshoe::protocol::types::record::{
    AcceptorState, Applied, AppliedOperation, ClientEntry, Key, Record, TextSlice,
};
use horseshoe::storage::format;
use horseshoe::storage::log::batch::{self, Position};
use wire::datagram::FrameHeader;
use wire::transfer::{
    SenderLimits, TRANSFER_ACK, TRANSFER_PIECE, TransferAck, TransferSender, TransferState,
};
use wire::*;

const BALLOT: Ballot = Ballot(1_700_000_000_000 << 20 | 2);

fn record() -> Arc<Record> {
    let operation = AppliedOperation {
        sequence: 2,
        birth: 1_700_000_000_000 << 12,
        outcome: Outcome::NothingToDelete,
    };
    let entry = ClientEntry {
        client: 7,
        mark: 1,
        birth_max: operation.birth,
        operations: vec![operation],
    };
    Arc::new(Record {
        value: Some(Bytes::from_static(b"12")),
        version: BALLOT.0,
        expiry_ms: None,
        intent: None,
        applied: Applied {
            dropped: 1,
            clients: vec![entry],
            slices: vec![TextSlice {
                first: 1,
                last: 2,
                hashes: vec![3, 4],
            }],
        },
    })
}

fn operation(sequence: u64, action: Action) -> Operation {
    Operation {
        id: OperationId {
            client: 7,
            sequence,
        },
        birth: 1_700_000_000_000 << 12,
        low_mark: 1,
        key: Bytes::from_static(b"k"),
        want_old: true,
        action,
    }
}

fn peer_messages() -> Vec<Message> {
    let key = Key::user(b"k");
    let (record, ballot) = (Some(record()), BALLOT);
    let floor = Ballot::ZERO;
    let member = Member {
        node: 1,
        incarnation: 1,
        address: "h:1".to_owned(),
        removals: 1,
        removed_at: 1_700_000_000_000 << 12,
    };
    let configuration = Configuration {
        cluster: 1,
        epoch: 2,
        members: vec![member.clone()],
        joint: Some(vec![member.clone()]),
        base: Ballot::ZERO,
        formed_by: 1,
        away: vec![Member { node: 2, ..member }],
        ids: 2,
        forced: false,
        spread: Spread::new(1, 4),
        ..Configuration::default()
    };
    let mut messages: Vec<Message> = vec![
        Prepare {
            key: key.clone(),
            ballot,
        }
        .into(),
        Promise {
            ballot,
            accepted: ballot,
            record: record.clone(),
            floor,
        }
        .into(),
        Nack {
            ballot,
            promised: ballot.next(),
        }
        .into(),
        Accept {
            key: key.clone(),
            ballot,
            record: self::record(),
        }
        .into(),
        Accepted { ballot }.into(),
        Resolve {
            parts: vec![ResolvePart {
                round: 7,
                key: key.clone(),
                over: ballot,
                committed: true,
            }],
        }
        .into(),
        AllAccepted {
            rounds: vec![(7, ballot)],
        }
        .into(),
        Chosen {
            chosen: vec![(key.clone(), ballot)],
        }
        .into(),
        Read {
            key: key.clone(),
            holds: floor,
        }
        .into(),
        ReadAnswer {
            accepted: ballot,
            chosen: true,
            record,
            floor,
        }
        .into(),
        Forward {
            from_boot: 2,
            to_boot: 1,
            attempt: 1,
            waited_us: 1,
            left_ms: 5_000,
            heard: 1,
            operation: operation(3, Action::Delete),
        }
        .into(),
        ForwardAnswer {
            to_boot: 1,
            attempt: 1,
            outcome: Outcome::Busy { after_ms: 0 },
        }
        .into(),
        Heartbeat {
            number: 1,
            echo: Some(Echo {
                number: 1,
                held_us: 2,
            }),
            rows: vec![Row {
                node: 2,
                incarnation: 3,
                boot: 4,
                starts: 2,
                found: 6,
                synced: 7,
                clock: 1_700_000_000_000 << 12,
                wall_ms: 1_700_000_000_000,
                unsynced_ms: 3,
                seen: vec![(1, 5)],
                full: 0,
                links: vec![ReportedLink {
                    from: 1,
                    up: true,
                    heard: true,
                    rtt_us: 100,
                    loss_permille: 1,
                }],
            }],
        }
        .into(),
        Survey {
            list: 1,
            index: 0,
            asker: 1,
            nonce: 0,
            name: String::new(),
        }
        .into(),
        SurveyAnswer {
            list: 1,
            index: 1,
            incarnation: 2,
            nonce: 3,
            word: true,
            bound_to: Some(1),
            name: "name".to_owned(),
        }
        .into(),
        ConfigurationUpdate { configuration }.into(),
        ConfigurationRequest {
            epoch: 1,
            address: "h:1".to_owned(),
        }
        .into(),
        Copy {
            key: key.clone(),
            ballot,
            record: self::record(),
        }
        .into(),
        CopyAck {
            key: key.clone(),
            ballot,
            refused_for: Some(ballot),
        }
        .into(),
    ];
    messages.extend(bucket_messages(&key));
    messages
}

/// The messages by which members compare all that they hold.
fn bucket_messages(key: &Key) -> Vec<Message> {
    let entry = BucketEntry {
        key: key.clone(),
        accepted: BALLOT,
        chosen: true,
        tombstone: false,
        size: 99,
    };
    vec![
        DigestsRequest { total: None }.into(),
        DigestsRequest { total: Some(4) }.into(),
        DigestsEqual { total: 4 }.into(),
        DigestsReply {
            clock: 1_700_000_000_000 << 12,
            sums: Sums::collect([1; 4].into_iter()),
        }
        .into(),
        BucketRequest {
            bucket: 1,
            after: Some(key.clone()),
        }
        .into(),
        BucketReply {
            bucket: 1,
            after: None,
            entries: vec![entry],
            next: Some(key.clone()),
        }
        .into(),
        RangeRequest {
            range: KeyRange {
                first: key.clone(),
                is_after: true,
                last: Some(key.clone()),
                is_before: false,
            },
            sum: 5,
        }
        .into(),
        RangeEqual { floor: BALLOT }.into(),
        RangeReply {
            entries: vec![RangeEntry {
                key: key.clone(),
                accepted: BALLOT,
                chosen: true,
            }],
            next: Some(key.clone()),
            floor: BALLOT,
        }
        .into(),
        CopiesRequest {
            keys: vec![key.clone()],
        }
        .into(),
        AdmissionRequest {
            ready: true,
            listed: 3,
        }
        .into(),
        RolledBack {
            incarnation: 1,
            starts: 2,
            boot: 3,
            synced: 4,
        }
        .into(),
        Purge {
            tombstones: vec![(key.clone(), BALLOT)],
        }
        .into(),
        Probe {
            padding: vec![0; 9].into(),
        }
        .into(),
    ]
}

fn encoded<T: serde::Serialize>(body: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    wire::encode(&mut bytes, body);
    bytes
}

fn request(sequence: u64, action: Action) -> (u8, Vec<u8>) {
    let request = Request {
        token: 0,
        attempt: sequence,
        retry: false,
        left_ms: 5_000,
        operation: operation(sequence, action),
    };
    (kind::REQUEST, encoded(&request))
}

fn client_messages() -> Vec<(u8, Vec<u8>)> {
    let hello = Hello {
        client: 7,
        nonce: 1,
        library_version: "x".to_owned(),
    };
    let value = Bytes::from_static(b"1");
    let status = StatusRequest {
        token: 0,
        attempt: 9,
    };
    vec![
        (kind::HELLO, encoded(&hello)),
        request(
            1,
            Action::Put {
                value: value.clone(),
            },
        ),
        request(2, Action::Get),
        request(3, Action::Add { delta: -1 }),
        request(
            8,
            Action::Scan {
                is_after: true,
                end: "l".into(),
                limit: 9,
                keys_only: true,
                deleted: false,
            },
        ),
        request(
            5,
            Action::PutFor {
                value: Bytes::from_static(b"v"),
                ttl_ms: 10_000,
                over: Some(0),
            },
        ),
        request(
            6,
            Action::Expire {
                ttl_ms: 1,
                over: Some(BALLOT.0),
            },
        ),
        request(
            4,
            Action::CompareValue {
                expected: value.clone(),
                value: value.clone(),
            },
        ),
        request(
            5,
            Action::Transact {
                transaction: Transaction {
                    parts: vec![TransactionPart {
                        key: value.clone(),
                        conditions: vec![Condition::Version(1), Condition::Value(value.clone())],
                        get: true,
                        change: Some(KeyChange::Append(value)),
                    }],
                },
            },
        ),
        (kind::STATUS_REQUEST, encoded(&status)),
    ]
}

/// What nodes answer to clients.
fn replies() -> Vec<(u8, Vec<u8>)> {
    let hello = HelloAnswer {
        nonce: 1,
        token: 2,
        node: 1,
        cluster: 1,
        epoch: 1,
        members: vec![MemberAddress {
            node: 1,
            address: "h:1".to_owned(),
        }],
        key_size_max: 1_024,
        value_size_max: 1_024,
        shard_ports: vec![],
        clock: 1_700_000_000_000 << 12,
    };
    let answer = |attempt, outcome| {
        let clock = 1_700_000_000_000 << 12;
        (
            kind::ANSWER,
            encoded(&Answer {
                attempt,
                clock,
                outcome,
            }),
        )
    };
    let value = Bytes::from_static(b"1");
    let status = StatusAnswer {
        attempt: 1,
        status: NodeStatus::default(),
    };
    vec![
        (kind::HELLO_ANSWER, encoded(&hello)),
        answer(1, Outcome::Value { version: 1, value }),
        answer(2, Outcome::NoQuorum { reached: vec![1] }),
        answer(
            3,
            Outcome::Written {
                version: 1,
                old: Old::Forgotten,
                number: Some(1),
            },
        ),
        answer(4, Outcome::Remake { dropped: 1 }),
        answer(4, Outcome::Ahead { clock: 1 }),
        (
            kind::NO_SESSION,
            encoded(&NoSession {
                token: 2,
                attempt: 1,
            }),
        ),
        (kind::STATUS_ANSWER, encoded(&status)),
    ]
}

/// See `pieces`: the lowest bits of the flags are the id of the origin less one.
fn piece(flags: u8, kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len())
        .expect("a short body")
        .to_le_bytes();
    let mut bytes = vec![kind, flags, length[0], length[1]];
    bytes.extend_from_slice(body);
    bytes
}

fn write(target: &str, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target);
    std::fs::create_dir_all(&corpus)?;
    std::fs::write(corpus.join(name), bytes)
}

fn write_entries() -> std::io::Result<()> {
    let key = Key::user(b"k");
    let state = AcceptorState {
        promised: BALLOT.next(),
        accepted: BALLOT,
        chosen: true,
        record: Some(record()),
        life: 1,
    };
    let mut register = Vec::new();
    format::encode_register(&mut register, &state);
    write("record", "register", &register)?;
    let group = Group {
        number: 1,
        registers: vec![(key.clone(), state)],
        dropped: vec![Key::user(b"d")],
        chosen: vec![(key, BALLOT)],
        ..Group::default()
    };
    let mut bytes = Vec::new();
    let start = Position { group: 0, chain: 0 };
    batch::encode(&mut bytes, &[group], start, 0);
    write("record", "batch", &bytes)?;
    write("record", "entries", &bytes[24..bytes.len() - 8])?;
    let configuration = peer_messages()
        .into_iter()
        .find_map(|message| match message {
            Message::ConfigurationUpdate(reported) => Some(reported.configuration),
            _ => None,
        });
    let meta = Meta {
        configuration,
        ..Meta::default()
    };
    let mut encoded = Vec::new();
    format::encode_meta(&mut encoded, &meta);
    write("record", "meta", &encoded)
}

fn write_text() -> std::io::Result<()> {
    let texts = [
        "GET [k] [5]",
        "PUT [k] [v w] [18446744073709551615]",
        "PUT [k] [a[b] [5]",
        "GET [k] [x]",
    ];
    for (at, text) in texts.iter().enumerate() {
        write("text", &format!("text-{at}"), text.as_bytes())?;
    }
    Ok(())
}

/// The pieces of a frame, and acknowledgements of the two transfers that the target sends.
fn write_transfers() -> std::io::Result<()> {
    let limits = SenderLimits {
        total: 1 << 20,
        of_peer: 1 << 20,
    };
    let mut sender = TransferSender::new(limits, 5);
    sender.offer(0, (1, 1_200), FrameHeader::default(), vec![7; 9_000]);
    let mut talk = Vec::new();
    sender.poll(0, 1 << 20, &mut |due| {
        talk.extend(piece(TRANSFER_PIECE, 1, due.body));
    });
    for number in 1..3 {
        for (echo, below, state) in [(3, 2, TransferState::Open), (9, 0, TransferState::Done)] {
            let ack = TransferAck {
                number,
                echo,
                held_us: 5,
                room: 50_000,
                below,
                state,
                ranges: vec![(below + 1, below + 2)],
            };
            let mut body = Vec::new();
            ack.encode(&mut body);
            let flags = TRANSFER_ACK | (number as u8 - 1) << 4;
            talk.extend(piece(flags, 1, &body));
        }
    }
    write("transfer", "talk", &talk)
}

fn main() -> std::io::Result<()> {
    write_entries()?;
    write_text()?;
    write_transfers()?;
    let mut talk = Vec::new();
    // Heartbeats of both other nodes come first, because without them there is no quorum.
    for heartbeat in peer_messages().iter().filter(|m| m.kind() == 26) {
        let body = encoded_peer(heartbeat);
        talk.extend([1, 2].map(|flags| piece(flags, 26, &body)).concat());
    }
    for (at, (kind, body)) in client_messages().iter().enumerate() {
        write("datagram", &format!("client-{at}"), &piece(0, *kind, body))?;
        talk.extend(piece(0, *kind, body));
    }
    for message in peer_messages() {
        let body = encoded_peer(&message);
        let one = piece(1, message.kind(), &body);
        write("datagram", message.name(), &one)?;
        write("replica", message.name(), &[talk.clone(), one].concat())?;
    }
    write("replica", "talk", &talk)?;
    let mut talk = Vec::new();
    for (at, (kind, body)) in replies().iter().enumerate() {
        write(
            "client_frame",
            &format!("reply-{at}"),
            &piece(0, *kind, body),
        )?;
        talk.extend(piece(0, *kind, body));
    }
    write("client_frame", "talk", &talk)
}

fn encoded_peer(message: &Message) -> Vec<u8> {
    let mut body = Vec::new();
    message.encode_body(&mut body);
    body
}
