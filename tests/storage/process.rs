//! Ends of a process: killed at any moment, or with no space for its writes.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use horseshoe::storage::StorageError;

use super::model::{check, directory, group, make, open, options, os_options, segment};

const DIRECTORY: &str = "STORAGE_TEST_DIRECTORY";
const DURABILITY: &str = "STORAGE_TEST_DURABILITY";
const COMMITTED: &str = "committed ";

/// Not a test: the process that the tests below start. It commits group after group, reports each
/// completed one, and ends at the first failure.
#[test]
fn child() {
    let Ok(path) = std::env::var(DIRECTORY) else {
        return;
    };
    let path = Path::new(&path);
    let options = match std::env::var(DURABILITY).as_deref() {
        Ok("os") => os_options(path),
        _ => options(path),
    };
    let mut opened = open(options);
    let mut number = opened.recovered.group;
    loop {
        number += 1;
        match opened.storage.commit(&[group(number)]) {
            Ok(()) => println!("{COMMITTED}{number}"),
            Err(error) => {
                println!("failed: {error}");
                let again = opened.storage.commit(&[group(number + 1)]).unwrap_err();
                assert!(matches!(again, StorageError::Stopped { .. }));
                println!("then: {again}");
                let close = opened.storage.close().unwrap_err();
                println!("at last: {close}");
                return;
            }
        }
    }
}

fn start(mut command: Command, path: &Path, durability: &str) -> Child {
    command
        .env(DIRECTORY, path)
        .env(DURABILITY, durability)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn last_committed(line: &str) -> Option<u64> {
    let (_, number) = line.split_once(COMMITTED)?;
    number.parse().ok()
}

#[test]
fn what_was_committed_survives_a_kill_under_either_durability() {
    for durability in ["os", "fsync"] {
        let (_base, path) = directory();
        for round in 1..=3 {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["process::child", "--exact", "--nocapture"]);
            let mut child = start(command, &path, durability);
            let mut committed = 0;
            let mut told = 0;
            for line in BufReader::new(child.stdout.take().unwrap()).lines() {
                if let Some(number) = last_committed(&line.unwrap()) {
                    committed = number;
                    told += 1;
                    if told == 40 * round {
                        child.kill().unwrap();
                    }
                }
            }
            child.wait().unwrap();
            assert!(told >= 40 * round);
            let opened = open(os_options(&path));
            assert!(opened.recovered.group >= committed);
            check(&opened);
            opened.storage.close().unwrap();
        }
    }
}

#[test]
fn a_write_that_finds_no_room_stops_the_store() {
    let (_base, path) = directory();
    make(&path, 3);
    // Files of at most 32 KiB; the process ignores the signal that comes with the error.
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new("bash");
    command
        .arg("-c")
        .arg("trap '' XFSZ; ulimit -f 32; exec \"$0\" process::child --exact --nocapture")
        .arg(program);
    let child = start(command, &path, "fsync");
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let expected = format!(
        "failed: File too large (os error 27) writing {}; the node stops",
        segment(&path).display()
    );
    assert!(text.contains(&expected), "{text}");
    let store = path.join("store");
    let expected = format!("then: an earlier write to {} failed", store.display());
    assert!(text.contains(&expected), "{text}");
    assert!(text.contains("at last: an earlier write"), "{text}");
    let committed = text.lines().filter_map(last_committed).max().unwrap();
    let opened = open(options(&path));
    assert!(opened.recovered.group >= committed);
    check(&opened);
}
