//! A hung disk: its node is reachable, and gets nothing onto its disk. And files that are deleted
//! under a running node.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use kvclient::{Call, CallError, Client, ClientOptions};
use wire::{Action, Outcome};

use crate::nodes::{Cluster, Keep, SOON, wait_until};
use crate::preload;

/// A wrapper that preloads `hang.c`, which blocks the syncs of a node while its flag file exists.
fn holding_syncs(directory: &Path) -> Vec<String> {
    let library = preload::compile("tests/field/hang.c", directory);
    let preload = format!("LD_PRELOAD={}", library.display());
    let base = format!("DISK_BASE={}", directory.display());
    vec!["env".to_owned(), preload, base]
}

fn start(count: usize, options: &[&str]) -> Cluster {
    Cluster::start_with(
        Cluster::addresses(count),
        Keep::Fsync,
        options,
        holding_syncs,
    )
}

fn flag(cluster: &Cluster, node: usize) -> PathBuf {
    cluster.data_directory(node).with_extension("hangs")
}

fn hang(cluster: &Cluster, node: usize) {
    fs::write(flag(cluster, node), "").expect("a temporary directory");
}

fn mend(cluster: &Cluster, node: usize) {
    fs::remove_file(flag(cluster, node)).expect("it hangs");
}

fn client(cluster: &Cluster, node: usize) -> Client {
    Client::open(cluster.address(node), ClientOptions::default()).expect("an address")
}

fn put(client: &Client, value: &str) -> Result<Outcome, CallError> {
    let value = value.to_owned().into();
    client.call(Call::new("k", Action::Put { value }))
}

fn status(cluster: &Cluster) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_horseshoe"));
    let output = command
        .args(["--nodes", &cluster.list(), "status"])
        .output();
    let output = output.expect("the binary runs");
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
    )
}

#[test]
fn operations_through_a_node_whose_disk_hangs_are_served_by_others() {
    let cluster = start(3, &["--disk-hung-after", "1s"]);
    let through = client(&cluster, 1);
    put(&through, "before").expect("it serves");
    let (_, text) = status(&cluster);
    assert!(
        text.contains("sync (median/max)") && text.contains(" ms"),
        "{text}"
    );
    hang(&cluster, 1);
    // The node has nothing to write before it needs the next ceiling.
    wait_until(SOON, "the log tells of it", || {
        cluster.log(1).contains("disk hung")
    });
    for number in 0..20 {
        let value = format!("{number}");
        let outcome = put(&through, &value);
        assert!(
            matches!(outcome, Ok(Outcome::Written { .. })),
            "{outcome:?}"
        );
        match through.call(Call::new("k", Action::Get)) {
            Ok(Outcome::Value { value: got, .. }) => assert_eq!(got, value),
            other => panic!("{other:?}"),
        }
    }
    let (code, text) = status(&cluster);
    assert_eq!(code, Some(0), "{text}");
    let own = format!("{}: disk hung: a write has taken ", cluster.address(1));
    assert!(text.contains(&own), "{text}");
    mend(&cluster, 1);
    wait_until(SOON, "the log tells that it works", || {
        cluster.log(1).contains("disk recovered")
    });
    wait_until(SOON, "the status is clean", || {
        !status(&cluster).1.contains("disk")
    });
}

/// Two of three are no quorum if the disk of one of them hangs.
#[test]
fn a_quorum_of_which_a_disk_hangs_is_none() {
    let mut cluster = start(3, &["--disk-hung-after", "1s"]);
    let through = client(&cluster, 2);
    put(&through, "before").expect("it serves");
    hang(&cluster, 1);
    cluster.kill([0]);
    wait_until(SOON, "no quorum", || status(&cluster).0 == Some(3));
    let (_, text) = status(&cluster);
    assert!(text.contains("reachable, but with a hung disk"), "{text}");
    let outcome = put(&through, "never");
    assert!(
        matches!(outcome, Err(CallError::NoQuorum { .. })),
        "{outcome:?}"
    );
    mend(&cluster, 1);
    cluster.wait_until_serving([1, 2]);
    wait_until(SOON, "it serves", || {
        put(&through, "after").is_ok_and(|o| matches!(o, Outcome::Written { .. }))
    });
}

/// Writes acknowledged while the files are missing are on the disks of the other nodes.
#[test]
fn a_node_whose_files_are_deleted_stops_and_says_so() {
    for (node, name) in [(0, ""), (1, "store/1.log")] {
        let mut cluster = Cluster::start(3, Keep::Fsync);
        let path = cluster.data_directory(node).join(name);
        put(&client(&cluster, 2), "before").expect("it serves");
        match name {
            "" => fs::remove_dir_all(&path),
            _ => fs::remove_file(&path),
        }
        .expect("it is there");
        wait_until(SOON, "it stops", || !cluster.is_running(node));
        let log = cluster.log(node);
        assert!(log.contains("was deleted, moved or replaced"), "{log}");
        assert_eq!(put(&client(&cluster, 2), "after").map(|_| ()), Ok(()));
    }
}

/// It is removed like an unreachable member, and comes back automatically.
#[test]
fn a_member_whose_disk_hangs_is_removed_and_comes_back() {
    let cluster = start(4, &["--disk-hung-after", "1s", "--shrink-after", "1s"]);
    hang(&cluster, 2);
    let members = |count: usize| {
        let told = cluster.status(0);
        told.is_some_and(|s| s.members.len() == count && !s.joint)
    };
    wait_until(SOON, "it is removed", || members(3));
    put(&client(&cluster, 2), "meanwhile").expect("served by the others");
    mend(&cluster, 2);
    wait_until(SOON, "it is a member again", || members(4));
}
