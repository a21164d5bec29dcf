//! `horseshoe del`: deletes a key.

use std::ffi::OsString;

use clap::Args;
use kvclient::Call;
use wire::{Action, Version};

use super::connection::{ConnectionArgs, OldArgs};
use super::exit::Exit;
use super::words;

/// Delete a key; it is no error if the key does not exist.
#[derive(Debug, Args)]
pub struct DelArgs {
    /// The key, 1 to 1024 bytes
    #[arg(value_name = "KEY", allow_hyphen_values = true)]
    key: OsString,

    /// Delete only this version, as `get --version` prints it
    #[arg(long, value_name = "V")]
    if_version: Option<Version>,

    #[command(flatten)]
    old: OldArgs,
}

pub fn run(arguments: DelArgs, connection: &ConnectionArgs) -> Exit {
    let action = match arguments.if_version {
        Some(version) => Action::DeleteVersion { version },
        None => Action::Delete,
    };
    let call = Call::new(words::key(arguments.key), action);
    connection.call(arguments.old.apply(call), connection.style())
}
