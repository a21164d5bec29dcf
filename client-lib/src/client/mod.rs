//! A client of a cluster: a session with a UDP socket and a clock.
//!
//! Synchronous calls do their own I/O on the caller's thread: one thread at a time waits on the
//! socket, and completes the other threads' calls too. In the asynchronous form the application has
//! the loop: `submit`, wait for `poll_fd` to be readable, `completions`. The client starts threads
//! only to look up names, prints nothing, and tolerates signals.

mod address;
mod inner;
mod look_up;
mod scan;
mod wake;
mod watch;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn6, bind, getsockopt, setsockopt, socket, sockopt,
};
use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover,
};

use crate::session::{
    Call, CallError, Completion, DEADLINE_US_DEFAULT, NO_QUORUM_AFTER_US_DEFAULT, Question,
    QuestionReply, Session, SessionCounters, SessionOptions,
};
use crate::transaction::TransactionBuilder;
pub use scan::{ScanEntries, ScanPages};
pub use watch::WatchEvents;

use address::Given;
use inner::{Inner, Owner};
use look_up::{LookUps, Resolver};
use wake::Wake;
use wire::{Change, ChangeOutcome, NodeStatus, Outcome};

const SOCKET_BUFFER_SIZE: usize = 4 << 20;

#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// The longest wait of a call that does not specify its own.
    pub deadline: Duration,
    /// The time for which every node must be without a quorum or silent before a call fails with
    /// `no quorum`.
    pub no_quorum_after: Duration,
    /// The cluster to use, as `status` shows it. 0: the cluster of more than half of the given
    /// nodes, or, after a wait, the one cluster of all nodes that answered. If those belong to
    /// several clusters, calls end with an error. A client never changes to another cluster.
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
    /// Has no other owner; see `Wake`.
    socket: Arc<UdpSocket>,
    wake: Wake,
    inner: Mutex<Inner>,
}

impl Client {
    /// `nodes` are `host:port`, separated by commas or spaces. Hosts are names, IPv4, or IPv6 in
    /// brackets; for a name with several addresses the client uses one, of IPv4 if there is one.
    /// Opens a socket, looks up names, and contacts no node. Waits for the first address, at most
    /// as long as a call, and then shortly for the others. Names without an address are looked up
    /// again during later calls, and so are the names of nodes that become silent.
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
        let socket_buffer = getsockopt(&socket, sockopt::RcvBuf).unwrap_or(SOCKET_BUFFER_SIZE);
        let session = Session::new(session, 0);
        let inner = Inner::new(session, look_ups, random()?, socket_buffer);
        Ok(Client {
            names,
            deadline: options.deadline,
            socket: Arc::new(socket),
            wake,
            inner: Mutex::new(inner),
        })
    }

    /// The given nodes, each once.
    pub fn nodes(&self) -> &[String] {
        &self.names
    }

    /// The longest wait of a call that does not specify its own.
    pub(crate) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// The nodes whose names have no known address, with the reason. They count as nodes that do
    /// not answer.
    pub fn unresolved(&self) -> Vec<(String, String)> {
        self.lock().look_ups.unresolved()
    }

    /// Runs one operation and waits for it, doing the I/O on this thread.
    pub fn call(&self, call: Call) -> Result<Outcome, CallError> {
        let mut inner = self.lock();
        inner.check_loss(&self.socket, &self.wake);
        let waiter = inner.add_waiter();
        let submitted = inner.submit(call, Owner::Thread(waiter));
        inner.check_time(&self.socket, &self.wake);
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

    /// A transaction over several keys, to be put together and run.
    pub fn transaction(&self) -> TransactionBuilder<'_> {
        TransactionBuilder::new(self)
    }

    /// Starts an operation; its completion carries `tag`. Does not block. Operations submitted
    /// together are sent together, by the next `completions`, for which `poll_fd` becomes readable
    /// at once. Returns busy if `IN_FLIGHT_MAX` operations are in progress, or completed and not
    /// taken.
    pub fn submit(&self, call: Call, tag: u64) -> Result<(), CallError> {
        let mut inner = self.lock();
        let is_to_pack = inner.is_to_pack();
        if is_to_pack {
            inner.check_loss(&self.socket, &self.wake);
        }
        inner.submit(call, Owner::Application(tag))?;
        if is_to_pack {
            inner.pack(&self.socket);
            inner.set_alarm(&self.wake);
        }
        Ok(())
    }

    /// Readable when `completions` has something to do or to return.
    pub fn poll_fd(&self) -> BorrowedFd<'_> {
        self.wake.fd()
    }

    /// Sends, receives and handles timeouts without waiting; appends up to `max` completions of
    /// submitted operations, and returns their number.
    pub fn completions(&self, into: &mut Vec<Completion>, max: usize) -> usize {
        let mut inner = self.lock();
        inner.drive(&self.socket, &self.wake, None);
        let count = inner.done.len().min(max);
        into.extend(inner.done.drain(..count));
        inner.set_alarm(&self.wake);
        count
    }

    /// Waits until `completions` has something to do or to return, or until the timeout. It may
    /// return early.
    pub fn wait(&self, timeout: Duration) {
        self.wake.wait(timeout);
    }

    /// Asks every given node for its status; `None` for nodes that do not answer in time.
    pub fn status(&self, timeout: Duration) -> Vec<(String, Option<NodeStatus>)> {
        let all: Vec<usize> = (0..self.names.len()).collect();
        let replies = self.ask(&all, &Question::Status, timeout);
        let statuses = replies.into_iter().map(|reply| match reply {
            Ok(QuestionReply::Status(status)) => Some(*status),
            _ => None,
        });
        self.names.iter().cloned().zip(statuses).collect()
    }

    /// Asks one of the given nodes, by its index in `nodes`, to change the configuration. As with
    /// operations, only a node of the cluster in use receives the request. An unknown outcome means
    /// that the request was sent and not answered in time; every other error means that the change
    /// was not begun. Panics if the index is out of range.
    pub fn change(
        &self,
        node: usize,
        change: Change,
        timeout: Duration,
    ) -> Result<ChangeOutcome, CallError> {
        assert!(node < self.names.len(), "no such node");
        let replies = self.ask(&[node], &Question::Change(change), timeout);
        match replies.into_iter().next().expect("one was asked")? {
            QuestionReply::Change(outcome) => Ok(outcome),
            reply => unreachable!("a change is not answered by {reply:?}"),
        }
    }

    /// The cluster in use. Asks all nodes until it is known, or until it is known that the given
    /// nodes belong to two clusters.
    pub fn cluster(&self, timeout: Duration) -> Result<u64, CallError> {
        let replies = self.ask(&[0], &Question::Cluster, timeout);
        match replies.into_iter().next().expect("one was asked")? {
            QuestionReply::Cluster(cluster) => Ok(cluster),
            reply => unreachable!("a request for the cluster is not answered by {reply:?}"),
        }
    }

    /// The answers of the nodes at these indexes, which are in ascending order.
    fn ask(
        &self,
        places: &[usize],
        question: &Question,
        timeout: Duration,
    ) -> Vec<Result<QuestionReply, CallError>> {
        let mut inner = self.lock();
        inner.check_loss(&self.socket, &self.wake);
        let waiter = inner.add_waiter();
        let (now_us, wait_us) = (inner.now_us(), micros(timeout));
        for place in places {
            let (question, tag) = (question.clone(), waiter as u64);
            inner.session.ask(now_us, *place, question, wait_us, tag);
        }
        inner.check_time(&self.socket, &self.wake);
        while inner.waiter(waiter).replies.len() < places.len() {
            inner = self.step(inner, waiter);
        }
        let mut replies = std::mem::take(&mut inner.waiter(waiter).replies);
        inner.remove_waiter(waiter);
        replies.sort_by_key(|(place, _)| *place);
        replies.into_iter().map(|(_, reply)| reply).collect()
    }

    /// Ends the calls in progress: a write that may have been applied ends with an unknown outcome,
    /// every other call as closed. Later calls fail as closed. Completions can still be taken.
    pub fn close(&self) {
        let mut inner = self.lock();
        inner.check_loss(&self.socket, &self.wake);
        inner.session.close();
        if inner.is_lost() {
            return;
        }
        inner.hand_out(&self.wake);
        inner.set_alarm(&self.wake);
    }

    /// Stops sending to that node or, if not `spared`, resumes it. Any name with the address of a
    /// given node will do; a name that was not among the given ones is looked up, at most as long
    /// as a call takes. Returns false if it is none of the given nodes.
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
        inner.check_loss(&self.socket, &self.wake);
        if inner.is_lost() {
            return false;
        }
        // Operations that were submitted earlier are sent first.
        inner.flush(&self.socket);
        let now_us = inner.now_us();
        inner.session.spare(now_us, place, spared);
        inner.check_time(&self.socket, &self.wake);
        if inner.driver.is_some() {
            // The next wait may be shorter now.
            self.wake.nudge();
        }
        true
    }

    /// Whether a call found that the program has closed the client's descriptors; the client is
    /// closed then.
    pub fn is_lost(&self) -> bool {
        let mut inner = self.lock();
        inner.check_loss(&self.socket, &self.wake);
        inner.is_lost()
    }

    /// The session's counters.
    pub fn counters(&self) -> SessionCounters {
        self.lock().session.counters()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // After a panic in another thread, later calls can continue with the state that it left.
        self.inner
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Waits for progress: on the socket, or for the thread that waits on the socket.
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
                inner.check_time(&self.socket, &self.wake);
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

/// If the program has closed the descriptors, their numbers may belong to its own files now. Those
/// are left open.
impl Drop for Client {
    fn drop(&mut self) {
        let inner = self.inner.get_mut();
        let is_lost = inner.is_ok_and(|inner| inner.is_lost());
        self.wake.keep_foreign_open(&self.socket, is_lost);
    }
}

/// All addresses of a node's name that are known within `timeout`.
pub fn look_up(node: &str, timeout: Duration) -> Result<Vec<SocketAddr>, OpenError> {
    look_up::look_up(node, timeout)
}

/// Opens a socket for both families, or for IPv4 only if all addresses are numeric IPv4, or this
/// machine has no IPv6. Returns true for both families.
fn open_socket(given: &[Given]) -> std::io::Result<(UdpSocket, bool)> {
    let is = |wanted: fn(&SocketAddr) -> bool| {
        let mut literals = given.iter().filter_map(|given| given.literal.as_ref());
        literals.any(wanted)
    };
    let has_names = given.iter().any(|given| given.literal.is_none());
    if is(SocketAddr::is_ipv6) {
        return match open_for(true) {
            // This machine has no IPv6: nodes at IPv6 addresses will not answer, but the others may
            // be enough.
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
    // Transfers try which datagrams get through whole. Where this fails, they arrive in fragments.
    let _ = set_ipv6_mtu_discover(&opened, Ipv6PathMtuDiscovery::PROBE);
    let _ = set_ip_mtu_discover(&opened, Ipv4PathMtuDiscovery::PROBE);
    // A large buffer is better, but a smaller one is enough if the system grants no more.
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
