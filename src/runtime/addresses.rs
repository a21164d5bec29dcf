//! Where nodes are: names to socket addresses, looked up off the loop and kept.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

use foldhash::fast::RandomState;
use tokio::sync::mpsc::UnboundedSender;

use super::Notice;
use crate::config::NodeAddress;

/// A name is looked up again this long after an answer, since hosts move, ...
const REFRESH_INTERVAL_US: u64 = 30_000_000;
/// ... and this long after a failure.
const RETRY_INTERVAL_US: u64 = 1_000_000;
/// Names that are kept: those listed, and as many that configurations may bring.
const NAMES_MAX: usize = 64;

/// What a look-up came to.
#[derive(Debug)]
pub struct Resolved {
    pub name: String,
    pub address: io::Result<SocketAddr>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Known {
    address: Option<SocketAddr>,
    /// A look-up is under way.
    asked: bool,
    /// When to look it up again; never for an address in numbers.
    again_us: Option<u64>,
    /// Failures are logged once in a row.
    failing: bool,
}

/// The addresses of nodes, of the one family that the socket has.
#[derive(Debug)]
pub struct AddressBook {
    /// Where the socket is bound.
    own: SocketAddr,
    listed: Vec<String>,
    known: HashMap<String, Known, RandomState>,
    notices: UnboundedSender<Notice>,
}

impl AddressBook {
    /// `own` is where the socket is bound.
    pub fn new(own: SocketAddr, nodes: &[NodeAddress], notices: UnboundedSender<Notice>) -> Self {
        let mut book = AddressBook {
            own,
            listed: nodes.iter().map(NodeAddress::to_string).collect(),
            known: HashMap::default(),
            notices,
        };
        for name in book.listed.clone() {
            book.look_up(&name, 0);
        }
        book
    }

    /// The address of the node at this place of the list, if it is known by now.
    pub fn listed(&mut self, index: u8, mono_us: u64) -> Option<SocketAddr> {
        let Self { listed, known, .. } = self;
        let name = listed.get(usize::from(index))?;
        let found = known.get(name).copied().unwrap_or_default();
        if found.is_due(mono_us) {
            let name = name.clone();
            self.look_up(&name, mono_us);
        }
        found.address
    }

    /// The address of a name, if it is known by now; else it is looked up.
    pub fn named(&mut self, name: &str, mono_us: u64) -> Option<SocketAddr> {
        match self.known.get(name) {
            Some(known) if !known.is_due(mono_us) => known.address,
            _ => {
                self.look_up(name, mono_us);
                self.known.get(name).and_then(|known| known.address)
            }
        }
    }

    pub fn own(&self) -> SocketAddr {
        self.own
    }

    /// Whether this node has a loopback address and the named listed node has another kind: then it
    /// is on another machine, which cannot reach this node.
    pub fn is_cut_off_from(&self, name: &str) -> bool {
        let known = self.known.get(name).and_then(|known| known.address);
        let is_listed = self.listed.iter().any(|listed| listed == name);
        self.own.ip().is_loopback()
            && is_listed
            && known.is_some_and(|address| !address.ip().is_loopback())
    }

    fn look_up(&mut self, name: &str, mono_us: u64) {
        if !self.known.contains_key(name) && self.known.len() >= NAMES_MAX {
            self.known.retain(|name, _| self.listed.contains(name));
        }
        let known = self.known.entry(name.to_owned()).or_default();
        if known.asked {
            return;
        }
        if let Ok(address) = name.parse::<SocketAddr>() {
            known.address = Some(address).filter(|address| address.is_ipv4() == self.own.is_ipv4());
            known.again_us = None;
            return;
        }
        known.again_us = Some(mono_us + RETRY_INTERVAL_US);
        let (name, ipv4, notices) = (name.to_owned(), self.own.is_ipv4(), self.notices.clone());
        let thread = std::thread::Builder::new().name("resolver".to_owned());
        let spawned = thread.spawn(move || {
            let address = resolve(&name, Some(ipv4));
            // The loop may have ended meanwhile.
            let _ = notices.send(Notice::Resolved(Resolved { name, address }));
        });
        known.asked = spawned.is_ok();
    }

    /// Takes the answer to a look-up.
    pub fn resolved(&mut self, resolved: Resolved, mono_us: u64) {
        let Resolved { name, address } = resolved;
        let known = self.known.entry(name.clone()).or_default();
        known.asked = false;
        match address {
            Ok(address) => {
                if known.address != Some(address) {
                    tracing::info!("{name} is at {address}");
                }
                known.address = Some(address);
                known.failing = false;
                known.again_us = Some(mono_us + REFRESH_INTERVAL_US);
            }
            Err(error) => {
                if !known.failing {
                    tracing::warn!("the address of {name} can't be found: {error}");
                }
                // What was known before may still be right.
                known.failing = true;
                known.again_us = Some(mono_us + RETRY_INTERVAL_US);
            }
        }
    }
}

impl Known {
    fn is_due(&self, mono_us: u64) -> bool {
        !self.asked && self.again_us.is_some_and(|again_us| mono_us >= again_us)
    }
}

/// Looks a name up, which may block. `ipv4` asks for one family; otherwise IPv4 goes first.
pub fn resolve(name: &str, ipv4: Option<bool>) -> io::Result<SocketAddr> {
    let all: Vec<SocketAddr> = name.to_socket_addrs()?.collect();
    let of = |wanted: bool| all.iter().find(|address| address.is_ipv4() == wanted);
    let found = match ipv4 {
        Some(wanted) => of(wanted),
        None => of(true).or_else(|| of(false)),
    };
    found.copied().ok_or_else(|| {
        let family = match ipv4 {
            Some(true) => "IPv4 ",
            Some(false) => "IPv6 ",
            None => "",
        };
        io::Error::new(io::ErrorKind::NotFound, format!("no {family}address"))
    })
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
        resolved.address = Err(io::ErrorKind::TimedOut.into());
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
    async fn an_address_of_the_other_family_is_none() {
        let (mut book, _notices) = book("127.0.0.1:7", &["127.0.0.1:7"]);
        assert_eq!(book.named("[::1]:7", 0), None);
    }
}
