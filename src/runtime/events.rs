//! The replica's reports to the operator: log lines, and errors that end the node.

use wire::ClockStatus;

use super::RuntimeError;
use crate::protocol::types::message::{Event, NodeId};

/// For errors that name a year.
const YEAR_MS: u64 = 31_556_952_000;

/// The error with which this event ends the node, if it does.
pub fn refusal(event: Event) -> Option<RuntimeError> {
    match event {
        Event::ClockAtEnd { ms, is_wall } => {
            let year = 1970 + ms / YEAR_MS;
            Some(match is_wall {
                true => RuntimeError::WallClockAtEnd { ms, year },
                false => RuntimeError::ClockAtEnd { ms, year },
            })
        }
        Event::OtherName {
            given,
            cluster,
            name,
        } => Some(RuntimeError::OtherName {
            given,
            cluster,
            name,
        }),
        _ => None,
    }
}

fn only(nodes: &[NodeId]) -> String {
    let ids: Vec<String> = nodes.iter().map(NodeId::to_string).collect();
    match ids.len() {
        0 => "no node".to_owned(),
        1 => format!("only node {}", ids[0]),
        _ => format!("only nodes {}", ids.join(", ")),
    }
}

pub fn log(event: &Event) {
    match event {
        Event::QuorumGained => tracing::info!("quorum reached, serving"),
        Event::QuorumLost { heard } => {
            tracing::warn!("quorum lost, {} reachable: not serving", only(heard));
        }
        Event::Waits(reason) if reason.is_empty() => tracing::info!("ready"),
        Event::Waits(reason) => tracing::info!("not ready: {reason}"),
        Event::ConfigurationInstalled { epoch, votes: true } => {
            tracing::info!("configuration {epoch} installed; this node is a member");
        }
        Event::ConfigurationInstalled { epoch, .. } => {
            tracing::warn!("configuration {epoch} installed; this node is not a member");
        }
        Event::OtherCluster { own, other, node } => tracing::error!(
            "node {node} of cluster {other:016x} sends messages to this node, which belongs to \
             cluster {own:016x} and ignores them. One of the two has the address or the data \
             directory of an earlier cluster"
        ),
        Event::Contradiction {
            key,
            ballot,
            origin,
        } => tracing::error!(
            "node {origin} sent a record for ballot {ballot} of {key:?} that differs from the one \
             held here; it gets no answer. That node is defective, or another program sends in its \
             name"
        ),
        Event::ClockClamped { ahead_ms } => tracing::error!(
            "this machine's clock is {ahead_ms} ms ahead of what the members allow and is not \
             used: correct it"
        ),
        Event::RolledBack => tracing::error!(
            "disk rollback detected: other nodes have seen a later start of this node than its \
             state contains. The state is an older copy, or is used twice. This node has no vote \
             until it has caught up and is admitted again"
        ),
        Event::DiskHangs { unsynced_ms } => tracing::error!(
            "disk hung: a write has taken {unsynced_ms} ms and is not finished. Until it is, this \
             node has no vote and other members serve its clients; if it takes longer, this node \
             is removed from the members"
        ),
        Event::DiskGoesOn => tracing::info!("disk recovered: the write finished"),
        Event::UnreadableConfiguration { ballot, why } => tracing::error!(
            "the record of key `configuration` at ballot {ballot}, proposed by node {}, is not a \
             configuration that this release can read: {why}. The membership does not change until \
             it is replaced: run the same release on all nodes, or run `horseshoe member force` \
             with the ids of all members and --despite-quorum",
            ballot.node()
        ),
        Event::Split { own, other } => tracing::error!(
            "the cluster was forced twice, and each side continued without the other: this node is \
             in {own}, another one in {other}. Neither side serves. To resolve this, run \
             `horseshoe member force` with the ids of the side that is to continue; the other side \
             drops its data and rejoins automatically"
        ),
        Event::ChangeRefused(reason) => {
            tracing::error!("the desired membership change is not possible: {reason}");
        }
        Event::LeftOut(addresses) => tracing::error!(
            "the forced configuration has no place or no id left for the nodes at {}: `horseshoe \
             member remove` nodes that are gone for good, then `horseshoe member add` these",
            addresses.join(", ")
        ),
        Event::Full(Some(full)) => tracing::error!(
            "a member is out of {full}: writes that grow are refused; reads and deletes continue"
        ),
        Event::Overload(true) => tracing::warn!(
            "overloaded: datagrams wait too long in this node's receive buffer, so it answers new \
             operations busy. The next overload is logged only after 5 s without one"
        ),
        Event::Overload(false) => tracing::info!("no longer overloaded"),
        Event::Full(None) => {
            tracing::info!("no member is full any longer: all writes are accepted")
        }
        Event::ClockOff { node, offset_ms } => {
            let clock = ClockStatus {
                node: *node,
                offset_ms: *offset_ms,
                error_ms: 0,
            };
            tracing::warn!(
                "node {node}: clock {}: correct that machine's clock, and use NTP",
                clock.in_words()
            );
        }
        Event::ClockRight { node } => {
            tracing::info!("node {node}: clock offset from the median is within the limit again");
        }
        Event::ClockTrusted => {
            tracing::info!("this machine's clock is within bounds and used again")
        }
        Event::NodeAhead { node, ahead_ms } => tracing::error!(
            "node {node} sent a clock reading or ballot {ahead_ms} ms ahead of this node's clock: \
             message dropped. If it is a member and stays ahead for two seconds, this node accepts \
             its readings, up to a year ahead. Correct that machine's clock; if it is right, check \
             that this node can reach its members"
        ),
        // The error that ends the node has all the information.
        Event::ClockAtEnd { .. } | Event::OtherName { .. } => {}
    }
}
