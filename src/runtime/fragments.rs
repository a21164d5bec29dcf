//! Whether IP may cut the datagrams of a socket into fragments, which many networks drop.

use std::io;
use std::os::fd::AsFd;

use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover,
};

/// Datagrams are sent whole or not at all, whatever the network has reported of its paths: anyone
/// can forge such a report.
pub fn forbid(udp: impl AsFd) -> io::Result<()> {
    set(
        &udp,
        Ipv4PathMtuDiscovery::PROBE,
        Ipv6PathMtuDiscovery::PROBE,
    )
}

/// The system's default.
pub fn allow(udp: impl AsFd) -> io::Result<()> {
    set(&udp, Ipv4PathMtuDiscovery::WANT, Ipv6PathMtuDiscovery::WANT)
}

/// A socket of IPv6 also sends to addresses of IPv4. One of IPv4 has no option of IPv6.
fn set(udp: &impl AsFd, ipv4: Ipv4PathMtuDiscovery, ipv6: Ipv6PathMtuDiscovery) -> io::Result<()> {
    let of_ipv6 = set_ipv6_mtu_discover(udp, ipv6);
    let of_ipv4 = set_ip_mtu_discover(udp, ipv4);
    Ok(of_ipv4.or(of_ipv6)?)
}
