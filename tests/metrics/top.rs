//! `horseshoe top`, with real nodes, in a separate terminal and without one.

use std::io::{Read, Write};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::clients::{client, get, put};
use super::nodes::{Cluster, Keep, SOON, wait_until};
use super::page;

const BINARY: &str = env!("CARGO_BIN_EXE_horseshoe");
/// The sequence that switches a terminal to its alternate screen; then those that switch back, and
/// show the cursor.
const ENTER: &str = "\x1b[?1049h";
const LEAVE: &str = "\x1b[?1049l";
const SHOW_CURSOR: &str = "\x1b[?25h";

fn top(arguments: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command.arg("top").args(arguments).stdin(Stdio::null());
    command.output().expect("the binary runs")
}

/// The cells of a node's row.
fn row(text: &str, address: &str) -> Vec<String> {
    let line = text.lines().find(|line| line.starts_with(address));
    let line = line.unwrap_or_else(|| panic!("no row of {address} in\n{text}"));
    let cells = line
        .split("  ")
        .map(str::trim)
        .filter(|cell| !cell.is_empty());
    cells.map(str::to_owned).collect()
}

#[test]
fn one_frame_has_rates_and_nodes_that_are_down() {
    let mut cluster = page::cluster(3, Keep::Memory);
    cluster.kill([2]);
    let client = client(cluster.address(0));
    put(&client, "key", "value");
    let over = AtomicBool::new(false);
    let output = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                put(&client, "key", "value");
                get(&client, "key");
            }
        });
        let output = top(&["--once", "--nodes", &cluster.list()]);
        over.store(true, Ordering::Relaxed);
        output
    });
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(
        text.starts_with("2 of 3 nodes answer, a quorum is up\n"),
        "{text}"
    );
    let first = row(&text, cluster.address(0));
    assert!(["master", "member"].contains(&first[2].as_str()), "{text}");
    let per_second: f64 = first[5].parse().expect("operations per second");
    assert!(per_second > 0.0, "{text}");
    assert!(
        first[7].starts_with(['<', '>']) && first[8].starts_with(['<', '>']),
        "{text}"
    );
    assert_eq!(row(&text, cluster.address(2))[2], "no answer");
    assert!(!text.contains('\x1b'), "no control sequences: {text}");
}

#[test]
fn without_metrics_and_without_a_quorum_there_is_a_frame_too() {
    let mut cluster = Cluster::start(3, Keep::Memory);
    cluster.kill([1, 2]);
    cluster.wait_until_dark([0]);
    let output = top(&["--once", "--interval", "100ms", "--nodes", &cluster.list()]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(
        text.contains("1 of 3 nodes answer, no quorum is up"),
        "{text}"
    );
    assert_eq!(row(&text, cluster.address(0))[2], "no quorum");
    assert!(
        text.contains("only of nodes that run with `serve --http`"),
        "{text}"
    );
    cluster.kill([0]);
    let output = top(&["--once", "--interval", "100ms", "--nodes", &cluster.list()]);
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn a_live_view_needs_a_terminal() {
    let output = top(&["--nodes", "127.0.0.1:1"]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        said,
        "horseshoe: top needs a terminal; for one frame as text, give --once\n"
    );
}

/// The live view in a separate terminal, which `script` provides.
struct Terminal {
    script: Child,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    fn start(nodes: &str) -> Terminal {
        let command =
            format!("stty rows 24 cols 200; exec {BINARY} top --interval 100ms --nodes {nodes}");
        let mut script = Command::new("script");
        script.args(["-qec", &command, "/dev/null"]);
        script.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut script = script.spawn().expect("script runs (Debian: bsdutils)");
        let shown = Arc::new(Mutex::new(Vec::new()));
        let (mut output, shown_there) = (script.stdout.take().unwrap(), Arc::clone(&shown));
        std::thread::spawn(move || {
            let mut part = [0; 4_096];
            while let Ok(size @ 1..) = output.read(&mut part) {
                shown_there.lock().unwrap().extend_from_slice(&part[..size]);
            }
        });
        let terminal = Terminal { script, shown };
        wait_until(SOON, "a frame", || terminal.text().contains("nodes answer"));
        terminal
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap()).into_owned()
    }

    /// The process of `top`.
    fn process(&self) -> Pid {
        let id = self.script.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
        let child = children
            .unwrap()
            .split_whitespace()
            .next()
            .map(str::to_owned);
        Pid::from_raw(child.expect("a child").parse().unwrap())
    }

    /// Waits for the end, and checks that the terminal was restored.
    #[track_caller]
    fn expect_given_back(mut self) {
        wait_until(SOON, "the end", || {
            self.script.try_wait().unwrap().is_some()
        });
        assert!(self.script.wait().unwrap().success());
        let is_back = || {
            let text = self.text();
            let entered = text.find(ENTER);
            let left = text.rfind(LEAVE);
            entered.is_some() && left > entered && text.rfind(SHOW_CURSOR) > entered
        };
        wait_until(SOON, "the terminal as it was", is_back);
    }
}

#[test]
fn the_terminal_expect_given_back_whatever_ends_the_view() {
    let cluster = page::cluster(1, Keep::Memory);
    // Also if no node answers.
    for nodes in [cluster.list(), "127.0.0.1:1".to_owned()] {
        for key in [&b"q"[..], b"\x03"] {
            let mut terminal = Terminal::start(&nodes);
            terminal
                .script
                .stdin
                .as_mut()
                .unwrap()
                .write_all(key)
                .unwrap();
            terminal.expect_given_back();
        }
    }
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let terminal = Terminal::start(&cluster.list());
        kill(terminal.process(), signal).unwrap();
        terminal.expect_given_back();
    }
}
