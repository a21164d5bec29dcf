//! `horseshoe cas`: writes only over a known value or version.

use std::ffi::OsString;

use clap::Args;
use kvclient::Call;
use wire::{Action, Version};

use super::connection::{ConnectionArgs, OldArgs};
use super::exit::Exit;
use super::words;

/// Write a value only if the present one is OLD, or has version V.
#[derive(Debug, Args)]
#[command(override_usage = "horseshoe cas [OPTIONS] <KEY> <OLD> <NEW>\n       \
                            horseshoe cas [OPTIONS] --version <V> <KEY> <NEW>")]
pub struct CasArgs {
    /// The key, 1 to 1024 bytes
    #[arg(value_name = "KEY", allow_hyphen_values = true)]
    key: OsString,

    /// The expected value; omitted with --version
    #[arg(value_name = "OLD", allow_hyphen_values = true)]
    first: OsString,

    /// The value to write
    #[arg(
        value_name = "NEW",
        allow_hyphen_values = true,
        required_unless_present = "version",
        conflicts_with = "version"
    )]
    second: Option<OsString>,

    /// The expected version, as `get --version` prints it
    #[arg(long, value_name = "V")]
    version: Option<Version>,

    #[command(flatten)]
    old: OldArgs,
}

impl CasArgs {
    fn into_call(self) -> Call {
        let key = words::key(self.key);
        let first = words::key(self.first);
        let action = match self.version {
            Some(version) => Action::CompareVersion {
                version,
                value: first,
            },
            None => Action::CompareValue {
                expected: first,
                value: words::key(self.second.unwrap_or_default()),
            },
        };
        self.old.apply(Call::new(key, action))
    }
}

pub fn run(arguments: CasArgs, connection: &ConnectionArgs) -> Exit {
    connection.call(arguments.into_call(), connection.style())
}
