//! Runs the binary as a shell does.

use std::ffi::OsStr;
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The environment of commands, which names the nodes.
#[derive(Debug, Clone)]
pub struct Shell {
    variables: Vec<(&'static str, String)>,
}

/// The result of a command.
#[derive(Debug)]
pub struct Ran {
    pub status: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
    pub took: Duration,
}

impl Shell {
    pub fn with(nodes: &str) -> Shell {
        Shell {
            variables: vec![("HORSESHOE_NODES", nodes.to_owned())],
        }
    }

    pub fn with_variables(variables: &[(&'static str, &str)]) -> Shell {
        let owned = variables
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()));
        Shell {
            variables: owned.collect(),
        }
    }

    pub fn run<W: AsRef<OsStr>>(&self, words: &[W]) -> Ran {
        self.run_with_input(words, b"")
    }

    pub fn run_with_input<W: AsRef<OsStr>>(&self, words: &[W], input: &[u8]) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_horseshoe"));
        command.args(words);
        self.run_command(command, input)
    }

    /// A line of the shell, in which `$0` is the binary.
    pub fn run_in_shell(&self, line: &str) -> Ran {
        let mut command = Command::new("sh");
        command.args(["-c", line, env!("CARGO_BIN_EXE_horseshoe")]);
        self.run_command(command, b"")
    }

    /// The same at a terminal, which `script` provides; lines there end in CR LF.
    pub fn run_on_terminal(&self, line: &str) -> Ran {
        let binary = env!("CARGO_BIN_EXE_horseshoe");
        let mut command = Command::new("script");
        command.args(["-qec", &format!("{binary} {line}"), "/dev/null"]);
        self.run_command(command, b"")
    }

    /// Starts a command without waiting for its end; see `ended`.
    pub fn start<W: AsRef<OsStr>>(&self, words: &[W]) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_horseshoe"));
        command.args(words);
        self.spawn(command)
    }

    /// Runs a command whose standard output nobody reads.
    pub fn run_unread<W: AsRef<OsStr>>(&self, words: &[W]) -> Ran {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_horseshoe"));
        command.args(words);
        let command = self.prepare(&mut command).stdout(writer);
        ended(command.spawn().expect("the program starts"))
    }

    fn spawn(&self, mut command: Command) -> Child {
        let command = self.prepare(&mut command);
        command.spawn().expect("the program starts")
    }

    fn prepare<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env_remove("HORSESHOE_NODES").env_remove("NODES");
        for (name, value) in &self.variables {
            command.env(name, value);
        }
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
    }

    fn run_command(&self, command: Command, input: &[u8]) -> Ran {
        let began = Instant::now();
        let mut child = self.spawn(command);
        // A command that does not read its input may have ended by now.
        let _ = child.stdin.take().expect("it is piped").write_all(input);
        let ran = ended(child);
        Ran {
            took: began.elapsed(),
            ..ran
        }
    }

    /// One line of JSON, and the exit status.
    pub fn json<W: AsRef<OsStr>>(&self, words: &[W]) -> (Value, i32) {
        self.json_with_input(words, b"")
    }

    pub fn json_with_input<W: AsRef<OsStr>>(&self, words: &[W], input: &[u8]) -> (Value, i32) {
        let mut all: Vec<&OsStr> = vec![OsStr::new("--json")];
        all.extend(words.iter().map(AsRef::as_ref));
        let ran = self.run_with_input(&all, input);
        let text = String::from_utf8(ran.stdout).expect("text");
        assert_eq!(text.matches('\n').count(), 1, "{text:?} {}", ran.stderr);
        (serde_json::from_str(&text).expect("JSON"), ran.status)
    }
}

/// Waits for the end of a command that was started.
pub fn ended(child: Child) -> Ran {
    let began = Instant::now();
    let output = child.wait_with_output().expect("it ends");
    Ran {
        status: output.status.code().expect("no signal ended it"),
        stdout: output.stdout,
        stderr: String::from_utf8(output.stderr).expect("text"),
        took: began.elapsed(),
    }
}

impl Ran {
    /// Checks the exit status and standard output.
    #[track_caller]
    pub fn gave(&self, status: i32, stdout: &str) {
        let found = String::from_utf8_lossy(&self.stdout);
        assert_eq!((self.status, &*found), (status, stdout), "{}", self.stderr);
    }

    /// Checks the exit status, that standard output is empty, and that standard error contains this
    /// text.
    #[track_caller]
    pub fn failed(&self, status: i32, stderr: &str) {
        self.gave(status, "");
        assert!(self.stderr.contains(stderr), "{}", self.stderr);
    }
}
