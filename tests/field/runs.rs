//! `horseshoe run` with a long input.

use std::fs::{self, File};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::nodes::{Cluster, Keep, wait_until};

const LINES: usize = 400_000;
/// If the time of parsing grew with the square of the length, it would be some minutes.
const BEGINS_WITHIN: Duration = Duration::from_secs(60);

#[test]
fn a_long_input_begins_at_once() {
    let cluster = Cluster::start(1, Keep::Memory);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (input, output) = (directory.path().join("in"), directory.path().join("out"));
    fs::write(&input, "PUT,some-key,some-value\n".repeat(LINES)).expect("there is room");
    let mut running = Command::new(env!("CARGO_BIN_EXE_horseshoe"))
        .args(["--nodes", &cluster.list(), "run"])
        .arg(&input)
        .stdin(Stdio::null())
        .stdout(File::create(&output).expect("there is room"))
        .spawn()
        .expect("the binary runs");
    let began = Instant::now();
    wait_until(BEGINS_WITHIN, "the first operation is done", || {
        let ended = running.try_wait().expect("a child can be asked");
        assert!(ended.is_none() || fs::metadata(&output).is_ok_and(|file| file.len() > 0));
        fs::metadata(&output).is_ok_and(|file| file.len() > 0)
    });
    println!("began after {:?}", began.elapsed());
    running.kill().expect("a child can be killed");
    running.wait().expect("a child can be waited for");
}
