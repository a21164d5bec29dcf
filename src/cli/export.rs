//! `horseshoe export`: prints all keys and values, in the form that `import` reads.

use std::ffi::OsString;

use clap::Args;
use kvclient::Scan;

use super::connection::ConnectionArgs;
use super::exit::Exit;
use super::scan;
use super::words;

/// Print keys and values as lines of JSON, which `horseshoe import` reads.
///
/// A line is an object with `key`, `value` and `version`. Bytes that are not UTF-8 are base64, in
/// `key_b64` and `value_b64`. Each key is printed as it was at some moment during the export,
/// which is not a snapshot. Times to live are left out. If the exit status is not 0, the output is
/// not complete.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Only keys that begin with this
    #[arg(value_name = "PREFIX", allow_hyphen_values = true)]
    prefix: Option<OsString>,
}

pub fn run(arguments: ExportArgs, connection: &ConnectionArgs) -> Exit {
    let prefix = arguments.prefix.map(words::key).unwrap_or_default();
    let told = scan::each(
        Scan::prefix(&prefix),
        connection,
        Exit::Other,
        scan::write_json,
    );
    told.map_or_else(|exit| exit, |_| Exit::Done)
}
