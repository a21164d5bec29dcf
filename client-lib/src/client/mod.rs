//! A client of a cluster: a session with a UDP socket and a clock.
//!
//! Synchronous calls do their own I/O on the caller's thread: of several threads one waits on the
//! socket at a time, and completes the others' calls too. The asynchronous form leaves the loop to
//! the application: `submit`, wait for `poll_fd` to be readable, `completions`. No thread is
//! started but for looking a name up; nothing is printed, and signals do no harm.

mod address;
mod inner;
mod look_up;
mod wake;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn6, bind, setsockopt, socket, sockopt,
};

use crate::session::{
    Call, CallError, Completion, DEADLINE_US_DEFAULT, NO_QUORUM_AFTER_US_DEFAULT, Question,
    Session, SessionCounters, SessionOptions, Told,
};
use address::Given;
use inner::{Inner, Owner};
use look_up::{LookUps, Resolver};
use wake::Wake;
use wire::{Change, ChangeOutcome, NodeStatus, Outcome};

const SOCKET_BUFFER_SIZE: usize = 4 << 20;

#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// How long a call waits at most, unless it says otherwise.
    pub deadline: Duration,
    /// How long every node must have said `no quorum`, or not answered, before that is reported.
    pub no_quorum_after: Duration,
    /// The cluster to use, as `status` shows it. 0: the one that more than half of the given nodes belong
    /// to, or, after a wait, all that answered; if that is not one, calls end with an error. A client never
    /// changes to another cluster.
    pub cluster: u64,
}

impl Default for ClientOptions {
    fn default() -> Self {
        ClientOptions {
            deadline: Duration::from_micros(DEADLINE_US_DEFAULT),
            no_quorum_after: Duration::from_micros(NO_QUORUM_AFTER_US_DEFAULT),
            cluster: 0,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("no node was given")]
    NoNodes,
    #[error("too many nodes were given: at most {limit}")]
    TooManyNodes { limit: usize },
    #[error("{0:?} is not the address of a node: it must be host:port")]
    Address(String),
    #[error("the name of no node can be resolved; {0}: {1}")]
    Resolve(String, std::io::Error),
    #[error("no random numbers: {0}")]
    Random(String),
    #[error("a socket could not be opened: {0}")]
    Socket(#[from] std::io::Error),
}

/// A handle to a cluster; threads may share it.
#[derive(Debug)]
pub struct Client {
    names: Vec<String>,
    deadline: Duration,
    /// Shared with nobody; see `Wake`.
    socket: Arc<UdpSocket>,
    wake: Wake,
    inner: Mutex<Inner>,
}

impl Client {
    /// `nodes` are `host:port`, separated by commas or spaces; hosts are names, IPv4, or IPv6 in
    /// brackets; a name with several addresses stands for one, of IPv4 if there is one. Opens a
    /// socket, looks names up, and contacts nobody. Waits until a first address is known, for as
    /// long as a call at most, and a moment for the others; these are looked up again while calls
    /// are under way, and so is the name of a node that falls silent.
    pub fn open(nodes: &str, options: ClientOptions) -> Result<Client, OpenError> {
        Client::open_with(nodes, options, look_up::system())
    }

    fn open_with(
        nodes: &str,
        options: ClientOptions,
        resolver: Resolver,
    ) -> Result<Client, OpenError> {
        let given = address::parse_all(nodes)?;
        let (socket, is_dual) = open_socket(&given)?;
        let mut look_ups = LookUps::new(given, is_dual, resolver);
        look_ups.first(options.deadline)?;
        let names = look_ups.names();
        let wake = Wake::new(&socket)?;
        let session = SessionOptions {
            client: u128::from(random()?) << 64 | u128::from(random()?),
            seed: random()?,
            nodes: names.len(),
            deadline_us: micros(options.deadline),
            no_quorum_after_us: micros(options.no_quorum_after),
            cluster: options.cluster,
            library_version: env!("CARGO_PKG_VERSION").into(),
        };
        let inner = Inner::new(Session::new(session, 0), look_ups, random()?);
        Ok(Client {
            names,
            deadline: options.deadline,
            socket: Arc::new(socket),
            wake,
            inner: Mutex::new(inner),
        })
    }

    /// The nodes as they were given, each once.
    pub fn nodes(&self) -> &[String] {
        &self.names
    }

    /// Those of the nodes whose names have no known address, and why. They count as nodes that do
    /// not answer.
    pub fn unresolved(&self) -> Vec<(String, String)> {
        self.lock().look_ups.unresolved()
    }

    /// Runs one operation and waits for it, doing the I/O on this thread.
    pub fn call(&self, call: Call) -> Result<Outcome, CallError> {
        let mut inner = self.lock();
        inner.look_for_loss(&self.socket, &self.wake);
        let waiter = inner.add_waiter();
        let submitted = inner.submit(call, Owner::Thread(waiter));
        inner.look_at_time(&self.socket, &self.wake);
        let result = loop {
            if let Err(error) = submitted {
                break Err(error);
            }
            if let Some(result) = inner.waiter(waiter).result.take() {
                break result;
            }
            inner = self.step(inner, waiter);
        };
        inner.remove_waiter(waiter);
        result
    }

    /// Starts an operation; its completion carries `tag`. Does not block. What is submitted in one
    /// go leaves together: with the next `completions`, for which `poll_fd` is readable at once. Busy
    /// when `IN_FLIGHT_MAX` operations are under way or completed and not taken.
    pub fn submit(&self, call: Call, tag: u64) -> Result<(), CallError> {
        let mut inner = self.lock();
        inner.look_for_loss(&self.socket, &self.wake);
        inner.submit(call, Owner::Application(tag))?;
        inner.pack(&self.socket);
        inner.set_alarm(&self.wake);
        Ok(())
    }

    /// Readable when there is something for `completions` to do or to give.
    pub fn poll_fd(&self) -> BorrowedFd<'_> {
        self.wake.fd()
    }

    /// Sends, receives and looks at the time, without waiting; appends up to `max` completions of
    /// submitted operations, and gives how many.
    pub fn completions(&self, into: &mut Vec<Completion>, max: usize) -> usize {
        let mut inner = self.lock();
        inner.drive(&self.socket, &self.wake, None);
        let count = inner.done.len().min(max);
        into.extend(inner.done.drain(..count));
        inner.set_alarm(&self.wake);
        count
    }

    /// Waits until there is something for `completions` to do or to give, or the time is over. It may
    /// end early.
    pub fn wait(&self, timeout: Duration) {
        self.wake.wait(timeout);
    }

    /// Asks every given node for its status; `None` for those that do not answer in time.
    pub fn status(&self, timeout: Duration) -> Vec<(String, Option<NodeStatus>)> {
        let all: Vec<usize> = (0..self.names.len()).collect();
        let told = self.ask(&all, &Question::Status, timeout);
        let statuses = told.into_iter().map(|told| match told {
            Ok(Told::Status(status)) => Some(*status),
            _ => None,
        });
        self.names.iter().cloned().zip(statuses).collect()
    }

    /// Asks one of the given nodes, by its place among `nodes`, to change the configuration. It is sent to
    /// a node of the cluster in use only, as operations are. An unknown outcome: it was sent, and not
    /// answered in time; after any other error it was not begun. Panics if there is no such place.
    pub fn change(
        &self,
        node: usize,
        change: Change,
        timeout: Duration,
    ) -> Result<ChangeOutcome, CallError> {
        assert!(node < self.names.len(), "no such node");
        let told = self.ask(&[node], &Question::Change(change), timeout);
        match told.into_iter().next().expect("one was asked")? {
            Told::Change(outcome) => Ok(outcome),
            told => unreachable!("a change is not answered by {told:?}"),
        }
    }

    /// The cluster in use. Until it is known, or that the given nodes belong to two, all of them are asked.
    pub fn cluster(&self, timeout: Duration) -> Result<u64, CallError> {
        let told = self.ask(&[0], &Question::Cluster, timeout);
        match told.into_iter().next().expect("one was asked")? {
            Told::Cluster(cluster) => Ok(cluster),
            told => unreachable!("the cluster is not told by {told:?}"),
        }
    }

    /// What the nodes at these places, in ascending order, answer.
    fn ask(
        &self,
        places: &[usize],
        question: &Question,
        timeout: Duration,
    ) -> Vec<Result<Told, CallError>> {
        let mut inner = self.lock();
        inner.look_for_loss(&self.socket, &self.wake);
        let waiter = inner.add_waiter();
        let (now_us, wait_us) = (inner.now_us(), micros(timeout));
        for place in places {
            let (question, tag) = (question.clone(), waiter as u64);
            inner.session.ask(now_us, *place, question, wait_us, tag);
        }
        inner.look_at_time(&self.socket, &self.wake);
        while inner.waiter(waiter).told.len() < places.len() {
            inner = self.step(inner, waiter);
        }
        let mut told = std::mem::take(&mut inner.waiter(waiter).told);
        inner.remove_waiter(waiter);
        told.sort_by_key(|(place, _)| *place);
        told.into_iter().map(|(_, told)| told).collect()
    }

    /// Ends the calls under way: a write that may have been done as an unknown outcome, all else as
    /// closed. Later calls are closed; completions that were not taken can still be.
    pub fn close(&self) {
        let mut inner = self.lock();
        inner.look_for_loss(&self.socket, &self.wake);
        inner.session.close();
        if inner.is_lost() {
            return;
        }
        inner.hand_out(&self.wake);
        inner.set_alarm(&self.wake);
    }

    /// Sends nothing to that node from here on, or uses it again if not `spared`. Any name of a given
    /// node's address will do; one that was not given as it stands is looked up, for as long as a
    /// call at most. False if it is none of the given nodes.
    pub fn spare(&self, node: &str, spared: bool) -> bool {
        let named = self.names.iter().position(|name| name == node);
        let place = named.or_else(|| {
            let found = look_up::look_up(node, self.deadline).ok()?;
            let inner = self.lock();
            found
                .into_iter()
                .find_map(|address| inner.place_of(address))
        });
        let Some(place) = place else {
            return false;
        };
        let mut inner = self.lock();
        inner.look_for_loss(&self.socket, &self.wake);
        if inner.is_lost() {
            return false;
        }
        // What was submitted before is sent before.
        inner.flush(&self.socket);
        let now_us = inner.now_us();
        inner.session.spare(now_us, place, spared);
        inner.look_at_time(&self.socket, &self.wake);
        if inner.driver.is_some() {
            // It may have to wait less long now.
            self.wake.nudge();
        }
        true
    }

    /// Whether the program has closed the client's descriptors, as was found in a call: then it is closed.
    pub fn is_lost(&self) -> bool {
        let mut inner = self.lock();
        inner.look_for_loss(&self.socket, &self.wake);
        inner.is_lost()
    }

    /// What the session counted so far.
    pub fn counters(&self) -> SessionCounters {
        self.lock().session.counters()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic elsewhere leaves nothing half done that later calls could not bear.
        self.inner
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Waits for progress: on the socket, or for the thread that waits on it.
    fn step<'a>(
        &'a self,
        mut inner: MutexGuard<'a, Inner>,
        waiter: usize,
    ) -> MutexGuard<'a, Inner> {
        let wait = inner.next_wait();
        if inner.driver.is_some() {
            let condvar = inner.sleeps(waiter);
            let slept = condvar.wait_timeout(inner, wait);
            inner = slept.unwrap_or_else(|poisoned| poisoned.into_inner()).0;
            inner.awakes(waiter);
            if inner.next_wait().is_zero() {
                inner.look_at_time(&self.socket, &self.wake);
            }
        } else {
            inner.driver = Some(waiter);
            drop(inner);
            let is_open = self.wake.wait_for_socket(&self.socket, wait);
            inner = self.lock();
            inner.driver = None;
            if !is_open {
                inner.lose();
            }
            inner.drive(&self.socket, &self.wake, Some(waiter));
        }
        inner
    }
}

/// The numbers of descriptors that the program has closed may be those of its own files by now: they are
/// left alone.
impl Drop for Client {
    fn drop(&mut self) {
        let inner = self.inner.get_mut();
        let is_lost = inner.is_ok_and(|inner| inner.is_lost());
        self.wake.keep_foreign_open(&self.socket, is_lost);
    }
}

/// All that a node's name stands for, within this time.
pub fn look_up(node: &str, timeout: Duration) -> Result<Vec<SocketAddr>, OpenError> {
    look_up::look_up(node, timeout)
}

/// Of both families, unless all addresses are given in numbers of IPv4, or this machine has no
/// IPv6. True if it is.
fn open_socket(given: &[Given]) -> std::io::Result<(UdpSocket, bool)> {
    let is = |wanted: fn(&SocketAddr) -> bool| {
        let mut literals = given.iter().filter_map(|given| given.literal.as_ref());
        literals.any(wanted)
    };
    let has_names = given.iter().any(|given| given.literal.is_none());
    if is(SocketAddr::is_ipv6) {
        return match open_for(true) {
            // Without IPv6 here, nodes at IPv6 addresses do not answer; the others may be enough.
            Err(_) if is(SocketAddr::is_ipv4) => Ok((open_for(false)?, false)),
            opened => Ok((opened?, true)),
        };
    }
    match has_names.then(|| open_for(true)) {
        Some(Ok(socket)) => Ok((socket, true)),
        _ => Ok((open_for(false)?, false)),
    }
}

fn open_for(six: bool) -> std::io::Result<UdpSocket> {
    let opened: UdpSocket = if six {
        let flags = SockFlag::SOCK_CLOEXEC;
        let fd: OwnedFd = socket(AddressFamily::Inet6, SockType::Datagram, flags, None)?;
        setsockopt(&fd, sockopt::Ipv6V6Only, &false)?;
        bind(
            fd.as_raw_fd(),
            &SockaddrIn6::from(std::net::SocketAddrV6::new(
                std::net::Ipv6Addr::UNSPECIFIED,
                0,
                0,
                0,
            )),
        )?;
        fd.into()
    } else {
        UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?
    };
    opened.set_nonblocking(true)?;
    // More is better, but what the system grants will do.
    let _ = setsockopt(&opened.as_fd(), sockopt::RcvBuf, &SOCKET_BUFFER_SIZE);
    let _ = setsockopt(&opened.as_fd(), sockopt::SndBuf, &SOCKET_BUFFER_SIZE);
    Ok(opened)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn random() -> Result<u64, OpenError> {
    getrandom::u64().map_err(|error| OpenError::Random(error.to_string()))
}
