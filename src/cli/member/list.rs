//! `horseshoe member list`.

use std::fmt::Write;

use clap::Args;
use serde_json::{Value, json};
use wire::NodeStatus;

use super::super::connection::ConnectionArgs;
use super::super::exit::Exit;
use super::super::report;
use super::super::status::{align, progress};
use super::cluster::{Cluster, Named};

/// Show the nodes of the configuration, by their ids
#[derive(Debug, Args)]
pub struct ListArgs {}

pub fn run(_arguments: ListArgs, connection: &ConnectionArgs) -> Exit {
    let cluster = match Cluster::open(connection) {
        Ok(cluster) => cluster,
        Err(exit) => return exit,
    };
    let Some(newest) = cluster.newest() else {
        let strangers = cluster.strangers();
        let message = match strangers.is_empty() {
            true => "no node that belongs to a cluster responded".to_owned(),
            false => format!("no node of the cluster in use responded{strangers}"),
        };
        let message = format!("{message}; `horseshoe status` shows more");
        return connection.refuse("no_quorum", Exit::NoQuorum, &message);
    };
    let text = match connection.json {
        true => in_json(newest, &cluster.named()),
        false => in_words(newest, &cluster.named()),
    };
    report::print_bytes(text.as_bytes()).map_or_else(|exit| exit, |()| Exit::Done)
}

fn in_words(newest: &NodeStatus, named: &[Named<'_>]) -> String {
    let head = ["node", "address", "role", "heard", "incarnation", ""];
    let mut table = vec![head.map(str::to_owned)];
    for Named {
        member,
        role,
        learning,
    } in named
    {
        table.push([
            member.node.to_string(),
            member.address.clone(),
            role.name().to_owned(),
            if member.heard { "yes" } else { "no" }.to_owned(),
            match member.incarnation {
                0 => "-".to_owned(),
                incarnation => format!("{incarnation:016x}"),
            },
            learning.map_or_else(String::new, progress),
        ]);
    }
    let mut text = align(&table);
    let under_way = match newest.joint {
        true => ", and a change is in progress",
        false => "",
    };
    writeln!(text, "\nconfiguration {}{under_way}", newest.epoch).expect("a string takes all");
    text
}

fn in_json(newest: &NodeStatus, named: &[Named<'_>]) -> String {
    let nodes = named.iter().map(|named| {
        let mut node = json!({
            "node": named.member.node,
            "address": named.member.address,
            "role": named.role.name(),
            "heard": named.member.heard,
            "incarnation": format!("{:016x}", named.member.incarnation),
        });
        if let Some(learning) = named.learning {
            node["buckets_done"] = json!(learning.buckets_done);
            node["buckets"] = json!(learning.buckets);
            node["keys_copied"] = json!(learning.keys_copied);
        }
        node
    });
    let nodes: Vec<Value> = nodes.collect();
    let all = json!({
        "cluster": format!("{:016x}", newest.cluster),
        "epoch": newest.epoch,
        "change_under_way": newest.joint,
        "quorum": newest.votes && newest.quorum,
        "nodes": nodes,
    });
    format!("{all}\n")
}
