use std::process::Command;

use super::Place;

pub const PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;

pub fn command(place: &Place, node: usize) -> Command {
    let host = &place.hosts[node];
    let client = format!("http://{host}:{PORT}");
    let peer = format!("http://{host}:{PEER_PORT}");
    let mut command = place.command(node, "/usr/bin/etcd");
    command
        .args(["--name", &format!("n{node}"), "--log-level", "error"])
        .arg("--data-dir")
        .arg(place.node_directory(node))
        .args(["--listen-client-urls", &client])
        .args(["--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer])
        .args(["--initial-advertise-peer-urls", &peer])
        // It keeps all versions; without this limit it refuses writes after 2 GB.
        .args(["--quota-backend-bytes", "8000000000"])
        .arg("--initial-cluster")
        .arg(place.joined(",", |node, host| {
            format!("n{node}=http://{host}:{PEER_PORT}")
        }));
    command
}
