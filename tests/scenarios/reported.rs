//! Errors that were reported of other stores, reproduced here.

use horseshoe::protocol::types::message::NodeId;
use wire::Outcome;

use crate::scenarios::changes::has_members;
use crate::sim::history::Ending;
use crate::sim::script::{Script, append, msg, put};

/// RethinkDB (Jepsen, 2016): members were changed under changing network partitions; two sides
/// continued with different configurations, and writes that both had acknowledged were lost. Here
/// the network is partitioned differently in the middle of each change, every side writes all the
/// time, and no acknowledged append may be missing at the end.
#[test]
pub fn rethinkdb_reconfiguration_under_partition() {
    let parts: [(&[usize], &[usize]); 4] = [
        (&[0, 1], &[2, 3, 4]),
        (&[0, 3, 4], &[1, 2]),
        (&[1, 4], &[0, 2, 3]),
        (&[0, 1, 2], &[3, 4]),
    ];
    for stop_at in ["ConfigurationUpdate", "DigestsReply", "Accept"] {
        let mut c = Script::shrinking(5, 1);
        let clients: Vec<usize> = (0..5).map(|node| c.client_of(&[node])).collect();
        let mut calls = Vec::new();
        let mut write = |c: &mut Script, ms: u64| {
            for _ in 0..ms / 50 {
                for (node, client) in clients.iter().enumerate() {
                    let text = format!("{node}.{} ", calls.len());
                    calls.push((c.begin(*client, "k", append(&text)), text));
                }
                c.run_ms(50);
            }
        };
        write(&mut c, 200);
        for (side, other) in parts {
            c.cut(side, other);
            // Until a removal of the other nodes is in progress; then the network is partitioned
            // differently.
            write(&mut c, 1_300);
            c.lose(msg(stop_at).from(other[0]));
            write(&mut c, 300);
            c.let_pass();
            c.heal_nodes();
            write(&mut c, 100);
        }
        c.until("five members", |c| {
            let members = c
                .watch
                .configuration()
                .map(|c| (c.joint.is_none(), c.members.len()));
            members == Some((true, 5))
        });
        let changes = c.watch.configuration().map_or(0, |c| c.epoch);
        assert!(changes > 4, "epoch {changes}: little was changed");
        for (call, _) in &calls {
            c.until("an operation to end", |c| c.calls[*call].ended.is_some());
        }
        let reader = c.client();
        let value = c.get(reader, "k");
        let mut acknowledged = 0;
        for (call, text) in &calls {
            if let Ending::Answered(Outcome::Written { .. }) = c.calls[*call].ending {
                assert_eq!(value.matches(text.as_str()).count(), 1, "{text} of {value}");
                acknowledged += 1;
            }
        }
        assert!(
            acknowledged > calls.len() / 4,
            "{acknowledged} of {}",
            calls.len()
        );
        c.check();
    }
}

/// NATS (Jepsen, 2025): one machine crashed with writes that were acknowledged and not yet on its
/// disk; this machine and a slow follower then formed a majority that had never received the
/// writes, and the halves diverged. Here an acknowledgement waits for the disks of a quorum, so the
/// node that comes back and the slow one, without the master, have every acknowledged write or
/// serve no operation.
#[test]
pub fn nats_a_crash_with_a_slow_disk() {
    let mut c = Script::shrinking(3, 1);
    let key = c.key_of(0);
    let (writer, late) = (c.client_of(&[0]), c.client_of(&[1, 2]));
    c.put(writer, &key, "0");
    c.slow_disk(2, 2_000);
    c.slow_disk(1, 100);
    for n in 1..=5 {
        c.run(writer, &key, append(&n.to_string()));
    }
    // One more write is in progress on the disk of the node that crashes.
    let open = c.begin(writer, &key, append("?"));
    c.until_sent(msg("Accept").from(0).to(1));
    c.run_ms(20);
    assert!(c.is_open(open), "node 1 has not synced it");
    c.isolate(0);
    c.restart(1);
    c.slow_disk(1, 1);
    c.slow_disk(2, 1);
    c.until("the two without the master to serve", |c| {
        has_members(c, &[1, 2], &[1 as NodeId, 2, 3]) && c.nodes[1].replica.is_some()
    });
    c.run_ms(700);
    let refused = c.run(writer, &key, put("apart"));
    assert!(!matches!(refused, Outcome::Written { .. }), "{refused:?}");
    let value = c.get(late, &key);
    assert!(value == "012345" || value == "012345?", "{value}");
    c.run(late, &key, append("6"));
    c.heal_nodes();
    let reader = c.client_of(&[0]);
    c.run_ms(500);
    let value = c.get(reader, &key);
    assert!(
        value.starts_with("012345") && value.contains('6'),
        "{value}"
    );
    c.check();
}
