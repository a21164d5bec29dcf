//! A log file system fills up on all machines alike, and a reader of the log may stall: neither may
//! stop or block a node.

use std::fs::File;
use std::process::Stdio;

use kvclient::{Call, Client, ClientOptions};
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::Signal;
use wire::{Action, Outcome};

use crate::process::{Node, wait_until_serving};

fn full() -> Stdio {
    File::options()
        .write(true)
        .open("/dev/full")
        .expect("a Linux system")
        .into()
}

#[test]
fn a_node_serves_though_its_log_is_full() {
    let address = "127.91.0.1:8801";
    let mut node = Node::serve(&["0", address], full());
    wait_until_serving(address);
    // The messages at the end cannot be written either.
    node.signal(Signal::SIGTERM);
    assert_eq!(node.end(), 0);
}

#[test]
fn the_exit_status_of_a_command_does_not_depend_on_its_log() {
    let mut node = Node::serve(&["7", "127.91.0.2:8801"], full());
    assert_eq!(node.end(), 1, "the index is not in the list");
    let mut client = std::process::Command::new(env!("CARGO_BIN_EXE_horseshoe"));
    client.args([
        "--nodes",
        "127.91.0.3:8801",
        "--timeout",
        "200ms",
        "put",
        "k",
        "v",
    ]);
    let status = client.stderr(full()).status().expect("the binary runs");
    assert_eq!(status.code(), Some(3), "no quorum");
}

/// The pipe is full after some thirty lines.
#[test]
fn a_node_serves_and_ends_though_nobody_reads_its_log() {
    let address = "127.91.0.4:8801";
    let (reader, writer) = std::io::pipe().expect("a pipe");
    fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4_096)).expect("a pipe can be made smaller");
    let mut node = Node::serve(&["0", address], writer.into());
    wait_until_serving(address);
    let client = Client::open(address, ClientOptions::default()).expect("an address");
    for _ in 0..300 {
        // Each signal is a line of the log.
        node.signal(Signal::SIGUSR1);
        let value = "v".into();
        let outcome = client.call(Call::new("k", Action::Put { value }));
        assert!(
            matches!(outcome, Ok(Outcome::Written { .. })),
            "{outcome:?}"
        );
    }
    node.signal(Signal::SIGTERM);
    assert_eq!(node.end(), 0);
    drop(reader);
}
