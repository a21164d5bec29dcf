//! The machine boots: the network and the name server come up after the node. Also signals that do
//! not end a node.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;

use kvclient::{Call, Client, ClientOptions};
use nix::sys::signal::Signal;
use wire::{Action, Outcome};

use crate::nodes::{SOON, wait_until};
use crate::process::{Node, wait_until_serving};

struct Log {
    path: PathBuf,
    _directory: tempfile::TempDir,
}

impl Log {
    fn new() -> Log {
        let directory = tempfile::tempdir().expect("a temporary directory");
        Log {
            path: directory.path().join("log"),
            _directory: directory,
        }
    }

    fn file(&self) -> std::process::Stdio {
        File::create(&self.path).expect("a log file").into()
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.path).unwrap_or_default()
    }

    fn wait_for(&self, words: &str) {
        wait_until(SOON, words, || self.text().contains(words));
    }
}

#[test]
fn a_node_whose_own_address_is_not_there_waits_for_it() {
    let address = "198.51.100.7:8801";
    let log = Log::new();
    let mut node = Node::serve(&["0", address], log.file());
    log.wait_for("can't be bound");
    assert!(node.is_running(), "{}", log.text());
    if std::env::var_os("HORSESHOE_LAB").is_none() {
        // Outside of the lab no address may be added.
        return;
    }
    let mut add = Command::new("ip");
    add.args(["address", "add", "198.51.100.7/32", "dev", "lo"]);
    assert!(add.status().expect("iproute2 is there").success());
    wait_until_serving(address);
}

#[test]
fn a_node_whose_own_name_does_not_resolve_waits_for_it() {
    let log = Log::new();
    let mut node = Node::serve(&["0", "no-such-host.invalid:8801"], log.file());
    log.wait_for("can't be found");
    assert!(node.is_running(), "{}", log.text());
    node.signal(Signal::SIGTERM);
    assert_eq!(node.end(), 0);
}

/// Debian maps a machine's own name to 127.0.1.1.
#[test]
fn a_loopback_address_among_others_is_refused_with_the_remedy() {
    let log = Log::new();
    let mut node = Node::serve(&["0", "127.0.1.1:8801", "198.51.100.8:8801"], log.file());
    assert_eq!(node.end(), 1);
    let text = log.text();
    assert!(
        text.contains("198.51.100.8:8801 is on another machine"),
        "{text}"
    );
    assert!(text.contains("/etc/hosts"), "{text}");
}

#[test]
fn signals_that_do_not_mean_the_end_change_nothing() {
    let address = "127.91.0.5:8801";
    let log = Log::new();
    let mut node = Node::serve(&["0", address], log.file());
    wait_until_serving(address);
    let client = Client::open(address, ClientOptions::default()).expect("an address");
    let value = "v".into();
    let put = client.call(Call::new("k", Action::Put { value }));
    assert!(matches!(put, Ok(Outcome::Written { .. })), "{put:?}");
    for (signal, name) in [
        (Signal::SIGHUP, "SIGHUP"),
        (Signal::SIGUSR1, "SIGUSR1"),
        (Signal::SIGUSR2, "SIGUSR2"),
    ] {
        node.signal(signal);
        log.wait_for(name);
    }
    assert!(node.is_running());
    // The state is in memory only: a restarted node would not have it.
    let got = client.call(Call::new("k", Action::Get));
    assert!(matches!(got, Ok(Outcome::Value { .. })), "{got:?}");
    node.signal(Signal::SIGTERM);
    assert_eq!(node.end(), 0);
}
