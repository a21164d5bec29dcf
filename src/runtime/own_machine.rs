//! Which datagrams this machine has sent itself.

use std::net::IpAddr;

/// Whether a datagram from `from` to `at` was sent by this machine: from a loopback address, or
/// from the same address that it was sent to, which the system chooses for traffic within the
/// machine. A datagram to a group of hosts (multicast) never counts.
///
/// Can another machine forge that? Linux drops what comes from the network with a source in
/// 127.0.0.0/8 or ::1, or with an IPv4 source that is an address of this machine (a "martian",
/// whatever `rp_filter` says), unless `route_localnet` or `accept_local` is set for the interface.
/// An IPv6 source that is this machine's own is not dropped. But nothing is done without the token
/// of a session (X4), 64 random bits, and that is sent to the source's address: to this machine,
/// not to the forger.
pub fn is_own_machine(from: IpAddr, at: IpAddr) -> bool {
    let (from, at) = (from.to_canonical(), at.to_canonical());
    let is_one = !at.is_multicast();
    is_one && (from.is_loopback() || from == at && !at.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_of_this_machine_if_it_is_loopback_or_what_was_asked() {
        for (from, at, expected) in [
            ("127.0.0.1", "10.0.0.1", true),
            ("127.9.9.9", "127.0.0.1", true),
            ("::1", "::1", true),
            ("::ffff:127.0.0.1", "::", true),
            ("10.0.0.1", "10.0.0.1", true),
            ("::ffff:10.0.0.1", "10.0.0.1", true),
            ("fe80::1", "fe80::1", true),
            ("10.0.0.2", "10.0.0.1", false),
            ("10.0.0.1", "0.0.0.0", false),
            ("fe80::2", "fe80::1", false),
            ("::1", "ff02::1", false),
            ("ff02::1", "ff02::1", false),
            ("127.0.0.1", "224.0.0.1", false),
            ("0.0.0.0", "0.0.0.0", false),
            ("::", "::", false),
        ] {
            let [from_ip, at_ip] = [from, at].map(|ip| ip.parse().unwrap());
            assert_eq!(is_own_machine(from_ip, at_ip), expected, "{from} to {at}");
        }
    }
}
