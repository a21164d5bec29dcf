//! Nodes of another cluster at the same addresses.

use nix::sys::signal::Signal;
use wire::NodeStatus;

use super::clients::{client, get, put};
use super::nodes::{Cluster, Keep, SOON, wait_until};

/// Four nodes were a cluster. The first `count` of their addresses were used for a new cluster, and
/// the fourth machine was forgotten. It still sends to the other addresses, and does so before
/// those nodes have received anything from each other after a restart.
fn beside_a_forgotten_machine(
    count: usize,
    is_noticed: impl Fn(&NodeStatus, u64) -> bool,
) -> String {
    let mut old = Cluster::start(4, Keep::Fsync);
    let forgotten = old.status(3).expect("it runs").cluster;
    // The forgotten machine's configuration is on its disk.
    old.stop(3, Signal::SIGTERM);
    old.kill(0..3);
    let addresses = (0..count).map(|node| old.address(node).to_owned());
    let mut new = Cluster::start_at(addresses.collect(), Keep::Fsync, &[]);
    put(&client(&new.list()), "k", "v");
    new.kill(0..count);

    old.start_node(3);
    wait_until(SOON, "the forgotten node", || old.status(3).is_some());
    new.start_nodes(0..3);
    new.wait_until_serving(0..3);
    for node in 0..3 {
        wait_until(SOON, &format!("node {node} noticing it"), || {
            let status = new.status(node).expect("it runs");
            assert_ne!(status.cluster, forgotten);
            is_noticed(&status, forgotten)
        });
        assert!(new.is_running(node), "node {node}");
    }
    assert_eq!(get(&client(&new.list()), "k").as_deref(), Some("v"));
    new.log(0)
}

/// The address of the forgotten machine is listed in the new cluster: the machine got its old disk
/// back.
#[test]
fn a_forgotten_machine_of_an_old_cluster_stops_nobody() {
    let ids = std::cell::Cell::new((0, 0));
    let log = beside_a_forgotten_machine(4, |status, forgotten| {
        ids.set((status.cluster, forgotten));
        status.other_cluster == forgotten
    });
    let (own, forgotten) = ids.get();
    for id in [own, forgotten] {
        assert!(log.contains(&format!("{id:016x}")), "{log}");
    }
}

/// The new cluster does not know the address of the forgotten machine.
#[test]
fn a_forgotten_machine_that_is_not_listed_is_not_heard() {
    let log = beside_a_forgotten_machine(3, |status, _| status.strangers_dropped > 0);
    assert!(log.contains("dropped a node's datagram from"), "{log}");
}
