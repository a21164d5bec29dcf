//! Conditions that scenarios wait for, as reported by the nodes: which nodes are members, and which
//! hold what.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use wire::NodeStatus;

use crate::clients::SHARED_KEYS;
use crate::nodes::Cluster;

const POLL_INTERVAL: Duration = Duration::from_millis(20);
const SAYS_WITHIN: Duration = Duration::from_secs(10);

/// Returns how long it took; fails with the nodes' last reports.
fn wait(
    cluster: &mut Cluster,
    within: Duration,
    what: &str,
    holds: impl Fn(&[NodeStatus]) -> bool,
) -> Result<Duration> {
    let began = Instant::now();
    loop {
        let running: Vec<usize> = (0..cluster.count())
            .filter(|node| cluster.is_running(*node))
            .collect();
        let told: Vec<NodeStatus> = running
            .iter()
            .filter_map(|node| cluster.status(*node))
            .collect();
        let took = began.elapsed();
        if told.len() == running.len() && holds(&told) {
            return Ok(took);
        }
        let shown = || told.iter().map(show).collect::<String>();
        ensure!(took < within, "{what}: not within {within:?}{}", shown());
        std::thread::sleep(POLL_INTERVAL);
    }
}

fn show(status: &NodeStatus) -> String {
    let members: Vec<u8> = status.members.iter().map(|m| m.node).collect();
    let NodeStatus {
        node,
        epoch,
        votes,
        quorum,
        keys,
        records,
        digest,
        learning,
        waits_for,
        ..
    } = status;
    format!(
        "\n        node {node}: epoch {epoch}, members {members:?}, votes {votes}, quorum {quorum}, \
         {keys} keys, {records} records, digest {digest:016x}, {learning:?}; {waits_for}"
    )
}

/// This many nodes report that they are the members, and serve.
pub fn members(cluster: &mut Cluster, count: usize, within_ms: u64) -> Result<Duration> {
    let within = Duration::from_millis(within_ms);
    wait(cluster, within, &format!("{count} members"), |told| {
        let newest = told.iter().map(|s| s.epoch).max();
        let is_settled = |s: &&NodeStatus| {
            s.votes && s.quorum && !s.joint && s.members.len() == count && Some(s.epoch) == newest
        };
        told.iter().filter(is_settled).count() == count
    })
}

/// The node is the last in the order of the members.
pub fn last(cluster: &Cluster, node: usize) -> Result<()> {
    let status = cluster.status(node).context("it does not answer")?;
    let last = status.members.last().map(|member| member.node);
    ensure!(
        last == Some(status.node),
        "it is not the last{}",
        show(&status)
    );
    Ok(())
}

/// A node's status contains `text` in its reasons for not being ready.
pub fn says(cluster: &mut Cluster, node: usize, text: &str) -> Result<Duration> {
    // The index of the node among the reports, which are in order of nodes.
    let place = (0..node).filter(|other| cluster.is_running(*other)).count();
    ensure!(cluster.is_running(node), "it does not run");
    let what = format!("node {node} speaks of {text:?}");
    wait(cluster, SAYS_WITHIN, &what, |told| {
        told.get(place).is_some_and(|s| s.waits_for.contains(text))
    })
}

/// A node's log has a line with `text`.
pub fn logs(cluster: &Cluster, node: usize, text: &str) -> Result<()> {
    let began = Instant::now();
    while !cluster.log(node).contains(text) {
        let in_time = began.elapsed() < SAYS_WITHIN;
        ensure!(in_time, "node {node} logs nothing of {text:?}");
        std::thread::sleep(POLL_INTERVAL);
    }
    Ok(())
}

/// All running nodes hold the same state.
pub fn equal(cluster: &mut Cluster, within_ms: u64) -> Result<Duration> {
    let within = Duration::from_millis(within_ms);
    wait(cluster, within, "the same on all nodes", |told| {
        told.windows(2)
            .all(|two| two[0].digest == two[1].digest && two[0].keys == two[1].keys)
    })
}

/// The running nodes hold no more keys than the clients use.
pub fn forgotten(cluster: &mut Cluster, within_ms: u64) -> Result<Duration> {
    let within = Duration::from_millis(within_ms);
    wait(cluster, within, "deleted keys are forgotten", |told| {
        // One more for the configuration.
        let most = SHARED_KEYS.len() as u64 + 1;
        told.iter().all(|s| s.records <= most)
    })
}
