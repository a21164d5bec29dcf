//! `horseshoe lock`: runs a command while it holds a lock.

mod command;

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use kvclient::lock::{Lock, LockOptions};
use kvclient::{Call, Client};
use wire::{Action, Outcome};

use super::connection::ConnectionArgs;
use super::exit::Exit;
use super::{report, words};
use command::{EXIT_SIGNAL, LockedCommand, Signals};

/// The variable with which the command gets the fencing token.
pub const TOKEN_VARIABLE: &str = "HORSESHOE_LOCK_TOKEN";
/// How often the command and the lock are looked at.
const LOOK: Duration = Duration::from_millis(10);
/// After a renewal that failed, the next one is tried this much later.
const RENEW_AGAIN: Duration = Duration::from_millis(100);
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
    if let Some(signal) = signals.keep() {
        give_back(lock, &client);
        return ExitCode::from((EXIT_SIGNAL + signal as i32) as u8);
    }
    let token = lock.token().to_string();
    let command = match signals.start(&arguments.command, (TOKEN_VARIABLE, &token)) {
        Ok(command) => command,
        Err(error) => {
            let command = arguments.command[0].to_string_lossy();
            report::complain(&format!("horseshoe: can't run {command}: {error}\n"));
            give_back(lock, &client);
            return ExitCode::from(EXIT_NOT_STARTED);
        }
    };
    let ttl = Duration::from_millis(arguments.ttl);
    hold(lock, ttl, &command, &client)
}

/// Renews the lock until the command has ended.
fn hold(mut lock: Lock, ttl: Duration, command: &LockedCommand, client: &Client) -> ExitCode {
    // The lock is renewed once no more than this is left. Its own clock counts, which goes on while
    // the machine is suspended.
    let usual = ttl * 2 / 3;
    let mut renew_below = usual;
    loop {
        match command.ended() {
            Ok(Some(status)) => {
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
            command.terminate();
            return Exit::Lost.into();
        }
        thread::sleep(LOOK.min(lock.left()));
    }
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
