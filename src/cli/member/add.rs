//! `horseshoe member add`.

use clap::Args;
use wire::Change;

use super::super::connection::ConnectionArgs;
use super::super::exit::Exit;
use super::follow::{self, Wish};
use crate::config::NodeAddress;

/// Add a node, up to nine: it becomes a member once it is running and has caught up
#[derive(Debug, Args)]
pub struct MemberAddArgs {
    /// The address of the new node
    #[arg(value_name = "HOST:PORT", value_parser = super::address)]
    address: NodeAddress,
}

pub fn run(arguments: MemberAddArgs, connection: &ConnectionArgs) -> Exit {
    if let Err(exit) = connection.check_name(&arguments.address) {
        return exit;
    }
    let address = arguments.address.to_string();
    let wish = Wish {
        done: format!("{address} is a member"),
        change: Change::Add { address },
        not_at: None,
    };
    follow::pursue(&wish, connection)
}
