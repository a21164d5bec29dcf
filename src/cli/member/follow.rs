//! Completes a change of the configuration: requests it, repeatedly if necessary, until the desired
//! result holds.
//!
//! A request names the desired result, and a node that receives it again answers with its progress.
//! So this code needs no state, and can be interrupted and started again at any time.

use std::time::{Duration, Instant};

use kvclient::CallError;
use serde_json::json;
use wire::{Change, ChangeOutcome};

use super::super::connection::ConnectionArgs;
use super::super::exit::Exit;
use super::super::report;
use super::super::status;
use super::cluster::Cluster;

/// The default time to wait for a change; a new node may have much to copy.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(200);

/// The desired result.
#[derive(Debug)]
pub struct Wish {
    pub change: Change,
    /// The message when the result holds.
    pub done: String,
    /// The node that is not asked if another one can be, because it is to be removed.
    pub not_at: Option<u8>,
}

/// Prints the progress on standard error, each message once.
#[derive(Debug)]
pub struct Progress {
    said: String,
    quiet: bool,
    deadline: Instant,
}

impl Progress {
    pub fn new(connection: &ConnectionArgs) -> Self {
        let timeout = connection.timeout.unwrap_or(TIMEOUT_DEFAULT);
        Progress {
            said: String::new(),
            quiet: connection.json,
            deadline: Instant::now() + timeout,
        }
    }

    pub fn say(&mut self, words: String) {
        if words != self.said {
            if !self.quiet {
                report::complain(&format!("{words}\n"));
            }
            self.said = words;
        }
    }

    /// Waits briefly; returns false when the time is over.
    pub fn pause(&self) -> bool {
        let left = self.deadline.saturating_duration_since(Instant::now());
        std::thread::sleep(PAUSE.min(left));
        !left.is_zero()
    }

    /// The time is over.
    pub fn give_up(&self, connection: &ConnectionArgs, is_started: bool) -> Exit {
        let said = &self.said;
        match is_started {
            true => {
                let message = format!(
                    "not completed yet: {said}. It continues automatically; `horseshoe member \
                     list` shows its progress"
                );
                connection.refuse("unknown_outcome", Exit::Unknown, &message)
            }
            false => connection.refuse(
                "no_quorum",
                Exit::NoQuorum,
                &format!("{said}; nothing was changed"),
            ),
        }
    }
}

/// Reports that the result holds.
pub fn report_done(connection: &ConnectionArgs, words: &str, epoch: u64, node: u8) -> Exit {
    let text = match connection.json {
        true => {
            let all = json!({
                "result": "done",
                "message": words,
                "epoch": epoch,
                "node": (node > 0).then_some(node),
            });
            format!("{all}\n")
        }
        false => format!("{words}\n"),
    };
    report::print_bytes(text.as_bytes()).map_or_else(|exit| exit, |()| Exit::Done)
}

/// Repeats the request until the result holds, the request is refused, or the time is over.
pub fn pursue(wish: &Wish, connection: &ConnectionArgs) -> Exit {
    let mut progress = Progress::new(connection);
    let mut is_started = false;
    let mut cluster = match Cluster::open(connection) {
        Ok(cluster) => cluster,
        Err(exit) => return exit,
    };
    loop {
        match whom_to_ask(&cluster, wish) {
            None => progress.say(format!("no serving node responded{}", cluster.strangers())),
            Some(place) => {
                let change = wish.change.clone();
                let answer = cluster.client().change(place, change, ANSWER_TIMEOUT);
                match answer {
                    // A request without an answer may have begun the change.
                    Err(CallError::UnknownOutcome) => {
                        is_started = true;
                        progress.say("no response yet".to_owned());
                    }
                    Err(error @ CallError::TwoClusters { .. }) if !is_started => {
                        return connection.refuse_call(&error);
                    }
                    Err(error) => progress.say(error.to_string()),
                    Ok(ChangeOutcome::Done { epoch, node }) => {
                        return report_done(connection, &wish.done, epoch, node);
                    }
                    Ok(ChangeOutcome::Started { epoch, node }) => {
                        is_started = true;
                        progress.say(under_way(&cluster, epoch, node));
                    }
                    Ok(ChangeOutcome::Waits { node, .. }) => {
                        is_started = true;
                        progress.say(how_far(&cluster, node));
                    }
                    Ok(ChangeOutcome::Refused { reason, soon: true }) => progress.say(reason),
                    Ok(ChangeOutcome::Refused { reason, .. }) => {
                        return connection.refuse("refused", Exit::Other, &reason);
                    }
                }
            }
        }
        if !progress.pause() {
            return progress.give_up(connection, is_started);
        }
        if let Err(exit) = cluster.look(connection) {
            return exit;
        }
    }
}

/// A node with the latest configuration that serves, if possible not the one to be removed.
fn whom_to_ask(cluster: &Cluster, wish: &Wish) -> Option<usize> {
    let newest = cluster.newest()?;
    let latest = (newest.cluster, newest.epoch);
    let serves = |status: &wire::NodeStatus| {
        status.votes && status.quorum && (status.cluster, status.epoch) == latest
    };
    let stays = cluster.place(|s| serves(s) && Some(s.node) != wish.not_at);
    stays.or_else(|| cluster.place(serves))
}

fn under_way(cluster: &Cluster, epoch: u64, node: u8) -> String {
    let named = cluster.named();
    let mut to_come = named.iter().filter(|named| !named.role.votes());
    match to_come.any(|named| named.member.node == node) {
        true => how_far(cluster, node),
        false => format!("the change to configuration {epoch} is in progress"),
    }
}

/// The progress of a node that is to become a member.
fn how_far(cluster: &Cluster, node: u8) -> String {
    let named = cluster.named();
    let Some(found) = named.iter().find(|named| named.member.node == node) else {
        return format!("node {node} is waiting to be admitted");
    };
    let address = &found.member.address;
    match (found.learning, found.member.heard) {
        (Some(learning), _) => format!("node {node}, {address}: {}", status::progress(learning)),
        (None, true) => format!("node {node}, {address}: reachable"),
        (None, false) => {
            let members = cluster.newest().into_iter().flat_map(|s| &s.members);
            let members = members
                .filter(|m| m.node != node)
                .map(|m| m.address.as_str());
            let list: Vec<&str> = members.chain([address.as_str()]).collect();
            format!(
                "node {node}, {address}: not reachable yet. If it is not running, start it there, \
                 with an empty data directory: horseshoe serve {} {} --data-dir DIR",
                list.len() - 1,
                list.join(" ")
            )
        }
    }
}
