//! What the replica reports to an operator: log lines, and errors that end the node.

use wire::ClockStatus;

use super::RuntimeError;
use crate::protocol::types::message::Event;

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

pub fn log(event: &Event) {
    match event {
        Event::QuorumGained => tracing::info!("a quorum is heard: serving"),
        Event::QuorumLost { heard } => {
            tracing::warn!("no quorum is heard, only the nodes {heard:?}: not serving");
        }
        Event::Waits(reason) if reason.is_empty() => tracing::info!("nothing is waited for"),
        Event::Waits(reason) => tracing::info!("waiting: {reason}"),
        Event::ConfigurationInstalled { epoch, votes: true } => {
            tracing::info!("configuration {epoch} is installed; this node is a member");
        }
        Event::ConfigurationInstalled { epoch, .. } => {
            tracing::warn!("configuration {epoch} is installed; this node has no vote in it");
        }
        Event::OtherCluster { own, other, node } => tracing::error!(
            "node {node} of cluster {other:016x} sends here; this node is of cluster {own:016x} and \
             ignores it. One of the two has the address or the data directory of an earlier cluster"
        ),
        Event::Contradiction {
            key,
            ballot,
            origin,
        } => tracing::error!(
            "node {origin} gave another record for ballot {ballot} of {key:?} than is held here; it \
             gets no answer. That node is defective, or somebody else sends in its name"
        ),
        Event::ClockClamped { ahead_ms } => tracing::error!(
            "this machine's clock is {ahead_ms} ms ahead of what the members allow and is not \
             followed: set it right"
        ),
        Event::RolledBack => tracing::error!(
            "the others know of a later start of this node than its state does: the state is an older \
             copy, or is used twice. It has no vote until it has caught up and is admitted again"
        ),
        Event::DiskHangs { unsynced_ms } => tracing::error!(
            "no working disk: a write has taken {unsynced_ms} ms and is not finished. This node has no \
             vote until it is, its clients are served by other members, and it is removed from the \
             members if that goes on"
        ),
        Event::DiskGoesOn => tracing::info!("the disk works again: the write is finished"),
        Event::UnreadableConfiguration { ballot, why } => tracing::error!(
            "the record of key `configuration` at ballot {ballot}, proposed by node {}, is not a \
             configuration that this release can read: {why}. The members do not change until it is \
             replaced: run the same release on all nodes, or `horseshoe member force` with the ids of \
             all members and --despite-quorum",
            ballot.node()
        ),
        Event::Split { own, other } => tracing::error!(
            "the cluster was forced twice, and each side went on without the other: this node is of {own}, \
             another one of {other}. Neither serves. `horseshoe member force` with the ids of the side \
             that is to go on ends it: the other side drops what it holds, and comes back by itself"
        ),
        Event::ChangeRefused(reason) => {
            tracing::error!("the members can't be changed as is wanted: {reason}");
        }
        Event::LeftOut(addresses) => tracing::error!(
            "the forced configuration has no place or no id left for the nodes at {}: `horseshoe member \
             remove` those that are gone for good, then `horseshoe member add` these",
            addresses.join(", ")
        ),
        Event::Full(Some(full)) => tracing::error!(
            "a member has no {full} left: writes that grow are refused, reads and deletes are not"
        ),
        Event::Full(None) => tracing::info!("there is room again: writes that grow are taken"),
        Event::ClockOff { node, offset_ms } => {
            let clock = ClockStatus {
                node: *node,
                offset_ms: *offset_ms,
                error_ms: 0,
            };
            tracing::warn!(
                "node {node}: clock {}: set that machine's clock right, and use NTP",
                clock.in_words()
            );
        }
        Event::ClockRight { node } => {
            tracing::info!("node {node}: its clock is near the median again");
        }
        Event::ClockTrusted => tracing::info!("this machine's clock is followed again"),
        Event::NodeAhead { node, ahead_ms } => tracing::error!(
            "node {node} tells a clock or ballot {ahead_ms} ms ahead of this node's clock: dropped. \
             A member that stays there for two seconds is followed, up to a year ahead. Set that machine's \
             clock right; if it is right, this node's members must be heard"
        ),
        // The error that ends the node says it all.
        Event::ClockAtEnd { .. } | Event::OtherName { .. } => {}
    }
}
