//! `horseshoe member`: shows and changes the membership. One file per subcommand.

mod add;
mod cluster;
mod follow;
mod force;
mod list;
mod remove;
mod replace;
mod transfer_master;

use clap::{Args, Subcommand};

use super::connection::ConnectionArgs;
use super::exit::Exit;
use crate::config::NodeAddress;

/// Show and change the membership.
///
/// A node is named by its id, as `member list` shows it. A change waits until it is complete (60s
/// unless --timeout says otherwise), and shows its progress, or says why it is refused. The same
/// command can be given again at any time: what is done already is not done twice.
#[derive(Debug, Args)]
pub struct MemberArgs {
    #[command(subcommand)]
    command: MemberCommand,
}

#[derive(Debug, Subcommand)]
enum MemberCommand {
    List(list::ListArgs),
    Add(add::MemberAddArgs),
    Remove(remove::RemoveArgs),
    Replace(replace::ReplaceArgs),
    TransferMaster(transfer_master::TransferMasterArgs),
    Force(force::ForceArgs),
}

pub fn run(arguments: MemberArgs, connection: &ConnectionArgs) -> Exit {
    match arguments.command {
        MemberCommand::List(arguments) => list::run(arguments, connection),
        MemberCommand::Add(arguments) => add::run(arguments, connection),
        MemberCommand::Remove(arguments) => remove::run(arguments, connection),
        MemberCommand::Replace(arguments) => replace::run(arguments, connection),
        MemberCommand::TransferMaster(arguments) => transfer_master::run(arguments, connection),
        MemberCommand::Force(arguments) => force::run(arguments, connection),
    }
}

/// The address of a new node, in the spelling that all nodes use.
fn address(word: &str) -> Result<NodeAddress, String> {
    word.parse::<NodeAddress>()
        .map_err(|error| error.to_string())
}

/// An id as `member list` shows it.
fn id(word: &str) -> Result<u8, String> {
    let id = word.parse::<u8>().ok().filter(|id| *id > 0);
    id.ok_or_else(|| {
        "not a node's id: `horseshoe member list` shows them, from 1 to 255".to_owned()
    })
}
