//! `horseshoe status`: the status of each node, and whether a quorum is up.

use std::fmt::Write;

use clap::Args;
use serde_json::{Value, json};
use wire::{BehindStatus, DiskStatus, LearningStatus, NodeStatus};

use super::connection::{ConnectionArgs, NotOne};
use super::exit::Exit;
use super::{clocks, links, report, words};

/// Show the nodes, and whether a quorum is up; without one the exit status is 3. With --cluster
/// only a quorum of that cluster counts.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Show the links between nodes, which nodes reach each other, and the routes
    #[arg(long)]
    links: bool,
}

/// A node as given, and its status.
pub type StatusRow = (String, Option<NodeStatus>);

pub fn run(arguments: StatusArgs, connection: &ConnectionArgs) -> Exit {
    let (rows, unresolved) = match connection.statuses() {
        Ok(reported) => reported,
        Err(exit) => return exit,
    };
    // All nodes are shown, whatever their cluster: a wrong cluster may be the error.
    let up = match connection.cluster_among(&rows) {
        Ok(cluster) => Up {
            cluster,
            quorum: quorum(&rows, cluster),
            error: None,
        },
        Err(error) => Up {
            error: Some(error),
            ..Up::default()
        },
    };
    let text = match connection.json {
        true => in_json(&rows, &unresolved, arguments.links, &up),
        false => in_words(&rows, &unresolved, arguments.links, &up),
    };
    if let Err(exit) = report::print_bytes(text.as_bytes()) {
        return exit;
    }
    match up.error {
        Some((_, exit, message)) => {
            report::complain(&format!("horseshoe: {message}\n"));
            exit
        }
        None if up.quorum => Exit::Done,
        None => Exit::NoQuorum,
    }
}

/// Whether a quorum is up, and of which cluster if one was named.
#[derive(Debug, Default)]
struct Up {
    cluster: Option<u64>,
    quorum: bool,
    /// Why the given name does not identify a cluster.
    error: Option<NotOne>,
}

/// The status of the nodes that answered.
pub fn said(rows: &[StatusRow]) -> impl Iterator<Item = &NodeStatus> {
    rows.iter().filter_map(|(_, status)| status.as_ref())
}

/// A name that cannot be resolved, and the reason.
pub type Unresolved = (String, String);

/// A quorum is up if a node with a vote reaches one. `None`: of any cluster.
fn quorum(rows: &[StatusRow], cluster: Option<u64>) -> bool {
    let is_meant = |status: &&NodeStatus| cluster.is_none_or(|id| id == status.cluster);
    said(rows)
        .filter(is_meant)
        .any(|status| status.votes && status.quorum)
}

const HEAD: [&str; 14] = [
    "address",
    "reachable",
    "node",
    "master",
    "votes",
    "hears",
    "epoch",
    "keys",
    "durability",
    "sync (median/max)",
    "syncing",
    "version",
    "uptime",
    "dropped",
];

fn in_words(rows: &[StatusRow], unresolved: &[Unresolved], with_links: bool, up: &Up) -> String {
    let mut text = match with_links {
        true => links::in_words(rows),
        false => nodes_in_words(rows),
    };
    text.push('\n');
    for (name, why) in unresolved {
        let reported = words::not_found(name, why);
        writeln!(text, "{reported}").expect("a string takes all");
    }
    for (address, status) in rows {
        let Some(status) = status else { continue };
        if !status.waits_for.is_empty() {
            writeln!(text, "{address}: {}", status.waits_for).expect("a string takes all");
        }
        if status.other_cluster != 0 {
            writeln!(text, "{address}: {}", other_cluster(status)).expect("a string takes all");
        }
        if let Some(disk) = status.disk.as_ref().filter(|disk| disk.hangs) {
            writeln!(text, "{address}: {}", hung(disk)).expect("a string takes all");
        }
        if let Some(line) = clocks::of_answering(rows, status) {
            writeln!(text, "{address}: {line}").expect("a string takes all");
        }
        for warning in &status.warnings {
            writeln!(text, "{address}: {warning}").expect("a string takes all");
        }
        if status.clock_clamped {
            writeln!(
                text,
                "{address}: its clock is far ahead of the others'; correct it"
            )
            .expect("a string takes all");
        }
        if status.exposed {
            writeln!(
                text,
                "{address}: not a loopback address: anyone who can send to it can use it"
            )
            .expect("a string takes all");
        }
        if status.strangers_dropped > 0 {
            let dropped = status.strangers_dropped;
            writeln!(
                text,
                "{address}: dropped {dropped} node messages from addresses that belong to no known \
                 node"
            )
            .expect("a string takes all");
        }
        if let Some(learning) = &status.learning {
            writeln!(text, "{address}: {}", progress(learning)).expect("a string takes all");
        }
        for behind in &status.behind {
            writeln!(text, "{address}: {}", missed(behind)).expect("a string takes all");
        }
    }
    text.push_str(&clocks::of_silent(rows));
    text.push_str(&clusters(rows));
    let a = if up.quorum { "a" } else { "no" };
    let of = up
        .cluster
        .map_or(String::new(), |id| format!(" of cluster {id:016x}"));
    writeln!(text, "{a} quorum{of} is up").expect("a string takes all");
    text
}

/// One line per cluster: its id, which is unique, and its name.
fn clusters(rows: &[StatusRow]) -> String {
    let known = said(rows).filter(|status| status.cluster != 0);
    let clusters = known.map(|status| (status.cluster, status.cluster_name.as_str()));
    let mut clusters: Vec<(u64, &str)> = clusters.collect();
    clusters.sort_unstable();
    clusters.dedup();
    let line = |(id, name): (u64, &str)| match name {
        "" => format!("cluster {id:016x}\n"),
        name => format!("cluster {id:016x}, named {name}\n"),
    };
    clusters.into_iter().map(line).collect()
}

fn other_cluster(status: &NodeStatus) -> String {
    format!(
        "it belongs to cluster {:016x}; nodes of cluster {:016x} send messages to it",
        status.cluster, status.other_cluster
    )
}

fn missed(behind: &BehindStatus) -> String {
    let BehindStatus {
        node,
        keys,
        overflowed,
    } = behind;
    let pending = format!("{keys} keys pending copy to node {node}");
    match overflowed {
        0 => pending,
        _ => format!(
            "{pending}; {overflowed} more missed writes exceeded the hint limit; node {node} will \
             fetch them"
        ),
    }
}

/// A learner's progress as text.
pub fn progress(learning: &LearningStatus) -> String {
    let LearningStatus {
        buckets_done,
        buckets,
        keys_copied,
    } = learning;
    let percent = buckets_done.saturating_mul(100) / buckets.max(&1);
    format!("catching up: {percent} %, {keys_copied} keys copied so far")
}

fn nodes_in_words(rows: &[StatusRow]) -> String {
    let mut table = vec![HEAD.map(str::to_owned)];
    table.extend(rows.iter().map(|(address, status)| cells(address, status)));
    align(&table)
}

fn cells(address: &str, status: &Option<NodeStatus>) -> [String; HEAD.len()] {
    let yes_no = |yes| if yes { "yes" } else { "no" }.to_owned();
    let Some(status) = status else {
        let mut cells = [const { String::new() }; HEAD.len()].map(|_| "-".to_owned());
        cells[0] = address.to_owned();
        cells[1] = "no".to_owned();
        return cells;
    };
    let id = |id: u8| match id {
        0 => "-".to_owned(),
        id => id.to_string(),
    };
    let heard = status.members.iter().filter(|member| member.heard).count();
    [
        address.to_owned(),
        "yes".to_owned(),
        id(status.node),
        match status.master {
            master if master > 0 && master == status.node => "yes".to_owned(),
            0 => "-".to_owned(),
            _ => "no".to_owned(),
        },
        yes_no(status.votes),
        format!("{heard}/{}", status.members.len()),
        status.epoch.to_string(),
        status.keys.to_string(),
        status.durability.clone(),
        status.disk.as_ref().map_or("-".to_owned(), sync_times),
        status.disk.as_ref().map_or("-".to_owned(), syncing),
        status.version.clone(),
        uptime(status.uptime_ms),
        status.datagrams_dropped.to_string(),
    ]
}

fn sync_times(disk: &DiskStatus) -> String {
    let (median, max) = (disk.sync_median_us, disk.sync_max_us);
    format!("{}/{} ms", in_ms(median), in_ms(max))
}

/// Two digits, because further digits would differ a second later.
fn in_ms(us: u64) -> String {
    match us {
        0..10_000 => format!("{}.{}", us / 1_000, us % 1_000 / 100),
        _ => (us / 1_000).to_string(),
    }
}

/// How long the oldest write has been in progress.
fn syncing(disk: &DiskStatus) -> String {
    match disk.unsynced_ms {
        0 => "-".to_owned(),
        ms @ 1..1_000 => format!("{ms} ms"),
        ms => in_seconds(ms),
    }
}

fn in_seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1_000, ms % 1_000 / 100)
}

fn hung(disk: &DiskStatus) -> String {
    format!(
        "disk hung: a write has taken {} and is not finished (--disk-hung-after {}); the node has \
         no vote until it is. See the kernel's log of that machine",
        in_seconds(disk.unsynced_ms),
        in_seconds(disk.hung_after_ms),
    )
}

fn uptime(ms: u64) -> String {
    let seconds = ms / 1_000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{:02}s", seconds % 60),
        (0, _, _) => format!("{hours}h{minutes:02}m"),
        _ => format!("{days}d{hours:02}h"),
    }
}

/// Left-aligned columns, two spaces between them, no spaces after the last.
pub fn align<R: AsRef<[String]>>(table: &[R]) -> String {
    let columns = table.first().map_or(0, |row| row.as_ref().len());
    let width = |column: usize| {
        let widths = table.iter().map(|row| row.as_ref()[column].chars().count());
        widths.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in table {
        let mut line = String::new();
        for (cell, width) in row.as_ref().iter().zip(&widths) {
            write!(line, "{cell:width$}  ").expect("a string takes all");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn in_json(rows: &[StatusRow], unresolved: &[Unresolved], with_links: bool, up: &Up) -> String {
    let nodes: Vec<Value> = rows
        .iter()
        .map(|(address, status)| match status {
            None => {
                let why = unresolved.iter().find(|(name, _)| name == address);
                let mut node = json!({ "address": address, "reachable": false });
                if let Some((_, why)) = why {
                    node["unresolved"] = json!(why);
                }
                node
            }
            Some(status) => {
                let mut node = of_node(address, status);
                if with_links {
                    node["routes"] = links::routes_in_json(status);
                }
                node
            }
        })
        .collect();
    let cluster = up.cluster.map(|id| format!("{id:016x}"));
    let mut all = json!({ "cluster": cluster, "quorum": up.quorum, "nodes": nodes });
    if let Some((name, _, message)) = &up.error {
        all["result"] = json!("error");
        all["error"] = json!(name);
        all["message"] = json!(message);
    }
    if with_links {
        all["links"] = links::in_json(rows);
    }
    let mut line = all.to_string();
    line.push('\n');
    line
}

/// Random 64-bit numbers are strings in hexadecimal: many JSON readers represent only 53 bits.
fn of_node(address: &str, status: &NodeStatus) -> Value {
    let members: Vec<Value> = status
        .members
        .iter()
        .map(|member| json!({ "node": member.node, "address": member.address, "heard": member.heard }))
        .collect();
    let behind = status
        .behind
        .iter()
        .map(|b| json!({ "node": b.node, "keys": b.keys, "overflowed": b.overflowed }));
    let behind: Vec<Value> = behind.collect();
    let learning = status.learning.as_ref().map(|learning| {
        json!({
            "buckets_done": learning.buckets_done,
            "buckets": learning.buckets,
            "keys_copied": learning.keys_copied,
        })
    });
    json!({
        "address": address,
        "reachable": true,
        "node": status.node,
        "cluster": format!("{:016x}", status.cluster),
        "cluster_name": status.cluster_name,
        "other_cluster": match status.other_cluster {
            0 => Value::Null,
            other => format!("{other:016x}").into(),
        },
        "epoch": status.epoch,
        "incarnation": format!("{:016x}", status.incarnation),
        "boot": format!("{:016x}", status.boot),
        "votes": status.votes,
        "quorum": status.quorum,
        "master": status.master,
        "is_master": status.master > 0 && status.master == status.node,
        "members": members,
        "waits_for": status.waits_for,
        "keys": status.keys,
        "records": status.records,
        "memory_live_bytes": status.memory_live_bytes,
        "memory_max_bytes": status.memory_max_bytes,
        "warnings": status.warnings,
        "digest": status.digest,
        "durability": status.durability,
        "version": status.version,
        "uptime_ms": status.uptime_ms,
        "datagrams_dropped": status.datagrams_dropped,
        "strangers_dropped": status.strangers_dropped,
        "datagrams_lost": status.datagrams_lost,
        "exposed": status.exposed,
        "clock_clamped": status.clock_clamped,
        "clocks": clocks::in_json(status),
        "behind": behind,
        "learning": learning,
        "component": status.component,
        "messages_sent": status.messages_sent,
        "messages_relayed": status.messages_relayed,
        "disk": status.disk.as_ref().map(disk_in_json),
    })
}

fn disk_in_json(disk: &DiskStatus) -> Value {
    json!({
        "unsynced_ms": disk.unsynced_ms,
        "hung_after_ms": disk.hung_after_ms,
        "hangs": disk.hangs,
        "sync_median_us": disk.sync_median_us,
        "sync_max_us": disk.sync_max_us,
        "free_bytes": disk.free_bytes,
        "reserve_bytes": disk.reserve_bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::MemberStatus;

    fn node(id: u8, votes: bool, quorum: bool) -> StatusRow {
        let member = |node| MemberStatus {
            node,
            address: format!("10.0.0.{node}:7000"),
            heard: quorum || node == id,
            incarnation: 100 + u64::from(node),
        };
        let status = NodeStatus {
            node: id,
            epoch: 3,
            incarnation: 0xab,
            votes,
            quorum,
            master: 1,
            members: (1..=5).map(member).collect(),
            waits_for: match votes {
                true => String::new(),
                false => "it came back without its state".to_owned(),
            },
            keys: 12,
            durability: "fsync".to_owned(),
            version: "0.1.0".to_owned(),
            uptime_ms: 3_723_000,
            disk: Some(DiskStatus {
                unsynced_ms: 350,
                hung_after_ms: 2_000,
                hangs: false,
                sync_median_us: 812,
                sync_max_us: 12_345,
                ..DiskStatus::default()
            }),
            ..NodeStatus::default()
        };
        (format!("10.0.0.{id}:7000"), Some(status))
    }

    fn any(rows: &[StatusRow]) -> Up {
        Up {
            quorum: quorum(rows, None),
            ..Up::default()
        }
    }

    #[test]
    fn a_quorum_of_another_cluster_does_not_count() {
        let of = |cluster, quorum| {
            let (address, status) = node(1, true, quorum);
            let status = status.unwrap();
            (address, Some(NodeStatus { cluster, ..status }))
        };
        let rows = [of(7, false), of(0xab, true)];
        assert!(quorum(&rows, None) && quorum(&rows, Some(0xab)));
        assert!(!quorum(&rows, Some(7)) && !quorum(&rows, Some(8)));
        let up = Up {
            cluster: Some(7),
            ..Up::default()
        };
        let words = in_words(&rows, &[], false, &up);
        assert!(
            words.ends_with("\nno quorum of cluster 0000000000000007 is up\n"),
            "{words}"
        );
        let value: Value = serde_json::from_str(&in_json(&rows, &[], false, &up)).unwrap();
        assert_eq!(value["quorum"], json!(false));
        assert_eq!(value["cluster"], json!("0000000000000007"));
        assert!(value.get("error").is_none());
    }

    #[test]
    fn a_name_of_no_cluster_is_an_error_in_json_too() {
        let up = Up {
            error: Some(("cluster", Exit::Usage, "of none".to_owned())),
            ..Up::default()
        };
        let line = in_json(&[node(1, true, true)], &[], false, &up);
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["result"], json!("error"));
        assert_eq!(value["error"], json!("cluster"));
        assert_eq!(value["message"], json!("of none"));
        assert_eq!(value["cluster"], Value::Null);
        assert_eq!(value["nodes"][0]["reachable"], json!(true));
    }

    #[test]
    fn a_row_a_node() {
        let rows = [
            node(1, true, true),
            node(2, false, true),
            ("far:1".to_owned(), None),
        ];
        let expected = "\
address        reachable  node  master  votes  hears  epoch  keys  durability  sync (median/max)  \
                syncing  version  uptime  dropped
10.0.0.1:7000  yes        1     yes     yes    5/5    3      12    fsync       0.8/12 ms          \
                350 ms   0.1.0    1h02m   0
10.0.0.2:7000  yes        2     no      no     5/5    3      12    fsync       0.8/12 ms          \
                350 ms   0.1.0    1h02m   0
far:1          no         -     -       -      -      -      -     -           -                  \
                -        -        -       -

10.0.0.2:7000: it came back without its state
a quorum is up
";
        assert_eq!(in_words(&rows, &[], false, &any(&rows)), expected);
    }

    #[test]
    fn who_is_behind_is_told_with_what_is_not_noted() {
        let (address, status) = node(1, true, true);
        let behind = |node, keys, overflowed| BehindStatus {
            node,
            keys,
            overflowed,
        };
        let status = NodeStatus {
            behind: vec![behind(2, 7, 0), behind(3, 65_536, 10)],
            ..status.unwrap()
        };
        let rows = [(address, Some(status))];
        let words = in_words(&rows, &[], false, &any(&rows));
        for line in [
            "10.0.0.1:7000: 7 keys pending copy to node 2\n",
            "65536 keys pending copy to node 3; 10 more missed writes exceeded the hint limit; \
             node 3 will fetch them\n",
        ] {
            assert!(words.contains(line), "{words}");
        }
        let value: Value = serde_json::from_str(&in_json(&rows, &[], false, &any(&rows))).unwrap();
        let expected = json!([
            { "node": 2, "keys": 7, "overflowed": 0 },
            { "node": 3, "keys": 65_536, "overflowed": 10 },
        ]);
        assert_eq!(value["nodes"][0]["behind"], expected);
    }

    #[test]
    fn a_learner_tells_how_far_it_is() {
        let (address, status) = node(2, false, true);
        let learning = LearningStatus {
            buckets_done: 1_024,
            buckets: 4_096,
            keys_copied: 250_000,
        };
        let status = NodeStatus {
            learning: Some(learning),
            ..status.unwrap()
        };
        let rows = [(address, Some(status))];
        let words = in_words(&rows, &[], false, &any(&rows));
        let line = "10.0.0.2:7000: catching up: 25 %, 250000 keys copied so far\n";
        assert!(words.contains(line), "{words}");
        let value: Value = serde_json::from_str(&in_json(&rows, &[], false, &any(&rows))).unwrap();
        let expected = json!({ "buckets_done": 1_024, "buckets": 4_096, "keys_copied": 250_000 });
        assert_eq!(value["nodes"][0]["learning"], expected);
    }

    #[test]
    fn a_disk_that_hangs_is_told_in_words() {
        let (address, status) = node(2, true, true);
        let disk = DiskStatus {
            unsynced_ms: 7_310,
            hung_after_ms: 2_000,
            hangs: true,
            ..DiskStatus::default()
        };
        let status = NodeStatus {
            disk: Some(disk),
            ..status.unwrap()
        };
        let rows = [(address, Some(status))];
        let words = in_words(&rows, &[], false, &any(&rows));
        let line = "10.0.0.2:7000: disk hung: a write has taken 7.3 s and is not finished \
                    (--disk-hung-after 2.0 s)";
        assert!(words.contains(line), "{words}");
        let value: Value = serde_json::from_str(&in_json(&rows, &[], false, &any(&rows))).unwrap();
        assert_eq!(value["nodes"][0]["disk"]["unsynced_ms"], json!(7_310));
    }

    #[test]
    fn a_quorum_is_up_if_a_node_with_a_vote_hears_one() {
        assert!(quorum(&[node(1, false, true), node(2, true, true)], None));
        assert!(!quorum(&[node(1, false, true), node(2, true, false)], None));
        assert!(!quorum(&[("a:1".to_owned(), None)], None));
    }

    #[test]
    fn json_has_a_node_an_object() {
        let rows = [node(1, true, true), ("far:1".to_owned(), None)];
        let line = in_json(&rows, &[], false, &any(&rows));
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["quorum"], json!(true));
        assert_eq!(value["nodes"][0]["incarnation"], json!("00000000000000ab"));
        assert_eq!(value["nodes"][0]["members"][4]["node"], json!(5));
        assert_eq!(
            value["nodes"][1],
            json!({ "address": "far:1", "reachable": false })
        );
        // launch.sh searches for this text.
        assert!(line.contains("\"reachable\":true"));
    }

    #[test]
    fn clusters_are_told_by_id_and_name() {
        let of = |cluster, name: &str| {
            let (address, status) = node(1, true, true);
            let status = NodeStatus {
                cluster,
                cluster_name: name.to_owned(),
                ..status.unwrap()
            };
            (address, Some(status))
        };
        let rows = [of(0xab, "orders"), of(0xab, "orders"), of(7, "")];
        let words = in_words(&rows, &[], false, &any(&rows));
        let lines = "\ncluster 0000000000000007\ncluster 00000000000000ab, named orders\na quorum";
        assert!(words.contains(lines), "{words}");
        let value: Value = serde_json::from_str(&in_json(&rows, &[], false, &any(&rows))).unwrap();
        assert_eq!(value["nodes"][0]["cluster_name"], json!("orders"));
    }

    #[test]
    fn uptimes_are_short() {
        let found = [0, 59_999, 60_000, 3_600_000, 90_000_000].map(uptime);
        assert_eq!(found, ["0s", "59s", "1m00s", "1h00m", "1d01h"]);
    }
}
