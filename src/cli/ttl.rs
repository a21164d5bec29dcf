//! `horseshoe ttl`: prints how long a key still lives.

use std::ffi::OsString;

use clap::Args;
use kvclient::Call;
use wire::Action;

use super::connection::ConnectionArgs;
use super::exit::Exit;
use super::report::Style;
use super::words;

/// Print how long a key still lives, in seconds, or `none` if it does not expire.
#[derive(Debug, Args)]
pub struct TtlArgs {
    /// The key, 1 to 1024 bytes
    #[arg(value_name = "KEY", allow_hyphen_values = true)]
    key: OsString,

    /// Print the version of the value on a line of its own before
    #[arg(long)]
    version: bool,
}

pub fn run(arguments: TtlArgs, connection: &ConnectionArgs) -> Exit {
    let style = Style {
        version: arguments.version,
        ..connection.style()
    };
    let key = words::key(arguments.key);
    connection.call(Call::new(key, Action::TimeToLive), style)
}
