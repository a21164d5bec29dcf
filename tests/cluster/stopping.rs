//! SIGTERM and SIGINT; and SIGSTOP, which a process cannot notice.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kvclient::CallError;
use nix::sys::signal::Signal;

use super::clients::{client, get, put, try_get, try_put, while_running};
use super::nodes::{Cluster, Keep, SOON, wait_until};

/// The documented bound is one second; a busy machine gets two.
const STOP_BOUND: Duration = Duration::from_secs(2);

#[test]
fn a_node_stops_on_a_signal_without_a_clients_error() {
    for keep in [Keep::Memory, Keep::Fsync] {
        stops_without_errors(keep);
    }
}

fn stops_without_errors(keep: Keep) {
    let mut cluster = Cluster::start(5, keep);
    let nodes = cluster.list();
    let done = AtomicU64::new(0);
    let write_and_read = |client: &_, thread, number| -> Result<(), CallError> {
        let (key, value) = (format!("key-{thread}"), format!("{number}"));
        try_put(client, &key, &value)?;
        let found = try_get(client, &key)?;
        assert_eq!(found, Some(value), "{key}, which only this thread writes");
        done.fetch_add(1, Ordering::Relaxed);
        Ok(())
    };
    let (count, ()) = while_running(16, &nodes, write_and_read, || {
        let go_on = || {
            let before = done.load(Ordering::Relaxed);
            wait_until(SOON, "clients go on", || {
                done.load(Ordering::Relaxed) > before + 500
            });
        };
        go_on();
        for (node, signal) in [(1, Signal::SIGTERM), (0, Signal::SIGINT)] {
            let (status, took) = cluster.stop(node, signal);
            assert!(status.success(), "node {node}: {status}");
            assert!(took < STOP_BOUND, "node {node} took {took:?} to stop");
            assert!(cluster.log(node).contains("stopped"), "the log says so");
            go_on();
        }
    });
    assert_eq!((count.unknown, count.errors), (0, Vec::new()));
    assert!(count.done > 1_500);
    assert_eq!(get(&client(&nodes), "key-none"), None);
}

/// When the node continues, its timers are overdue, and the other nodes' heartbeats wait in its
/// socket: it must not conclude from its own pause that they were silent.
#[test]
fn a_node_that_was_suspended_misses_no_quorum() {
    let mut cluster = Cluster::start(3, Keep::Memory);
    put(&client(&cluster.list()), "key", "1");
    for node in 0..3 {
        cluster.suspend(node, Duration::from_millis(800));
        assert_eq!(
            get(&client(cluster.address(node)), "key").as_deref(),
            Some("1")
        );
    }
    for node in 0..3 {
        assert!(cluster.is_running(node));
        let log = cluster.log(node);
        assert!(!log.contains("quorum lost"), "node {node}: {log}");
    }
}

/// There is no node to wait for, and a client waits for an answer that cannot come: neither may
/// delay the end of the node.
#[test]
fn a_node_without_a_quorum_stops_too() {
    let mut cluster = Cluster::start(3, Keep::Memory);
    cluster.kill([0, 1]);
    let nodes = cluster.list();
    let get = |client: &_, _, _| try_get(client, "key").map(drop);
    let (_, (status, took)) = while_running(4, &nodes, get, || {
        cluster.wait_until_dark([2]);
        cluster.stop(2, Signal::SIGTERM)
    });
    assert!(status.success(), "{status}");
    assert!(took < STOP_BOUND, "took {took:?}");
}
