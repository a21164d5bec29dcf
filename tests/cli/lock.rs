//! `lock`, with real nodes and real commands.

use std::path::Path;
use std::process::{Child, Output};
use std::time::{Duration, Instant};

use kvclient::{Call, Client, ClientOptions};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use wire::{Action, Outcome};

use crate::fake::{FakeCluster, Mood};
use crate::nodes::{Cluster, Keep};
use crate::shell::Shell;

const PATIENCE: Duration = Duration::from_secs(60);

fn one_node() -> (Cluster, Shell) {
    let cluster = Cluster::start(1, Keep::Memory);
    let shell = Shell::with(&cluster.list());
    (cluster, shell)
}

#[track_caller]
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < end, "waited for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn signal(child: &Child, signal: Signal) {
    let id = Pid::from_raw(child.id() as i32);
    kill(id, signal).expect("the process exists");
}

fn end_of(child: Child) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = child.wait_with_output().expect("it ends");
    (status.code(), String::from_utf8_lossy(&stderr).into_owned())
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn the_command_runs_under_the_lock_and_gives_its_status() {
    let (_cluster, shell) = one_node();
    let token = ["lock", "l", "--", "sh", "-c", "echo $HORSESHOE_LOCK_TOKEN"];
    let first = shell.run(&token);
    let second = shell.run(&token);
    let number = |stdout: &[u8]| -> u64 {
        let text = String::from_utf8_lossy(stdout);
        text.trim().parse().expect("a token")
    };
    assert!(number(&first.stdout) > 0);
    assert!(
        number(&second.stdout) > number(&first.stdout),
        "tokens rise"
    );
    shell
        .run(&["lock", "l", "--", "sh", "-c", "exit 7"])
        .gave(7, "");
    let killed = shell.run(&["lock", "l", "--", "sh", "-c", "kill -9 $$"]);
    assert_eq!(killed.status, 128 + 9);
    let missing = shell.run(&["lock", "l", "--", "/no/such/command"]);
    missing.failed(127, "can't run /no/such/command");
    // It is given back each time.
    shell.run(&["get", "l"]).failed(1, "no such key");
}

#[test]
fn a_lock_that_is_held_is_refused_or_waited_for() {
    let (_cluster, shell) = one_node();
    let directory = TempDir::new().expect("a directory");
    let stop = directory.path().join("stop");
    let wait = format!("until [ -e {} ]; do sleep 0.05; done", stop.display());
    // It is held for longer than its time to live.
    let holder = shell.start(&["lock", "l", "--ttl", "1s", "--", "sh", "-c", &wait]);
    until("the holder", || shell.run(&["get", "l"]).status == 0);
    std::thread::sleep(Duration::from_millis(1_500));
    shell
        .run(&["lock", "l", "--", "true"])
        .failed(4, "the lock is held by");
    let refused = shell.run(&["lock", "l", "--wait", "300ms", "--", "true"]);
    refused.failed(4, "the lock is held by");
    assert!(refused.took >= Duration::from_millis(300));
    let next = shell.start(&["lock", "l", "--wait", "50s", "--", "true"]);
    std::fs::write(&stop, "").expect("a file");
    assert_eq!(end_of(holder).0, Some(0));
    assert_eq!(end_of(next).0, Some(0));
}

/// Two processes fight for a lock, and write to a resource that refuses lower tokens than it has
/// seen. The first one is stopped, while its command writes on. When it continues, it notices that
/// it has lost the lock, and terminates the command.
#[test]
fn a_resource_refuses_the_token_of_a_holder_that_was_stopped() {
    let cluster = Cluster::start(3, Keep::Memory);
    let shell = Shell::with(&cluster.list());
    let directory = TempDir::new().expect("a directory");
    let path = |name: &str| directory.path().join(name);
    let resource = r#"
        cd "$1"
        until [ -e "stop.$2" ]; do
            (
                flock 9
                highest=$(cat highest 2>/dev/null || echo 0)
                if [ "$HORSESHOE_LOCK_TOKEN" -ge "$highest" ]; then
                    echo "$HORSESHOE_LOCK_TOKEN" >highest
                    echo "$2 accepted" >>log
                else
                    echo "$2 refused" >>log
                fi
            ) 9>>resource
            sleep 0.05
        done
    "#;
    std::fs::write(path("write.sh"), resource).expect("a file");
    let script = path("write.sh").display().to_string();
    let here = directory.path().display().to_string();
    let start = |name: &str| {
        shell.start(&[
            "lock", "l", "--ttl", "1s", "--wait", "50s", "--", "sh", &script, &here, name,
        ])
    };
    let log = || read(&path("log"));
    let first = start("first");
    until("the first holder", || log().contains("first accepted"));
    let second = start("second");
    std::thread::sleep(Duration::from_millis(1_500));
    assert!(!log().contains("second"), "the lock is renewed:\n{}", log());
    signal(&first, Signal::SIGSTOP);
    until("the second holder", || log().contains("second accepted"));
    until("a late write", || log().contains("first refused"));
    signal(&first, Signal::SIGCONT);
    let (status, stderr) = end_of(first);
    assert_eq!(status, Some(8), "{stderr}");
    assert!(stderr.contains("the lock is lost"), "{stderr}");
    std::fs::write(path("stop.second"), "").expect("a file");
    let (status, stderr) = end_of(second);
    assert_eq!(status, Some(0), "{stderr}");
    let log = log();
    let (_, after) = log.split_once("second accepted").expect("it is there");
    assert!(!after.contains("first accepted"), "{log}");
}

/// Without nodes the lock cannot be renewed: its holder takes it for lost after the time to live.
#[test]
fn the_command_is_terminated_when_no_node_answers() {
    let (mut cluster, shell) = one_node();
    let directory = TempDir::new().expect("a directory");
    let begun = directory.path().join("begun");
    // A command that ignores SIGTERM.
    let command = format!(
        "trap '' TERM; touch {}; sleep 50 >/dev/null 2>&1 & wait; wait",
        begun.display()
    );
    let holder = shell.start(&["lock", "l", "--ttl", "1s", "--", "sh", "-c", &command]);
    until("the command", || begun.exists());
    cluster.kill([0]);
    let began = Instant::now();
    let (status, stderr) = end_of(holder);
    assert_eq!(status, Some(8), "{stderr}");
    assert!(began.elapsed() < Duration::from_secs(30));
}

/// SIGTERM reaches the command, and the lock is given back after it has ended.
#[test]
fn a_terminated_holder_gives_the_lock_back() {
    let (_cluster, shell) = one_node();
    let directory = TempDir::new().expect("a directory");
    let begun = directory.path().join("begun");
    let command = format!(
        "trap 'exit 5' TERM; touch {}; while :; do sleep 0.05; done",
        begun.display()
    );
    let holder = shell.start(&["lock", "l", "--ttl", "1h", "--", "sh", "-c", &command]);
    until("the command", || begun.exists());
    signal(&holder, Signal::SIGTERM);
    assert_eq!(end_of(holder).0, Some(5));
    shell.run(&["lock", "l", "--", "true"]).gave(0, "");
}

/// A command inherits the signals that its parent blocks.
#[test]
fn a_signal_ends_a_command_that_is_no_shell() {
    let (_cluster, shell) = one_node();
    let child = shell.start(&["lock", "l", "--", "sleep", "60"]);
    until("the lock", || shell.run(&["get", "l"]).status == 0);
    // The command is started a moment after the lock is held.
    std::thread::sleep(Duration::from_millis(300));
    let began = Instant::now();
    signal(&child, Signal::SIGTERM);
    let (code, _) = end_of(child);
    assert_eq!(code, Some(128 + Signal::SIGTERM as i32));
    assert!(began.elapsed() < Duration::from_secs(30));
    shell.run(&["get", "l"]).failed(1, "no such key");
}

/// The signal arrives after the lock was acquired and before the command runs. Neither may the lock
/// stay held nor the command run on.
#[test]
fn a_signal_while_the_command_is_being_started_ends_it() {
    let (cluster, shell) = one_node();
    let nodes = cluster.list();
    // The command is found once all these directories were searched, which takes a while.
    let path = std::env::var("PATH").expect("it is set");
    let path = format!("{}{path}", "/0:".repeat(40_000));
    let slow = Shell::with_variables(&[("HORSESHOE_NODES", &nodes), ("PATH", &path)]);
    let client = Client::open(&nodes, ClientOptions::default()).expect("a client");
    let child = slow.start(&["lock", "l", "--ttl", "1h", "--", "sleep", "60"]);
    let end = Instant::now() + PATIENCE;
    while !matches!(
        client.call(Call::new("l", Action::Get)),
        Ok(Outcome::Value { .. })
    ) {
        assert!(Instant::now() < end, "waited for the lock");
    }
    let began = Instant::now();
    signal(&child, Signal::SIGTERM);
    let (code, stderr) = end_of(child);
    assert_eq!(code, Some(128 + Signal::SIGTERM as i32), "{stderr}");
    assert!(began.elapsed() < Duration::from_secs(30));
    shell.run(&["get", "l"]).failed(1, "no such key");
}

/// The lock is renewed each third of 10 s, so nothing has noticed before the end.
#[test]
fn a_lock_that_was_lost_without_notice_is_told_at_the_end() {
    let (_cluster, shell) = one_node();
    let delete = [
        "lock",
        "l",
        "--",
        env!("CARGO_BIN_EXE_horseshoe"),
        "del",
        "l",
    ];
    shell
        .run(&delete)
        .failed(8, "the lock was lost before the command ended");
}

/// By default an attempt waits five seconds for its answer.
#[test]
fn the_timeout_bounds_an_attempt() {
    let nodes = FakeCluster::start(1);
    nodes.set_mood(Mood::Swallow);
    let shell = Shell::with(&nodes.nodes());
    let ran = shell.run(&["--timeout", "300ms", "lock", "l", "--", "true"]);
    ran.failed(5, "unknown outcome");
    assert!(ran.took < Duration::from_secs(4), "{:?}", ran.took);
}
