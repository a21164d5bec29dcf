use std::process::Command;

use super::{Keep, Place};

pub const PORT: u16 = 6379;

/// Node 0 is the primary, the others are its replicas.
pub fn command(place: &Place, node: usize) -> Command {
    let mut command = place.command(node, "/usr/bin/redis-server");
    let (log, sync) = match place.keep {
        Keep::Memory => ("no", "no"),
        Keep::Os => ("yes", "no"),
        Keep::Fsync => ("yes", "always"),
    };
    command
        .args(["--bind", &place.hosts[node], "--port", &PORT.to_string()])
        .args(["--protected-mode", "no", "--save", ""])
        .args(["--appendonly", log, "--appendfsync", sync])
        .args(["--repl-diskless-sync-delay", "0"])
        .arg("--dir")
        .arg(place.node_directory(node));
    if node > 0 {
        command.args(["--replicaof", &place.hosts[0], &PORT.to_string()]);
    }
    command
}
