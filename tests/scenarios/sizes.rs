//! Messages of the largest size: each fits a datagram (the simulator stops at one that does not),
//! and what does not fit one message is sent in another.

use std::sync::Arc;

use bytes::Bytes;
use horseshoe::protocol::types::ballot::Ballot;
use horseshoe::protocol::types::configuration::{AdmissionBase, Forced, lineage_of};
use horseshoe::protocol::types::digest::{BUCKETS_MAX, Spread, Sums};
use horseshoe::protocol::types::limits::{
    ADDRESS_SIZE_MAX, APPLIED_SIZE_MAX, FOLLOWED_LAST, FORCES_MAX, MEMBERS_MAX, NODES_AWAY_MAX,
    NODES_MAX, TEXT_SLICE_HASHES_MAX, TEXT_SLICES_SIZE_MAX,
};
use horseshoe::protocol::types::message::{
    Accept, ClientReply, Configuration, ConfigurationRequest, ConfigurationUpdate, Copy,
    DigestsReply, EPOCH_MAX, Echo, Forward, ForwardAnswer, Heartbeat, Member, Message, Promise,
    ReadAnswer, ReportedLink, Row, encode_reply,
};
use horseshoe::protocol::types::record::{
    Applied, AppliedOperation, ClientEntry, Key, Record, TextSlice,
};
use wire::clock::READING_SANE_MAX;
use wire::datagram::{DATAGRAM_HEADER_SIZE, DATAGRAM_SIZE_MAX, FRAME_HEADER_SIZE};
use wire::transfer::FRAME_BODY_SIZE_MAX;
use wire::{
    Action, BehindStatus, CHANGE_REASON_SIZE_MAX, CLUSTER_NAME_SIZE_MAX, ChangeOutcome,
    ClockStatus, HelloAnswer, KEY_SIZE_MAX, LinkStatus, MemberAddress, MemberStatus, NodeStatus,
    OLD_VALUE_KEPT_SIZE_MAX, Old, Operation, OperationId, Outcome, RouteStatus, VALUE_SIZE_MAX,
};

use crate::scenarios::handoff::held;
use crate::sim::script::{Script, msg, put};

/// Concurrent calls, well below what a key or a node accepts.
const AT_A_TIME: usize = 300;

fn run_all(c: &mut Script, client: usize, keys: &[String], action: &Action) {
    for some in keys.chunks(AT_A_TIME) {
        let calls = some.iter().map(|key| c.begin(client, key, action.clone()));
        let calls: Vec<usize> = calls.collect();
        calls.into_iter().for_each(|call| drop(c.end(call)));
    }
}

/// More than a datagram can hold, of short keys: the counted overhead is larger than the keys.
#[test]
pub fn tombstones_of_many_short_keys_are_purged() {
    let mut c = Script::cold(3);
    c.cluster.settings.tuning.buckets = 1;
    c.cluster.start_all();
    c.until("a configuration", |c| c.is_formed());
    c.run_ms(300);
    let client = c.client();
    let keys: Vec<String> = (0..3_600).map(|n| format!("{n:x}")).collect();
    run_all(&mut c, client, &keys, &put("x"));
    run_all(&mut c, client, &keys, &Action::Delete);
    c.run_ms(9_000);
    c.until("nothing is held", |c| {
        let mut nodes = 0..3;
        nodes.all(|node| keys.iter().all(|key| held(c, node, key).is_none()))
    });
    c.check();
}

/// All within one heartbeat interval, as fast as a node can be: the pending Chosen messages are
/// sent with the next heartbeat.
#[test]
pub fn notices_of_many_long_keys_arrive() {
    let mut c = Script::new(3);
    let client = c.client_of(&[0]);
    let long = |n: usize| format!("{n:0width$}", width = KEY_SIZE_MAX);
    let keys: Vec<String> = (0..200).map(long).collect();
    run_all(&mut c, client, &keys, &put("x"));
    c.run_ms(200);
    let told = c.sent(msg("Chosen").from(0).to(1));
    let told = told.iter().filter_map(|p| match &p.envelope()?.message {
        Message::Chosen(m) => Some(m.chosen.len()),
        _ => None,
    });
    let told: Vec<usize> = told.collect();
    let coordinated = c.sent(msg("Chosen").to(1)).len();
    assert!(
        coordinated > told.len() && told.iter().sum::<usize>() > 30,
        "{told:?}"
    );
    c.check();
}

#[track_caller]
fn assert_fits(what: &str, body: &[u8]) {
    let size = DATAGRAM_HEADER_SIZE + FRAME_HEADER_SIZE + body.len();
    assert!(size <= DATAGRAM_SIZE_MAX, "{what} takes {size} bytes");
}

/// The message fits, and its receiver accepts it.
#[track_caller]
fn assert_is_taken(message: impl Into<Message>) {
    let message = message.into();
    let mut body = Vec::new();
    message.encode_body(&mut body);
    assert_fits(message.name(), &body);
    assert_eq!(Message::decode(message.kind(), &body), Ok(Some(message)));
}

/// The message has a value, and fits a frame; its receiver accepts it.
#[track_caller]
fn assert_value_is_taken(message: impl Into<Message>) {
    let message = message.into();
    let mut body = Vec::new();
    message.encode_body(&mut body);
    let size = body.len();
    assert!(
        size <= FRAME_BODY_SIZE_MAX,
        "{} takes {size} bytes",
        message.name()
    );
    assert_eq!(Message::decode(message.kind(), &body), Ok(Some(message)));
}

fn ballot() -> Ballot {
    Ballot::new(READING_SANE_MAX, u8::MAX)
}

fn key() -> Key {
    Key::user(&[0xff; KEY_SIZE_MAX])
}

fn value() -> Bytes {
    vec![0xff; VALUE_SIZE_MAX].into()
}

fn written(old: Old) -> Outcome {
    Outcome::Written {
        version: READING_SANE_MAX << 8,
        old,
        number: Some(i64::MIN),
    }
}

/// A record with a value, and a table with as many clients as its bound allows, counting an entry
/// as the protocol does (100 bytes), or with outcomes of the largest size.
fn record(old_size: usize) -> Arc<Record> {
    let operation = AppliedOperation {
        sequence: u64::MAX,
        birth: READING_SANE_MAX,
        outcome: written(Old::Value(vec![0xff; old_size].into())),
    };
    let client = ClientEntry {
        client: u128::MAX,
        mark: u64::MAX,
        birth_max: READING_SANE_MAX,
        operations: vec![operation],
    };
    let slice = TextSlice {
        first: READING_SANE_MAX,
        last: READING_SANE_MAX,
        hashes: vec![u64::MAX; TEXT_SLICE_HASHES_MAX],
    };
    let slices = TEXT_SLICES_SIZE_MAX / slice.size();
    let applied = Applied {
        dropped: READING_SANE_MAX,
        clients: vec![client; APPLIED_SIZE_MAX / (100 + old_size)],
        slices: vec![slice; slices],
    };
    Arc::new(Record {
        value: Some(value()),
        version: READING_SANE_MAX << 8,
        expiry_ms: Some(u64::MAX),
        intent: None,
        applied,
    })
}

#[test]
fn messages_of_one_key_fit_a_frame() {
    for old_size in [0, OLD_VALUE_KEPT_SIZE_MAX] {
        let (key, ballot, record) = (key(), ballot(), record(old_size));
        assert_value_is_taken(Promise {
            ballot,
            accepted: ballot,
            record: Some(record.clone()),
            floor: ballot,
        });
        assert_value_is_taken(ReadAnswer {
            accepted: ballot,
            chosen: true,
            record: Some(record.clone()),
            floor: ballot,
        });
        assert_value_is_taken(Accept {
            key: key.clone(),
            ballot,
            record: record.clone(),
        });
        assert_value_is_taken(Copy {
            key,
            ballot,
            record,
        });
    }
    let operation = Operation {
        id: OperationId {
            client: u128::MAX,
            sequence: u64::MAX,
        },
        birth: READING_SANE_MAX,
        low_mark: u64::MAX,
        key: vec![0xff; KEY_SIZE_MAX].into(),
        want_old: true,
        action: Action::CompareValue {
            expected: value().slice(1..),
            value: value().slice(..1),
        },
    };
    assert_value_is_taken(Forward {
        from_boot: u64::MAX,
        to_boot: u64::MAX,
        attempt: u64::MAX,
        waited_us: u64::MAX,
        left_ms: u32::MAX,
        heard: u64::MAX,
        operation: operation.into(),
    });
    assert_value_is_taken(ForwardAnswer {
        to_boot: u64::MAX,
        attempt: u64::MAX,
        outcome: written(Old::Value(value())),
    });
}

fn members(count: usize) -> Vec<Member> {
    let member = |n: usize| Member {
        node: u8::MAX - n as u8,
        incarnation: u64::MAX,
        address: "a".repeat(ADDRESS_SIZE_MAX),
        removals: u8::MAX,
        removed_at: READING_SANE_MAX,
    };
    (0..count).map(member).collect()
}

/// Each node has a link from each other node.
#[test]
fn messages_of_all_nodes_fit_a_datagram() {
    let link = ReportedLink {
        from: u8::MAX,
        up: true,
        heard: true,
        rtt_us: u32::MAX,
        loss_permille: 1_000,
    };
    let row = Row {
        node: u8::MAX,
        incarnation: u64::MAX,
        boot: u64::MAX,
        starts: u64::MAX,
        found: u64::MAX,
        synced: u64::MAX,
        clock: READING_SANE_MAX,
        wall_ms: READING_SANE_MAX >> 12,
        unsynced_ms: u32::MAX,
        seen: vec![(u8::MAX, u64::MAX); 2 * MEMBERS_MAX],
        full: 0,
        links: vec![link; NODES_MAX - 1],
    };
    assert_is_taken(Heartbeat {
        number: u32::MAX,
        echo: Some(Echo {
            number: u32::MAX,
            held_us: u32::MAX,
        }),
        rows: vec![row; NODES_MAX],
    });
    let forced = Forced {
        lineage: lineage_of(EPOCH_MAX),
        from: EPOCH_MAX,
    };
    let admission = AdmissionBase {
        node: u8::MAX,
        base: Ballot::new(FOLLOWED_LAST, u8::MAX),
    };
    let configuration = Configuration {
        cluster: u64::MAX,
        epoch: EPOCH_MAX,
        members: members(MEMBERS_MAX),
        joint: Some(members(MEMBERS_MAX)),
        base: Ballot::new(FOLLOWED_LAST, u8::MAX),
        formed_by: u64::MAX,
        away: members(NODES_AWAY_MAX),
        ids: u8::MAX,
        forced: true,
        spread: Spread::new(u128::MAX, BUCKETS_MAX),
        forces: vec![forced; FORCES_MAX],
        name: "n".repeat(CLUSTER_NAME_SIZE_MAX),
        admissions: vec![admission; MEMBERS_MAX],
    };
    assert_is_taken(ConfigurationUpdate {
        configuration: configuration.into(),
    });
    assert_is_taken(ConfigurationRequest {
        epoch: u64::MAX,
        address: "a".repeat(ADDRESS_SIZE_MAX),
    });
    assert_is_taken(DigestsReply {
        clock: READING_SANE_MAX,
        sums: Sums::collect((0..BUCKETS_MAX).map(|_| u64::MAX)),
    });
}

#[test]
fn replies_at_their_largest_fit_a_datagram() {
    let address = || "a".repeat(ADDRESS_SIZE_MAX);
    let member = MemberStatus {
        node: u8::MAX,
        address: address(),
        heard: true,
        incarnation: u64::MAX,
    };
    // Ids of 128 and more take two bytes, and few nodes have them.
    let link = LinkStatus {
        from: 50,
        to: 50,
        up: true,
        rtt_us: u32::MAX,
        loss_permille: 1_000,
        drops_large: true,
    };
    let nodes = MEMBERS_MAX + NODES_AWAY_MAX;
    let route = RouteStatus {
        to: 50,
        through: vec![50; 8],
        works: true,
    };
    let behind = BehindStatus {
        node: u8::MAX,
        keys: u64::MAX,
        overflowed: u64::MAX,
    };
    let clock = ClockStatus {
        node: u8::MAX,
        offset_ms: i64::MIN,
        error_ms: u32::MAX,
    };
    let status = NodeStatus {
        members: vec![member.clone(); MEMBERS_MAX],
        away: vec![member; NODES_AWAY_MAX],
        waits_for: "a".repeat(MEMBERS_MAX * (ADDRESS_SIZE_MAX + 2) + 500),
        links: vec![link; nodes * (nodes - 1)],
        routes: vec![route; nodes],
        behind: vec![behind; MEMBERS_MAX],
        clocks: vec![clock; nodes],
        cluster_name: "n".repeat(CLUSTER_NAME_SIZE_MAX),
        ..NodeStatus::default()
    };
    let hello = HelloAnswer {
        nonce: u64::MAX,
        token: u64::MAX,
        node: u8::MAX,
        cluster: u64::MAX,
        epoch: u64::MAX,
        members: vec![
            MemberAddress {
                node: u8::MAX,
                address: address(),
            };
            2 * MEMBERS_MAX
        ],
        key_size_max: u32::MAX,
        value_size_max: u32::MAX,
        shard_ports: Vec::new(),
        clock: u64::MAX,
    };
    let change = ChangeOutcome::Refused {
        reason: "a".repeat(CHANGE_REASON_SIZE_MAX),
        soon: true,
    };
    for (what, reply) in [
        ("a hello's answer", ClientReply::Hello(hello)),
        (
            "a status",
            ClientReply::Status {
                attempt: u64::MAX,
                status: status.into(),
            },
        ),
        (
            "a change's answer",
            ClientReply::Change {
                attempt: u64::MAX,
                outcome: change,
            },
        ),
    ] {
        let mut body = Vec::new();
        encode_reply(&reply, &mut body);
        assert_fits(what, &body);
    }
}

/// Networks that drop IP fragments drop probes, and no other message.
#[test]
pub fn a_link_that_drops_large_datagrams_is_named_in_the_status() {
    let mut c = Script::new(3);
    c.lose(msg("Probe").from(0).to(1));
    c.run_ms(55_000);
    for node in 0..3 {
        let now = c.nodes[node].now(c.now_us);
        let status = c.nodes[node].replica.as_ref().expect("it runs").status(now);
        let links = status.links.iter().filter(|link| link.drops_large);
        let named: Vec<_> = links.map(|link| (link.from, link.to)).collect();
        let expected = if node == 1 { vec![(1, 2)] } else { Vec::new() };
        assert_eq!(named, expected, "told by node {}", node + 1);
    }
    c.check();
}
