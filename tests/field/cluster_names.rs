//! The name of a cluster: shown, accepted in place of its id, and a safeguard against a node of
//! another cluster.

use std::fs::File;
use std::process::{Command, Output};

use crate::nodes::{Cluster, Keep};
use crate::process::{Node, wait_until_serving};

fn horseshoe(nodes: &str, words: &[&str]) -> (Output, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_horseshoe"));
    command.args(["--nodes", nodes]).args(words);
    let output = command.output().expect("the binary runs");
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    (output, String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn a_named_cluster_is_found_by_its_name() {
    let at = |host: u8| vec![format!("127.92.0.{host}:8801")];
    let options = ["--cluster-name", "orders"];
    let one = Cluster::start_at(at(1), Keep::Memory, &options);
    let two = Cluster::start_at(at(2), Keep::Memory, &["--cluster-name", "invoices"]);
    let list = format!("{},{}", one.list(), two.list());
    let (_, text) = horseshoe(&list, &["status"]);
    let id = |cluster: &Cluster| format!("{:016x}", cluster.status(0).expect("it is up").cluster);
    let line = format!("cluster {}, named orders\n", id(&one));
    assert!(text.contains(&line), "{text}");
    for (name, value) in [("orders", "o"), ("invoices", "i")] {
        let (put, text) = horseshoe(&list, &["--cluster", name, "put", "k", value]);
        assert!(put.status.success(), "{text}");
    }
    for (cluster, value) in [(&one, "o"), (&two, "i")] {
        let (_, text) = horseshoe(&cluster.list(), &["get", "k"]);
        assert_eq!(text.trim_end(), value);
    }
    let (none, text) = horseshoe(&list, &["--cluster", "other", "get", "k"]);
    assert_eq!(none.status.code(), Some(2), "{text}");
    assert!(
        text.contains("named invoices") && text.contains("named orders"),
        "{text}"
    );
    // A quorum of another cluster does not show whether this one serves.
    let nobody = format!("{},127.92.0.4:8801", two.list());
    for (nodes, cluster, status) in [
        (&list, "orders", 0),
        (&list, &id(&one), 0),
        (&two.list(), &id(&one), 3),
        (&nobody, "orders", 2),
        (&nobody, "invoices", 0),
    ] {
        let (told, text) = horseshoe(nodes, &["--cluster", cluster, "status"]);
        assert_eq!(told.status.code(), Some(status), "{cluster}: {text}");
        assert!(text.contains(&two.list()), "all are shown: {text}");
    }
    // Names are not unique.
    let three = Cluster::start_at(at(3), Keep::Memory, &options);
    let list = format!("{},{}", one.list(), three.list());
    let (both, text) = horseshoe(&list, &["--cluster", "orders", "put", "k", "both"]);
    assert_eq!(both.status.code(), Some(2), "{text}");
    assert!(
        text.contains(&id(&one)) && text.contains(&id(&three)),
        "{text}"
    );
    let (_, text) = horseshoe(&three.list(), &["get", "k"]);
    assert!(!text.contains("both"), "{text}");
}

#[test]
fn a_node_with_another_name_than_its_cluster_ends_and_names_both() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let data = directory.path().join("data");
    let log = directory.path().join("log");
    let serve = |name: &[&str]| {
        let data = data.to_str().expect("plain");
        let words = [&["0", "127.92.0.9:8801", "--data-dir", data], name].concat();
        Node::serve(&words, File::create(&log).expect("a log file").into())
    };
    let node = serve(&["--cluster-name", "orders"]);
    wait_until_serving("127.92.0.9:8801");
    // The answered put is on disk, and so is the configuration.
    let (put, text) = horseshoe("127.92.0.9:8801", &["put", "k", "v"]);
    assert!(put.status.success(), "{text}");
    drop(node);
    let mut other = serve(&["--cluster-name", "others"]);
    assert_eq!(other.end(), 1);
    let text = std::fs::read_to_string(&log).expect("a log");
    let names = "started with --cluster-name others, and its cluster";
    assert!(
        text.contains(names) && text.contains("is named orders"),
        "{text}"
    );
    let _again = serve(&[]);
    wait_until_serving("127.92.0.9:8801");
    let (_, text) = horseshoe("127.92.0.9:8801", &["status"]);
    assert!(text.contains("named orders"), "{text}");
}
