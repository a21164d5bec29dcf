//! `horseshoe put`: writes a value.

use std::ffi::OsString;

use clap::Args;
use kvclient::Call;
use wire::{Action, Version};

use super::connection::{ConnectionArgs, OldArgs};
use super::exit::Exit;
use super::words;

/// Write a value.
#[derive(Debug, Args)]
pub struct PutArgs {
    /// The key, 1 to 1024 bytes
    #[arg(value_name = "KEY", allow_hyphen_values = true)]
    key: OsString,

    /// The value; a lone - reads it from standard input
    #[arg(value_name = "VALUE", allow_hyphen_values = true)]
    value: OsString,

    /// Write only if the key does not exist
    #[arg(long)]
    if_absent: bool,

    /// Write only over this version, as `get --version` prints it; 0: only if the key does not
    /// exist
    #[arg(long, value_name = "V", conflicts_with = "if_absent")]
    if_version: Option<Version>,

    /// How long the key lives; without it the key does not expire
    #[arg(long, value_name = "TIME", value_parser = words::ttl)]
    ttl: Option<u64>,

    #[command(flatten)]
    old: OldArgs,
}

pub fn run(arguments: PutArgs, connection: &ConnectionArgs) -> Exit {
    let key = words::key(arguments.key);
    let value = match words::value(arguments.value) {
        Ok(value) => value,
        Err(error) => return connection.refuse_input(&error),
    };
    let over = match arguments.if_absent {
        true => Some(0),
        false => arguments.if_version,
    };
    let action = match (arguments.ttl, over) {
        (Some(ttl_ms), over) => Action::PutFor {
            value,
            ttl_ms,
            over,
        },
        (None, None) => Action::Put { value },
        (None, Some(0)) => Action::PutIfAbsent { value },
        (None, Some(version)) => Action::CompareVersion { version, value },
    };
    let call = arguments.old.apply(Call::new(key, action));
    connection.call(call, connection.style())
}
