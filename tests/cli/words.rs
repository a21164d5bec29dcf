//! Where the list of nodes comes from, and where flags may be placed.

use crate::fake::FakeCluster;
use crate::shell::Shell;

const NOBODY: &str = "127.0.0.1:1";

#[test]
fn nodes_come_from_the_flag_else_the_environment() {
    let cluster = FakeCluster::start(2);
    let nodes = cluster.nodes().replace(',', " , ");
    let nobody = Shell::with(NOBODY);
    for words in [
        &["--nodes", &nodes, "put", "k", "v"][..],
        &["put", "--nodes", &nodes, "k", "v"],
        &["put", "k", "v", "--nodes", &nodes],
    ] {
        nobody.run(words).gave(0, "");
    }
    let both = [("HORSESHOE_NODES", &*nodes), ("NODES", NOBODY)];
    Shell::with_variables(&both).run(&["get", "k"]).gave(0, "v");
    let second = [("HORSESHOE_NODES", ""), ("NODES", &*nodes)];
    Shell::with_variables(&second)
        .run(&["get", "k"])
        .gave(0, "v");
}

#[test]
fn flags_stand_before_or_after_the_subcommand() {
    let cluster = FakeCluster::start(1);
    let shell = Shell::with(&cluster.nodes());
    shell.run(&["put", "k", "v"]).gave(0, "");
    for words in [
        &["--json", "--timeout", "1", "get", "k"][..],
        &["get", "--timeout=1s", "k", "--json"],
    ] {
        let ran = shell.run(words);
        assert_eq!(ran.status, 0);
        assert!(ran.stdout.starts_with(b"{"), "{words:?}");
    }
}

#[test]
fn wrong_use_is_told_with_status_2() {
    let shell = Shell::with(NOBODY);
    for (words, told) in [
        (&[][..], "Usage"),
        (&["fly"], "unrecognized subcommand"),
        (&["get"], "<KEY>"),
        (&["put", "k"], "<VALUE>"),
        (&["put", "k", "--old"], "<VALUE>"),
        (&["cas", "k", "old"], "<NEW>"),
        (&["cas", "--version", "x", "k", "new"], "invalid value 'x'"),
        (&["--timeout", "0", "get", "k"], "above zero"),
        (&["--nodes", "host", "get", "k"], "host:port"),
        (&["run"], "<FILE>"),
        (&["run", "/no/such/file"], "can't read /no/such/file"),
        (&["bench", "--mix", "0:0"], "a mix is"),
    ] {
        shell.run(words).failed(2, told);
    }
    let help = shell.run(&["cas", "--help"]);
    let text = String::from_utf8(help.stdout).unwrap();
    assert!(text.contains("--version <V> <KEY> <NEW>"), "{text}");
}
