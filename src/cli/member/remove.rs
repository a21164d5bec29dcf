//! `horseshoe member remove`.

use clap::Args;
use wire::Change;

use super::super::connection::ConnectionArgs;
use super::super::exit::Exit;
use super::follow::{self, Wish};

/// Remove a node for good; it is not admitted again automatically
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// Its id, as `member list` shows it
    #[arg(value_name = "NODE", value_parser = super::id)]
    node: u8,
}

pub fn run(arguments: RemoveArgs, connection: &ConnectionArgs) -> Exit {
    let RemoveArgs { node } = arguments;
    let wish = Wish {
        done: format!("node {node} was removed and can be stopped"),
        change: Change::Remove { node },
        not_at: Some(node),
    };
    follow::pursue(&wish, connection)
}
