//! All metrics of a node: their names, and where their values come from.

use std::fmt;

use wire::NodeStatus;

use super::exposition::{BYTES, FamilyWriter, LabelPairs, SECONDS};
use super::process::ProcessFigures;
use crate::protocol::types::counts::{
    OperationEnd, OperationKind, OperationSource, Retransmission, RoundEnd, RoundStart,
};
use crate::runtime::observation::Observation;
use crate::runtime::tally::Cause;

const US_PER_SECOND: f64 = 1e6;
const MS_PER_SECOND: f64 = 1e3;

pub fn write(
    to: &mut FamilyWriter<'_>,
    observation: &Observation,
    process: &ProcessFigures,
) -> fmt::Result {
    identity(to, observation)?;
    operations(to, observation)?;
    rounds(to, observation)?;
    messages(to, observation)?;
    links(to, &observation.status)?;
    membership(to, &observation.status)?;
    copies(to, &observation.status)?;
    clocks(to, &observation.status)?;
    memory(to, observation)?;
    disk(to, observation)?;
    the_process(to, observation, process)
}

fn label(name: &'static str, value: impl ToString) -> LabelPairs {
    vec![(name, value.to_string())]
}

/// A value that belongs to a node of the cluster.
fn of_node(node: u8, value: f64) -> (LabelPairs, f64) {
    (label("node", node), value)
}

fn flag(is_set: bool) -> f64 {
    f64::from(u8::from(is_set))
}

fn identity(to: &mut FamilyWriter<'_>, observation: &Observation) -> fmt::Result {
    let status = &observation.status;
    let build = vec![
        ("version", status.version.clone()),
        ("durability", status.durability.clone()),
    ];
    to.gauges(
        (
            "horseshoe_build_info",
            None,
            "Release and durability of the node, always 1",
        ),
        [(build, 1.0)],
    )?;
    let node = vec![
        ("node", status.node.to_string()),
        ("cluster_id", format!("{:016x}", status.cluster)),
        ("cluster_name", status.cluster_name.clone()),
    ];
    to.gauges(
        (
            "horseshoe_node_info",
            None,
            "The node's id and its cluster, always 1; id 0: none yet",
        ),
        [(node, 1.0)],
    )?;
    let is_ready = observation.obstacle().is_none();
    to.gauge(
        ("horseshoe_ready", None, "Whether the node serves clients"),
        flag(is_ready),
    )?;
    to.gauge(
        (
            "horseshoe_warnings",
            None,
            "Warnings that status shows for this node",
        ),
        status.warnings.len() as f64,
    )
}

fn operations(to: &mut FamilyWriter<'_>, observation: &Observation) -> fmt::Result {
    let counts = &observation.counts;
    let mut ended = Vec::new();
    for &source in OperationSource::ALL {
        for &kind in OperationKind::ALL {
            for &end in OperationEnd::ALL {
                let count = counts.operations(source, kind, end);
                // Series of clients exist from the start, so that their rates are correct.
                if count > 0 || source == OperationSource::Client {
                    let labels = vec![
                        ("source", source.label().to_owned()),
                        ("operation", kind.label().to_owned()),
                        ("result", end.label().to_owned()),
                    ];
                    ended.push((labels, count));
                }
            }
        }
    }
    to.counters(
        (
            "horseshoe_operations",
            None,
            "Operations that ended on this node",
        ),
        ended,
    )?;
    let kinds = OperationKind::ALL.iter();
    to.histograms(
        (
            "horseshoe_operation_duration",
            SECONDS,
            "Time from a client's request to its answer, of operations that rounds decided",
        ),
        US_PER_SECOND,
        kinds.map(|&kind| (label("operation", kind.label()), counts.durations_us(kind))),
    )?;
    let depths = &observation.depths;
    to.gauge(
        (
            "horseshoe_operations_in_progress",
            None,
            "Operations that are not answered yet",
        ),
        depths.operations as f64,
    )?;
    to.gauge(
        (
            "horseshoe_operations_in_progress_size",
            BYTES,
            "About what these take in memory",
        ),
        depths.operations_size as f64,
    )?;
    to.counter(
        (
            "horseshoe_forwards",
            None,
            "Clients' operations that were sent on to another node",
        ),
        counts.forwarded,
    )?;
    to.counter(
        (
            "horseshoe_forwards_reclaimed",
            None,
            "Forwarded operations that got no answer in time",
        ),
        counts.reclaimed,
    )?;
    to.counter(
        (
            "horseshoe_expired_keys",
            None,
            "Expired keys that the node began to delete",
        ),
        counts.expired,
    )?;
    to.gauge(
        (
            "horseshoe_forwards_in_progress",
            None,
            "Forwarded operations without an answer yet",
        ),
        depths.forwards as f64,
    )?;
    to.counter(
        (
            "horseshoe_attempts_refused",
            None,
            "Requests that arrived before, or outside of a session of this node",
        ),
        observation.counters.repeated,
    )?;
    to.gauge(
        (
            "horseshoe_sessions",
            None,
            "Client sessions that the node knows",
        ),
        depths.sessions as f64,
    )
}

fn rounds(to: &mut FamilyWriter<'_>, observation: &Observation) -> fmt::Result {
    let counts = &observation.counts;
    let begun = RoundStart::ALL.iter();
    to.counters(
        (
            "horseshoe_rounds_started",
            None,
            "Protocol rounds that this node began",
        ),
        begun.map(|&kind| (label("kind", kind.label()), counts.rounds_begun(kind))),
    )?;
    let ended = RoundEnd::ALL.iter();
    to.counters(
        (
            "horseshoe_rounds_ended",
            None,
            "Protocol rounds of this node that ended",
        ),
        ended.map(|&end| (label("result", end.label()), counts.rounds_ended(end))),
    )?;
    to.gauge(
        (
            "horseshoe_rounds_in_progress",
            None,
            "Protocol rounds of this node in progress",
        ),
        observation.depths.rounds as f64,
    )?;
    let again = Retransmission::ALL.iter();
    to.counters(
        (
            "horseshoe_retransmissions",
            None,
            "Messages sent again because no answer came",
        ),
        again.map(|&what| (label("message", what.label()), counts.retransmissions(what))),
    )
}

fn messages(to: &mut FamilyWriter<'_>, observation: &Observation) -> fmt::Result {
    let status = &observation.status;
    to.counter(
        (
            "horseshoe_messages_sent",
            None,
            "Messages sent to other nodes, without heartbeats",
        ),
        status.messages_sent,
    )?;
    to.counter(
        (
            "horseshoe_messages_relayed",
            None,
            "Messages of other nodes that were sent on",
        ),
        status.messages_relayed,
    )?;
    let traffic = &observation.traffic;
    to.counter(
        (
            "horseshoe_datagrams_received",
            None,
            "Datagrams that the node received",
        ),
        traffic.received,
    )?;
    to.counter(
        (
            "horseshoe_received",
            BYTES,
            "Bytes in these, without headers of IP and UDP",
        ),
        traffic.received_bytes,
    )?;
    to.counter(
        (
            "horseshoe_datagrams_sent",
            None,
            "Datagrams that the node sent",
        ),
        traffic.sent,
    )?;
    to.counter(
        (
            "horseshoe_sent",
            BYTES,
            "Bytes in these, without headers of IP and UDP",
        ),
        traffic.sent_bytes,
    )?;
    let dropped = Cause::ALL.iter().zip(&observation.dropped);
    to.counters(
        (
            "horseshoe_dropped",
            None,
            "Datagrams, frames and messages that the node dropped",
        ),
        dropped.map(|(cause, count)| (label("reason", cause.label()), *count)),
    )?;
    let (datagrams, size) = observation.send_queue;
    to.gauge(
        (
            "horseshoe_send_queue_datagrams",
            None,
            "Datagrams that wait until the socket takes them",
        ),
        datagrams as f64,
    )?;
    to.gauge(
        ("horseshoe_send_queue", BYTES, "Bytes in these"),
        size as f64,
    )?;
    to.gauge(
        (
            "horseshoe_held_messages",
            None,
            "Messages that wait until their state is durable",
        ),
        observation.depths.held_messages as f64,
    )
}

/// The links that end at this node, which measures them.
fn links(to: &mut FamilyWriter<'_>, status: &NodeStatus) -> fmt::Result {
    let here = || status.links.iter().filter(|link| link.to == status.node);
    to.gauges(
        (
            "horseshoe_link_up",
            None,
            "Whether the direct link from that node works",
        ),
        here().map(|link| of_node(link.from, flag(link.up))),
    )?;
    let measured = here().filter(|link| link.rtt_us > 0);
    to.gauges(
        (
            "horseshoe_link_round_trip",
            SECONDS,
            "Smoothed round trip to that node",
        ),
        measured.map(|link| of_node(link.from, f64::from(link.rtt_us) / US_PER_SECOND)),
    )?;
    to.gauges(
        (
            "horseshoe_link_loss_ratio",
            None,
            "Part of that node's heartbeats that got lost",
        ),
        here().map(|link| of_node(link.from, f64::from(link.loss_permille) / 1e3)),
    )?;
    to.gauges(
        (
            "horseshoe_link_drops_large",
            None,
            "Whether datagrams of 1,600 bytes from that node get lost",
        ),
        here().map(|link| of_node(link.from, flag(link.drops_large))),
    )?;
    let others = status.members.iter().chain(&status.away);
    let others = others.filter(|member| member.node != status.node);
    to.gauges(
        (
            "horseshoe_node_reachable",
            None,
            "Whether that node is reachable over any path",
        ),
        others.map(|member| of_node(member.node, flag(member.heard))),
    )
}

fn membership(to: &mut FamilyWriter<'_>, status: &NodeStatus) -> fmt::Result {
    let is_master = status.node != 0 && status.node == status.master;
    let heard = status.members.iter().filter(|member| member.heard).count();
    for (name, help, value) in [
        (
            "horseshoe_has_vote",
            "Whether the node is a member with its state",
            flag(status.votes),
        ),
        (
            "horseshoe_has_quorum",
            "Whether a quorum is reachable",
            flag(status.quorum),
        ),
        (
            "horseshoe_is_master",
            "Whether the node is the master",
            flag(is_master),
        ),
        (
            "horseshoe_epoch",
            "Number of the configuration; 0: none yet",
            status.epoch as f64,
        ),
        (
            "horseshoe_members",
            "Members of the configuration",
            status.members.len() as f64,
        ),
        (
            "horseshoe_members_reachable",
            "Members that are reachable, itself included",
            heard as f64,
        ),
        (
            "horseshoe_nodes_without_vote",
            "Nodes with an id that are no members",
            status.away.len() as f64,
        ),
        (
            "horseshoe_change_in_progress",
            "Whether the membership changes",
            flag(status.joint),
        ),
    ] {
        to.gauge((name, None, help), value)?;
    }
    Ok(())
}

fn copies(to: &mut FamilyWriter<'_>, status: &NodeStatus) -> fmt::Result {
    let behind = || status.behind.iter();
    to.gauges(
        (
            "horseshoe_pending_copies",
            None,
            "Keys that this node has to copy to that member",
        ),
        behind().map(|member| of_node(member.node, member.keys as f64)),
    )?;
    to.gauges(
        (
            "horseshoe_missed_writes_not_noted",
            None,
            "Missed writes of that member beyond the limit",
        ),
        behind().map(|member| of_node(member.node, member.overflowed as f64)),
    )?;
    let learning = status.learning.as_ref();
    let done = learning.filter(|learning| learning.buckets > 0);
    to.gauges(
        (
            "horseshoe_learning_ratio",
            None,
            "How much of the members' keys a learner went through",
        ),
        done.map(|l| (Vec::new(), l.buckets_done as f64 / l.buckets as f64)),
    )?;
    to.gauges(
        (
            "horseshoe_learning_keys_copied",
            None,
            "Keys that a learner copied",
        ),
        learning.map(|learning| (Vec::new(), learning.keys_copied as f64)),
    )
}

fn clocks(to: &mut FamilyWriter<'_>, status: &NodeStatus) -> fmt::Result {
    let clocks = || status.clocks.iter();
    to.gauges(
        (
            "horseshoe_clock_offset",
            SECONDS,
            "That node's clock minus the median of the members'",
        ),
        clocks().map(|clock| of_node(clock.node, clock.offset_ms as f64 / MS_PER_SECOND)),
    )?;
    to.gauges(
        (
            "horseshoe_clock_offset_error",
            SECONDS,
            "How wrong that offset may be",
        ),
        clocks().map(|clock| of_node(clock.node, f64::from(clock.error_ms) / MS_PER_SECOND)),
    )?;
    to.gauge(
        (
            "horseshoe_clock_clamped",
            None,
            "Whether this machine's clock is too far ahead to be used",
        ),
        flag(status.clock_clamped),
    )
}

fn memory(to: &mut FamilyWriter<'_>, observation: &Observation) -> fmt::Result {
    let (status, depths) = (&observation.status, &observation.depths);
    let limit = Some(status.memory_max_bytes).filter(|max| *max < u64::MAX);
    to.gauge(
        ("horseshoe_keys", None, "Keys with a value"),
        status.keys as f64,
    )?;
    to.gauge(
        (
            "horseshoe_records",
            None,
            "Keys of which the node holds anything, deleted ones included",
        ),
        status.records as f64,
    )?;
    to.gauge(
        (
            "horseshoe_memory_used",
            BYTES,
            "Memory that the node has allocated",
        ),
        status.memory_live_bytes as f64,
    )?;
    to.gauges(
        (
            "horseshoe_memory_limit",
            BYTES,
            "Memory at which the node is full",
        ),
        limit.map(|limit| (Vec::new(), limit as f64)),
    )?;
    to.gauge(
        (
            "horseshoe_resident_keys",
            None,
            "Keys with further state in memory",
        ),
        depths.resident_keys as f64,
    )?;
    to.gauge(
        ("horseshoe_expiring_keys", None, "Keys with a time to live"),
        depths.expiring_keys as f64,
    )?;
    to.gauge(
        (
            "horseshoe_resident_size",
            BYTES,
            "About what that state takes in memory",
        ),
        depths.resident_size as f64,
    )
}

/// There are no samples if the state is in memory only.
fn disk(to: &mut FamilyWriter<'_>, observation: &Observation) -> fmt::Result {
    let commits = observation.commits.as_ref();
    to.histograms(
        (
            "horseshoe_disk_commit_duration",
            SECONDS,
            "Time of a commit, its sync included",
        ),
        US_PER_SECOND,
        commits.map(|commits| (Vec::new(), &commits.durations_us)),
    )?;
    to.histograms(
        (
            "horseshoe_disk_commit_groups",
            None,
            "Groups of changes that one commit made durable",
        ),
        1.0,
        commits.map(|commits| (Vec::new(), &commits.groups)),
    )?;
    let disk = observation.status.disk.as_ref();
    for (name, unit, help, value) in [
        (
            "horseshoe_disk_queue_groups",
            None,
            "Groups of changes that are not durable yet",
            commits.map(|_| observation.depths.unsynced_groups as f64),
        ),
        (
            "horseshoe_disk_queue",
            BYTES,
            "About the bytes in these",
            commits.map(|_| observation.depths.unsynced_size as f64),
        ),
        (
            "horseshoe_disk_unfinished",
            SECONDS,
            "Age of the oldest unfinished commit; 0: there is none",
            disk.map(|disk| disk.unsynced_ms as f64 / MS_PER_SECOND),
        ),
        (
            "horseshoe_disk_hung",
            None,
            "Whether that age reached --disk-hung-after",
            disk.map(|disk| flag(disk.hangs)),
        ),
        (
            "horseshoe_disk_free",
            BYTES,
            "Free space on the disk for the node, its reserve included",
            disk.map(|disk| disk.free_bytes as f64),
        ),
        (
            "horseshoe_disk_reserve",
            BYTES,
            "Free space below which the node is full",
            disk.map(|disk| disk.reserve_bytes as f64),
        ),
    ] {
        let sample = value.map(|value| (Vec::new(), value));
        to.gauges((name, unit, help), sample)?;
    }
    Ok(())
}

fn the_process(
    to: &mut FamilyWriter<'_>,
    observation: &Observation,
    process: &ProcessFigures,
) -> fmt::Result {
    let turns = &observation.turns;
    to.counter(
        ("horseshoe_loop_turns", None, "Turns of the node's loop"),
        turns.count,
    )?;
    to.seconds_counter(
        (
            "horseshoe_loop_busy",
            "Time that the loop's thread spent in turns",
        ),
        Some(turns.busy.as_secs_f64()),
    )?;
    to.seconds_counter(
        ("process_cpu", "User and system time of the process"),
        process.cpu_seconds,
    )?;
    let sample = |value: Option<f64>| value.map(|value| (Vec::new(), value));
    to.gauges(
        (
            "process_resident_memory",
            BYTES,
            "Resident memory of the process",
        ),
        sample(process.resident_bytes),
    )?;
    to.gauges(
        ("process_open_fds", None, "Open files of the process"),
        sample(process.open_files),
    )?;
    to.gauges(
        (
            "process_start_time",
            SECONDS,
            "Start of the process, in seconds since 1970",
        ),
        sample(process.started_seconds),
    )
}
