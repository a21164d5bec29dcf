//! `horseshoe expire` and `horseshoe persist`: change how long a key lives.

use std::ffi::OsString;

use clap::Args;
use kvclient::Call;
use wire::{Action, Version};

use super::connection::ConnectionArgs;
use super::exit::Exit;
use super::words;

/// Let a key live for TIME from now on; its version stays.
#[derive(Debug, Args)]
pub struct ExpireArgs {
    /// The key, 1 to 1024 bytes
    #[arg(value_name = "KEY", allow_hyphen_values = true)]
    key: OsString,

    /// How long: a number of seconds, or with ms, s, m, h or d after it
    #[arg(value_name = "TIME", value_parser = words::ttl)]
    ttl_ms: u64,

    /// Only if the key has this version, as `get --version` prints it
    #[arg(long, value_name = "V")]
    if_version: Option<Version>,
}

/// Let a key live for ever; its version stays.
#[derive(Debug, Args)]
pub struct PersistArgs {
    /// The key, 1 to 1024 bytes
    #[arg(value_name = "KEY", allow_hyphen_values = true)]
    key: OsString,

    /// Only if the key has this version, as `get --version` prints it
    #[arg(long, value_name = "V")]
    if_version: Option<Version>,
}

pub fn run(arguments: ExpireArgs, connection: &ConnectionArgs) -> Exit {
    let action = Action::Expire {
        ttl_ms: arguments.ttl_ms,
        over: arguments.if_version,
    };
    let call = Call::new(words::key(arguments.key), action);
    connection.call(call, connection.style())
}

pub fn run_persist(arguments: PersistArgs, connection: &ConnectionArgs) -> Exit {
    let over = arguments.if_version;
    let call = Call::new(words::key(arguments.key), Action::Persist { over });
    connection.call(call, connection.style())
}
