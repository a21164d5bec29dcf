//! The forms of an address: in the list of nodes, and where a node listens.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use super::ConfigError;
use crate::protocol::types::limits::ADDRESS_SIZE_MAX;

/// An entry of the list of nodes: `name:port`, `192.0.2.1:port` or `[2001:db8::1]:port`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NodeAddress {
    pub host: Host,
    pub port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    Ip(IpAddr),
    /// A link-local address, with its interface, by name or number.
    Zoned(Ipv6Addr, String),
    /// In lower case.
    Name(String),
}

impl NodeAddress {
    /// Whether it can only be a loopback address.
    pub(super) fn is_loopback(&self) -> bool {
        match &self.host {
            Host::Ip(ip) => ip.is_loopback(),
            Host::Zoned(..) => false,
            // RFC 6761.
            Host::Name(name) => {
                let name = name.strip_suffix('.').unwrap_or(name);
                name == "localhost" || name.ends_with(".localhost")
            }
        }
    }

    /// The socket address, if it is numeric.
    pub fn literal(&self) -> Option<SocketAddr> {
        match self.host {
            Host::Ip(ip) => Some(SocketAddr::new(ip, self.port)),
            Host::Zoned(..) | Host::Name(_) => None,
        }
    }

    /// Whether it is an IPv4 address, if that can be determined without a lookup.
    pub(super) fn ipv4(&self) -> Option<bool> {
        match &self.host {
            Host::Ip(ip) => Some(ip.is_ipv4()),
            Host::Zoned(..) => Some(false),
            Host::Name(_) => None,
        }
    }
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]:{}", self.port),
            Host::Ip(IpAddr::V4(ip)) => write!(f, "{ip}:{}", self.port),
            Host::Zoned(ip, zone) => write!(f, "[{ip}%{zone}]:{}", self.port),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

impl FromStr for NodeAddress {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        parse_address(text).map_err(|reason| ConfigError::Address {
            address: text.to_owned(),
            reason,
        })
    }
}

/// `port` is the default port.
pub(super) fn parse_listen(text: &str, port: u16) -> Result<SocketAddr, ConfigError> {
    parse_own(text, port).ok_or_else(|| ConfigError::Listen(text.to_owned()))
}

/// `port` is the default port.
pub(super) fn parse_http(text: &str, port: u16) -> Result<SocketAddr, ConfigError> {
    parse_own(text, port).ok_or_else(|| ConfigError::Http(text.to_owned()))
}

/// Parses a numeric address at which a socket can be bound.
fn parse_own(text: &str, port: u16) -> Option<SocketAddr> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    let address = match bare.unwrap_or(text).parse::<IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, port),
        Err(_) => text.parse().ok()?,
    };
    let is_one = !address.ip().is_multicast() && address.ip() != Ipv4Addr::BROADCAST;
    Some(address).filter(|address| is_one && address.port() > 0)
}

pub(super) fn check_listen(
    listen: Option<SocketAddr>,
    nodes: &[NodeAddress],
) -> Result<(), ConfigError> {
    let Some(listen) = listen else {
        return Ok(());
    };
    let is_other = |node: &&NodeAddress| {
        let ipv4 = node.ipv4();
        ipv4.is_some_and(|ipv4| ipv4 != listen.is_ipv4())
    };
    match nodes.iter().find(is_other) {
        Some(listed) => Err(ConfigError::ListenFamily {
            listen,
            listed: listed.clone(),
        }),
        None => Ok(()),
    }
}

fn parse_address(text: &str) -> Result<NodeAddress, &'static str> {
    if text.len() > ADDRESS_SIZE_MAX {
        return Err("it is too long");
    }
    let (host, port) = text
        .rsplit_once(':')
        .ok_or("it has no port; write HOST:PORT")?;
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    let port = match port.parse::<u16>() {
        Ok(port) if digits && port > 0 => port,
        _ => return Err("the port is not a number from 1 to 65535"),
    };
    let ip = parse_host(host)?;
    if let Host::Ip(ip) = &ip {
        let broadcast = *ip == IpAddr::V4(Ipv4Addr::BROADCAST);
        if ip.is_unspecified() || ip.is_multicast() || broadcast {
            return Err("it is not the address of a single node");
        }
    }
    Ok(NodeAddress { host: ip, port })
}

fn parse_host(host: &str) -> Result<Host, &'static str> {
    if let Some((ip, zone)) = kvclient::zone::split(host) {
        return Ok(Host::Zoned(ip, zone.to_owned()));
    }
    if let Some(inner) = host.strip_prefix('[') {
        let inner = inner.strip_suffix(']').ok_or("a bracket is not closed")?;
        return match inner.parse::<Ipv6Addr>() {
            Ok(ip) => Ok(Host::Ip(IpAddr::V6(ip))),
            Err(_) => {
                Err("the brackets do not contain an IPv6 address, or a link-local one with a zone")
            }
        };
    }
    if host.contains(':') {
        return Err("an IPv6 address is written in brackets: [2001:db8::1]:7000");
    }
    if let Ok(ip) = host.parse::<Ipv4Addr>() {
        return Ok(Host::Ip(IpAddr::V4(ip)));
    }
    if host.is_empty() {
        return Err("it has no host");
    }
    if host.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Err("it is not an IPv4 address");
    }
    let label = |label: &str| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        (1..=63).contains(&label.len())
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let name = host.strip_suffix('.').unwrap_or(host);
    if name.len() > 253 || !name.split('.').all(label) {
        return Err("the host is not a valid DNS name");
    }
    Ok(Host::Name(name.to_ascii_lowercase()))
}
