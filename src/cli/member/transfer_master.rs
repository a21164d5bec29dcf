//! `horseshoe member transfer-master`.

use clap::Args;
use wire::Change;

use super::super::connection::ConnectionArgs;
use super::super::exit::Exit;
use super::follow::{self, Wish};

/// Make a member the master: the first in member order, whose vote decides when exactly half of the
/// members agree
#[derive(Debug, Args)]
pub struct TransferMasterArgs {
    /// Its id, as `member list` shows it
    #[arg(value_name = "NODE", value_parser = super::id)]
    node: u8,
}

pub fn run(arguments: TransferMasterArgs, connection: &ConnectionArgs) -> Exit {
    let TransferMasterArgs { node } = arguments;
    let wish = Wish {
        done: format!("node {node} is the master"),
        change: Change::TransferMaster { node },
        not_at: None,
    };
    follow::pursue(&wish, connection)
}
