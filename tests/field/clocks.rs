//! A machine's clock is off by some seconds: nothing fails because of it, so nodes have to report
//! it.

use std::path::Path;
use std::process::Command;

use crate::nodes::{Cluster, Keep, SOON, wait_until};
use crate::preload;

/// Runs the last of three nodes with a clock that is this far ahead.
fn with_clock_ahead(directory: &Path, ms: i64) -> Vec<String> {
    let library = preload::compile("tests/field/clock.c", directory);
    let script = format!(
        "if [[ $2 == serve && $3 == 2 ]]; then export LD_PRELOAD={} CLOCK_OFFSET_MS={ms}; fi
         exec \"$@\"",
        library.display()
    );
    ["bash", "-c", &script, "bash"].map(str::to_owned).to_vec()
}

fn status(nodes: &str, words: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_horseshoe"));
    command.args(["--nodes", nodes, "status"]).args(words);
    let told = command.output().expect("the binary runs");
    String::from_utf8_lossy(&told.stdout).into_owned()
}

#[test]
fn a_clock_that_is_off_is_told_in_status_and_log() {
    let cluster = Cluster::start_under(3, Keep::Memory, |at| with_clock_ahead(at, 3_500));
    // The text holds however slow this machine is.
    let words = "clock 3.";
    wait_until(SOON, "the log says it", || {
        (0..3).all(|node| cluster.log(node).contains(&format!("node 3: {words}")))
    });
    let line = format!("\n{}: {words}", cluster.address(2));
    let told = status(&cluster.list(), &[]);
    assert_eq!(told.matches(words).count(), 1, "{told}");
    assert!(
        told.contains(&line) && told.contains(" s ahead of the median"),
        "{told}"
    );
    // The others report the clock of a node that is not asked, or does not answer.
    let told = status(cluster.address(0), &[]);
    assert!(told.contains(&line), "{told}");
    let told = status(cluster.address(1), &["--json"]);
    let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
    let offsets_ms = [0, 1, 2].map(|node| told["nodes"][0]["clocks"][node]["offset_ms"].as_i64());
    let is_near = |offset_ms: Option<i64>, ms: i64| offset_ms.is_some_and(|o| (o - ms).abs() < 500);
    assert!(
        is_near(offsets_ms[0], 0) && is_near(offsets_ms[1], 0),
        "{told}"
    );
    assert!(is_near(offsets_ms[2], 3_500), "{told}");
}
