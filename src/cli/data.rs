//! `horseshoe data`: changes to a data directory while its node is stopped.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::connection::ConnectionArgs;
use super::exit::Exit;
use super::report;
use crate::config::NodeAddress;
use crate::storage::readdress::{Pair, readdress};

/// Change a data directory while its node is stopped
#[derive(Debug, Args)]
pub struct DataArgs {
    #[command(subcommand)]
    command: DataCommand,
}

#[derive(Debug, Subcommand)]
enum DataCommand {
    Readdress(ReaddressArgs),
}

/// Change the addresses of nodes, its own or others', in the data directory of a stopped node.
///
/// Run the same command for each node's data directory, with all nodes that moved: see "New
/// addresses" in the guide. The data stays. The command can be repeated, also with more nodes or
/// with corrections.
#[derive(Debug, Args)]
struct ReaddressArgs {
    /// The data directory
    #[arg(value_name = "DIR")]
    directory: PathBuf,

    /// A node's address as `member list` shows it, and its new address
    #[arg(value_name = "OLD=NEW", required = true, value_parser = pair)]
    pairs: Vec<Pair>,
}

/// In the spelling that all nodes use.
fn pair(word: &str) -> Result<Pair, String> {
    let (old, new) = word.split_once('=').ok_or("not OLD=NEW")?;
    let address = |word: &str| {
        let parsed = word
            .parse::<NodeAddress>()
            .map_err(|error| error.to_string());
        parsed.map(|address| address.to_string())
    };
    Ok((address(old)?, address(new)?))
}

pub fn run(arguments: DataArgs, connection: &ConnectionArgs) -> Exit {
    let DataCommand::Readdress(ReaddressArgs { directory, pairs }) = arguments.command;
    let done = match readdress(&directory, &pairs) {
        Ok(done) => done,
        Err(error) => return connection.refuse("refused", Exit::Other, &error.to_string()),
    };
    let lines = done.into_iter().map(|done| {
        let (node, address) = (done.node, done.address);
        match done.was_so {
            true => format!("node {node} was already at {address}\n"),
            false => format!("node {node} is at {address}\n"),
        }
    });
    let text: String = lines.collect();
    report::print_bytes(text.as_bytes()).map_or_else(|exit| exit, |()| Exit::Done)
}
