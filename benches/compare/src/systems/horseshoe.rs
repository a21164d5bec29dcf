use std::process::Command;

use super::{Keep, Place};

pub const PORT: u16 = 7390;

pub fn command(place: &Place, node: usize) -> Command {
    let mut command = place.command(node, &place.horseshoe);
    command.arg("serve");
    let durability = match place.keep {
        Keep::Memory => None,
        Keep::Os => Some("os"),
        Keep::Fsync => Some("fsync"),
    };
    if let Some(durability) = durability {
        command.arg("--data-dir").arg(place.node_directory(node));
        command.args(["--durability", durability]);
    }
    command.arg(node.to_string());
    command.args(place.hosts.iter().map(|host| format!("{host}:{PORT}")));
    command
}
