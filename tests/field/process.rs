//! One node as a process, with its output where the test wants it.

use std::process::{Child, Command, Stdio};

use kvclient::{Client, ClientOptions};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::nodes::{SOON, wait_until};

/// `horseshoe serve` with these arguments. It is killed when this value is dropped.
#[derive(Debug)]
pub struct Node(pub Child);

impl Node {
    pub fn serve(arguments: &[&str], errors: Stdio) -> Node {
        Node::start(
            Command::new(env!("CARGO_BIN_EXE_horseshoe")),
            arguments,
            errors,
        )
    }

    /// The same from a shell that runs `first` before: to set limits, or variables.
    pub fn serve_after(first: &str, arguments: &[&str], errors: Stdio) -> Node {
        let mut shell = Command::new("sh");
        let script = format!("{first} && exec \"$0\" \"$@\"");
        shell.args(["-c", &script, env!("CARGO_BIN_EXE_horseshoe")]);
        Node::start(shell, arguments, errors)
    }

    fn start(mut command: Command, arguments: &[&str], errors: Stdio) -> Node {
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("HORSESHOE_") {
                command.env_remove(name);
            }
        }
        command.arg("serve").args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Node(command.stderr(errors).spawn().expect("the binary runs"))
    }

    pub fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(i32::try_from(self.0.id()).expect("a process id"));
        kill(id, signal).expect("a child can be signalled");
    }

    pub fn is_running(&mut self) -> bool {
        self.0.try_wait().expect("a child can be asked").is_none()
    }

    /// Waits for the end; returns the exit status, -1 after a signal.
    pub fn end(&mut self) -> i32 {
        let mut ended = None;
        wait_until(SOON, "the end of the node", || {
            ended = self.0.try_wait().expect("a child can be asked");
            ended.is_some()
        });
        ended.and_then(|status| status.code()).unwrap_or(-1)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until the node at this address serves.
pub fn wait_until_serving(address: &str) {
    let client = Client::open(address, ClientOptions::default()).expect("an address");
    wait_until(SOON, "the node serves", || {
        let told = client.status(std::time::Duration::from_millis(500));
        told.into_iter()
            .any(|(_, status)| status.is_some_and(|s| s.votes && s.quorum))
    });
}
