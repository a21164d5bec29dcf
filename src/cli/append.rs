//! `horseshoe append`: appends to a value.

use std::ffi::OsString;

use clap::Args;
use kvclient::Call;
use wire::Action;

use super::connection::{ConnectionArgs, OldArgs};
use super::exit::Exit;
use super::words;

/// Append to a value; an absent key counts as empty.
#[derive(Debug, Args)]
pub struct AppendArgs {
    /// The key, 1 to 1024 bytes
    #[arg(value_name = "KEY", allow_hyphen_values = true)]
    key: OsString,

    /// What to append; a lone - reads it from standard input
    #[arg(value_name = "VALUE", allow_hyphen_values = true)]
    value: OsString,

    #[command(flatten)]
    old: OldArgs,
}

pub fn run(arguments: AppendArgs, connection: &ConnectionArgs) -> Exit {
    let key = words::key(arguments.key);
    let value = match words::value(arguments.value) {
        Ok(value) => value,
        Err(error) => return connection.refuse_input(&error),
    };
    let call = arguments
        .old
        .apply(Call::new(key, Action::Append { value }));
    connection.call(call, connection.style())
}
