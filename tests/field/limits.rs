//! Process limits below what a node asks for, and its environment variables.

use std::fs::File;
use std::process::Stdio;
use std::time::Duration;

use kvclient::{Call, Client, ClientOptions};
use nix::sys::signal::Signal;
use wire::Action;

use crate::process::{Node, wait_until_serving};

fn log_in(directory: &tempfile::TempDir) -> (std::path::PathBuf, Stdio) {
    let path = directory.path().join("log");
    let file = File::create(&path).expect("there is room");
    (path, file.into())
}

/// A shell's limit of a file's size ends a process with a signal, unless the process ignores that
/// signal.
#[test]
fn a_log_that_may_not_grow_ends_no_node() {
    let address = "127.91.6.1:8801";
    let base = tempfile::tempdir().expect("a temporary directory");
    let (path, log) = log_in(&base);
    let mut node = Node::serve_after("ulimit -f 2", &["0", address], log);
    wait_until_serving(address);
    let client = Client::open(address, ClientOptions::default()).expect("an address");
    for _ in 0..300 {
        // Each signal is a line of the log.
        node.signal(Signal::SIGUSR1);
        client.call(Call::new("k", Action::Get)).expect("it serves");
    }
    let size = path.metadata().expect("it is there").len();
    assert!((1..=2_048).contains(&size), "the log has {size} bytes");
    node.signal(Signal::SIGTERM);
    assert_eq!(node.end(), 0);
}

#[test]
fn too_few_open_files_are_told_before_anything_is_promised() {
    let base = tempfile::tempdir().expect("a temporary directory");
    let data = base.path().join("data");
    let words = [
        "--data-dir",
        data.to_str().expect("text"),
        "0",
        "127.91.6.2:8801",
    ];
    let (path, log) = log_in(&base);
    let mut node = Node::serve_after("ulimit -n 100", &words, log);
    assert_eq!(node.end(), 1);
    let said = std::fs::read_to_string(&path).expect("the log");
    assert!(
        said.contains("100 files open") && said.contains("LimitNOFILE"),
        "{said}"
    );
    assert!(!data.exists());
    // A soft limit is raised to the hard one.
    let _node = Node::serve_after("ulimit -Sn 30", &words, Stdio::null());
    wait_until_serving("127.91.6.2:8801");
}

#[test]
fn the_bound_of_memory_follows_the_limits_of_the_process() {
    let address = "127.91.6.3:8801";
    let _node = Node::serve_after("ulimit -v 900000", &["0", address], Stdio::null());
    wait_until_serving(address);
    let client = Client::open(address, ClientOptions::default()).expect("an address");
    let told = client.status(Duration::from_secs(5));
    let status = told[0].1.as_ref().expect("it answers");
    assert!(
        status.memory_max_bytes < 900_000 << 10,
        "{}",
        status.memory_max_bytes
    );
}

/// Unit files and containers set variables that are not given to the empty string.
#[test]
fn empty_variables_count_as_not_set_and_misspelt_ones_are_told() {
    let address = "127.91.6.4:8801";
    let base = tempfile::tempdir().expect("a temporary directory");
    let (path, log) = log_in(&base);
    let names = [
        "DURABILITY",
        "TEXT",
        "SHRINK_AFTER",
        "HEARTBEAT_MS",
        "MEMORY_MAX",
        "LOG",
    ];
    let empty = names.map(|name| format!("HORSESHOE_{name}="));
    let first = format!("export {} HORSESHOE_DATADIR=/nowhere", empty.join(" "));
    let _node = Node::serve_after(&first, &["0", address], log);
    wait_until_serving(address);
    let said = std::fs::read_to_string(&path).expect("the log");
    assert!(
        said.contains("HORSESHOE_DATADIR is set but is not a setting"),
        "{said}"
    );
}
