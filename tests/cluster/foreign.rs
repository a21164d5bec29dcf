//! Nodes of another cluster at the same addresses.

use super::clients::{client, get, put};
use super::nodes::{Cluster, Keep, SOON, wait_until};

/// Four nodes were a cluster; three of them were made a new one, and the fourth was forgotten. It sends to
/// all three, and does so before they have heard each other after a restart.
#[test]
fn a_forgotten_machine_of_an_old_cluster_stops_nobody() {
    let mut old = Cluster::start(4, Keep::Fsync);
    let forgotten = old.status(3).expect("it runs").cluster;
    old.kill(0..4);
    let addresses = (0..3).map(|node| old.address(node).to_owned());
    let mut new = Cluster::start_at(addresses.collect(), Keep::Fsync, &[]);
    put(&client(&new.list()), "k", "v");
    new.kill(0..3);

    old.start_node(3);
    wait_until(SOON, "the forgotten node", || old.status(3).is_some());
    new.start_nodes(0..3);
    new.wait_until_serving(0..3);
    for node in 0..3 {
        wait_until(SOON, &format!("node {node} naming both clusters"), || {
            let status = new.status(node).expect("it runs");
            assert_ne!(status.cluster, forgotten);
            status.other_cluster == forgotten
        });
        assert!(new.is_running(node), "node {node}");
    }
    assert_eq!(get(&client(&new.list()), "k").as_deref(), Some("v"));
    let own = new.status(0).expect("it runs").cluster;
    let log = new.log(0);
    for id in [own, forgotten] {
        assert!(log.contains(&format!("{id:016x}")), "{log}");
    }
}
