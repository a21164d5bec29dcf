//! A node that listens on all addresses of a machine that has several: a client receives only what
//! comes from the address that it sent to, and other nodes only what comes from the listed one.

use std::process::{Command, Stdio};
use std::time::Duration;

use kvclient::{Call, Client, ClientOptions};
use wire::{Action, Outcome};

use crate::hosts::Hosts;
use crate::process::{Node, wait_until_serving};

/// Gives the lab's machine these addresses. Outside of the lab no address may be added.
fn add_addresses(addresses: &[&str]) -> bool {
    let in_lab = std::env::var_os("HORSESHOE_LAB").is_some();
    for address in addresses.iter().filter(|_| in_lab) {
        let mut add = Command::new("ip");
        add.args(["address", "add", address, "dev", "lo"]);
        assert!(add.status().expect("iproute2 is there").success());
    }
    in_lab
}

#[track_caller]
fn puts(nodes: &str) {
    let client = Client::open(nodes, ClientOptions::default()).expect("an address");
    let value = "v".into();
    let put = client.call(Call::new("k", Action::Put { value }));
    assert!(
        matches!(put, Ok(Outcome::Written { .. })),
        "{nodes}: {put:?}"
    );
}

#[test]
fn an_answer_leaves_from_the_address_that_was_asked() {
    let _node = Node::serve(
        &["0", "127.91.1.1:8821", "--listen", "0.0.0.0"],
        Stdio::null(),
    );
    wait_until_serving("127.91.1.1:8821");
    let second = "127.91.1.2:8821";
    puts(second);
    let client = Client::open(second, ClientOptions::default()).expect("an address");
    let told = client.status(Duration::from_secs(20));
    assert!(told[0].1.is_some(), "{told:?}");
}

/// The machine has two more addresses, and the system would send from the first.
#[test]
fn nodes_that_listen_on_all_addresses_send_from_the_listed_ones() {
    if !add_addresses(&["203.0.113.20/32", "203.0.113.21/32", "203.0.113.22/32"]) {
        return;
    }
    let list = ["203.0.113.21:8811", "203.0.113.22:8812"];
    let nodes = ["0", "1"].map(|index| {
        let words = [&[index], &list[..], &["--listen", "0.0.0.0"]].concat();
        Node::serve(&words, Stdio::null())
    });
    for address in list {
        wait_until_serving(address);
        puts(address);
    }
    puts("203.0.113.20:8811");
    drop(nodes);
}

/// Requests, from the node's own machine, a membership change that is in effect already.
#[track_caller]
fn takes_a_change(nodes: &str) {
    let mut change = Command::new(env!("CARGO_BIN_EXE_horseshoe"));
    change.args(["--nodes", nodes, "member", "transfer-master", "1"]);
    let changed = change.output().expect("the binary runs");
    let told = String::from_utf8_lossy(&changed.stderr);
    assert!(changed.status.success(), "{nodes}: {told}");
}

/// `tests/trust.sh` tests another machine, which is refused.
#[test]
fn a_node_that_is_listed_by_name_takes_changes_from_its_own_machine() {
    let Some(mut hosts) = Hosts::new() else {
        return;
    };
    add_addresses(&["203.0.113.31/32", "203.0.113.32/32"]);
    hosts.set("listed-node", Some("203.0.113.31"));
    let words = ["0", "listed-node:8841", "--listen", "0.0.0.0"];
    let _node = Node::serve(&words, Stdio::null());
    wait_until_serving("listed-node:8841");
    for host in ["127.0.0.1", "listed-node", "203.0.113.31", "203.0.113.32"] {
        takes_a_change(&format!("{host}:8841"));
    }
}
