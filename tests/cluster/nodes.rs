//! Starts, kills and observes nodes.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use kvclient::{Client, ClientOptions};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use wire::NodeStatus;

/// A bound for steps that take milliseconds on an idle machine.
pub const SOON: Duration = Duration::from_secs(20);
const POLL_INTERVAL: Duration = Duration::from_millis(10);
const STATUS_WAIT: Duration = Duration::from_millis(500);
const LOG_LINES_SHOWN: usize = 60;

/// Where the nodes keep their state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    Memory,
    Fsync,
    Os,
}

/// The nodes of one list, each running or not. They end when this value is dropped.
#[derive(Debug)]
pub struct Cluster {
    addresses: Vec<String>,
    children: Vec<Option<Child>>,
    keep: Keep,
    /// A program and its arguments, which run the binary.
    wrapper: Vec<String>,
    /// Options of `serve`, besides those that say what is kept.
    options: Vec<String>,
    directory: TempDir,
}

/// The program under test: the one in `HORSESHOE_BIN`, for whole runs whose bounds are those of a
/// release build, or the one that was built with the tests.
pub fn binary() -> String {
    let built = || env!("CARGO_BIN_EXE_horseshoe").to_owned();
    std::env::var("HORSESHOE_BIN").unwrap_or_else(|_| built())
}

impl Cluster {
    /// Starts this many nodes, and waits until all of them serve.
    pub fn start(count: usize, keep: Keep) -> Cluster {
        Cluster::start_under(count, keep, |_| Vec::new())
    }

    /// The same with each node run by a wrapper. The wrapper gets a directory that it may use.
    pub fn start_under(
        count: usize,
        keep: Keep,
        wrapper: impl FnOnce(&std::path::Path) -> Vec<String>,
    ) -> Cluster {
        Cluster::start_with(free_addresses(count), keep, &[], wrapper)
    }

    /// The same at these addresses, with options of `serve`.
    #[allow(dead_code)] // not all tests choose them
    pub fn start_at(addresses: Vec<String>, keep: Keep, options: &[&str]) -> Cluster {
        Cluster::start_with(addresses, keep, options, |_| Vec::new())
    }

    /// The same with both.
    pub fn start_with(
        addresses: Vec<String>,
        keep: Keep,
        options: &[&str],
        wrapper: impl FnOnce(&std::path::Path) -> Vec<String>,
    ) -> Cluster {
        let count = addresses.len();
        let directory = tempfile::Builder::new()
            .prefix("horseshoe-cluster-")
            .tempdir()
            .expect("a temporary directory");
        let mut cluster = Cluster {
            addresses,
            children: (0..count).map(|_| None).collect(),
            keep,
            wrapper: wrapper(directory.path()),
            options: options.iter().copied().map(str::to_owned).collect(),
            directory,
        };
        cluster.start_nodes(0..count);
        cluster.wait_until_serving(0..count);
        cluster
    }

    /// Free addresses for this many nodes.
    #[allow(dead_code)] // not all tests choose them
    pub fn addresses(count: usize) -> Vec<String> {
        free_addresses(count)
    }

    /// Appends a node to the list without starting it; returns its index.
    #[allow(dead_code)] // only the tests of `horseshoe member` need one
    pub fn list_another(&mut self) -> usize {
        self.addresses.extend(free_addresses(1));
        self.children.push(None);
        self.addresses.len() - 1
    }

    /// Changes the addresses of the nodes. No node whose address changes may be running.
    #[allow(dead_code)] // only the tests of `horseshoe data readdress` need it
    pub fn relist(&mut self, addresses: Vec<String>) {
        assert_eq!(addresses.len(), self.addresses.len(), "the same nodes");
        self.addresses = addresses;
    }

    pub fn count(&self) -> usize {
        self.addresses.len()
    }

    /// The address of one node.
    pub fn address(&self, node: usize) -> &str {
        &self.addresses[node]
    }

    /// The addresses of all nodes, as clients take them.
    pub fn list(&self) -> String {
        self.addresses.join(",")
    }

    pub fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    pub fn process_id(&self, node: usize) -> u32 {
        self.children[node].as_ref().expect("it runs").id()
    }

    pub fn start_node(&mut self, node: usize) {
        assert!(self.children[node].is_none(), "node {node} runs");
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_path(node))
            .expect("a log file");
        let binary = binary();
        let words: Vec<&String> = self.wrapper.iter().chain([&binary]).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("HORSESHOE_") {
                command.env_remove(name);
            }
        }
        command.arg("serve");
        match self.keep {
            Keep::Memory => {}
            Keep::Fsync => drop(command.arg("--durability=fsync")),
            Keep::Os => drop(command.arg("--durability=os")),
        }
        if self.keep != Keep::Memory {
            command.arg("--data-dir").arg(self.data_directory(node));
        }
        command.args(&self.options);
        command.arg(node.to_string()).args(&self.addresses);
        let errors = log.try_clone().expect("a second handle of the log");
        command.stdout(log).stderr(errors);
        self.children[node] = Some(command.spawn().expect("the binary runs"));
    }

    /// Restarts a node that has ended without being stopped.
    #[allow(dead_code)] // in most tests no node does
    pub fn restart(&mut self, node: usize) {
        let ended = self.children[node].take().map(|mut child| child.wait());
        ended.expect("it ran").expect("a child can be waited for");
        self.start_node(node);
    }

    pub fn start_nodes(&mut self, nodes: impl IntoIterator<Item = usize>) {
        nodes.into_iter().for_each(|node| self.start_node(node));
    }

    /// Kills all of them with kill -9, as nearly simultaneously as a loop can; all have ended when
    /// it returns.
    pub fn kill(&mut self, nodes: impl IntoIterator<Item = usize>) {
        let nodes = nodes.into_iter();
        let mut killed: Vec<Child> = nodes
            .map(|node| self.children[node].take().expect("it runs"))
            .collect();
        for child in &mut killed {
            child.kill().expect("a child can be killed");
        }
        for child in &mut killed {
            child.wait().expect("a child can be waited for");
        }
    }

    /// Sends a signal and waits for the end; returns how long that took.
    pub fn stop(&mut self, node: usize, signal: Signal) -> (ExitStatus, Duration) {
        let mut child = self.children[node].take().expect("it runs");
        let began = Instant::now();
        send_signal(&child, signal);
        let mut status = None;
        wait_until(SOON, &format!("the end of node {node}"), || {
            status = child.try_wait().expect("a child can be asked");
            status.is_some()
        });
        (status.expect("just seen"), began.elapsed())
    }

    /// Suspends a node's process for a while, as on a suspended machine.
    pub fn suspend(&self, node: usize, duration: Duration) {
        let child = self.children[node].as_ref().expect("it runs");
        send_signal(child, Signal::SIGSTOP);
        std::thread::sleep(duration);
        send_signal(child, Signal::SIGCONT);
    }

    pub fn is_running(&mut self, node: usize) -> bool {
        let child = self.children[node].as_mut();
        child.is_some_and(|child| child.try_wait().expect("a child can be asked").is_none())
    }

    /// The node's data directory, if it has one.
    pub fn data_directory(&self, node: usize) -> PathBuf {
        self.directory.path().join(format!("data-{node}"))
    }

    /// A node's status, if it answers.
    pub fn status(&self, node: usize) -> Option<NodeStatus> {
        let client = Client::open(self.address(node), ClientOptions::default());
        let mut statuses = client.expect("an address").status(STATUS_WAIT);
        statuses.pop().expect("one node was asked").1
    }

    /// Waits until these nodes have a vote and reach a quorum.
    pub fn wait_until_serving(&self, nodes: impl IntoIterator<Item = usize>) {
        for node in nodes {
            wait_until(SOON, &format!("node {node} serving"), || {
                self.status(node).is_some_and(|s| s.votes && s.quorum)
            });
        }
    }

    /// Waits until these nodes do not reach a quorum any more.
    pub fn wait_until_dark(&self, nodes: impl IntoIterator<Item = usize>) {
        for node in nodes {
            wait_until(SOON, &format!("node {node} without a quorum"), || {
                self.status(node).is_some_and(|s| !s.quorum)
            });
        }
    }

    pub fn log(&self, node: usize) -> String {
        std::fs::read_to_string(self.log_path(node)).unwrap_or_default()
    }

    fn log_path(&self, node: usize) -> PathBuf {
        self.directory.path().join(format!("node-{node}.log"))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.children.iter_mut().flatten() {
            // The node may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
        if !std::thread::panicking() {
            return;
        }
        for node in 0..self.count() {
            let log = self.log(node);
            let lines: Vec<&str> = log.lines().collect();
            let from = lines.len().saturating_sub(LOG_LINES_SHOWN);
            eprintln!("--- log of node {node}, the last lines:");
            lines[from..].iter().for_each(|line| eprintln!("{line}"));
        }
    }
}

fn send_signal(child: &Child, signal: Signal) {
    let id = Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
    kill(id, signal).expect("a child can be signalled");
}

/// Waits for a condition, and fails if it does not hold within the bound.
#[track_caller]
pub fn wait_until(bound: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < bound, "{what}: not within {bound:?}");
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Addresses that no process uses or takes while a node is briefly down. Clients' sockets get ports
/// from the ephemeral range, on all addresses, so the ports are outside that range; and each test
/// process has its own loopback address.
fn free_addresses(count: usize) -> Vec<String> {
    static NEXT_PORT: AtomicU16 = AtomicU16::new(10_000);
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    let own = Ipv4Addr::new(127, high, middle, low);
    let is_free = |port: u16| UdpSocket::bind(SocketAddrV4::new(own, port)).is_ok();
    std::iter::repeat_with(|| NEXT_PORT.fetch_add(1, Ordering::Relaxed))
        .filter(|port| is_free(*port))
        .take(count)
        .map(|port| SocketAddrV4::new(own, port).to_string())
        .collect()
}
