//! E2 to E5: configurations that follow failures.

use horseshoe::protocol::message::{Configuration, NodeId};

use crate::sim::cluster::Cluster;
use crate::sim::script::{Script, append};

/// The configuration that all of these nodes have installed, if it is the same.
fn installed(cluster: &Cluster, nodes: &[usize]) -> Option<Configuration> {
    let of = |node: usize| cluster.nodes[node].replica.as_ref()?.configuration().cloned();
    let first = of(nodes[0])?;
    nodes.iter().all(|n| of(*n).as_ref() == Some(&first)).then_some(first)
}

fn has_members(cluster: &Cluster, nodes: &[usize], members: &[NodeId]) -> bool {
    installed(cluster, nodes).is_some_and(|c| {
        let ids: Vec<NodeId> = c.members.iter().map(|m| m.node).collect();
        c.joint.is_none() && ids == members
    })
}

/// Five nodes fail one by one; the last two serve. Then the others come back, behind those that stayed.
#[test]
pub fn five_nodes_fail_one_by_one_and_come_back() {
    let mut c = Script::shrinking(5, 1);
    let client = c.client();
    c.put(client, "k", "0");
    c.crash_hard(0);
    c.until("four members", |c| has_members(c, &[1, 2, 3, 4], &[2, 3, 4, 5]));
    c.run(client, "k", append("1"));
    c.crash_hard(3);
    c.until("three members", |c| has_members(c, &[1, 2, 4], &[2, 3, 5]));
    c.run(client, "k", append("2"));
    c.crash_hard(1);
    c.run_ms(3_000);
    c.run(client, "k", append("3"));
    assert!(has_members(&c, &[2, 4], &[2, 3, 5]), "no fewer than three");
    for node in [0, 1, 3] {
        c.cluster.start(node);
    }
    c.until("five members", |c| {
        let all = installed(c, &[0, 1, 2, 3, 4]);
        all.is_some_and(|all| all.joint.is_none() && all.members.len() == 5)
    });
    let last = installed(&c, &[0]).unwrap();
    let first: Vec<NodeId> = last.members[..3].iter().map(|m| m.node).collect();
    assert_eq!(first, [2, 3, 5], "who comes goes last");
    assert_eq!(c.get(client, "k"), "0123");
    c.check();
}
