//! `horseshoe member remove`.

use clap::Args;
use wire::Change;

use super::super::connection::ConnectionArgs;
use super::super::exit::Exit;
use super::follow::{self, Wish};

/// Take a node out for good; it does not come back by itself
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// Its id, as `member list` shows it
    #[arg(value_name = "NODE", value_parser = super::id)]
    node: u8,
}

pub fn run(arguments: RemoveArgs, connection: &ConnectionArgs) -> Exit {
    let RemoveArgs { node } = arguments;
    let wish = Wish {
        done: format!("node {node} is taken out; it can be stopped"),
        change: Change::Remove { node },
        not_at: Some(node),
    };
    follow::pursue(&wish, connection)
}
