//! The systems that are compared: how five nodes of each are started, and what each does like the
//! others.

mod etcd;
mod horseshoe;
mod redis;
mod zookeeper;

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

pub const NODES: usize = 5;

#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum System {
    Horseshoe,
    Etcd,
    Zookeeper,
    Redis,
}

impl System {
    pub const ALL: [System; 4] = [
        System::Horseshoe,
        System::Etcd,
        System::Zookeeper,
        System::Redis,
    ];

    /// The program without which the system is left out.
    fn program(self) -> &'static str {
        match self {
            System::Horseshoe => "horseshoe",
            System::Etcd => "/usr/bin/etcd",
            System::Zookeeper => zookeeper::CLASSES,
            System::Redis => "/usr/bin/redis-server",
        }
    }

    /// What the system was installed as, or `None` if it was not.
    pub fn version(self, horseshoe: &Path) -> Option<String> {
        let program = Path::new(self.program());
        let asked = match self {
            System::Horseshoe => Command::new(horseshoe).arg("--version").output(),
            System::Etcd => Command::new(program).arg("--version").output(),
            System::Redis => Command::new(program).arg("--version").output(),
            System::Zookeeper => return zookeeper::version(),
        };
        let printed = String::from_utf8(asked.ok()?.stdout).ok()?;
        let mut words = printed.split_whitespace();
        let version = words.find(|word| word.contains('.'))?;
        Some(version.trim_start_matches("v=").to_owned())
    }

    /// Whether the system has a way to run with that durability.
    pub fn keeps(self, keep: Keep) -> bool {
        // etcd 3.4 syncs each write; on a file system in memory that costs nothing.
        !(self == System::Etcd && keep == Keep::Os)
    }
}

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            System::Horseshoe => "Horseshoe",
            System::Etcd => "etcd",
            System::Zookeeper => "ZooKeeper",
            System::Redis => "Redis",
        })
    }
}

/// What a write waits for, beside other nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// Nothing. Systems that cannot do without a disk have their data in memory (tmpfs).
    Memory,
    /// The operating system.
    Os,
    /// The disk.
    Fsync,
}

/// Where the nodes run.
#[derive(Debug, Clone)]
pub struct Place {
    pub horseshoe: PathBuf,
    /// The addresses of the nodes, without ports.
    pub hosts: Vec<String>,
    /// What each node's command line begins with, for example to enter its network.
    pub wrappers: Vec<Vec<String>>,
    pub directory: PathBuf,
    pub keep: Keep,
}

impl Place {
    fn node_directory(&self, node: usize) -> PathBuf {
        self.directory.join(format!("node{node}"))
    }

    /// A command that runs as that node.
    fn command(&self, node: usize, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut words = self.wrappers[node].iter();
        match words.next() {
            None => Command::new(program),
            Some(first) => {
                let mut command = Command::new(first);
                command.args(words).arg(program);
                command
            }
        }
    }

    fn joined(&self, separator: &str, each: impl Fn(usize, &str) -> String) -> String {
        let named = self.hosts.iter().enumerate();
        let all: Vec<String> = named.map(|(node, host)| each(node, host)).collect();
        all.join(separator)
    }
}

/// Five nodes that were started. They are killed when it is dropped.
pub struct Cluster {
    pub system: System,
    pub place: Place,
    nodes: Vec<Option<Child>>,
}

impl Cluster {
    pub fn start(system: System, place: Place) -> Result<Self> {
        let mut cluster = Cluster {
            system,
            place,
            nodes: (0..NODES).map(|_| None).collect(),
        };
        for node in 0..NODES {
            cluster.start_node(node)?;
        }
        Ok(cluster)
    }

    /// Starts a node for the first time, or again with what it has on its disk.
    pub fn start_node(&mut self, node: usize) -> Result<()> {
        let place = &self.place;
        let directory = place.node_directory(node);
        fs::create_dir_all(&directory)?;
        let mut command = match self.system {
            System::Horseshoe => horseshoe::command(place, node),
            System::Etcd => etcd::command(place, node),
            System::Zookeeper => zookeeper::command(place, node)?,
            System::Redis => redis::command(place, node),
        };
        let log = File::options()
            .create(true)
            .append(true)
            .open(directory.with_extension("log"))?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        self.nodes[node] = Some(child);
        Ok(())
    }

    /// Kills a node, as `kill -9` does.
    pub fn kill_node(&mut self, node: usize) -> Result<()> {
        if let Some(mut child) = self.nodes[node].take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    pub fn processes(&self) -> Vec<u32> {
        self.nodes.iter().flatten().map(Child::id).collect()
    }

    /// The addresses to which clients are given, of all nodes or of one.
    pub fn client_addresses(&self, only: Option<usize>) -> Vec<String> {
        let port = match self.system {
            System::Horseshoe => horseshoe::PORT,
            System::Etcd => etcd::PORT,
            System::Zookeeper => zookeeper::PORT,
            System::Redis => redis::PORT,
        };
        let hosts = self.place.hosts.iter().enumerate();
        hosts
            .filter(|(node, _)| only.is_none_or(|only| only == *node))
            .map(|(_, host)| format!("{host}:{port}"))
            .collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in 0..NODES {
            if let Err(error) = self.kill_node(node) {
                eprintln!("node {node} of {} was not killed: {error}", self.system);
            }
        }
    }
}
