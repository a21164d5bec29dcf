//! Names that do not resolve, name servers that do not answer, and names that move.

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use kvclient::{Call, Client, ClientOptions};
use wire::{Action, Outcome};

use nix::sys::signal::Signal;

use crate::hosts::Hosts;
use crate::nodes::{Cluster, Keep, SOON, wait_until};
use crate::process::{Node, wait_until_serving};

/// glibc waits 10 s for a name server that does not answer; this leaves time for a slow machine.
const BELOW_DEAD_SERVER: Duration = Duration::from_secs(5);
/// A name is looked up again after at most 8 s.
const MOVED: Duration = Duration::from_secs(30);

fn horseshoe(nodes: &str, words: &[&str]) -> (Output, Duration) {
    let began = Instant::now();
    let mut command = Command::new(env!("CARGO_BIN_EXE_horseshoe"));
    command.args(["--nodes", nodes]).args(words);
    let output = command.output().expect("the binary runs");
    (output, began.elapsed())
}

#[track_caller]
fn ended(output: &Output, status: i32, words: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{text}");
    assert!(text.contains(words), "{words}: {text}");
}

fn put(client: &Client, value: &str) -> bool {
    let value = value.to_owned().into();
    let written = client.call(Call::new("k", Action::Put { value }));
    matches!(written, Ok(Outcome::Written { .. }))
}

/// Nodes `PREFIX1`, `PREFIX2` ..., at 127.93.NETWORK.1, .2, ...
fn named(hosts: &mut Hosts, prefix: &str, network: u8, count: usize, keep: Keep) -> Cluster {
    let names: Vec<String> = (1..=count).map(|node| format!("{prefix}{node}")).collect();
    for (at, name) in names.iter().enumerate() {
        hosts.set(name, Some(&format!("127.93.{network}.{}", at + 1)));
    }
    let addresses = names.iter().map(|name| format!("{name}:8801")).collect();
    Cluster::start_at(addresses, keep, &["--shrink-after", "0"])
}

#[test]
fn what_resolves_is_used_and_the_rest_is_found_later() {
    let Some(mut hosts) = Hosts::new() else {
        return;
    };
    let mut nodes = named(&mut hosts, "some", 1, 3, Keep::Memory);
    for gone in ["some1", "some2"] {
        hosts.set(gone, None);
    }
    let list = nodes.list();
    let (output, _) = horseshoe(&list, &["put", "k", "v"]);
    ended(&output, 0, "");
    let (output, _) = horseshoe(&list, &["status"]);
    ended(&output, 0, "");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        text.contains("address of some1:8801 can't be found"),
        "{text}"
    );

    let client = Client::open(&list, ClientOptions::default()).expect("one name resolves");
    assert!(put(&client, "first"));
    assert_eq!(client.unresolved().len(), 2, "{:?}", client.unresolved());
    hosts.set("some1", Some("127.93.1.1"));
    hosts.set("some2", Some("127.93.1.2"));
    wait_until(MOVED, "the names that resolve now", || {
        put(&client, "again") && client.unresolved().is_empty()
    });
    nodes.kill([2]);
    wait_until(SOON, "a put through the others", || put(&client, "last"));
}

/// systemd and `kill.sh` wait some seconds for the end of a node.
#[test]
fn a_node_that_looks_its_own_name_up_can_be_stopped() {
    let Some(hosts) = Hosts::new() else { return };
    let _hosts = hosts.with_dead_server();
    let mut node = Node::serve(&["0", "nowhere1:8801"], Stdio::null());
    // The node is in the lookup by then, or will be.
    std::thread::sleep(Duration::from_millis(500));
    let began = Instant::now();
    node.signal(Signal::SIGTERM);
    assert_eq!(node.end(), 0);
    assert!(began.elapsed() < BELOW_DEAD_SERVER, "{:?}", began.elapsed());
}

/// A node is at the second of its name's addresses; others try the first one first.
#[test]
fn of_several_addresses_of_a_name_the_one_that_works_is_found() {
    let Some(mut hosts) = Hosts::new() else {
        return;
    };
    hosts.set("several1", Some("127.93.8.1"));
    // An address of another machine comes first: this node cannot bind it.
    hosts.set_all("several2", &["10.99.9.2", "127.93.8.2"]);
    let list = ["several1:8801", "several2:8801"];
    let serve = |index: &str| Node::serve(&[&[index][..], &list].concat(), Stdio::null());
    let _second = serve("1");
    wait_until(SOON, "an answer of the second", || {
        let client = Client::open("127.93.8.2:8801", ClientOptions::default());
        let told = client.expect("an address").status(SOON / 60);
        told[0].1.is_some()
    });
    // No node is at the first.
    hosts.set_all("several2", &["127.93.8.9", "127.93.8.2"]);
    let _first = serve("0");
    wait_until_serving("127.93.8.1:8801");
    let client = Client::open("several2:8801", ClientOptions::default()).expect("it resolves");
    wait_until(MOVED, "a put at the second", || put(&client, "v"));
}

#[test]
fn no_name_that_resolves_is_an_error_that_names_one() {
    let Some(_hosts) = Hosts::new() else { return };
    for words in [&["get", "k"][..], &["put", "k", "v"], &["member", "list"]] {
        let (output, _) = horseshoe("none1:8801,none2:8801", words);
        ended(&output, 3, "none1:8801");
    }
}

#[test]
fn a_deadline_holds_though_the_name_server_is_dead() {
    let Some(hosts) = Hosts::new() else { return };
    let mut hosts = hosts.with_dead_server();
    let nodes = named(&mut hosts, "dead", 2, 1, Keep::Memory);
    for words in [&["get", "k"][..], &["put", "k", "v"], &["status"]] {
        let words = [&["--timeout", "500ms"][..], words].concat();
        let (output, took) = horseshoe("lost1:8801,lost2:8801", &words);
        ended(
            &output,
            3,
            "lost1:8801: the name server did not answer within 500ms",
        );
        assert!(took < BELOW_DEAD_SERVER, "{words:?}: {took:?}");
    }
    let list = format!("{},lost1:8801", nodes.list());
    let (output, took) = horseshoe(&list, &["--timeout", "5s", "put", "k", "v"]);
    ended(&output, 0, "");
    assert!(took < BELOW_DEAD_SERVER, "{took:?}");
    // A lookup in progress is abandoned.
    let began = Instant::now();
    let options = ClientOptions {
        deadline: Duration::from_secs(1),
        ..ClientOptions::default()
    };
    let client = Client::open(&list, options).expect("one name resolves");
    assert!(put(&client, "v"));
    assert!(!client.spare("lost3:8801", true), "it is none of the nodes");
    client.close();
    drop(client);
    assert!(
        began.elapsed() < 2 * BELOW_DEAD_SERVER,
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn a_name_that_nobody_knows_is_not_added_and_one_that_vanished_is_removed() {
    let Some(mut hosts) = Hosts::new() else {
        return;
    };
    let nodes = named(&mut hosts, "add", 3, 3, Keep::Memory);
    let list = nodes.list();
    for words in [
        &["member", "add", "mistyped:8801"][..],
        &["member", "replace", "3", "mistyped:8801"],
    ] {
        let (output, _) = horseshoe(&list, words);
        ended(&output, 6, "mistyped:8801");
        ended(&output, 6, "/etc/hosts");
    }
    // A name that does resolve, but where no node runs, and that is gone afterwards.
    hosts.set("add4", Some("127.93.3.4"));
    let (output, _) = horseshoe(&list, &["--timeout", "2s", "member", "add", "add4:8801"]);
    ended(&output, 5, "add4:8801");
    hosts.set("add4", None);
    let (output, _) = horseshoe(&list, &["member", "list"]);
    ended(&output, 0, "");
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("add4:8801"),
        "{output:?}"
    );
    let (output, _) = horseshoe(&list, &["member", "remove", "4"]);
    ended(&output, 0, "");
    let (output, _) = horseshoe(&list, &["member", "list"]);
    assert!(
        !String::from_utf8_lossy(&output.stdout).contains("add4:8801"),
        "{output:?}"
    );
}

#[test]
fn a_client_follows_names_that_move() {
    let Some(mut hosts) = Hosts::new() else {
        return;
    };
    let mut nodes = named(&mut hosts, "all", 4, 3, Keep::Os);
    let client = Client::open(&nodes.list(), ClientOptions::default()).expect("names");
    assert!(put(&client, "before"));
    nodes.kill(0..3);
    for node in 1..=3 {
        hosts.set(&format!("all{node}"), Some(&format!("127.93.5.{node}")));
    }
    nodes.start_nodes(0..3);
    nodes.wait_until_serving(0..3);
    wait_until(MOVED, "the moved nodes", || put(&client, "after"));

    // They swap places: each of the two names resolves to the other's address.
    nodes.kill([0, 1]);
    hosts.set("all1", Some("127.93.5.2"));
    hosts.set("all2", Some("127.93.5.1"));
    nodes.start_nodes([0, 1]);
    nodes.wait_until_serving(0..3);
    nodes.kill([2]);
    wait_until(MOVED, "a put through both", || put(&client, "swapped"));
}

/// The other nodes keep running, and have its old address.
#[test]
fn a_node_whose_name_moves_is_heard_soon() {
    let Some(mut hosts) = Hosts::new() else {
        return;
    };
    let mut nodes = named(&mut hosts, "one", 6, 3, Keep::Os);
    nodes.kill([1]);
    hosts.set("one2", Some("127.93.7.2"));
    nodes.start_node(1);
    let began = Instant::now();
    wait_until_serving("127.93.7.2:8801");
    wait_until(SOON, "the others hear it", || {
        let heard = |node| {
            nodes
                .status(node)
                .is_some_and(|s| s.members.iter().all(|m| m.heard))
        };
        heard(0) && heard(2)
    });
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}
