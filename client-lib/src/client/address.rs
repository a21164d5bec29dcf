//! The nodes as they are given: `host:port`, separated by commas or spaces.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use super::OpenError;
use crate::session::NODES_MAX;

/// Each node once, with its address as a socket for all of them has it.
pub(super) fn resolve_all(nodes: &str) -> Result<Vec<(String, SocketAddr)>, OpenError> {
    let separators = |c: char| c == ',' || c.is_whitespace();
    let mut resolved: Vec<(String, SocketAddr)> = Vec::new();
    for name in nodes.split(separators).filter(|name| !name.is_empty()) {
        let address = resolve(name)?;
        if resolved.iter().all(|(_, other)| *other != address) {
            resolved.push((name.to_owned(), address));
        }
    }
    if resolved.is_empty() {
        return Err(OpenError::NoNodes);
    }
    if resolved.len() > NODES_MAX {
        return Err(OpenError::TooManyNodes { limit: NODES_MAX });
    }
    if resolved.iter().any(|(_, address)| address.is_ipv6()) {
        for (_, address) in &mut resolved {
            *address = mapped(*address);
        }
    }
    Ok(resolved)
}

/// Of several addresses an IPv4 one: a node that listens on one family only mostly has that.
pub(super) fn resolve(name: &str) -> Result<SocketAddr, OpenError> {
    if !name.contains(':') {
        return Err(OpenError::Address(name.into()));
    }
    let found = name.to_socket_addrs().map_err(|error| match error.kind() {
        std::io::ErrorKind::InvalidInput => OpenError::Address(name.into()),
        _ => OpenError::Resolve(name.into(), error),
    })?;
    found
        .min_by_key(SocketAddr::is_ipv6)
        // Nobody can be sent anything at port 0.
        .filter(|address| address.port() != 0)
        .ok_or_else(|| OpenError::Address(name.into()))
}

/// An IPv4 address as a socket for both families has it.
fn mapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(nodes: &str) -> Vec<String> {
        let resolved = resolve_all(nodes).unwrap();
        resolved.into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn separators_and_families() {
        assert_eq!(
            names("127.0.0.1:1,127.0.0.1:2"),
            ["127.0.0.1:1", "127.0.0.1:2"]
        );
        assert_eq!(
            names(" 127.0.0.1:1 ,\t[::1]:2 ,"),
            ["127.0.0.1:1", "[::1]:2"]
        );
        assert_eq!(names("127.0.0.1:1 127.0.0.1:1"), ["127.0.0.1:1"]);
        let both = resolve_all("127.0.0.1:1 [::1]:2").unwrap();
        assert_eq!(both[0].1.to_string(), "[::ffff:127.0.0.1]:1");
        assert!(both[0].1.ip().to_canonical().is_loopback());
    }

    #[test]
    fn what_is_no_address_is_named() {
        assert!(matches!(resolve_all(" , "), Err(OpenError::NoNodes)));
        for name in ["host", "1.2.3.4", "1.2.3.4:x", "1.2.3.4:0", "1.2.3.4:99999"] {
            let error = resolve_all(&format!("127.0.0.1:1,{name}")).unwrap_err();
            assert!(
                matches!(&error, OpenError::Address(n) if n == name),
                "{error}"
            );
        }
        let many: Vec<String> = (1..=65).map(|port| format!("127.0.0.1:{port}")).collect();
        let error = resolve_all(&many.join(",")).unwrap_err();
        assert!(
            matches!(error, OpenError::TooManyNodes { limit: 64 }),
            "{error}"
        );
    }
}
