//! Code that all client commands share: the flags for the nodes and the timeouts, and the
//! translation of a call's result to an exit status.

use std::io;
use std::time::{Duration, Instant};

use clap::Args;
use kvclient::{Call, CallError, Client, ClientOptions, OpenError};
use serde_json::{Map, json};

use super::exit::Exit;
use super::report::{self, Style};
use super::status::{StatusRow, Unresolved};
use super::words::{self, ClusterWord};
use crate::config::NodeAddress;

/// A node that is up answers at once.
const STATUS_TIMEOUT: Duration = Duration::from_secs(1);
/// The minimum time for a call if the lookup of names took the rest.
const CALL_TIMEOUT_MIN: Duration = Duration::from_millis(50);
/// `no quorum` is reported after this part of the timeout at the earliest: the library's default.
const NO_QUORUM_PART: u32 = 5;

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Options of all commands but serve")]
pub struct ConnectionArgs {
    /// Nodes to contact, HOST:PORT each, separated by commas or spaces [default: HORSESHOE_NODES,
    /// else NODES from the environment, else 127.0.0.1:8801 to 127.0.0.1:8805]
    #[arg(id = "ask", long = "nodes", value_name = "LIST", global = true)]
    pub nodes: Option<String>,

    /// The cluster to use, by its id or name as `status` shows them; needed only where the given
    /// nodes belong to two clusters. A name that two clusters have is refused
    #[arg(
        long,
        value_name = "ID|NAME",
        global = true,
        env = "HORSESHOE_CLUSTER",
        value_parser = words::cluster
    )]
    pub cluster: Option<ClusterWord>,

    /// Print one JSON object per line; `data readdress`, `lock` and `top` do so only for an error
    #[arg(long, global = true)]
    pub json: bool,

    /// How long to wait for an operation: seconds, or with a unit (300ms, 5s, 1m) [default: 5s; 1s
    /// for status, 60s for membership changes]
    #[arg(long, value_name = "TIME", global = true, value_parser = words::duration)]
    pub timeout: Option<Duration>,
}

impl ConnectionArgs {
    pub fn style(&self) -> Style {
        Style::of_process(self.json)
    }

    /// For the cluster with that id; 0: any cluster.
    fn options(&self, cluster: u64) -> ClientOptions {
        let mut options = ClientOptions {
            cluster,
            ..ClientOptions::default()
        };
        if let Some(timeout) = self.timeout {
            options.deadline = timeout;
            // Otherwise a short timeout would always end in "timed out", which is less informative.
            let no_quorum_after = options.no_quorum_after.min(timeout * 3 / 4);
            // A user who sets a long timeout may have links with long round trips.
            options.no_quorum_after = no_quorum_after.max(timeout / NO_QUORUM_PART);
        }
        options
    }

    /// Opens a client. On failure prints the error and returns the exit status.
    pub fn open(&self) -> Result<Client, Exit> {
        let cluster = match &self.cluster {
            None => 0,
            Some(ClusterWord::Id(id)) => *id,
            Some(ClusterWord::Name(name)) => self.named(name)?,
        };
        self.open_in(cluster, self.options(cluster).deadline)
    }

    /// The id of the one cluster with that name among the clusters of the given nodes.
    fn named(&self, name: &str) -> Result<u64, Exit> {
        // A silent node must not use up the time of the command itself.
        let timeout = self.timeout.unwrap_or(STATUS_TIMEOUT);
        let wait = (timeout / 5).max(timeout.min(STATUS_TIMEOUT));
        let (rows, _) = self.statuses_within(wait)?;
        named_among(name, &rows).map_err(|(kind, exit, message)| self.refuse(kind, exit, &message))
    }

    /// The id of the cluster that the flags select, among those that nodes reported; `None`: any.
    pub fn cluster_among(&self, rows: &[StatusRow]) -> Result<Option<u64>, NotOne> {
        match &self.cluster {
            None => Ok(None),
            Some(ClusterWord::Id(id)) => Ok(Some(*id)),
            Some(ClusterWord::Name(name)) => named_among(name, rows).map(Some),
        }
    }

    fn open_in(&self, cluster: u64, timeout: Duration) -> Result<Client, Exit> {
        let nodes = words::nodes(self.nodes.as_deref()).join(",");
        let options = self.options(cluster);
        let deadline = options.deadline.min(timeout);
        Client::open(
            &nodes,
            ClientOptions {
                deadline,
                ..options
            },
        )
        .map_err(|error| {
            let (name, exit) = match error {
                OpenError::NoNodes | OpenError::TooManyNodes { .. } | OpenError::Address(_) => {
                    ("nodes", Exit::Usage)
                }
                OpenError::Resolve(..) => ("no_quorum", Exit::NoQuorum),
                OpenError::Socket(_) | OpenError::Random(_) => ("system", Exit::Other),
            };
            self.refuse(name, exit, &error.to_string())
        })
    }

    /// Makes one call and reports its result.
    pub fn call(&self, mut call: Call, style: Style) -> Exit {
        let began = Instant::now();
        let client = match self.open() {
            Ok(client) => client,
            Err(exit) => return exit,
        };
        // The lookup of names is part of the given time.
        let left = self.options(0).deadline.saturating_sub(began.elapsed());
        let left_us = left.max(CALL_TIMEOUT_MIN).as_micros();
        call.deadline_us = Some(u64::try_from(left_us).unwrap_or(u64::MAX));
        let result = client.call(call.clone());
        let exit = report::of_call(&call, &result, style).print();
        if matches!(exit, Exit::NoQuorum | Exit::Unknown) {
            for (name, why) in client.unresolved() {
                report::complain(&format!("horseshoe: {}\n", words::not_found(&name, &why)));
            }
        }
        exit
    }

    /// Reports an error that occurred before an operation was tried.
    pub fn refuse(&self, name: &str, exit: Exit, message: &str) -> Exit {
        report::complain(&format!("horseshoe: {message}\n"));
        if self.json {
            let mut object = Map::new();
            object.insert("result".to_owned(), json!("error"));
            object.insert("error".to_owned(), json!(name));
            object.insert("message".to_owned(), json!(message));
            if let Err(exit) = report::print_bytes(&report::line(object)) {
                return exit;
            }
        }
        exit
    }

    /// Reports why the requested operation was not begun.
    pub fn refuse_call(&self, error: &CallError) -> Exit {
        let (name, exit) = report::classify(error);
        self.refuse(name, exit, &error.to_string())
    }

    pub fn refuse_input(&self, error: &io::Error) -> Exit {
        let message = format!("can't read standard input: {error}");
        self.refuse("input", Exit::Other, &message)
    }

    /// The status of each node; and the names that cannot be resolved, with the reason.
    pub fn statuses(&self) -> Result<(Vec<StatusRow>, Vec<Unresolved>), Exit> {
        self.statuses_within(self.timeout.unwrap_or(STATUS_TIMEOUT))
    }

    fn statuses_within(
        &self,
        timeout: Duration,
    ) -> Result<(Vec<StatusRow>, Vec<Unresolved>), Exit> {
        let began = Instant::now();
        // All nodes are asked, whatever their cluster.
        let client = self.open_in(0, timeout)?;
        let left = timeout.saturating_sub(began.elapsed());
        let rows = client.status(left.max(CALL_TIMEOUT_MIN));
        Ok((rows, client.unresolved()))
    }

    /// Refuses a node whose name this machine cannot resolve: otherwise a misspelt name would stay
    /// in the configuration.
    pub fn check_name(&self, node: &NodeAddress) -> Result<(), Exit> {
        let name = node.to_string();
        let found = kvclient::look_up(&name, self.options(0).deadline);
        found.map(drop).map_err(|error| {
            let why = match error {
                OpenError::Resolve(_, why) => why.to_string(),
                error => error.to_string(),
            };
            let message = format!(
                "{}; nothing was changed. Correct the name, or define it on this machine and on \
                 those of all nodes (name server or /etc/hosts), and run the command again",
                words::not_found(&name, &why)
            );
            self.refuse("not_resolved", Exit::Other, &message)
        })
    }
}

/// Why a name does not identify a cluster: the error's name in JSON, the exit status, the message.
pub type NotOne = (&'static str, Exit, String);

/// The id of the one cluster with that name among the clusters of the nodes.
fn named_among(name: &str, rows: &[StatusRow]) -> Result<u64, NotOne> {
    let told = rows.iter().filter_map(|(_, status)| status.as_ref());
    let mut clusters: Vec<(u64, &str)> = told
        .filter(|status| status.cluster != 0)
        .map(|status| (status.cluster, status.cluster_name.as_str()))
        .collect();
    clusters.sort_unstable();
    clusters.dedup();
    let of_name = clusters.iter().filter(|(_, other)| *other == name);
    let ids: Vec<u64> = of_name.map(|(id, _)| *id).collect();
    match ids[..] {
        [id] => Ok(id),
        _ => Err(not_one(name, &clusters, &ids)),
    }
}

fn not_one(name: &str, known: &[(u64, &str)], of_name: &[u64]) -> NotOne {
    let in_words = |(id, name): &(u64, &str)| match *name {
        "" => format!("{id:016x} without a name"),
        name => format!("{id:016x} named {name}"),
    };
    if known.is_empty() {
        let message = format!(
            "no node that belongs to a cluster responded, so it is not known which one is named \
             {name}"
        );
        return ("no_quorum", Exit::NoQuorum, message);
    }
    let message = if of_name.is_empty() {
        let others: Vec<String> = known.iter().map(in_words).collect();
        format!(
            "no node that responded belongs to a cluster named {name}; they belong to {}",
            others.join(", ")
        )
    } else {
        let ids: Vec<String> = of_name.iter().map(|id| format!("{id:016x}")).collect();
        format!(
            "these clusters are all named {name}: {}; give the id of the one to use",
            ids.join(", ")
        )
    };
    ("cluster", Exit::Usage, message)
}

/// `--old`, which all writes have.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct OldArgs {
    /// Print the previous value
    #[arg(long)]
    pub old: bool,
}

impl OldArgs {
    pub fn apply(self, mut call: Call) -> Call {
        call.want_old = self.old;
        call
    }
}
