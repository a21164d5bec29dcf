//! Records which of this machine's addresses each remote one sent to, where the socket is bound to
//! all of them: an answer from another address reaches no client behind a connected socket, an
//! address translator or a firewall.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use foldhash::fast::RandomState;

/// The most remote addresses that are remembered is twice this; those received from last are among
/// them.
pub const REMOTES_MAX: usize = 8_192;

/// The IP address, the zone of a link-local one, and the port.
type Remote = (IpAddr, u32, u16);
type Remotes = HashMap<Remote, IpAddr, RandomState>;

#[derive(Debug, Default)]
pub struct AnsweringAddresses {
    young: Remotes,
    old: Remotes,
    /// The source for all other remote addresses: the announced address, from which other nodes
    /// expect datagrams, if it is one of this machine's.
    usual: Option<IpAddr>,
}

impl AnsweringAddresses {
    pub fn set_usual(&mut self, usual: Option<IpAddr>) {
        self.usual = usual;
    }

    /// Records that a datagram from `from` was sent to `at`, unless nothing can be sent from there.
    pub fn note(&mut self, from: SocketAddr, at: IpAddr) {
        let (remote, at) = (key(from), at.to_canonical());
        if at.is_multicast() || at.is_unspecified() {
            return;
        }
        if self.young.get(&remote) == Some(&at) {
            return;
        }
        if self.young.len() >= REMOTES_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(remote, at);
    }

    /// The address to send from; `None`: the system chooses.
    pub fn source(&self, to: SocketAddr) -> Option<IpAddr> {
        let remote = key(to);
        let noted = self.young.get(&remote).or_else(|| self.old.get(&remote));
        let source = noted.copied().or(self.usual)?;
        Some(source).filter(|source| source.is_ipv4() == remote.0.is_ipv4())
    }

    /// Discards an address that this machine no longer has.
    pub fn forget(&mut self, gone: IpAddr) {
        self.usual = self.usual.filter(|usual| *usual != gone);
        for remotes in [&mut self.young, &mut self.old] {
            remotes.retain(|_, at| *at != gone);
        }
    }
}

/// A socket of both families reports IPv4 addresses as IPv6 ones; answers go to the IPv4 ones.
fn key(remote: SocketAddr) -> Remote {
    let zone = match remote {
        SocketAddr::V4(_) => 0,
        SocketAddr::V6(at) => at.scope_id(),
    };
    (remote.ip().to_canonical(), zone, remote.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(number: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], number))
    }

    #[test]
    fn a_client_of_ipv4_is_known_behind_a_socket_of_both_families() {
        let mapped: SocketAddr = "[::ffff:10.0.0.1]:7".parse().unwrap();
        let [asked_at, plain] = ["::ffff:10.0.0.9", "10.0.0.9"].map(|ip| ip.parse().unwrap());
        let mut asked = AnsweringAddresses::default();
        asked.note(mapped, asked_at);
        assert_eq!(asked.source(at(7)), Some(plain));
    }

    #[test]
    fn the_address_that_was_asked_last_answers() {
        let [one, two, six] = ["10.0.0.8", "10.0.0.9", "fe80::1"].map(|ip| ip.parse().unwrap());
        let mut asked = AnsweringAddresses::default();
        assert_eq!(asked.source(at(1)), None);
        asked.set_usual(Some(one));
        assert_eq!(asked.source(at(1)), Some(one));
        asked.note(at(1), two);
        assert_eq!(asked.source(at(1)), Some(two));
        assert_eq!(asked.source(at(2)), Some(one));
        assert_eq!(asked.source("[fe80::2]:1".parse().unwrap()), None);
        asked.note(at(1), six);
        assert_eq!(asked.source(at(1)), None, "no source of the other family");
        asked.note(at(1), two);
        asked.forget(two);
        assert_eq!(asked.source(at(1)), Some(one));
        asked.forget(one);
        assert_eq!(asked.source(at(1)), None);
    }

    #[test]
    fn no_group_of_hosts_answers() {
        let all = ["224.0.0.1", "::ffff:224.0.0.1", "0.0.0.0", "ff02::1", "::"];
        let mut asked = AnsweringAddresses::default();
        let six: SocketAddr = "[fe80::2]:1".parse().unwrap();
        for group in all.map(|ip| ip.parse().unwrap()) {
            asked.note(at(1), group);
            asked.note(six, group);
            assert_eq!((asked.source(at(1)), asked.source(six)), (None, None));
        }
    }

    #[test]
    fn many_remotes_take_bounded_room_and_those_of_late_stay() {
        let mut asked = AnsweringAddresses::default();
        let here = "10.0.0.8".parse().unwrap();
        for number in 0..u16::MAX {
            asked.note(at(number), here);
            assert!(asked.young.len() + asked.old.len() <= 2 * REMOTES_MAX);
        }
        let late = u16::MAX - REMOTES_MAX as u16;
        assert!((late..u16::MAX).all(|number| asked.source(at(number)) == Some(here)));
        assert_eq!(asked.source(at(0)), None);
    }
}
