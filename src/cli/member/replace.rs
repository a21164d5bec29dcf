//! `horseshoe member replace`.

use clap::Args;
use wire::Change;

use super::super::connection::ConnectionArgs;
use super::super::exit::Exit;
use super::follow::{self, Wish};
use crate::config::NodeAddress;

/// Replace a node by a new one: a node that is up stays a member until the new one is a member
#[derive(Debug, Args)]
pub struct ReplaceArgs {
    /// The id of the node to replace, as `member list` shows it
    #[arg(value_name = "NODE", value_parser = super::id)]
    node: u8,

    /// The address of the new node
    #[arg(value_name = "HOST:PORT", value_parser = super::address)]
    address: NodeAddress,
}

pub fn run(arguments: ReplaceArgs, connection: &ConnectionArgs) -> Exit {
    let ReplaceArgs { node, address } = arguments;
    if let Err(exit) = connection.check_name(&address) {
        return exit;
    }
    let address = address.to_string();
    let wish = Wish {
        done: format!("{address} is a member in place of node {node}, which can be stopped"),
        change: Change::Replace { node, address },
        not_at: Some(node),
    };
    follow::pursue(&wish, connection)
}
