//! `horseshoe add`: adds to a number.

use std::ffi::OsString;

use clap::Args;
use kvclient::Call;
use wire::Action;

use super::connection::{ConnectionArgs, OldArgs};
use super::exit::Exit;
use super::words;

/// Add to a number in decimal text, and print the sum; an absent key counts as 0.
///
/// With --old the previous number is printed instead of the sum.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// The key, 1 to 1024 bytes
    #[arg(value_name = "KEY", allow_hyphen_values = true)]
    key: OsString,

    /// What to add, signed, 64 bits
    #[arg(value_name = "N", allow_hyphen_values = true)]
    delta: i64,

    #[command(flatten)]
    old: OldArgs,
}

pub fn run(arguments: AddArgs, connection: &ConnectionArgs) -> Exit {
    let AddArgs { key, delta, old } = arguments;
    let call = Call::new(words::key(key), Action::Add { delta });
    connection.call(old.apply(call), connection.style())
}
