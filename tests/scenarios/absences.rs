//! E4, E5: members that are unreachable for a while, more than once.

use horseshoe::protocol::types::message::Message;

use crate::scenarios::changes::{are_all_members, has_members};
use crate::sim::cluster::Cluster;
use crate::sim::script::{Script, msg};

fn are_four_members(cluster: &Cluster) -> bool {
    has_members(cluster, &[0, 1, 2, 3], &[1, 2, 3, 4])
}

/// A node that keeps running is removed, admitted, and removed again. What it copied the first time
/// says nothing about later writes, so it is not ready until it has caught up again.
#[test]
pub fn a_node_that_is_removed_again_learns_again() {
    let mut c = Script::shrinking(5, 1);
    let client = c.client_of(&[0]);
    c.isolate(4);
    c.until("four members", are_four_members);
    c.heal_nodes();
    c.until("five members", are_all_members);
    c.isolate(4);
    c.until("four members again", are_four_members);
    c.put(client, "k", "missed");
    c.lose(msg("DigestsReply").to(4));
    c.heal_nodes();
    c.run_ms(8_000);
    assert!(are_four_members(&c), "nobody has told it what there is");
    c.let_pass();
    c.until("five members again", are_all_members);
    c.check();
}

/// Two of three members remain, and a node to be added. The new node holds nothing that counts, so
/// the two members must be a quorum of the proposed configuration: they replace the third member,
/// and do not go to four.
#[test]
pub fn a_newcomer_does_not_count_for_its_own_admission() {
    let mut c = Script::cold(5);
    c.cluster.settings.shrink_after_ms = 3_000;
    c.cluster.start_all();
    c.until("a configuration", |c| c.is_formed());
    c.run_ms(300);
    let client = c.client();
    c.put(client, "k", "v");
    for node in [4, 3] {
        c.crash_hard(node);
        c.run_ms(100);
    }
    c.until("three members", |c| has_members(c, &[0, 1, 2], &[1, 2, 3]));
    c.lose(msg("DigestsReply").to(3));
    c.cluster.start(3);
    c.run_ms(6_000);
    assert!(has_members(&c, &[0, 1, 2], &[1, 2, 3]));
    let from = c.sent(msg("ConfigurationUpdate")).len();
    c.crash_hard(0);
    c.run_ms(260);
    c.let_pass();
    c.until("the newcomer to replace the master", |c| {
        has_members(c, &[1, 2, 3], &[2, 3, 4])
    });
    let told = c.sent(msg("ConfigurationUpdate"));
    let mut joint = told[from..]
        .iter()
        .filter_map(|p| match &p.envelope()?.message {
            Message::ConfigurationUpdate(m) => m.configuration.joint.clone(),
            _ => None,
        });
    assert!(joint.all(|members| members.len() == 3));
    c.check();
}

/// A node that is cut off cannot reach any other node, and cannot tell which of them fail
/// meanwhile. When it is back it waits for a member as long as any other node does.
#[test]
pub fn a_node_that_was_cut_off_starts_to_count_anew() {
    let mut c = Script::cold(5);
    c.cluster.settings.shrink_after_ms = 3_000;
    c.cluster.start_all();
    c.until("a configuration", |c| c.is_formed());
    c.run_ms(1_000);
    c.isolate(0);
    c.run_ms(1_500);
    c.isolate(3);
    c.run_ms(500);
    c.heal_nodes();
    c.isolate(3);
    c.run_ms(2_000);
    c.heal_nodes();
    c.run_ms(3_000);
    assert!(are_all_members(&c));
    let told = c.sent(msg("ConfigurationUpdate"));
    let changed = told.iter().any(|p| match &p.envelope().unwrap().message {
        Message::ConfigurationUpdate(m) => m.configuration.joint.is_some(),
        _ => false,
    });
    assert!(!changed, "node 3 was away for less than three seconds");
    c.check();
}
