//! Binds the node's socket at the configured address.

use std::net::SocketAddr;

use super::RuntimeError;
use super::addresses::resolve_all;
use super::socket::Socket;
use crate::config::{NodeAddress, ServerConfig};

/// The addresses where the node may be bound, at least one; looking them up may block for long.
pub fn own_addresses(config: &ServerConfig) -> Result<Vec<SocketAddr>, RuntimeError> {
    let name = config.own().to_string();
    match config.listen {
        Some(listen) => Ok(vec![listen]),
        None => resolve_all(&name, config.ipv4())
            .map_err(|source| RuntimeError::Resolve { name, source }),
    }
}

/// Also returns the address that the socket is bound to.
pub fn bind(
    config: &ServerConfig,
    all: &[SocketAddr],
) -> Result<(SocketAddr, Socket), RuntimeError> {
    let name = config.own().to_string();
    // A name may resolve to several addresses, of which this machine has one.
    let mut bound = bind_to(config, &name, all[0]);
    for own in &all[1..] {
        bound = bound.or_else(|first| bind_to(config, &name, *own).map_err(|_| first));
    }
    let (own, mut socket) = bound?;
    let granted = socket.granted();
    if let Some(listed) = config.own().literal() {
        socket.announce(listed.ip());
    }
    let (receive, send) = (granted.receive_size >> 10, granted.send_size >> 10);
    tracing::info!("bound to {own}; kernel buffers: receive {receive} KiB, send {send} KiB");
    if let Some(warning) = granted.warning() {
        tracing::warn!("{warning}");
    }
    if !own.ip().is_loopback() {
        tracing::warn!(
            "{own} is not a loopback address: messages are not authenticated yet, so anyone who \
             can send to it can read and write all data; let only trusted machines reach it"
        );
    }
    Ok((own, socket))
}

fn bind_to(
    config: &ServerConfig,
    name: &str,
    own: SocketAddr,
) -> Result<(SocketAddr, Socket), RuntimeError> {
    let name = name.to_owned();
    let is_elsewhere =
        |node: &&NodeAddress| node.literal().is_some_and(|node| !node.ip().is_loopback());
    if let Some(other) = config.nodes.iter().find(is_elsewhere)
        && own.ip().is_loopback()
    {
        let other = other.to_string();
        return Err(RuntimeError::Loopback { name, own, other });
    }
    let bound = Socket::bind(own).and_then(|mut socket| {
        socket.raise_buffers()?;
        Ok((own, socket))
    });
    bound.map_err(|source| match config.listen {
        Some(listen) => RuntimeError::Listen { listen, source },
        None => RuntimeError::Bind { name, own, source },
    })
}
