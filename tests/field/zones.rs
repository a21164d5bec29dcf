//! Link-local IPv6 addresses, with their interface.

use std::process::{Command, Stdio};

use kvclient::{Call, Client, ClientOptions};
use wire::{Action, Outcome};

use crate::process::{Node, wait_until_serving};

fn ip(words: &[&str]) -> bool {
    let mut ip = Command::new("ip");
    let done = ip.args(words).stderr(Stdio::null()).status();
    done.expect("iproute2 is there").success()
}

/// Adds this address to an interface of the lab. Outside of the lab this is not possible.
fn add_address(address: &str, interface: &str) -> bool {
    let address = format!("{address}/64");
    // Without IPv6 there is nothing to test.
    std::env::var_os("HORSESHOE_LAB").is_some()
        && ip(&["address", "add", &address, "dev", interface, "nodad"])
}

/// Puts and gets through a node, with the library and the command.
#[track_caller]
fn serves(address: &str) {
    let client = Client::open(address, ClientOptions::default()).expect("an address");
    let value = "v".into();
    let put = client.call(Call::new("k", Action::Put { value }));
    assert!(
        matches!(put, Ok(Outcome::Written { .. })),
        "{address}: {put:?}"
    );
    let mut get = Command::new(env!("CARGO_BIN_EXE_horseshoe"));
    let told = get.args(["--nodes", address, "get", "k"]).output();
    let told = told.expect("the binary runs");
    assert!(
        told.status.success() && told.stdout == b"v",
        "{address}: {told:?}"
    );
}

#[test]
fn nodes_and_clients_take_link_local_addresses_with_a_zone() {
    if !add_address("fe80::77", "lo") {
        return;
    }
    let list = ["[fe80::77%lo]:8801", "[fe80::77%lo]:8802"];
    let _nodes =
        ["0", "1"].map(|index| Node::serve(&[&[index], &list[..]].concat(), Stdio::null()));
    for address in list {
        wait_until_serving(address);
        serves(address);
    }
}

/// Two interfaces joined by a virtual cable: a datagram to one's address sent through the other
/// crosses it, as from another machine.
#[test]
fn nodes_on_all_addresses_answer_link_local_clients() {
    let in_lab = std::env::var_os("HORSESHOE_LAB").is_some();
    let add = ["link", "add", "zone-a", "type", "veth", "peer", "zone-b"];
    if !in_lab || !ip(&add) {
        return;
    }
    for (interface, address) in [("zone-a", "fe80::a"), ("zone-b", "fe80::b")] {
        assert!(ip(&["link", "set", interface, "up"]));
        if !add_address(address, interface) {
            return;
        }
    }
    let list = ["[fe80::b%zone-b]:8811", "[fe80::b%zone-b]:8812"];
    let _nodes = ["0", "1"].map(|index| {
        let words = [&[index], &list[..], &["--listen", "[::]"]].concat();
        Node::serve(&words, Stdio::null())
    });
    for (near, far) in list
        .iter()
        .zip(["[fe80::b%zone-a]:8811", "[fe80::b%zone-a]:8812"])
    {
        wait_until_serving(near);
        serves(near);
        serves(far);
    }
}
