//! `horseshoe lock`: runs a command while it holds a lock.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use kvclient::lock::{Lock, LockOptions};
use kvclient::{Call, Client};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use wire::{Action, Outcome};

use super::connection::ConnectionArgs;
use super::exit::Exit;
use super::{report, words};

/// The variable with which the command gets the fencing token.
pub const TOKEN_VARIABLE: &str = "HORSESHOE_LOCK_TOKEN";
/// A command whose lock is lost is killed if it has not ended this long after SIGTERM.
const TERMINATION_WAIT: Duration = Duration::from_secs(2);
/// How often the command and the lock are looked at.
const LOOK: Duration = Duration::from_millis(10);
/// After a renewal that failed, the next one is tried this much later.
const RENEW_AGAIN: Duration = Duration::from_millis(100);
/// What a shell reports of a program that a signal ended, with the signal's number.
const EXIT_SIGNAL: i32 = 128;
const EXIT_NOT_STARTED: u8 = 127;

/// Run a command while holding a lock, and terminate it when the lock is lost.
///
/// The exit status is that of the command, or 128 and the number of the signal that ended it. It is
/// 4 if another one held the lock all the time, 8 if the lock was lost, and 127 if the command
/// cannot be started. The command finds the fencing token in HORSESHOE_LOCK_TOKEN; see "Locks" in
/// the documentation for what it has to do with it.
#[derive(Debug, Args)]
pub struct LockArgs {
    /// The key of the lock, 1 to 1024 bytes
    #[arg(value_name = "NAME", allow_hyphen_values = true)]
    name: OsString,

    /// How long the lock is held without a renewal
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = words::ttl)]
    ttl: u64,

    /// How long to wait for a lock that another one holds
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = words::duration_or_zero)]
    wait: Duration,

    /// The command and its arguments
    #[arg(value_name = "COMMAND", last = true, required = true, num_args = 1..)]
    command: Vec<OsString>,
}

pub fn run(arguments: LockArgs, connection: &ConnectionArgs) -> ExitCode {
    let signals = Signals::watch();
    let client = match connection.open() {
        Ok(client) => client,
        Err(exit) => return exit.into(),
    };
    let key = words::key(arguments.name);
    let options = LockOptions {
        ttl: Duration::from_millis(arguments.ttl),
        wait: arguments.wait,
        holder: holder(),
    };
    let lock = match Lock::acquire(&client, key.clone(), options) {
        Ok(Some(lock)) => lock,
        Ok(None) => return refuse(&client, &key, connection).into(),
        Err(error) => return connection.refuse_call(&error).into(),
    };
    let ttl = Duration::from_millis(arguments.ttl);
    let mut command = Command::new(&arguments.command[0]);
    command
        .args(&arguments.command[1..])
        .env(TOKEN_VARIABLE, lock.token().to_string());
    let child = signals.unblocked(|| command.spawn());
    let child = match child {
        Ok(child) => child,
        Err(error) => {
            let command = arguments.command[0].to_string_lossy();
            report::complain(&format!("horseshoe: can't run {command}: {error}\n"));
            give_back(lock, &client);
            return ExitCode::from(EXIT_NOT_STARTED);
        }
    };
    signals.pass_to(&child);
    hold(lock, ttl, child, &client, &signals)
}

/// Renews the lock until the command has ended.
fn hold(
    mut lock: Lock,
    ttl: Duration,
    mut child: Child,
    client: &Client,
    signals: &Signals,
) -> ExitCode {
    // The lock is renewed once no more than this is left. Its own clock counts, which goes on while
    // the machine is suspended.
    let usual = ttl * 2 / 3;
    let mut renew_below = usual;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => {
                signals.ignore();
                return match give_back(lock, client) {
                    true => code_of(status),
                    false => Exit::Lost.into(),
                };
            }
            Ok(None) => {}
            Err(error) => {
                report::complain(&format!("horseshoe: can't wait for the command: {error}\n"));
                return Exit::Other.into();
            }
        }
        let mut is_held = lock.is_held();
        if is_held && lock.left() <= renew_below {
            match lock.renew(client) {
                Ok(true) => renew_below = usual,
                Ok(false) => is_held = false,
                Err(_) => renew_below = lock.left().saturating_sub(RENEW_AGAIN),
            }
        }
        if !is_held {
            report::complain("horseshoe: the lock is lost; the command is terminated\n");
            terminate(&mut child);
            return Exit::Lost.into();
        }
        thread::sleep(LOOK.min(lock.left()));
    }
}

fn terminate(child: &mut Child) {
    let _ = kill(pid_of(child), Signal::SIGTERM);
    let end = Instant::now() + TERMINATION_WAIT;
    while Instant::now() < end {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        thread::sleep(LOOK);
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// Returns false if the lock was lost before.
fn give_back(lock: Lock, client: &Client) -> bool {
    match lock.release(client) {
        Ok(true) => true,
        Ok(false) => {
            report::complain("horseshoe: the lock was lost before the command ended\n");
            false
        }
        Err(error) => {
            report::complain(&format!(
                "horseshoe: the lock was not given back ({error}); it ends with its time to live\n"
            ));
            true
        }
    }
}

/// Another one holds the lock.
fn refuse(client: &Client, key: &Bytes, connection: &ConnectionArgs) -> Exit {
    let message = match client.call(Call::new(key.clone(), Action::Get)) {
        Ok(Outcome::Value { value, version }) => {
            let holder = String::from_utf8_lossy(&value).into_owned();
            format!("the lock is held by {holder:?}, with token {version}")
        }
        _ => "the lock was held by another one".to_owned(),
    };
    connection.refuse("conflict", Exit::Conflict, &message)
}

/// What others see of the holder: machine and process.
fn holder() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{} {}", name.trim(), std::process::id())
        .trim()
        .to_owned()
}

fn code_of(status: ExitStatus) -> ExitCode {
    let code = match (status.code(), status.signal()) {
        (Some(code), _) => code,
        (None, signal) => EXIT_SIGNAL + signal.unwrap_or(0),
    };
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX))
}

/// Signals that would end this process, which has to give the lock back first.
struct Signals {
    /// `NO_CHILD_YET`, the id of the command's process, or `CHILD_ENDED`.
    child: Arc<AtomicI32>,
    set: SigSet,
}

const NO_CHILD_YET: i32 = 0;
/// The id may belong to another process by now.
const CHILD_ENDED: i32 = -1;

impl Signals {
    /// To be called before any other thread is started: these must not receive the signals.
    fn watch() -> Signals {
        let child = Arc::new(AtomicI32::new(NO_CHILD_YET));
        let mut signals = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            signals.add(signal);
        }
        // Without it the signals end the program, as they do by default.
        if signals.thread_block().is_ok() {
            let child = child.clone();
            thread::spawn(move || {
                while let Ok(signal) = signals.wait() {
                    match child.load(Ordering::Acquire) {
                        NO_CHILD_YET => std::process::exit(EXIT_SIGNAL + signal as i32),
                        CHILD_ENDED => {}
                        // A terminal sends it to the command, too.
                        _ if signal == Signal::SIGINT => {}
                        id => drop(kill(Pid::from_raw(id), signal)),
                    }
                }
            });
        }
        Signals {
            child,
            set: signals,
        }
    }

    /// Runs something with the signals as they were: a process inherits which are blocked.
    fn unblocked<T>(&self, run: impl FnOnce() -> T) -> T {
        let _ = self.set.thread_unblock();
        let result = run();
        let _ = self.set.thread_block();
        result
    }

    /// The command has ended, and the lock is being given back.
    fn ignore(&self) {
        self.child.store(CHILD_ENDED, Ordering::Release);
    }

    /// From now on they concern the command, and its end is awaited.
    fn pass_to(&self, child: &Child) {
        self.child.store(pid_of(child).as_raw(), Ordering::Release);
    }
}
