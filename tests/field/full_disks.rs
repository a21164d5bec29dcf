//! Full disks: those of all nodes at once, filled by the cluster's own data, and that of one node,
//! filled by others. Each node has a small file system of its own, in a mount namespace of the
//! test.

use std::cell::RefCell;
use std::fmt::Write;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kvclient::{Call, CallError, Client, ClientOptions};
use nix::sys::signal::Signal;
use wire::{Action, Full, Outcome};

use crate::nodes::{Cluster, Keep, SOON, wait_until};

const NODES: usize = 3;
const DISK: &str = "64M";
/// The time of a purge and a checkpoint, on a slow machine.
pub const PATIENCE: Duration = Duration::from_secs(120);
const VALUE_SIZE: usize = 40_000;

/// A process that holds the mounts; they disappear with it.
struct Holder(Child);

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Holder {
    fn start(directory: &Path) -> Holder {
        let mut script = String::new();
        for node in 0..NODES {
            let path = directory.join(format!("data-{node}"));
            let path = path.display();
            write!(
                script,
                "mkdir {path} && mount -t tmpfs -o size={DISK},mode=700 disk {path} && "
            )
            .expect("a string takes all");
        }
        script.push_str("echo ready && exec sleep 3600");
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", &script]);
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare is there");
        let mut line = String::new();
        let output = child.stdout.take().expect("a pipe");
        BufReader::new(output)
            .read_line(&mut line)
            .expect("it tells");
        let holder = Holder(child);
        assert_eq!(line, "ready\n", "mounts");
        holder
    }

    /// The prefix of a command that has to see the mounts.
    fn enter(&self) -> Vec<String> {
        let id = self.0.id().to_string();
        let words = ["nsenter", "--target", &id, "--mount", "--"];
        words.map(str::to_owned).to_vec()
    }

    fn run(&self, words: &[&str]) -> bool {
        let enter = self.enter();
        let mut command = Command::new(&enter[0]);
        command.args(&enter[1..]).args(words).stderr(Stdio::null());
        command.status().expect("nsenter is there").success()
    }
}

/// `None` where this user may not mount.
fn start() -> Option<(Holder, Cluster)> {
    if fs::metadata("/proc/self").map_or(1, |m| m.uid()) != 0 {
        eprintln!("left out: to mount a small file system takes root");
        return None;
    }
    let holder = RefCell::new(None);
    let cluster = Cluster::start_with(Cluster::addresses(NODES), Keep::Fsync, &[], |directory| {
        let started = Holder::start(directory);
        let enter = started.enter();
        holder.replace(Some(started));
        enter
    });
    let holder = holder.take().expect("just started");
    Some((holder, cluster))
}

pub fn client(cluster: &Cluster) -> Client {
    Client::open(&cluster.list(), ClientOptions::default()).expect("addresses")
}

/// Data that cannot be compressed.
fn noise(key: &str, seed: u8) -> Vec<u8> {
    let mut state = key.bytes().fold(u64::from(seed) + 1, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(byte.into())
    });
    let next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(99);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(VALUE_SIZE).collect()
}

pub fn put(client: &Client, key: &str, seed: u8) -> Result<Outcome, CallError> {
    let value = noise(key, seed).into();
    client.call(Call::new(key.to_owned(), Action::Put { value }))
}

pub fn holds(client: &Client, key: &str) -> bool {
    match client.call(Call::new(key.to_owned(), Action::Get)) {
        Ok(Outcome::Value { value, .. }) => value.len() == VALUE_SIZE,
        Ok(Outcome::Absent) => false,
        other => panic!("{other:?}"),
    }
}

pub fn delete(client: &Client, key: &str) {
    let outcome = client.call(Call::new(key.to_owned(), Action::Delete));
    assert!(
        matches!(outcome, Ok(Outcome::Written { .. })),
        "{outcome:?}"
    );
}

pub fn is_full(outcome: &Result<Outcome, CallError>) -> bool {
    matches!(outcome, Err(CallError::Full(Full::Disk)))
}

/// Puts until the nodes are full; returns how many keys there are.
pub fn fill(client: &Client) -> usize {
    for number in 0..10_000 {
        let outcome = put(client, &format!("k{number}"), number as u8);
        if is_full(&outcome) {
            return number;
        }
        assert!(
            matches!(outcome, Ok(Outcome::Written { .. })),
            "{outcome:?}"
        );
    }
    panic!("never full");
}

/// Fills the disk at once, except for `left` bytes.
fn fill_up(holder: &Holder, directory: &Path, name: &str, left: u64) {
    let path = directory.display();
    let script = format!(
        "free=$(df --output=avail -B1 {path} | tail -1) && fallocate -l $((free - {left})) {path}/{name}"
    );
    assert!(holder.run(&["sh", "-c", &script]));
}

#[test]
fn full_disks_of_all_nodes_stop_no_reads_no_deletes_and_no_restart() {
    let Some((_holder, mut cluster)) = start() else {
        return;
    };
    let client = client(&cluster);
    let keys = fill(&client);
    assert!(keys > 100, "{keys}");
    assert!(holds(&client, "k0"));
    delete(&client, "k1");
    // A value no larger than the existing one is still accepted.
    let over = put(&client, "k2", 7);
    assert!(matches!(over, Ok(Outcome::Written { .. })), "{over:?}");
    let status = cluster.status(0).expect("it answers");
    let warnings = status.warnings.join(" ");
    assert!(warnings.contains("is out of disk space"), "{warnings}");
    let ended = cluster.stop(0, Signal::SIGTERM).0;
    assert!(ended.success(), "{ended}");
    cluster.kill(1..NODES);
    cluster.start_nodes(0..NODES);
    cluster.wait_until_serving(0..NODES);
    assert!(holds(&client, "k0") && !holds(&client, "k1"));
    for number in 2..keys {
        delete(&client, &format!("k{number}"));
    }
    wait_until(PATIENCE, "there is room again", || {
        matches!(put(&client, "new", 1), Ok(Outcome::Written { .. }))
    });
    assert!(holds(&client, "k0") && holds(&client, "new"));
}

#[test]
fn a_disk_that_others_fill_stops_no_node() {
    let Some((holder, mut cluster)) = start() else {
        return;
    };
    let client = client(&cluster);
    put(&client, "k", 1).expect("there is room");
    let reserve = cluster.data_directory(1).join("reserve");
    let reserve = reserve.to_str().expect("a path of letters");
    wait_until(SOON, "the reserve is made", || {
        holder.run(&["test", "-e", reserve])
    });
    // The disk is so full that a commit finds too little space besides the reserve.
    let data = cluster.data_directory(1);
    fill_up(&holder, &data, "filler", 300_000);
    let mut number = 0;
    wait_until(SOON, "it is full", || {
        number += 1;
        is_full(&put(&client, &format!("new{number}"), 1))
    });
    assert!(holds(&client, "k"));
    for _ in 0..20 {
        let over = put(&client, "k", 2);
        assert!(matches!(over, Ok(Outcome::Written { .. })), "{over:?}");
    }
    assert!(cluster.is_running(1));
    assert!(
        !holder.run(&["test", "-e", reserve]),
        "it lives in its reserve"
    );
    // The other process on the disk also takes the space that the node freed.
    fill_up(&holder, &data, "filler2", 0);
    cluster.kill([1]);
    // There is no space at all: the node serves, or reports why it does not, and comes back.
    cluster.start_node(1);
    let mut is_up = false;
    wait_until(SOON, "it serves or ends", || {
        is_up = cluster.status(1).is_some_and(|s| s.votes && s.quorum);
        is_up || !cluster.is_running(1)
    });
    let filler = data.join("filler").display().to_string();
    assert!(holder.run(&["rm", &filler, &format!("{filler}2")]));
    if !cluster.is_running(1) {
        assert!(cluster.log(1).contains("No space left on device"));
        cluster.restart(1);
    }
    cluster.wait_until_serving([1]);
    wait_until(SOON, "there is room again", || {
        matches!(put(&client, "new", 1), Ok(Outcome::Written { .. }))
    });
}
