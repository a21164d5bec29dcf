//! `horseshoe run`.

use std::io::Write;

use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::fake::{FakeCluster, Mood};
use crate::nodes::{Cluster, Keep};
use crate::shell::Shell;

fn file(text: &str) -> (NamedTempFile, String) {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    (file, path)
}

#[test]
fn operations_are_done_in_order_and_timed() {
    let cluster = Cluster::start(1, Keep::Memory);
    let shell = Shell::with(&cluster.list());
    let (_file, path) = file("PUT,\"a,b\",\"x\"\"y\nz\"\r\nGET,\"a,b\"\nGET,no\nDELETE,no\n");
    let ran = shell.run(&["run", &path]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let text = String::from_utf8(ran.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("1  PUT  \"a,b\"  ") && lines[0].ends_with(" ms  done"));
    assert!(lines[1].starts_with("3  GET  \"a,b\"  ") && lines[1].ends_with(" ms  5 bytes"));
    assert!(lines[2].ends_with(" ms  no such key") && lines[3].ends_with(" ms  no such key"));
    assert!(lines[5].starts_with("operation") && lines[5].contains("sd ms"));
    assert_eq!(lines.len(), 10, "{text}");
    assert!(lines[9].starts_with("4 done, 0 failed in "));
    shell.run(&["get", "a,b"]).gave(0, "x\"y\nz");
}

#[test]
fn json_has_an_object_an_operation_and_a_summary() {
    let cluster = Cluster::start(1, Keep::Memory);
    let shell = Shell::with(&cluster.list());
    let input = b"PUT,k,\xff\nGET,k\n";
    let ran = shell.run_with_input(&["--json", "run", "-"], input);
    let text = String::from_utf8(ran.stdout).unwrap();
    let objects: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!((ran.status, objects.len()), (0, 3));
    assert_eq!(objects[0]["operation"], json!("PUT"));
    assert_eq!(objects[1]["value_b64"], json!("/w=="));
    assert!(objects[1]["time_us"].as_f64().unwrap() > 0.0);
    let summary = &objects[2]["summary"];
    assert_eq!(
        (&summary["count"], &summary["failed"]),
        (&json!(2), &json!(0))
    );
    for name in ["PUT", "GET"] {
        let figures = &summary["operations"][name];
        assert_eq!(figures["count"], json!(1));
        assert_eq!(figures["mean_us"], figures["p99_us"]);
        assert_eq!(figures["sd_us"], json!(0.0));
    }
}

#[test]
fn a_bad_line_is_refused_before_anything_is_done() {
    let cluster = FakeCluster::start(1);
    let shell = Shell::with(&cluster.nodes());
    let (_file, path) = file("PUT,k,v\nDELETE,k,v\n");
    let ran = shell.run(&["run", &path]);
    ran.failed(2, "line 2: \"DELETE\" with 2 more fields");
    assert!(ran.stderr.contains("nothing was done"), "{}", ran.stderr);
    assert_eq!(cluster.requests(), 0);
}

#[test]
fn a_failed_operation_does_not_end_the_run_but_shows_in_the_status() {
    let cluster = FakeCluster::start(1);
    cluster.set_mood(Mood::NoQuorum);
    let shell = Shell::with(&cluster.nodes());
    let (_file, path) = file("PUT,k,v\nGET,k\n");
    let ran = shell.run(&["run", &path, "--timeout", "500ms"]);
    let text = String::from_utf8(ran.stdout).unwrap();
    assert_eq!(ran.status, 6, "{text}");
    assert_eq!(text.matches("FAILED: no quorum").count(), 2, "{text}");
    assert!(text.contains("0 done, 2 failed"), "{text}");
}

#[test]
fn the_figures_are_drawn_into_a_file() {
    let cluster = Cluster::start(1, Keep::Memory);
    let shell = Shell::with(&cluster.list());
    let (_file, path) = file("PUT,k,v\nGET,k\nGET,k\n");
    let (out, plot) = file("an older and much longer picture".repeat(1_000).as_str());
    let ran = shell.run(&["run", &path, "--plot", &plot]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let svg = std::fs::read_to_string(out.path()).unwrap();
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
    for expected in ["PUT", "GET", "2 done", "3 done, 0 failed in"] {
        assert!(svg.contains(expected), "{expected}: {svg}");
    }
}

#[test]
fn a_picture_that_cannot_be_written_is_refused_before_anything_is_done() {
    let cluster = Cluster::start(1, Keep::Memory);
    let shell = Shell::with(&cluster.list());
    let (_file, path) = file("PUT,k,v\n");
    for plot in ["/no/such/directory/out.svg", "/", &path] {
        let ran = shell.run(&["run", &path, "--plot", plot]);
        assert_eq!(ran.status, 2, "{}", ran.stderr);
        assert!(ran.stderr.contains(plot) && ran.stderr.contains("nothing was done"));
    }
    let line = format!("\"$0\" run - --plot {path} < {path}");
    let ran = shell.run_in_shell(&line);
    assert_eq!(ran.status, 2, "{}", ran.stderr);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "PUT,k,v\n");
    shell.run(&["get", "k"]).failed(1, "");
    let ran = shell.run(&["--json", "run", &path, "--plot", "/dev/full"]);
    assert_eq!(ran.status, 6);
    assert!(
        ran.stderr.contains("can't write /dev/full"),
        "{}",
        ran.stderr
    );
    let text = String::from_utf8(ran.stdout).unwrap();
    assert!(text.contains("\"summary\"") && text.contains("\"error\":\"file\""));
    shell.run(&["get", "k"]).gave(0, "v");
}
