//! Parses the list of nodes: `host:port`, separated by commas or spaces.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use super::OpenError;
use crate::session::NODES_MAX;
use crate::zone;

/// A node from the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Given {
    pub name: String,
    /// The address, if the list has it in numeric form.
    pub literal: Option<SocketAddr>,
}

/// Returns each node once. Looks up no names.
pub(super) fn parse_all(nodes: &str) -> Result<Vec<Given>, OpenError> {
    let separators = |c: char| c == ',' || c.is_whitespace();
    let mut all: Vec<Given> = Vec::new();
    for name in nodes.split(separators).filter(|name| !name.is_empty()) {
        let given = parse(name)?;
        let is_same = |other: &Given| match given.literal {
            Some(_) => other.literal == given.literal,
            None => other.name == given.name,
        };
        if !all.iter().any(is_same) {
            all.push(given);
        }
    }
    if all.is_empty() {
        return Err(OpenError::NoNodes);
    }
    if all.len() > NODES_MAX {
        return Err(OpenError::TooManyNodes { limit: NODES_MAX });
    }
    Ok(all)
}

pub(super) fn parse(name: &str) -> Result<Given, OpenError> {
    let wrong = || OpenError::Address(name.into());
    // An interface that does not exist yet is looked up again later, as names are.
    let literal = match zone::resolve(name) {
        Some(zoned) => zoned.ok(),
        None => name.parse::<SocketAddr>().ok(),
    };
    let (host, port) = name.rsplit_once(':').ok_or_else(wrong)?;
    // No datagram can be sent to port 0.
    let port = port.parse::<u16>().ok().filter(|port| *port != 0);
    if port.is_none() || host.is_empty() {
        return Err(wrong());
    }
    let name = name.to_owned();
    Ok(Given { name, literal })
}

/// All addresses of a name. The call may block for a long time.
pub(super) fn resolve(name: &str) -> io::Result<Vec<SocketAddr>> {
    match zone::resolve(name) {
        Some(zoned) => Ok(vec![zoned?]),
        None => Ok(name.to_socket_addrs()?.collect()),
    }
}

/// Picks one of several addresses. If one is in use already, it was silent or belongs to another
/// node, and the next one is picked. Otherwise an IPv4 address is preferred, because most nodes
/// that listen on one family only listen on IPv4.
pub(super) fn pick(
    found: Vec<SocketAddr>,
    is_dual: bool,
    in_use: Option<SocketAddr>,
) -> io::Result<SocketAddr> {
    let all = found
        .into_iter()
        .filter(|address| is_dual || address.is_ipv4());
    let mut all: Vec<SocketAddr> = all.collect();
    all.sort_by_key(SocketAddr::is_ipv6);
    let all: Vec<SocketAddr> = all
        .into_iter()
        .map(|address| for_socket(address, is_dual))
        .collect();
    let used = in_use.and_then(|address| all.iter().position(|other| *other == address));
    let place = used.map_or(0, |place| (place + 1) % all.len());
    all.get(place).copied().ok_or_else(|| {
        let words = match is_dual {
            true => "it has no address",
            false => "it has no IPv4 address",
        };
        io::Error::new(io::ErrorKind::NotFound, words)
    })
}

/// Converts an IPv4 address to its form on a socket for both families.
pub(super) fn for_socket(address: SocketAddr, is_dual: bool) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if is_dual => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        _ => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(nodes: &str) -> Vec<String> {
        let all = parse_all(nodes).unwrap();
        all.into_iter().map(|given| given.name).collect()
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
        assert_eq!(names("n1:1 n2:1 n1:1"), ["n1:1", "n2:1"]);
        let mapped = for_socket("127.0.0.1:1".parse().unwrap(), true);
        assert_eq!(mapped.to_string(), "[::ffff:127.0.0.1]:1");
        assert!(mapped.ip().to_canonical().is_loopback());
    }

    #[test]
    fn what_is_no_address_is_named() {
        assert!(matches!(parse_all(" , "), Err(OpenError::NoNodes)));
        for name in [
            "host",
            "1.2.3.4",
            "1.2.3.4:x",
            "1.2.3.4:0",
            "1.2.3.4:99999",
            ":1",
        ] {
            let error = parse_all(&format!("127.0.0.1:1,{name}")).unwrap_err();
            assert!(
                matches!(&error, OpenError::Address(n) if n == name),
                "{error}"
            );
        }
        let many: Vec<String> = (1..=65).map(|port| format!("127.0.0.1:{port}")).collect();
        let error = parse_all(&many.join(",")).unwrap_err();
        assert!(
            matches!(error, OpenError::TooManyNodes { limit: 64 }),
            "{error}"
        );
    }

    #[test]
    fn of_several_addresses_each_has_its_turn() {
        let all = || {
            vec![
                "[::1]:1".parse().unwrap(),
                "10.0.0.1:1".parse().unwrap(),
                "10.0.0.2:1".parse().unwrap(),
            ]
        };
        let picked = |is_dual, in_use: Option<&str>| {
            let in_use = in_use.map(|address| address.parse().unwrap());
            pick(all(), is_dual, in_use).unwrap().to_string()
        };
        assert_eq!(picked(false, None), "10.0.0.1:1");
        assert_eq!(picked(true, None), "[::ffff:10.0.0.1]:1");
        assert_eq!(picked(false, Some("10.0.0.1:1")), "10.0.0.2:1");
        assert_eq!(picked(false, Some("10.0.0.2:1")), "10.0.0.1:1");
        assert_eq!(picked(true, Some("[::1]:1")), "[::ffff:10.0.0.1]:1");
        assert_eq!(picked(false, Some("10.0.0.9:1")), "10.0.0.1:1");
        assert!(pick(vec!["[::1]:1".parse().unwrap()], false, None).is_err());
    }
}
