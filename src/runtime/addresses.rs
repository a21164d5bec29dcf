//! Resolves the names of nodes to socket addresses, outside of the loop, and caches the results.
//! The results also determine from which addresses nodes may send.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use foldhash::fast::RandomState;
use kvclient::zone;
use tokio::sync::mpsc::UnboundedSender;

use super::Notice;
use super::log::WARNING_WAITS;
use crate::config::NodeAddress;
use crate::protocol::types::backoff::Backoff;

/// A resolved name is looked up again after this interval, since hosts move.
const REFRESH_INTERVAL_US: u64 = 30_000_000;
/// The interval after a failed lookup.
const RETRY_INTERVAL_US: u64 = 1_000_000;
/// The interval while nothing was received from the name's addresses for as long. It doubles with
/// each lookup.
const SILENT_US: u64 = 1_000_000;
/// The most times that the interval of a silent name doubles.
const SILENT_DOUBLINGS_MAX: u32 = 3;
/// How often silent nodes are checked for.
const LOOK_INTERVAL_US: u64 = 250_000;
/// The most names in the cache: those of the list, and as many that configurations may bring.
const NAMES_MAX: usize = 128;

/// The result of a lookup.
#[derive(Debug)]
pub struct Resolved {
    pub name: String,
    /// All addresses of the name in the requested family. Not empty.
    pub addresses: io::Result<Vec<SocketAddr>>,
}

#[derive(Debug, Default, Clone)]
struct Known {
    /// The address that this node sends to.
    address: Option<SocketAddr>,
    /// The addresses that the node may send from.
    all: Vec<SocketAddr>,
    /// A lookup is in progress.
    asked: bool,
    /// When to look the name up again; never for a numeric address.
    again_us: Option<u64>,
    /// When the name was last looked up, and when something was last sent to it.
    looked_up_us: u64,
    used_us: u64,
    /// How many times in a row it was looked up because of a silence.
    silences: u32,
    /// The last lookup failed: only the first failure in a row is logged.
    failing: bool,
}

/// The addresses of nodes, all in the socket's one family.
#[derive(Debug)]
pub struct AddressBook {
    /// Where this node's socket is bound.
    own: SocketAddr,
    listed: Vec<String>,
    known: HashMap<String, Known, RandomState>,
    notices: UnboundedSender<Notice>,
    /// The names of all nodes, from the list and the configuration.
    nodes: Vec<String>,
    /// The addresses from which these nodes may send, and when something last arrived from each.
    sources: HashMap<(IpAddr, u16), u64, RandomState>,
    strangers: Strangers,
    /// When silent nodes are checked for next.
    look_us: u64,
}

/// Senders of nodes' datagrams whose address is no known node's.
#[derive(Debug, Default)]
struct Strangers {
    backoff: Backoff,
    look_up_from_us: u64,
}

impl AddressBook {
    /// `own` is the address that this node's socket is bound to.
    pub fn new(own: SocketAddr, nodes: &[NodeAddress], notices: UnboundedSender<Notice>) -> Self {
        let mut book = AddressBook {
            own,
            listed: nodes.iter().map(NodeAddress::to_string).collect(),
            known: HashMap::default(),
            notices,
            nodes: Vec::new(),
            sources: HashMap::default(),
            strangers: Strangers::default(),
            look_us: 0,
        };
        book.set_nodes(book.listed.clone(), 0);
        book
    }

    /// Replaces the names that the configuration gives; those of the list stay.
    pub fn set_nodes(&mut self, names: Vec<String>, mono_us: u64) {
        self.nodes = self.listed.clone();
        self.nodes.extend(names);
        self.nodes.sort_unstable();
        self.nodes.dedup();
        for name in self.nodes.clone() {
            self.named(&name, mono_us);
        }
        self.find_sources();
    }

    fn find_sources(&mut self) {
        let known = self.nodes.iter().filter_map(|name| self.known.get(name));
        let all = known.flat_map(|known| &known.all);
        let before = std::mem::take(&mut self.sources);
        let heard_us = |at: &(IpAddr, u16)| before.get(at).copied().unwrap_or(0);
        let sources = all.map(|at| (at.ip(), at.port()));
        self.sources = sources.map(|at| (at, heard_us(&at))).collect();
    }

    /// Whether a node may send from that address; if so, records that one did now.
    pub fn is_nodes(&mut self, from: SocketAddr, mono_us: u64) -> bool {
        match self.sources.get_mut(&(from.ip(), from.port())) {
            Some(heard_us) => {
                *heard_us = mono_us;
                true
            }
            None => false,
        }
    }

    /// Looks up again the names of nodes to which this node sends and from which nothing arrives:
    /// they may have moved. Must be called often.
    pub fn find_silent(&mut self, mono_us: u64) {
        if mono_us < self.look_us {
            return;
        }
        self.look_us = mono_us + LOOK_INTERVAL_US;
        let sources = &self.sources;
        let lately = |at_us: u64| mono_us < at_us + SILENT_US;
        let is_heard = |at: &SocketAddr| {
            let heard_us = sources.get(&(at.ip(), at.port()));
            heard_us.is_some_and(|heard_us| lately(*heard_us))
        };
        let mut silent = Vec::new();
        for (name, known) in &mut self.known {
            if known.again_us.is_none() || known.asked || !lately(known.used_us) {
                continue;
            }
            if let Some(heard) = known.all.iter().find(|at| is_heard(at)) {
                known.silences = 0;
                // Of several addresses, one from which datagrams arrive is used.
                if !known.address.is_some_and(|at| is_heard(&at)) {
                    tracing::info!("{name} is at {heard}");
                    known.address = Some(*heard);
                }
            } else if mono_us >= known.looked_up_us + (SILENT_US << known.silences) {
                known.silences = (known.silences + 1).min(SILENT_DOUBLINGS_MAX);
                silent.push(name.clone());
            }
        }
        for name in silent {
            self.look_up(&name, mono_us);
        }
    }

    /// A node's datagram came from an address at which no node is known. Any name may have moved,
    /// so all are looked up again.
    pub fn heard_stranger(&mut self, from: SocketAddr, mono_us: u64) {
        let is_found = |name: &String| self.known.get(name).is_some_and(|k| !k.all.is_empty());
        let all_found = self.nodes.iter().all(is_found);
        let strangers = &mut self.strangers;
        // Before all names are found, the sender may be a node whose name is still being looked up;
        // failed lookups are logged where they fail.
        if all_found && strangers.backoff.is_due(mono_us, WARNING_WAITS) {
            tracing::warn!(
                "dropped a node's datagram from {from}: neither the node list nor the \
                 configuration has a node at that address; `horseshoe member add` adds one"
            );
        }
        if mono_us < strangers.look_up_from_us {
            return;
        }
        strangers.look_up_from_us = mono_us + RETRY_INTERVAL_US;
        let is_name = |name: &&String| name.parse::<SocketAddr>().is_err();
        let names: Vec<String> = self.nodes.iter().filter(is_name).cloned().collect();
        for name in names {
            self.look_up(&name, mono_us);
        }
    }

    /// The address of the node at this index of the list, if it is known yet.
    pub fn listed(&mut self, index: u8, mono_us: u64) -> Option<SocketAddr> {
        let Self { listed, known, .. } = self;
        let name = listed.get(usize::from(index))?;
        let (address, is_due) = match known.get_mut(name) {
            Some(known) => {
                known.used_us = mono_us;
                (known.address, known.is_due(mono_us))
            }
            None => (None, true),
        };
        if is_due {
            let name = name.clone();
            self.look_up(&name, mono_us);
        }
        address
    }

    /// The address of a name, if it is known yet; otherwise the name is looked up.
    pub fn named(&mut self, name: &str, mono_us: u64) -> Option<SocketAddr> {
        let is_known = self.known.get_mut(name).is_some_and(|known| {
            known.used_us = mono_us;
            !known.is_due(mono_us)
        });
        if !is_known {
            self.look_up(name, mono_us);
        }
        self.known.get(name).and_then(|known| known.address)
    }

    pub fn own(&self) -> SocketAddr {
        self.own
    }

    /// Whether this node has a loopback address and that listed node has one of another kind: that
    /// node is then on another machine, which cannot reach this node.
    pub fn is_cut_off_from(&self, name: &str) -> bool {
        let known = self.known.get(name).and_then(|known| known.address);
        let is_listed = self.listed.iter().any(|listed| listed == name);
        self.own.ip().is_loopback()
            && is_listed
            && known.is_some_and(|address| !address.ip().is_loopback())
    }

    fn look_up(&mut self, name: &str, mono_us: u64) {
        if !self.known.contains_key(name) && self.known.len() >= NAMES_MAX {
            let Self { nodes, known, .. } = self;
            known.retain(|name, _| nodes.contains(name));
        }
        let known = self.known.entry(name.to_owned()).or_default();
        if known.asked {
            return;
        }
        if let Ok(address) = name.parse::<SocketAddr>() {
            known.address = Some(address).filter(|address| address.is_ipv4() == self.own.is_ipv4());
            known.all = known.address.into_iter().collect();
            known.again_us = None;
            return;
        }
        known.again_us = Some(mono_us + RETRY_INTERVAL_US);
        known.looked_up_us = mono_us;
        let (name, ipv4, notices) = (name.to_owned(), self.own.is_ipv4(), self.notices.clone());
        let thread = std::thread::Builder::new().name("resolver".to_owned());
        let spawned = thread.spawn(move || {
            let addresses = resolve_all(&name, Some(ipv4));
            // The loop may have ended in the meantime.
            let _ = notices.send(Notice::Resolved(Resolved { name, addresses }));
        });
        known.asked = spawned.is_ok();
        if let Err(error) = spawned
            && !known.failing
        {
            known.failing = true;
            tracing::warn!(
                "the addresses of nodes can't be looked up, because no thread can be started: {error}"
            );
        }
    }

    /// Handles the result of a lookup.
    pub fn resolved(&mut self, resolved: Resolved, mono_us: u64) {
        let Resolved { name, addresses } = resolved;
        let known = self.known.entry(name.clone()).or_default();
        known.asked = false;
        match addresses {
            Ok(addresses) => {
                let address = known.choose(&addresses);
                if let Some(address) = address.filter(|address| known.address != Some(*address)) {
                    tracing::info!("{name} is at {address}");
                }
                known.address = address;
                known.all = addresses;
                known.failing = false;
                known.again_us = Some(mono_us + REFRESH_INTERVAL_US);
                self.find_sources();
            }
            Err(error) => {
                if !known.failing {
                    tracing::warn!("the address of {name} can't be found: {error}");
                }
                // The addresses known before may still be correct.
                known.failing = true;
                known.again_us = Some(mono_us + RETRY_INTERVAL_US);
            }
        }
    }
}

impl Known {
    /// Of several addresses the one in use stays; after a silence the next one is used.
    fn choose(&self, found: &[SocketAddr]) -> Option<SocketAddr> {
        let used = self
            .address
            .and_then(|at| found.iter().position(|f| *f == at));
        let place = match used {
            Some(place) if self.silences > 0 => (place + 1) % found.len(),
            Some(place) => place,
            None => 0,
        };
        found.get(place).copied()
    }

    fn is_due(&self, mono_us: u64) -> bool {
        !self.asked && self.again_us.is_some_and(|again_us| mono_us >= again_us)
    }
}

/// All addresses of a name, at least one; this may block. `ipv4` selects one family; without it,
/// IPv4 addresses come first.
pub fn resolve_all(name: &str, ipv4: Option<bool>) -> io::Result<Vec<SocketAddr>> {
    let mut all: Vec<SocketAddr> = match zone::resolve(name) {
        Some(zoned) => vec![zoned?],
        None => name.to_socket_addrs()?.collect(),
    };
    all.retain(|address| ipv4.is_none_or(|wanted| address.is_ipv4() == wanted));
    all.sort_by_key(|address| !address.is_ipv4());
    if all.is_empty() {
        let family = match ipv4 {
            Some(true) => "IPv4 ",
            Some(false) => "IPv6 ",
            None => "",
        };
        let error = format!("no {family}address");
        return Err(io::Error::new(io::ErrorKind::NotFound, error));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    fn book(own: &str, nodes: &[&str]) -> (AddressBook, UnboundedReceiver<Notice>) {
        let (sender, receiver) = unbounded_channel();
        let nodes: Vec<NodeAddress> = nodes.iter().map(|node| node.parse().unwrap()).collect();
        let book = AddressBook::new(own.parse().unwrap(), &nodes, sender);
        (book, receiver)
    }

    async fn answer(notices: &mut UnboundedReceiver<Notice>) -> Resolved {
        match notices.recv().await {
            Some(Notice::Resolved(resolved)) => resolved,
            other => panic!("an answer to a look-up, not {other:?}"),
        }
    }

    #[tokio::test]
    async fn numbers_are_known_at_once_and_names_when_they_were_looked_up() {
        let (mut book, mut notices) = book("127.0.0.1:7", &["127.0.0.1:7", "localhost:8"]);
        let own = "127.0.0.1:7".parse().unwrap();
        assert_eq!(book.listed(0, 1), Some(own));
        assert_eq!(book.listed(1, 1), None);
        assert_eq!(book.listed(2, 1), None);
        let resolved = answer(&mut notices).await;
        assert_eq!(resolved.name, "localhost:8");
        book.resolved(resolved, 1);
        assert_eq!(book.listed(1, 1), "127.0.0.1:8".parse().ok());
        assert_eq!(book.named("localhost:8", 1), "127.0.0.1:8".parse().ok());
    }

    #[tokio::test]
    async fn a_name_is_looked_up_again_and_what_was_known_outlives_a_failure() {
        let (mut book, mut notices) = book("127.0.0.1:7", &["localhost:8"]);
        let resolved = answer(&mut notices).await;
        book.resolved(resolved, 0);
        let known = book.listed(0, REFRESH_INTERVAL_US - 1);
        assert!(known.is_some() && notices.try_recv().is_err());
        assert_eq!(book.listed(0, REFRESH_INTERVAL_US), known);
        let mut resolved = answer(&mut notices).await;
        resolved.addresses = Err(io::ErrorKind::TimedOut.into());
        book.resolved(resolved, REFRESH_INTERVAL_US);
        assert_eq!(book.listed(0, REFRESH_INTERVAL_US), known);
        assert!(notices.try_recv().is_err());
    }

    #[tokio::test]
    async fn names_that_configurations_bring_are_bounded() {
        let (mut book, _notices) = book("127.0.0.1:7", &["127.0.0.1:7"]);
        for port in 1..=1_000 {
            let name = format!("127.0.0.1:{port}");
            assert_eq!(book.named(&name, 0), name.parse().ok());
        }
        assert!(book.known.len() <= NAMES_MAX);
    }

    #[tokio::test]
    async fn nodes_may_send_from_all_that_their_names_stand_for() {
        let (mut book, mut notices) = book("127.0.0.1:7", &["127.0.0.1:7", "localhost:8"]);
        let at = |address: &str| -> SocketAddr { address.parse().unwrap() };
        assert!(book.is_nodes(at("127.0.0.1:7"), 1) && !book.is_nodes(at("127.0.0.1:8"), 1));
        let mut resolved = answer(&mut notices).await;
        resolved.addresses = Ok(vec![at("10.0.0.1:8"), at("10.0.0.2:8")]);
        book.resolved(resolved, 1);
        assert!(book.is_nodes(at("10.0.0.1:8"), 1) && book.is_nodes(at("10.0.0.2:8"), 1));
        assert!(!book.is_nodes(at("10.0.0.1:9"), 1) && !book.is_nodes(at("10.0.0.3:8"), 1));

        // Names that a configuration gives are added, and removed when it no longer gives them; the
        // list stays.
        book.set_nodes(vec!["10.0.0.9:9".to_owned()], 2);
        assert!(book.is_nodes(at("10.0.0.9:9"), 1) && book.is_nodes(at("10.0.0.2:8"), 1));
        book.set_nodes(Vec::new(), 3);
        assert!(!book.is_nodes(at("10.0.0.9:9"), 1) && book.is_nodes(at("127.0.0.1:7"), 1));
    }

    #[tokio::test]
    async fn a_stranger_makes_names_be_looked_up_once_a_second() {
        let (mut book, mut notices) = book("127.0.0.1:7", &["127.0.0.1:7", "localhost:8"]);
        let mut resolved = answer(&mut notices).await;
        let (old, new) = ("10.0.0.1:8".parse().unwrap(), "10.0.0.2:8".parse().unwrap());
        resolved.addresses = Ok(vec![old]);
        book.resolved(resolved, 0);
        book.heard_stranger(new, 5_000_000);
        book.heard_stranger(new, 5_000_001);
        let mut resolved = answer(&mut notices).await;
        assert!(notices.try_recv().is_err());
        resolved.addresses = Ok(vec![new, "10.0.0.3:8".parse().unwrap()]);
        book.resolved(resolved, 5_000_002);
        assert!(book.is_nodes(new, 1) && !book.is_nodes(old, 1));
        assert_eq!(book.named("localhost:8", 5_000_003), Some(new));
        book.heard_stranger(old, 5_999_999);
        assert!(notices.try_recv().is_err());
        book.heard_stranger(old, 6_000_000);
        let mut resolved = answer(&mut notices).await;
        // If the order changes, the address in use stays.
        resolved.addresses = Ok(vec!["10.0.0.3:8".parse().unwrap(), new]);
        book.resolved(resolved, 6_000_001);
        assert_eq!(book.named("localhost:8", 6_000_002), Some(new));
    }

    #[tokio::test]
    async fn a_name_that_is_sent_to_and_not_heard_is_looked_up_ever_less_often() {
        let (mut book, mut notices) = book("127.0.0.1:7", &["127.0.0.1:7", "localhost:8"]);
        let at: SocketAddr = "10.0.0.1:8".parse().unwrap();
        let mut resolved = answer(&mut notices).await;
        resolved.addresses = Ok(vec![at]);
        book.resolved(resolved, 0);
        let mut asked_ms = Vec::new();
        for now_ms in 0..20_000 {
            let now_us = now_ms * 1_000;
            book.named("localhost:8", now_us);
            if now_ms < 2_000 {
                assert!(book.is_nodes(at, now_us));
            }
            book.find_silent(now_us);
            if book.known["localhost:8"].asked {
                asked_ms.push(now_ms);
                let mut resolved = answer(&mut notices).await;
                resolved.addresses = Ok(vec![at]);
                book.resolved(resolved, now_us);
            }
        }
        assert_eq!(asked_ms, [3_000, 5_000, 9_000, 17_000]);
        // Nothing is sent to the name any more, so it is not looked up.
        book.find_silent(40_000_000);
        assert!(!book.known["localhost:8"].asked);
    }

    #[tokio::test]
    async fn an_address_of_the_other_family_is_none() {
        let (mut book, _notices) = book("127.0.0.1:7", &["127.0.0.1:7"]);
        assert_eq!(book.named("[::1]:7", 0), None);
    }
}
