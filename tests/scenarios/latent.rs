//! E7: configurations that were chosen, and that their proposer has not installed.

use std::sync::Arc;

use bytes::Bytes;
use horseshoe::protocol::types::ballot::Ballot;
use horseshoe::protocol::types::configuration;
use horseshoe::protocol::types::message::{Accept, Configuration, Envelope};
use horseshoe::protocol::types::record::{Key, Record};
use wire::{Change, Outcome};

use super::changes::has_members;
use super::operator::{begin, epoch};
use crate::sim::cluster::Cluster;
use crate::sim::event::{Parcel, Passing};
use crate::sim::network::Place;
use crate::sim::script::{Script, append, msg, put};

/// The first node proposes a configuration without the last two, and its Accepts have arrived; no
/// node has received more of it.
fn proposed_by_the_first(c: &mut Script) {
    c.cut(&[3, 4], &[0, 1, 2]);
    c.hold(msg("Accepted").to(0));
    c.until_sent(msg("Accept").from(0).to(2));
    c.run_ms(2);
}

fn nothing_more_is_held(c: &mut Script) {
    c.let_pass();
    c.cluster.held.clear();
}

/// All nodes have installed the same configuration, later than the first one.
fn agree_on_a_later_one(c: &Cluster) -> bool {
    let epochs = c.nodes.iter().map(|node| {
        let installed = node.replica.as_ref().and_then(|r| r.configuration());
        installed.map_or(0, |c| if c.joint.is_some() { 0 } else { c.epoch })
    });
    let epochs: Vec<u64> = epochs.collect();
    epochs[0] > 1 && epochs.iter().all(|epoch| *epoch == epochs[0])
}

/// A removal that its proposer did not live to install would exclude two healthy nodes when two of
/// the others fail.
#[test]
pub fn e7_a_configuration_that_nobody_installed_is_found() {
    let mut c = Script::shrinking(5, 1);
    let client = c.client();
    c.put(client, "k", "0");
    proposed_by_the_first(&mut c);
    c.crash_hard(0);
    c.heal();
    nothing_more_is_held(&mut c);
    c.run_ms(50);
    c.cluster.start(0);
    c.until("it is settled", agree_on_a_later_one);
    c.run_ms(5_000);
    assert!(has_members(&c, &[0, 1, 2, 3, 4], &[1, 2, 3, 4, 5]));
    c.crash_hard(1);
    c.crash_hard(2);
    c.run_ms(1_500);
    c.run(client, "k", append("1"));
    c.run_ms(10_000);
    c.run(client, "k", append("2"));
    assert_eq!(c.get(client, "k"), "012");
    c.check();
}

/// The proposer is running, and is cut off for longer than most operations take.
#[test]
pub fn e7_a_late_answer_is_still_waited_for() {
    let mut c = Script::cold(5);
    c.cluster.settings.shrink_after_ms = 3_000;
    c.cluster.start_all();
    c.until("a configuration", |c| c.is_formed());
    c.run_ms(300);
    let client = c.client();
    c.put(client, "k", "0");
    proposed_by_the_first(&mut c);
    c.heal();
    c.isolate(0);
    nothing_more_is_held(&mut c);
    c.run_ms(2_300);
    c.heal();
    c.until("it is settled", agree_on_a_later_one);
    c.run_ms(3_000);
    c.crash_hard(1);
    c.crash_hard(2);
    c.run_ms(2_000);
    c.run(client, "k", append("1"));
    c.run_ms(10_000);
    c.run(client, "k", append("2"));
    assert_eq!(c.get(client, "k"), "012");
    c.check();
}

/// In a cluster of two the second node should become the master, and is lost with its disk when the
/// first has accepted that. The first is a quorum alone, but not of the configuration that it has
/// accepted: it reverts the change.
#[test]
pub fn e7_a_change_whose_members_are_gone_is_backed_out_of() {
    let mut c = Script::new(2);
    let client = c.client_of(&[0]);
    c.put(client, "k", "0");
    let operator = c.client_of(&[1]);
    c.get(operator, "k");
    c.hold(msg("ConfigurationUpdate").from(1));
    c.hold(msg("Accepted").from(0));
    begin(&mut c, operator, 1, Change::TransferMaster { node: 2 });
    c.until_sent(msg("Accept").from(1).to(0));
    c.run_ms(2);
    c.crash_hard(1);
    c.cluster.wipe(1);
    nothing_more_is_held(&mut c);
    c.run_ms(1_500);
    c.run(client, "k", append("1"));
    assert_eq!(epoch(&c, 0), 3);
    c.cluster.start(1);
    c.until("two members", |c| has_members(c, &[0, 1], &[1, 2]));
    c.run(client, "k", append("2"));
    assert_eq!(c.get(client, "k"), "012");
    c.check();
}

/// The same, and a node that has installed the joint configuration comes back.
#[test]
pub fn e7_who_has_installed_it_is_told_that_it_was_backed_out_of() {
    let mut c = Script::new(2);
    let client = c.client_of(&[0]);
    c.put(client, "k", "0");
    let operator = c.client_of(&[1]);
    c.get(operator, "k");
    c.lose(msg("ConfigurationUpdate").from(1));
    c.lose(msg("Heartbeat").from(1));
    begin(&mut c, operator, 1, Change::TransferMaster { node: 2 });
    c.until("the joint one", |c| {
        let installed = c.nodes[1].replica.as_ref().and_then(|r| r.configuration());
        installed.is_some_and(|c| c.epoch == 2)
    });
    c.run_ms(5);
    c.crash_hard(1);
    c.let_pass();
    c.run_ms(1_500);
    c.run(client, "k", append("1"));
    assert_eq!(epoch(&c, 0), 3);
    c.cluster.start(1);
    c.until("two members", |c| has_members(c, &[0, 1], &[1, 2]));
    c.run(client, "k", append("2"));
    assert_eq!(c.get(operator, "k"), "012");
    c.check();
}

/// An admission that no node installed names a learner that has lost its disk since. Then the
/// master fails, one of three, and the learner, back again, requests its admission.
#[test]
pub fn e7_an_admission_is_not_left_to_later() {
    let mut c = Script::shrinking(4, 1);
    let client = c.client();
    c.put(client, "k", "0");
    c.crash_hard(3);
    c.until("three members", |c| has_members(c, &[0, 1, 2], &[1, 2, 3]));
    c.cluster.start(3);
    c.run_ms(600);
    c.hold(msg("Accepted").to(0));
    c.until_sent(msg("Accept").from(0).to(2));
    c.run_ms(2);
    // Both lose power, and one of them its disk.
    c.crash_hard(0);
    c.crash_hard(3);
    c.cluster.wipe(3);
    nothing_more_is_held(&mut c);
    c.run_ms(100);
    c.cluster.start(0);
    c.run_ms(10_000);
    c.run(client, "k", append("1"));
    c.crash_hard(0);
    c.run_ms(3_000);
    c.run(client, "k", append("2"));
    c.cluster.start(3);
    c.run_ms(20_000);
    c.run(client, "k", append("3"));
    assert_eq!(c.get(client, "k"), "0123");
    c.check();
}

/// A hostile Accept, to all nodes, of a value that is not a configuration.
fn spoil(c: &mut Script, value: &[u8]) {
    let reading = wire::clock::from_ms(crate::sim::node::EPOCH_MS + c.now_us / 1_000 + 5);
    let (ballot, cluster) = (Ballot::new(reading, 2), 0);
    for node in 0..c.nodes.len() {
        let replica = c.nodes[node].replica.as_ref().unwrap();
        let epoch = replica.configuration().unwrap().epoch;
        let record = Arc::new(Record {
            value: Some(Bytes::copy_from_slice(value)),
            version: ballot.0,
            ..Record::default()
        });
        let envelope = Envelope {
            origin: 2,
            destination: node as u8 + 1,
            incarnation: c.nodes[1].disk.incarnation(),
            epoch,
            round: 77,
            hops_left: 0,
            via: 2,
            message: Accept {
                key: Key::configuration(),
                ballot,
                record,
            }
            .into(),
        };
        let passing = Passing {
            from: Place::Node(1),
            to: Place::Node(node),
            parcel: Parcel::Peer { cluster, envelope },
        };
        c.cluster.deliver(100, passing);
    }
    c.run_ms(20);
}

/// No node can have installed a damaged value: the next change replaces it.
#[test]
pub fn e7_what_is_no_configuration_is_written_over() {
    let mut c = Script::shrinking(5, 1);
    let client = c.client();
    c.put(client, "k", "0");
    spoil(&mut c, b"");
    c.crash_hard(4);
    c.until("four members", |c| {
        has_members(c, &[0, 1, 2, 3], &[1, 2, 3, 4])
    });
    c.restart(0);
    c.cluster.start(4);
    c.until("five members", agree_on_a_later_one);
    c.run(client, "k", append("1"));
    c.check();
}

/// A value that a later release wrote may be valid: nothing is changed until an operator forces a
/// configuration.
#[test]
pub fn e7_what_another_release_wrote_stands_until_it_is_forced() {
    let mut c = Script::shrinking(5, 1);
    let client = c.client();
    c.put(client, "k", "0");
    let mut value = configuration::encode(&Configuration::default()).to_vec();
    value[0] += 1;
    spoil(&mut c, &value);
    c.crash_hard(4);
    c.run_ms(5_000);
    assert!((0..4).all(|node| epoch(&c, node) == 1), "nothing changed");
    for node in 0..4 {
        c.restart(node);
    }
    c.run_ms(1_000);
    c.run(client, "k", append("1"));
    let operator = c.client_of(&[0]);
    c.get(operator, "k");
    let force = Change::Force {
        nodes: vec![1, 2, 3, 4],
        epoch: 1,
        despite_quorum: true,
    };
    begin(&mut c, operator, 0, force);
    c.until("four members", |c| {
        has_members(c, &[0, 1, 2, 3], &[1, 2, 3, 4])
    });
    c.cluster.start(4);
    c.until("five members", agree_on_a_later_one);
    assert!(matches!(
        c.run(client, "k", put("2")),
        Outcome::Written { .. }
    ));
    c.check();
}
