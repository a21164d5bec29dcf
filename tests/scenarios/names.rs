//! The name that an operator gives a cluster.

use crate::sim::script::Script;

/// The name in the configuration of each running node.
fn names(c: &Script) -> Vec<String> {
    let replicas = c.nodes.iter().filter_map(|node| node.replica.as_ref());
    let configurations = replicas.filter_map(|replica| replica.configuration());
    configurations.map(|held| held.name.clone()).collect()
}

/// Whether a node has found that it must not participate: it is pending on nothing any more.
fn has_ended(c: &Script, node: usize) -> bool {
    let replica = c.nodes[node].replica.as_ref().expect("it runs");
    replica.next_timeout().is_none()
}

fn waits_for(c: &Script, node: usize) -> String {
    let node = &c.nodes[node];
    let replica = node.replica.as_ref().expect("it runs");
    replica.status(node.now(c.now_us)).waits_for
}

fn start_as(c: &mut Script, node: usize, name: &str) {
    c.cluster.settings.cluster_name = name.to_owned();
    c.cluster.start(node);
}

/// The name is the first node's at all nodes. It remains after restarts, and for a node that lost
/// its state.
#[test]
pub fn a_name_is_given_at_the_start_and_stays() {
    let mut c = Script::cold(3);
    start_as(&mut c, 0, "orders");
    start_as(&mut c, 1, "");
    start_as(&mut c, 2, "orders");
    c.until("a configuration", |c| c.is_formed());
    c.run_ms(1_000);
    assert_eq!(names(&c), ["orders"; 3]);
    c.cluster.settings.cluster_name = String::new();
    c.restart_empty(2);
    c.run_ms(3_000);
    c.crash_hard(0);
    start_as(&mut c, 0, "");
    c.run_ms(3_000);
    assert_eq!(names(&c), ["orders"; 3]);
    c.check();
}

#[test]
pub fn a_node_of_another_name_takes_no_part() {
    for name in ["orders", ""] {
        let mut c = Script::cold(3);
        c.cluster.settings.cluster_name = name.to_owned();
        c.cluster.start_all();
        c.until("a configuration", |c| c.is_formed());
        // Until the name is on disk everywhere.
        c.run_ms(500);
        c.crash_hard(1);
        start_as(&mut c, 1, "others");
        c.run_ms(500);
        assert!(has_ended(&c, 1), "{name:?}, with its state");
        c.crash_hard(1);
        // A message from another node never ends a node: the sender may belong to another cluster.
        c.restart_empty(2);
        c.run_ms(3_000);
        assert!(!has_ended(&c, 2), "{name:?}, without its state");
        let told = waits_for(&c, 2);
        assert!(
            told.contains("started with --cluster-name others"),
            "{told}"
        );
        assert!(names(&c).len() < 3, "it has taken no configuration");
        assert!(!has_ended(&c, 0));
        // The attempt had no effect.
        start_as(&mut c, 1, name);
        c.run_ms(3_000);
        let client = c.client();
        c.put(client, "k", "v");
        c.check();
    }
}

#[test]
pub fn nodes_of_different_names_form_no_cluster_and_say_why() {
    for (first, second) in [("orders", "others"), ("", "others")] {
        let mut c = Script::cold(2);
        start_as(&mut c, 0, first);
        start_as(&mut c, 1, second);
        c.run_ms(5_000);
        assert!(!c.is_formed());
        for node in 0..2 {
            let waits_for = waits_for(&c, node);
            let given = match first {
                "" => "no --cluster-name".to_owned(),
                name => format!("--cluster-name {name}"),
            };
            assert!(waits_for.contains(&given), "{waits_for}");
            assert!(waits_for.contains("--cluster-name others"), "{waits_for}");
        }
        c.crash_hard(1);
        start_as(&mut c, 1, first);
        c.until("a configuration", |c| c.is_formed());
    }
}
