//! Link-local IPv6 addresses with the name of an interface, `[fe80::1%eth0]:8801`: the standard
//! library accepts only numeric interfaces there, and name servers do not know them.

use std::io;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};

use nix::net::if_::if_nametoindex;

/// The address and the zone of `[fe80::1%eth0]`; `None` for any other text.
pub fn split(host: &str) -> Option<(Ipv6Addr, &str)> {
    let inner = host.strip_prefix('[')?.strip_suffix(']')?;
    let (ip, zone) = inner.split_once('%')?;
    let is_plain = |c: char| c.is_ascii_graphic() && !"[]%/,".contains(c);
    let ip: Ipv6Addr = ip.parse().ok()?;
    // The kernel limits the names of interfaces to 15 bytes.
    let is_zone = (1..=15).contains(&zone.len()) && zone.chars().all(is_plain);
    (is_zone && ip.is_unicast_link_local()).then_some((ip, zone))
}

/// The socket address of `[fe80::1%eth0]:8801`; `None` for any other text. An error if this machine
/// has no such interface.
pub fn resolve(name: &str) -> Option<io::Result<SocketAddr>> {
    let (host, port) = name.rsplit_once(':')?;
    let (ip, zone) = split(host)?;
    let port: u16 = port.parse().ok()?;
    let number = match zone.parse::<u32>() {
        Ok(number) => Ok(number),
        Err(_) => if_nametoindex(zone).map_err(|_| {
            let error = format!("this machine has no interface {zone}");
            io::Error::new(io::ErrorKind::NotFound, error)
        }),
    };
    Some(number.map(|number| SocketAddrV6::new(ip, port, 0, number).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_found_by_name_and_number() {
        let index = if_nametoindex("lo").expect("every machine has it");
        let by_number = format!("[fe80::1%{index}]:8801");
        for name in ["[fe80::1%lo]:8801", &by_number] {
            let Some(Ok(SocketAddr::V6(address))) = resolve(name) else {
                panic!("{name}");
            };
            assert_eq!((address.port(), address.scope_id()), (8801, index));
            assert_eq!(address.ip().to_string(), "fe80::1");
        }
        let none = resolve("[fe80::1%no-such-one]:8801").expect("an address");
        assert!(none.unwrap_err().to_string().contains("no-such-one"));
    }

    #[test]
    fn other_addresses_are_not_for_here() {
        for name in [
            "n1:8801",
            "[fe80::1]:8801",
            "[fe80::1%]:8801",
            "[fe80::1%lo]",
            "[fe80::1%lo]:x",
            "[2001:db8::1%lo]:8801",
            "[fe80::1%a/b]:8801",
            "[fe80::1%a-name-that-is-too-long]:8801",
            "fe80::1%lo:8801",
        ] {
            assert!(resolve(name).is_none(), "{name}");
        }
    }
}
