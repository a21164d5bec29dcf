//! Link-local IPv6 addresses, with the interface that they are at.

use std::process::{Command, Stdio};

use kvclient::wire::{Action, Outcome};
use kvclient::{Call, Client, ClientOptions};

use crate::process::{Node, wait_until_serving};

/// Gives the lab's loopback interface this address. Outside of the lab none may be added.
fn add_address(address: &str) -> bool {
    if std::env::var_os("HORSESHOE_LAB").is_none() {
        return false;
    }
    let address = format!("{address}/64");
    let mut add = Command::new("ip");
    add.args(["address", "add", &address, "dev", "lo", "nodad"]);
    let added = add.stderr(Stdio::null()).status();
    // Without IPv6 there is nothing to try.
    added.expect("iproute2 is there").success()
}

#[test]
fn nodes_and_clients_take_link_local_addresses_with_a_zone() {
    if !add_address("fe80::77") {
        return;
    }
    let list = ["[fe80::77%lo]:8801", "[fe80::77%lo]:8802"];
    let _nodes =
        ["0", "1"].map(|index| Node::serve(&[&[index], &list[..]].concat(), Stdio::null()));
    for address in list {
        wait_until_serving(address);
        let client = Client::open(address, ClientOptions::default()).expect("an address");
        let value = "v".into();
        let put = client.call(Call::new("k", Action::Put { value }));
        assert!(matches!(put, Ok(Outcome::Written { .. })), "{put:?}");
        let mut get = Command::new(env!("CARGO_BIN_EXE_horseshoe"));
        let told = get.args(["--nodes", address, "get", "k"]).output();
        let told = told.expect("the binary runs");
        assert!(told.status.success() && told.stdout == b"v", "{told:?}");
    }
}
