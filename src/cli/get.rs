//! `horseshoe get`: prints a value.

use std::ffi::OsString;

use clap::Args;
use kvclient::Call;
use wire::Action;

use super::connection::ConnectionArgs;
use super::exit::Exit;
use super::report::Style;
use super::words;

/// Print the value of a key: exactly its bytes, and a newline only on a terminal.
#[derive(Debug, Args)]
pub struct GetArgs {
    /// The key, 1 to 1024 bytes
    #[arg(value_name = "KEY", allow_hyphen_values = true)]
    key: OsString,

    /// Print the version of the value on a line of its own, before the value
    #[arg(long)]
    version: bool,

    /// Print what a single node knows, which may be old; also without a quorum
    #[arg(long)]
    stale: bool,
}

pub fn run(arguments: GetArgs, connection: &ConnectionArgs) -> Exit {
    let style = Style {
        version: arguments.version,
        ..connection.style()
    };
    let action = match arguments.stale {
        true => Action::GetStale,
        false => Action::Get,
    };
    connection.call(Call::new(words::key(arguments.key), action), style)
}
