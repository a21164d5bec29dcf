//! Programs that use the C library, as it is built for this test.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::balancer::Balancer;
use crate::nodes::{Cluster, Keep, wait_until};

/// The programs have their own bounds, within which each of their calls ends.
const ENDS_WITHIN: Duration = Duration::from_secs(300);

/// A compiled program, in a directory of its own.
struct Program {
    _directory: TempDir,
    file: PathBuf,
}

impl Program {
    /// `None`, with a printed note, where there is no C compiler.
    fn compile(source: &str) -> Option<Program> {
        let compiler = std::env::var("CC").unwrap_or("cc".into());
        if let Err(error) = Command::new(&compiler).arg("--version").output() {
            eprintln!("skipped {source}: {compiler}: {error}");
            return None;
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("program");
        let compiled = Command::new(compiler)
            .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-O1", "-I"])
            .arg(root.join("client-lib/include"))
            .arg("-I")
            .arg(root.join("tests/capi"))
            .arg(root.join(source))
            .arg(library())
            .args(["-lm", "-ldl", "-pthread", "-o"])
            .arg(&file)
            .status();
        assert!(compiled.expect("a C compiler").success());
        Some(Program {
            _directory: directory,
            file,
        })
    }

    fn start(&self, nodes: &str) -> Running {
        let mut command = Command::new(&self.file);
        command.arg(nodes);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Running(command.spawn().expect("it was compiled"))
    }
}

/// The library is beside the binary of the nodes: Cargo builds no libraries for the tests of
/// another package.
fn library() -> PathBuf {
    let binary = Path::new(env!("CARGO_BIN_EXE_horseshoe"));
    let profile = binary.parent().expect("a directory");
    let target = profile.parent().expect("a directory of all profiles");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--offline", "--package", "kvclient-c"]);
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    cargo.arg("--target-dir").arg(target);
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    assert!(cargo.status().expect("cargo runs").success());
    profile.join("libkvclient.a")
}

/// A program, which is killed when this value is dropped.
struct Running(Child);

impl Running {
    /// What it prints until its end, which has to be successful.
    fn end(mut self) -> String {
        let mut status = None;
        wait_until(ENDS_WITHIN, "the end of the program", || {
            status = self.0.try_wait().expect("a child can be asked");
            status.is_some()
        });
        let output = self.0.stdout.take().expect("it is a pipe");
        let said = std::io::read_to_string(output).expect("text");
        assert!(status.is_some_and(|status| status.success()), "{said}");
        said
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Closed descriptors, cancelled threads, forks, also into other process-id namespaces, and more.
#[test]
fn misuse_of_the_c_library_ends_in_errors() {
    let Some(program) = Program::compile("tests/capi/misuse.c") else {
        return;
    };
    let cluster = Cluster::start(3, Keep::Memory);
    cluster.wait_until_serving(0..3);
    let said = program.start(&cluster.list()).end();
    assert!(said.contains(" checks hold"), "{said}");
}

/// The virtual address keeps each port of a client at one node, even when that node is dead.
#[test]
fn a_program_behind_a_virtual_address_reaches_another_node_when_its_own_dies() {
    let Some(program) = Program::compile("tests/field/behind.c") else {
        return;
    };
    let mut cluster = Cluster::start(3, Keep::Memory);
    cluster.wait_until_serving(0..3);
    let addresses = (0..3).map(|node| cluster.address(node).parse().expect("in numbers"));
    let balancer = Balancer::start(addresses.collect());
    let mut running = program.start(&balancer.address.to_string());
    let mut line = String::new();
    let output = running.0.stdout.as_mut().expect("it is a pipe");
    let read = BufReader::new(output).read_line(&mut line);
    read.expect("a pipe can be read");
    assert_eq!(line, "served\n");
    cluster.kill([0]);
    let input = running.0.stdin.as_mut().expect("it is a pipe");
    input.write_all(b"\n").expect("it reads");
    assert_eq!(running.end(), "served again\n");
}
