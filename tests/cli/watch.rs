//! `watch`, with real nodes.

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout};

use serde_json::Value;
use wire::KEY_SIZE_MAX;

use crate::nodes::{Cluster, Keep};
use crate::shell::{Shell, ended};

/// A watch that is in progress.
struct Watching {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Watching {
    fn start(shell: &Shell, words: &[&str]) -> Watching {
        let mut child = shell.start(words);
        let output = child.stdout.take().expect("it is piped");
        Watching {
            child,
            lines: BufReader::new(output).lines(),
        }
    }

    fn line(&mut self) -> String {
        let line = self.lines.next().expect("the watch goes on");
        line.expect("text")
    }

    /// The next line without its version, and the version.
    fn change(&mut self) -> (String, u64) {
        let line = self.line();
        let words: Vec<&str> = line.split('\t').collect();
        let version = words[2].parse().expect("a version");
        let rest: Vec<&str> = words
            .iter()
            .enumerate()
            .filter(|(at, _)| *at != 2)
            .map(|(_, w)| *w)
            .collect();
        (rest.join(" "), version)
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_watch_prints_the_present_state_and_each_change() {
    let cluster = Cluster::start(5, Keep::Memory);
    let shell = Shell::with(&cluster.list());
    shell.run(&["put", "a/1", "one"]).gave(0, "");
    shell.run(&["put", "b", "other"]).gave(0, "");
    let mut watch = Watching::start(&shell, &["watch", "--prefix", "a/"]);
    let (first, version) = watch.change();
    assert_eq!(first, "put a/1 one");
    shell.run(&["put", "a/2", ""]).gave(0, "");
    let (second, later) = watch.change();
    assert_eq!(second, "put a/2 ");
    assert!(later > version);
    shell.run(&["put", "b", "again"]).gave(0, "");
    shell.run(&["del", "a/1"]).gave(0, "");
    let (third, last) = watch.change();
    assert_eq!(third, "del a/1");
    assert!(last > version);
    // A transaction, and a key that expires.
    let text = "put a/3 x\nadd a/4 7\n";
    assert_eq!(
        shell.run_with_input(&["txn", "-"], text.as_bytes()).status,
        0
    );
    let mut both = [watch.change().0, watch.change().0];
    both.sort();
    assert_eq!(both, ["put a/3 x", "put a/4 7"]);
    shell
        .run(&["put", "a/5", "y", "--ttl", "300ms"])
        .gave(0, "");
    assert_eq!(watch.change().0, "put a/5 y");
    assert_eq!(watch.change().0, "del a/5");
}

#[test]
fn a_watch_of_one_key_ends_after_its_limit_and_goes_on_from_a_version() {
    let cluster = Cluster::start(1, Keep::Memory);
    let shell = Shell::with(&cluster.list());
    shell.run(&["watch", "k", "--limit", "0"]).gave(0, "");
    shell.run(&["put", "k", "1"]).gave(0, "");
    shell.run(&["put", "kk", "1"]).gave(0, "");
    let first = shell.run(&["watch", "k", "--limit", "1"]);
    let text = String::from_utf8(first.stdout).expect("text");
    let version = text.split('\t').nth(2).expect("a version").to_owned();
    assert_eq!(text, format!("put\tk\t{version}\t1\n"));
    shell.run(&["put", "k", "2"]).gave(0, "");
    let words = ["watch", "k", "--limit", "1", "--from-version", &version];
    let second = shell.run(&words);
    let text = String::from_utf8(second.stdout).expect("text");
    assert!(text.ends_with("\t2\n"), "{text}");
    shell.run(&["del", "k"]).gave(0, "");
    let gone = String::from_utf8(shell.run(&words).stdout).expect("text");
    assert!(gone.starts_with("del\tk\t"), "{gone}");
}

#[test]
fn with_json_a_watch_says_when_all_is_told() {
    let cluster = Cluster::start(1, Keep::Memory);
    let shell = Shell::with(&cluster.list());
    shell.run(&["put", "k", "1"]).gave(0, "");
    let mut watch = Watching::start(&shell, &["--json", "watch", "k"]);
    let mut object = || -> Value { serde_json::from_str(&watch.line()).expect("JSON") };
    let put = object();
    assert_eq!(
        (&put["event"], &put["key"], &put["value"]),
        (&"put".into(), &"k".into(), &"1".into())
    );
    assert!(
        put["version"]
            .as_str()
            .expect("a string")
            .parse::<u64>()
            .expect("a number")
            > 0
    );
    let current = object();
    assert_eq!(current["event"], "current");
    assert!(current.get("behind_ms").is_some());
}

#[test]
fn a_command_is_run_for_each_change() {
    let cluster = Cluster::start(1, Keep::Memory);
    let shell = Shell::with(&cluster.list());
    shell.run(&["put", "k", "one"]).gave(0, "");
    let script = "echo $HORSESHOE_WATCH_EVENT $HORSESHOE_WATCH_KEY $(cat)";
    let words = [
        "watch", "--prefix", "", "--limit", "1", "--", "sh", "-c", script,
    ];
    shell.run(&words).gave(0, "put k one\n");
    // A command that fails, or does not read the value, ends nothing.
    let large = "x".repeat(200_000);
    shell
        .run_with_input(&["put", "k", "-"], large.as_bytes())
        .gave(0, "");
    let ran = shell.run(&["watch", "k", "--limit", "1", "--", "false"]);
    ran.gave(0, "");
    assert!(ran.stderr.contains("false ended with"), "{}", ran.stderr);
    let ran = shell.run(&["watch", "k", "--", "/no/such/program"]);
    ran.failed(6, "can't run /no/such/program");
}

#[test]
fn wrong_arguments_are_refused() {
    let cluster = Cluster::start(1, Keep::Memory);
    let shell = Shell::with(&cluster.list());
    let long = "k".repeat(KEY_SIZE_MAX + 1);
    shell.run(&["watch"]).failed(2, "--prefix");
    shell
        .run(&["watch", "k", "--prefix", "k"])
        .failed(2, "cannot be used with");
    shell
        .run(&["watch", "k", "--from-version", "x"])
        .failed(2, "invalid value");
    shell.run(&["watch", "k", "--limit", "-1"]).failed(2, "-1");
    shell.run(&["watch", ""]).failed(2, "the key is empty");
    shell
        .run(&["watch", &long])
        .failed(6, "limited to 1024 bytes");
    shell
        .run(&["watch", "--prefix", &long])
        .failed(6, "limited to 1024 bytes");
    let longest = &long[..KEY_SIZE_MAX];
    shell.run(&["put", longest, "v"]).gave(0, "");
    let ran = shell.run(&["watch", longest, "--limit", "1"]);
    assert!(ran.stdout.ends_with(b"\tv\n"), "{ran:?}");
}

/// Two of five nodes are left, and none of them serves.
#[test]
fn while_no_node_serves_the_watch_goes_on() {
    let mut cluster = Cluster::start(5, Keep::Os);
    let shell = Shell::with(&cluster.list());
    shell.run(&["put", "k", "1"]).gave(0, "");
    let mut watch = Watching::start(&shell, &["watch", "k"]);
    assert_eq!(watch.change().0, "put k 1");
    cluster.kill([0, 1, 2]);
    let errors = watch.child.stderr.take().expect("it is piped");
    let mut errors = BufReader::new(errors).lines();
    let told = errors.next().expect("a message").expect("text");
    assert!(told.contains("no node serves the watch"), "{told}");
    cluster.start_nodes([0, 1, 2]);
    cluster.wait_until_serving([0, 1, 2, 3, 4]);
    shell.run(&["put", "k", "2"]).gave(0, "");
    assert_eq!(watch.change().0, "put k 2");
    let told = errors.next().expect("a message").expect("text");
    assert!(told.contains("serves the watch again"), "{told}");
}

#[test]
fn a_watch_whose_output_nobody_reads_ends() {
    let cluster = Cluster::start(1, Keep::Memory);
    let shell = Shell::with(&cluster.list());
    let mut child = shell.start(&["watch", "--prefix", ""]);
    drop(child.stdout.take());
    shell.run(&["put", "k", "1"]).gave(0, "");
    let ran = ended(child);
    assert_eq!((ran.status, &*ran.stderr), (0, ""));
}
