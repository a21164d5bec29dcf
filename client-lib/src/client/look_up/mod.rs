//! The addresses of the given nodes. Each name is looked up in its own thread, which ends with the
//! lookup: a name server that does not answer blocks its caller for ten seconds and more. No call
//! waits for such a thread beyond its own deadline, and `close` does not wait for it either.
//!
//! A child process after fork has no such thread, and does not use the client either.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, SigmaskHow, pthread_sigmask};

use super::OpenError;
use super::address::{self, Given};

/// A name is looked up again at the earliest this long after its last lookup began. The wait is
/// doubled each time, ...
const AGAIN_US_INITIAL: u64 = 1_000_000;
/// ... up to this.
const AGAIN_US_MAX: u64 = 8_000_000;
/// How often the client checks whether a name has to be looked up again.
const LOOK_INTERVAL_US: u64 = 50_000;
/// Once one address is known, the client waits at most this long for the other lookups. So with a
/// name server that works, all addresses are known from the start.
const GRACE: Duration = Duration::from_millis(100);

/// Returns the addresses of a name; the call may take long.
pub(super) type Resolver = Arc<dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync>;

struct LookUpAnswer {
    name: String,
    result: io::Result<Vec<SocketAddr>>,
}

#[derive(Debug)]
struct Name {
    name: String,
    /// In the form that the socket uses; `None` until it is known.
    address: Option<SocketAddr>,
    is_literal: bool,
    /// A lookup is in progress.
    asked: bool,
    /// The earliest time of the next lookup.
    due_us: u64,
    again_us: u64,
    /// Another name has the same address: one of the two nodes has moved.
    contested: bool,
    /// The error of the last lookup, if it failed.
    error: Option<String>,
}

/// The given nodes by index, and the lookups in progress.
pub(super) struct LookUps {
    names: Vec<Name>,
    /// The socket is for both families; otherwise for IPv4 only.
    is_dual: bool,
    resolver: Resolver,
    sender: Sender<LookUpAnswer>,
    answers: Receiver<LookUpAnswer>,
    under_way: usize,
    has_names: bool,
    look_us: u64,
    /// Duplicates were removed. If two names have one address later, one of the two nodes has
    /// moved.
    is_open: bool,
}

impl std::fmt::Debug for LookUps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LookUps")
            .field("names", &self.names)
            .field("under_way", &self.under_way)
            .finish_non_exhaustive()
    }
}

impl LookUps {
    /// `is_dual`: the socket is for both families.
    pub fn new(given: Vec<Given>, is_dual: bool, resolver: Resolver) -> Self {
        let (sender, answers) = channel();
        let name = |Given { name, literal }| {
            let reached = literal.filter(|address| is_dual || address.is_ipv4());
            let is_beyond = literal.is_some() && reached.is_none();
            Name {
                name,
                address: reached.map(|address| address::for_socket(address, is_dual)),
                is_literal: literal.is_some(),
                asked: false,
                due_us: 0,
                again_us: AGAIN_US_INITIAL,
                contested: false,
                error: is_beyond.then(|| "this machine has no IPv6".to_owned()),
            }
        };
        let names: Vec<Name> = given.into_iter().map(name).collect();
        LookUps {
            has_names: names.iter().any(|name| !name.is_literal),
            names,
            is_dual,
            resolver,
            sender,
            answers,
            under_way: 0,
            look_us: 0,
            is_open: false,
        }
    }

    /// Looks up all names, and waits until all are known, or some are known and the grace period
    /// has passed. Returns an error if no name is known in time. Names with the same address as an
    /// earlier one are removed.
    pub fn first(&mut self, timeout: Duration) -> Result<(), OpenError> {
        for place in 0..self.names.len() {
            self.ask(0, place);
        }
        let mut deadline = Instant::now().checked_add(timeout);
        let mut is_known = false;
        while self.under_way > 0 {
            if !is_known && self.names.iter().any(|name| name.address.is_some()) {
                is_known = true;
                let grace = Instant::now() + GRACE;
                deadline = Some(deadline.map_or(grace, |deadline| deadline.min(grace)));
            }
            let left = deadline.map_or(Duration::MAX, |at| {
                at.saturating_duration_since(Instant::now())
            });
            let Ok(answer) = self.answers.recv_timeout(left) else {
                break;
            };
            self.take(answer);
        }
        if self.names.iter().any(|name| name.address.is_some()) {
            self.leave_out_doubles();
            return Ok(());
        }
        let name = &self.names[0];
        let error = name.error.clone().unwrap_or_else(|| no_answer(timeout));
        Err(OpenError::Resolve(
            name.name.clone(),
            io::Error::other(error),
        ))
    }

    fn leave_out_doubles(&mut self) {
        self.is_open = true;
        let mut seen: Vec<SocketAddr> = Vec::new();
        self.names.retain(|name| match name.address {
            Some(address) if seen.contains(&address) => false,
            Some(address) => {
                seen.push(address);
                true
            }
            None => true,
        });
    }

    pub fn names(&self) -> Vec<String> {
        self.names.iter().map(|name| name.name.clone()).collect()
    }

    pub fn addresses(&self) -> Vec<Option<SocketAddr>> {
        self.names.iter().map(|name| name.address).collect()
    }

    /// Names without an address, and the reason.
    pub fn unresolved(&self) -> Vec<(String, String)> {
        let unknown = self.names.iter().filter(|name| name.address.is_none());
        let why = |name: &Name| match (&name.error, name.asked) {
            (Some(error), _) => error.clone(),
            (None, true) => "the name server has not answered yet".to_owned(),
            (None, false) => "not looked up yet".to_owned(),
        };
        unknown.map(|name| (name.name.clone(), why(name))).collect()
    }

    /// Takes the results of lookups; returns a node that has a new address.
    pub fn poll_moved(&mut self) -> Option<(usize, SocketAddr)> {
        while self.under_way > 0 {
            let answer = self.answers.try_recv().ok()?;
            let moved = self.take(answer);
            if moved.is_some() {
                return moved;
            }
        }
        None
    }

    /// Whether it is time to check which names have to be looked up again.
    pub fn is_due(&mut self, now_us: u64) -> bool {
        if !self.has_names || now_us < self.look_us {
            return false;
        }
        self.look_us = now_us + LOOK_INTERVAL_US;
        true
    }

    /// Looks up a name again, unless that was done recently. `seems_moved`: the node's last address
    /// is silent. If it is false, the wait is reset, so that the next silence causes an immediate
    /// lookup.
    pub fn again(&mut self, now_us: u64, place: usize, seems_moved: bool) {
        let Some(name) = self.names.get_mut(place) else {
            return;
        };
        let is_wanted = seems_moved || name.contested || name.address.is_none();
        if is_wanted && now_us >= name.due_us {
            self.ask(now_us, place);
        } else if !is_wanted {
            name.again_us = AGAIN_US_INITIAL;
            name.due_us = name.due_us.min(now_us + AGAIN_US_INITIAL);
        }
    }

    fn ask(&mut self, now_us: u64, place: usize) {
        let name = &mut self.names[place];
        if name.is_literal || name.asked {
            return;
        }
        name.due_us = now_us + name.again_us;
        name.again_us = (2 * name.again_us).min(AGAIN_US_MAX);
        match spawn(name.name.clone(), &self.resolver, self.sender.clone()) {
            Ok(()) => {
                name.asked = true;
                self.under_way += 1;
            }
            Err(error) => name.error = Some(format!("no thread for the look-up: {error}")),
        }
    }

    fn take(&mut self, answer: LookUpAnswer) -> Option<(usize, SocketAddr)> {
        self.under_way -= 1;
        let is_it = |name: &Name| name.name == answer.name;
        // A missing name was removed, because it has the address of another name.
        let place = self.names.iter().position(is_it)?;
        let name = &mut self.names[place];
        (name.asked, name.contested) = (false, false);
        let found = answer
            .result
            .and_then(|found| address::pick(found, self.is_dual, name.address));
        let address = match found {
            Ok(address) => address,
            Err(error) => {
                // The earlier address may still be correct.
                name.error = Some(error.to_string());
                return None;
            }
        };
        name.error = None;
        if name.address == Some(address) {
            return None;
        }
        let is_open = self.is_open;
        let is_there = |name: &Name| is_open && name.address == Some(address);
        if let Some(other) = self.names.iter_mut().find(|name| is_there(name)) {
            other.contested = true;
            return None;
        }
        self.names[place].address = Some(address);
        Some((place, address))
    }
}

/// The addresses of one name, if they are known within `timeout`.
pub(super) fn look_up(name: &str, timeout: Duration) -> Result<Vec<SocketAddr>, OpenError> {
    let given = address::parse(name)?;
    if let Some(literal) = given.literal {
        return Ok(vec![literal]);
    }
    let (sender, answers) = channel();
    spawn(given.name, &system(), sender)
        .and_then(|()| match answers.recv_timeout(timeout) {
            Ok(answer) => answer.result,
            Err(_) => Err(io::Error::other(no_answer(timeout))),
        })
        .map_err(|error| OpenError::Resolve(name.to_owned(), error))
}

fn no_answer(timeout: Duration) -> String {
    format!("the name server did not answer within {timeout:?}")
}

pub(super) fn system() -> Resolver {
    Arc::new(address::resolve)
}

/// This thread must not handle the program's signals.
fn spawn(name: String, resolver: &Resolver, sender: Sender<LookUpAnswer>) -> io::Result<()> {
    let resolver = Arc::clone(resolver);
    let look_up = move || {
        let result = resolver(&name);
        // The client may have been freed.
        let _ = sender.send(LookUpAnswer { name, result });
    };
    let mut former = SigSet::empty();
    let (all, set) = (SigSet::all(), SigmaskHow::SIG_SETMASK);
    pthread_sigmask(set, Some(&all), Some(&mut former))?;
    let spawned = std::thread::Builder::new()
        .name("kvc-look-up".to_owned())
        .spawn(look_up);
    pthread_sigmask(set, Some(&former), None)?;
    spawned.map(drop)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
