//! `horseshoe put`: writes a value.

use std::ffi::OsString;

use clap::Args;
use kvclient::Call;
use wire::Action;

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

    #[command(flatten)]
    old: OldArgs,
}

pub fn run(arguments: PutArgs, connection: &ConnectionArgs) -> Exit {
    let key = words::key(arguments.key);
    let value = match words::value(arguments.value) {
        Ok(value) => value,
        Err(error) => return connection.refuse_input(&error),
    };
    let action = match arguments.if_absent {
        true => Action::PutIfAbsent { value },
        false => Action::Put { value },
    };
    let call = arguments.old.apply(Call::new(key, action));
    connection.call(call, connection.style())
}
