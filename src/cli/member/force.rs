//! `horseshoe member force`: continues when a quorum is lost for good.

use std::cmp::Reverse;
use std::io::BufRead;
use std::time::Duration;

use clap::Args;
use kvclient::CallError;
use wire::{CHANGE_NODES_MAX, Change, ChangeOutcome, NodeStatus};

use super::super::connection::ConnectionArgs;
use super::super::exit::Exit;
use super::super::report;
use super::cluster::Cluster;
use super::follow::{self, Progress};

const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// The word that the operator has to type.
const WORD: &str = "force";

/// Continue with the named nodes, without a quorum: what only the others hold is lost
///
/// For a quorum that is lost for good, also in the middle of a change. Exactly the named nodes,
/// which must be up with their data, are the members afterwards.
#[derive(Debug, Args)]
pub struct ForceArgs {
    /// Their ids, as `member list` shows them
    #[arg(value_name = "NODE", required = true, num_args = 1..=CHANGE_NODES_MAX, value_parser = super::id)]
    nodes: Vec<u8>,

    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,

    /// Force even though the nodes have a quorum
    #[arg(long)]
    despite_quorum: bool,
}

pub fn run(arguments: ForceArgs, connection: &ConnectionArgs) -> Exit {
    let ForceArgs {
        mut nodes,
        yes,
        despite_quorum,
    } = arguments;
    nodes.sort_unstable();
    nodes.dedup();
    let mut cluster = match Cluster::open(connection) {
        Ok(cluster) => cluster,
        Err(exit) => return exit,
    };
    let (place, epoch) = match whom_to_ask(&cluster, &nodes) {
        Ok(found) => found,
        Err(message) => return connection.refuse("refused", Exit::Other, &message),
    };
    report::complain(&warning(&cluster, &nodes));
    if !yes && !is_confirmed() {
        let message = "not confirmed; nothing was changed";
        return connection.refuse("usage", Exit::Usage, message);
    }
    let change = Change::Force {
        nodes: nodes.clone(),
        epoch,
        despite_quorum,
    };
    let target = match cluster.client().change(place, change, ANSWER_TIMEOUT) {
        Err(CallError::UnknownOutcome) => {
            let message = "no response: `horseshoe member list` shows whether it was done";
            return connection.refuse("unknown_outcome", Exit::Unknown, message);
        }
        Err(error) => return connection.refuse_call(&error),
        Ok(ChangeOutcome::Refused { reason, .. }) => {
            return connection.refuse("refused", Exit::Other, &reason);
        }
        Ok(
            ChangeOutcome::Done { epoch, .. }
            | ChangeOutcome::Started { epoch, .. }
            | ChangeOutcome::Waits { epoch, .. },
        ) => epoch,
    };
    follow(&mut cluster, &nodes, target, connection)
}

/// One of the named nodes that has the latest configuration, and that configuration's epoch.
fn whom_to_ask(cluster: &Cluster, nodes: &[u8]) -> Result<(usize, u64), String> {
    if let Some(node) = nodes.iter().find(|node| cluster.of_node(**node).is_none()) {
        return Err(format!(
            "node {node} does not respond: only nodes that are up, and that this machine can \
             reach, can be named"
        ));
    }
    let words = nodes.iter().filter_map(|node| cluster.of_node(*node));
    let place_of = |status: &NodeStatus| {
        cluster.place(|s| s.node == status.node && s.cluster == status.cluster)
    };
    // Of equal nodes the first one given: it may be the one on this machine.
    let best = words.max_by_key(|status| (status.votes, status.epoch, Reverse(place_of(status))));
    let best = best.ok_or("no node is named")?;
    let (node, epoch) = (best.node, best.epoch);
    place_of(best)
        .map(|place| (place, epoch))
        .ok_or_else(|| format!("node {node} does not respond"))
}

fn warning(cluster: &Cluster, nodes: &[u8]) -> String {
    let named = cluster.named();
    let (stay, go): (Vec<_>, Vec<_>) = named
        .iter()
        .map(|named| (named.member.node, named.member.address.as_str()))
        .partition(|(node, _)| nodes.contains(node));
    let list = |nodes: &[(u8, &str)]| {
        let words = nodes
            .iter()
            .map(|(node, address)| format!("  {node}  {address}\n"));
        words.collect::<String>()
    };
    let mut text = format!("These nodes continue alone:\n{}", list(&stay));
    if !go.is_empty() {
        text += &format!(
            "These nodes are excluded:\n{}\
             What may be lost: every acknowledged write that none of the continuing nodes holds. A \
             write with an unknown outcome may be kept or lost. The excluded nodes drop their data \
             when they come back.\n\
             Make sure that the excluded nodes are down, or that clients can't reach them: if they \
             still serve somewhere, there are two clusters, and what is written there is lost.\n",
            list(&go)
        );
    }
    text
}

/// Reads one line.
fn is_confirmed() -> bool {
    report::complain(&format!("Type {WORD} to continue: "));
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    read.is_ok() && line.trim() == WORD
}

/// Waits until the named nodes serve.
fn follow(cluster: &mut Cluster, nodes: &[u8], target: u64, connection: &ConnectionArgs) -> Exit {
    let mut progress = Progress::new(connection);
    loop {
        if let Err(exit) = cluster.look(connection) {
            return exit;
        }
        let serve = |node: &u8| {
            cluster.of_node(*node).is_some_and(|status| {
                status.epoch > target && !status.joint && status.votes && status.quorum
            })
        };
        match nodes.iter().find(|node| !serve(node)) {
            None => {
                let epoch = cluster.newest().map_or(target, |status| status.epoch);
                return follow::report_done(connection, "the named nodes serve", epoch, 0);
            }
            Some(node) => progress.say(format!(
                "configuration {target} was made; node {node} has not completed the change yet"
            )),
        }
        if !progress.pause() {
            return progress.give_up(connection, true);
        }
    }
}
