//! A member of a cluster of three receives whatever can be decoded, from any sender, and continues.
#![no_main]

use std::net::SocketAddr;

use horseshoe::protocol::types::ballot::Ballot;
use horseshoe::protocol::types::digest::Spread;
use horseshoe::protocol::types::limits::{DISK_HUNG_MS_DEFAULT, HEARTBEAT_MS_DEFAULT, LINK_DOWN_MS_DEFAULT};
use horseshoe::protocol::types::message::{
    ClientReply, Configuration, Input, Member, Message, Meta, Now, Output, Recovered,
};
use horseshoe::protocol::types::record::Key;
use horseshoe::protocol::{Options, Replica, Tuning};
use horseshoe::runtime::decode::{Arrival, Datagram, Source, decode};
use horseshoe::runtime::joiners::Joiners;
use horseshoe::runtime::tally::Tally;
use horseshoe::storage::Table;
use horseshoe_fuzz::{Piece, pieces, seal};
use wire::datagram::FrameHeader;
use wire::{ChangeRequest, Request};
use libfuzzer_sys::fuzz_target;
use serde::Serialize;

const CLUSTER: u64 = 1;
/// The same number as in the conversations in `seeds/`. It is small, so that the messages that list
/// all buckets are short.
const BUCKETS: u16 = 4;

fn member(node: u8) -> Member {
    Member {
        node,
        incarnation: u64::from(node),
        address: format!("h:{node}"),
        ..Member::default()
    }
}

fn start(now: Now) -> Replica {
    let options = Options {
        list: (1..=3).map(|node| format!("h:{node}")).collect(),
        index: 0,
        boot: 1,
        seed: 1,
        skew_max_ms: 60_000,
        insecure_admin: true,
        value_size_max: wire::VALUE_SIZE_DEFAULT,
        keys_cached_max: 2,
        cache_size_max: 64 << 20,
        heartbeat_ms: HEARTBEAT_MS_DEFAULT,
        link_down_ms: LINK_DOWN_MS_DEFAULT,
        shrink_after_ms: 0,
        disk_hung_ms: DISK_HUNG_MS_DEFAULT,
        cluster_name: String::new(),
        bootstrap: false,
        tuning: Tuning::default(),
    };
    let configuration = Configuration {
        cluster: CLUSTER,
        epoch: 1,
        members: (1..=3).map(member).collect(),
        formed_by: 1,
        away: vec![member(4)],
        ids: 4,
        spread: Spread::new(1, BUCKETS),
        ..Configuration::default()
    };
    let recovered = Recovered {
        incarnation: 1,
        meta: Meta {
            configuration: Some(configuration),
            ..Meta::default()
        },
        ..Recovered::default()
    };
    Replica::new(options, recovered, now)
}

/// The piece contains the ballot to use; without the flag it is the ballot of the replica's last
/// request.
const FLAG_OWN_BALLOT: u8 = 1 << 4;
/// The piece is an Accept with the key and the ballot of the last one.
const FLAG_AGAIN: u8 = 1 << 5;

/// Values that the replica chose, which a piece cannot contain.
#[derive(Default)]
struct Learned {
    /// The last round for which the replica sent a message.
    round: u64,
    /// The ballot of the replica's last request.
    ballot: Ballot,
    /// The last Accept that was sent to the replica.
    accept: Option<(Key, Ballot)>,
    /// The token of the client's session.
    token: u64,
    attempts: u64,
}

/// Handles the replica's outputs, as a runtime in memory does.
fn drain(replica: &mut Replica, table: &mut Table, now: Now, learned: &mut Learned) {
    while let Some(output) = replica.poll_output() {
        match output {
            Output::Load(key) => {
                let state = table.load(&key);
                replica.handle_input(now, Input::Loaded { key, state });
            }
            Output::ListRange { listing, range, bounds, epoch } => {
                let page = table.list_range(&range, bounds);
                replica.handle_input(now, Input::RangeListed { listing, epoch, page });
            }
            Output::List { bucket, after, epoch } => {
                let page = table.list(bucket, after.as_ref());
                replica.handle_input(now, Input::Listed { bucket, after, epoch, page });
            }
            Output::Persist(group) => {
                table.apply(&group);
                let group = group.number;
                replica.handle_input(now, Input::Persisted { group });
            }
            Output::Send { envelope, .. } if envelope.round != 0 => {
                learned.round = envelope.round;
                match &envelope.message {
                    Message::Prepare(m) => learned.ballot = m.ballot,
                    Message::Accept(m) => learned.ballot = m.ballot,
                    _ => {}
                }
            }
            Output::Reply {
                reply: ClientReply::Hello(answer),
                ..
            } => learned.token = answer.token,
            _ => {}
        }
    }
}

/// The flags of a piece determine the sender, the destination, the epoch, and how much time passes
/// before the frame arrives.
fn header(piece: &Piece<'_>, round: u64) -> FrameHeader {
    let origin = 1 + (piece.flags & 0b11);
    FrameHeader {
        kind: piece.kind,
        flags: 0,
        origin,
        destination: 1,
        hops_left: 0,
        incarnation: u64::from(origin) + u64::from(piece.flags >> 2 & 1),
        epoch: 1 + u64::from(piece.flags >> 3 & 1),
        message_id: round,
    }
}

fn encoded<T: Serialize>(body: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    wire::encode(&mut bytes, body);
    bytes
}

/// Turns requests into requests of the session, and replies into replies to the replica's own
/// requests; otherwise the replica would drop nearly all of them.
fn body(piece: &Piece<'_>, learned: &mut Learned) -> Vec<u8> {
    let attempt = learned.attempts + 1;
    let token = learned.token;
    let fitted = match piece.kind {
        wire::kind::REQUEST => wire::decode::<Request>(piece.body).ok().map(|request| {
            encoded(&Request { token, attempt, ..request })
        }),
        wire::kind::CHANGE_REQUEST => wire::decode::<ChangeRequest>(piece.body).ok().map(|request| {
            encoded(&ChangeRequest { token, attempt, ..request })
        }),
        kind => {
            let message = Message::decode(kind, piece.body).ok().flatten();
            return message.map_or_else(|| piece.body.to_vec(), |m| fitting(m, piece.flags, learned));
        }
    };
    learned.attempts += u64::from(fitted.is_some());
    fitted.unwrap_or_else(|| piece.body.to_vec())
}

fn fitting(mut message: Message, flags: u8, learned: &mut Learned) -> Vec<u8> {
    let ballot = learned.ballot;
    match &mut message {
        Message::Accept(m) => {
            if let Some((key, ballot)) = learned.accept.clone().filter(|_| flags & FLAG_AGAIN != 0) {
                (m.key, m.ballot) = (key, ballot);
            }
            learned.accept = Some((m.key.clone(), m.ballot));
        }
        Message::Promise(m) if flags & FLAG_OWN_BALLOT == 0 => m.ballot = ballot,
        Message::Accepted(m) if flags & FLAG_OWN_BALLOT == 0 => m.ballot = ballot,
        Message::Nack(m) if flags & FLAG_OWN_BALLOT == 0 => m.ballot = ballot,
        _ => {}
    }
    let mut body = Vec::new();
    message.encode_body(&mut body);
    body
}

fuzz_target!(|bytes: &[u8]| {
    let mut now = Now {
        mono_us: 1,
        wall_ms: 1_700_000_000_000,
    };
    let mut replica = start(now);
    let mut table = Table::default();
    let mut learned = Learned::default();
    let mut joiners = Joiners::default();
    for piece in pieces(bytes) {
        let pause_us = [0, 100, 5_000, 700_000][usize::from(piece.flags >> 6)];
        now.mono_us += pause_us;
        now.wall_ms += pause_us / 1_000;
        if replica
            .next_timeout()
            .is_some_and(|at_us| at_us <= now.mono_us)
        {
            replica.handle_input(now, Input::Timeout);
        }
        let body = body(&piece, &mut learned);
        let sealed = seal(0, CLUSTER, &header(&piece, learned.round), &body);
        let from = Source {
            address: SocketAddr::from(([127, 0, 0, 1], 7)),
            is_own_machine: true,
        };
        let mut tally = Tally::default();
        let datagram = Datagram {
            bytes: &sealed,
            from,
            now_us: now.mono_us,
            is_nodes: true,
            is_open: false,
        };
        decode(&datagram, (0, 1), &mut joiners, &mut tally, &mut |arrival| match arrival {
            Arrival::Input(input) => replica.handle_input(now, input),
            Arrival::Transit(transit) => unreachable!("for nobody else: {transit:?}"),
            // Nothing is being transferred.
            Arrival::Ack { .. } => {}
        });
        drain(&mut replica, &mut table, now, &mut learned);
    }
});
