//! A client of a cluster: a session with a UDP socket and a clock.
//!
//! Synchronous calls do their own I/O on the caller's thread: of several threads one reads from the
//! socket at a time, and completes the others' calls too. The asynchronous form leaves the loop to
//! the application: `submit`, wait for `poll_fd` to be readable, `completions`.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeSpec;

use crate::datagram::{
    self, DATAGRAM_SIZE_MAX, DATAGRAM_SIZE_TARGET, DATAGRAM_SIZE_TARGET_LOOPBACK, DatagramHeader,
    DatagramWriter, FRAME_HEADER_SIZE, FrameHeader,
};
use crate::session::{
    Call, CallError, Completion, DEADLINE_US_DEFAULT, NO_QUORUM_AFTER_US_DEFAULT, Session,
    SessionOptions, Transmit,
};
use crate::wake::Wake;
use crate::wire::{NodeStatus, Outcome};

/// Datagrams read in one go before completions are handed out.
const RECEIVE_MAX: usize = 256;
const SOCKET_BUFFER_SIZE: usize = 4 << 20;

#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// How long a call waits at most, unless it says otherwise.
    pub deadline: Duration,
    /// How long every node must have said `no quorum`, or not answered, before that is reported.
    pub no_quorum_after: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        ClientOptions {
            deadline: Duration::from_micros(DEADLINE_US_DEFAULT),
            no_quorum_after: Duration::from_micros(NO_QUORUM_AFTER_US_DEFAULT),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("no node was given")]
    NoNodes,
    #[error("{0}: not a node's address (host:port)")]
    Address(String),
    #[error("{0}: {1}")]
    Resolve(String, std::io::Error),
    #[error("no random numbers: {0}")]
    Random(String),
    #[error("a socket could not be opened: {0}")]
    Socket(std::io::Error),
}

/// A handle to a cluster; threads may share it.
#[derive(Debug)]
pub struct Client {
    names: Vec<String>,
    socket: UdpSocket,
    wake: Wake,
    inner: Mutex<Inner>,
    /// Signalled when calls of waiting threads complete, or nobody reads from the socket any more.
    progress: Condvar,
}

/// Who waits for a call.
#[derive(Debug)]
enum Waiter {
    Thread,
    Application(u64),
}

#[derive(Debug)]
struct Inner {
    session: Session,
    began: Instant,
    boot: u64,
    datagrams: u64,
    addresses: Vec<SocketAddr>,
    places: HashMap<SocketAddr, usize>,
    writers: Vec<(DatagramWriter, u64)>,
    buffer: Vec<u8>,
    /// Whether a thread waits on the socket.
    reading: bool,
    /// Threads that wait for somebody else's reading.
    waiting: usize,
    closed: bool,
    next_call: u64,
    waiters: HashMap<u64, Waiter>,
    /// How many of them are `Application`.
    applications: usize,
    /// Of calls that threads wait for.
    results: HashMap<u64, Result<Outcome, CallError>>,
    /// For the application.
    done: Vec<Completion>,
    foreign: u64,
}

impl Client {
    /// `nodes` are `host:port`, separated by commas or spaces; hosts are names, IPv4, or IPv6 in
    /// brackets. Resolves names, opens a socket, and contacts nobody.
    pub fn open(nodes: &str, options: ClientOptions) -> Result<Client, OpenError> {
        let separators = |c: char| c == ',' || c.is_whitespace();
        let names = nodes
            .split(separators)
            .filter(|n| !n.is_empty())
            .map(String::from);
        let names: Vec<String> = names.collect();
        let resolved: Result<Vec<_>, _> = names.iter().map(|n| resolve(n)).collect();
        let mut addresses = resolved?;
        if addresses.is_empty() {
            return Err(OpenError::NoNodes);
        }
        let six = addresses.iter().any(SocketAddr::is_ipv6);
        if six {
            addresses.iter_mut().for_each(|a| *a = mapped(*a));
        }
        let any: IpAddr = if six {
            Ipv6Addr::UNSPECIFIED.into()
        } else {
            Ipv4Addr::UNSPECIFIED.into()
        };
        let socket = UdpSocket::bind((any, 0)).map_err(OpenError::Socket)?;
        socket.set_nonblocking(true).map_err(OpenError::Socket)?;
        // More is better, but what the system grants will do.
        let _ = setsockopt(&socket, sockopt::RcvBuf, &SOCKET_BUFFER_SIZE);
        let _ = setsockopt(&socket, sockopt::SndBuf, &SOCKET_BUFFER_SIZE);
        let wake = Wake::new(&socket).map_err(OpenError::Socket)?;
        let session = SessionOptions {
            client: random()? << 64 | random()?,
            seed: random()? as u64,
            nodes: addresses.len(),
            deadline_us: micros(options.deadline),
            no_quorum_after_us: micros(options.no_quorum_after),
            library_version: env!("CARGO_PKG_VERSION").into(),
        };
        let places = addresses
            .iter()
            .enumerate()
            .map(|(place, a)| (*a, place))
            .collect();
        let writers = addresses
            .iter()
            .map(|_| (DatagramWriter::default(), 0))
            .collect();
        let inner = Inner {
            session: Session::new(session, 0),
            began: Instant::now(),
            boot: random()? as u64,
            datagrams: 0,
            addresses,
            places,
            writers,
            buffer: vec![0; DATAGRAM_SIZE_MAX],
            reading: false,
            waiting: 0,
            closed: false,
            next_call: 0,
            waiters: HashMap::new(),
            applications: 0,
            results: HashMap::new(),
            done: Vec::new(),
            foreign: 0,
        };
        Ok(Client {
            names,
            socket,
            wake,
            inner: Mutex::new(inner),
            progress: Condvar::new(),
        })
    }

    /// The nodes as they were given.
    pub fn nodes(&self) -> &[String] {
        &self.names
    }

    /// Runs one operation and waits for it, doing the I/O on this thread.
    pub fn call(&self, call: Call) -> Result<Outcome, CallError> {
        let mut inner = self.lock();
        let id = inner.submit(call, Waiter::Thread)?;
        inner.flush(&self.socket);
        loop {
            if let Some(result) = inner.results.remove(&id) {
                if inner.waiting > 0 && !inner.reading {
                    self.progress.notify_one();
                }
                return result;
            }
            inner = self.step(inner, None);
        }
    }

    /// Starts an operation; its completion carries `tag`.
    pub fn submit(&self, call: Call, tag: u64) -> Result<(), CallError> {
        let mut inner = self.lock();
        inner.submit(call, Waiter::Application(tag))?;
        // What is submitted in one go leaves together, with `completions`, for which the fd wakes.
        inner.pack(&self.socket);
        self.wake.set_now();
        Ok(())
    }

    /// Readable when there is something for `completions` to do.
    pub fn poll_fd(&self) -> BorrowedFd<'_> {
        self.wake.fd()
    }

    /// Sends, receives and looks at the time, without waiting; hands out up to `max` completions of
    /// submitted operations, and gives how many.
    pub fn completions(&self, into: &mut Vec<Completion>, max: usize) -> usize {
        let mut inner = self.lock();
        inner.drive(&self.socket);
        let count = inner.done.len().min(max);
        into.extend(inner.done.drain(..count));
        self.after_drive(&inner);
        count
    }

    /// Waits until there is something for `completions` to do, or the time is over.
    pub fn wait(&self, timeout: Duration) {
        let timeout = TimeSpec::from_duration(timeout);
        let mut fds = [PollFd::new(self.wake.fd(), PollFlags::POLLIN)];
        // An interrupted wait is a short one.
        let _ = ppoll(&mut fds, Some(timeout), None);
    }

    /// Asks every given node for its status; `None` for those that do not answer in time.
    pub fn status(&self, timeout: Duration) -> Vec<(String, Option<NodeStatus>)> {
        let mut inner = self.lock();
        let count = inner.addresses.len();
        let mut statuses: Vec<Option<Option<NodeStatus>>> = vec![None; count];
        let (now_us, wait_us) = (inner.now_us(), micros(timeout));
        for place in 0..count {
            inner
                .session
                .request_status(now_us, place, wait_us, place as u64);
        }
        inner.flush(&self.socket);
        while statuses.iter().any(Option::is_none) {
            inner = self.step(inner, Some(Duration::from_millis(20)));
            while let Some(completion) = inner.session.poll_status() {
                statuses[completion.node] = Some(completion.status);
            }
        }
        let statuses = statuses.into_iter().map(Option::flatten);
        self.names.iter().cloned().zip(statuses).collect()
    }

    /// Calls from now on, and those that wait, end as closed; a write that was sent is an unknown
    /// outcome.
    pub fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        inner.session.close();
        inner.hand_out();
        self.after_drive(&inner);
        self.progress.notify_all();
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
        at_most: Option<Duration>,
    ) -> MutexGuard<'a, Inner> {
        let wait = inner.next_wait().min(at_most.unwrap_or(Duration::MAX));
        if inner.reading {
            inner.waiting += 1;
            let waited = self
                .progress
                .wait_timeout(inner, wait.min(Duration::from_secs(1)));
            inner = waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0;
            inner.waiting -= 1;
            inner.look_at_time(&self.socket);
        } else {
            inner.reading = true;
            drop(inner);
            let timeout = TimeSpec::from_duration(wait.min(Duration::from_secs(1)));
            let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            let _ = ppoll(&mut fds, Some(timeout), None);
            inner = self.lock();
            inner.reading = false;
            inner.drive(&self.socket);
        }
        self.after_drive(&inner);
        inner
    }

    /// Wakes whoever is to know of what was just done.
    fn after_drive(&self, inner: &Inner) {
        if inner.waiting > 0 && (!inner.results.is_empty() || !inner.reading) {
            self.progress.notify_all();
        }
        if !inner.done.is_empty() {
            self.wake.set_now();
        } else if inner.applications > 0 {
            self.wake.set(inner.session.next_timeout(), inner.now_us());
        } else {
            self.wake.set(None, 0);
        }
    }
}

impl Inner {
    fn now_us(&self) -> u64 {
        micros(self.began.elapsed())
    }

    fn next_wait(&self) -> Duration {
        let now_us = self.now_us();
        let next = self.session.next_timeout();
        next.map_or(Duration::MAX, |at| {
            Duration::from_micros(at.saturating_sub(now_us))
        })
    }

    fn submit(&mut self, call: Call, waiter: Waiter) -> Result<u64, CallError> {
        if self.closed {
            return Err(CallError::Closed);
        }
        let id = self.next_call;
        let now_us = self.now_us();
        self.session.submit(now_us, call, id)?;
        self.next_call += 1;
        self.applications += usize::from(matches!(waiter, Waiter::Application(_)));
        self.waiters.insert(id, waiter);
        Ok(id)
    }

    /// Receives what is there, looks at the time, sends what is to be sent.
    fn drive(&mut self, socket: &UdpSocket) {
        for _ in 0..RECEIVE_MAX {
            let mut buffer = std::mem::take(&mut self.buffer);
            let received = socket.recv_from(&mut buffer);
            let more = match received {
                Ok((size, from)) => {
                    self.receive(&buffer[..size], from);
                    true
                }
                // A refused port shows as an error of the socket: other datagrams may follow it.
                Err(e) => !matches!(e.kind(), std::io::ErrorKind::WouldBlock),
            };
            self.buffer = buffer;
            if !more {
                break;
            }
        }
        self.look_at_time(socket);
    }

    fn look_at_time(&mut self, socket: &UdpSocket) {
        let now_us = self.now_us();
        self.session.handle_timeout(now_us);
        self.flush(socket);
        self.hand_out();
    }

    fn receive(&mut self, bytes: &[u8], from: SocketAddr) {
        let Some(place) = self.places.get(&from).copied() else {
            self.foreign += 1;
            return;
        };
        let now_us = self.now_us();
        match datagram::open(bytes) {
            Ok((_, frames)) => {
                for frame in frames.flatten() {
                    let kind = frame.header.kind;
                    self.session.handle_frame(now_us, place, kind, frame.body);
                }
            }
            Err(_) => self.foreign += 1,
        }
    }

    fn hand_out(&mut self) {
        while let Some(Completion { tag: id, result }) = self.session.poll_completion() {
            match self.waiters.remove(&id) {
                Some(Waiter::Thread) => {
                    self.results.insert(id, result);
                }
                Some(Waiter::Application(tag)) => {
                    self.applications -= 1;
                    self.done.push(Completion { tag, result });
                }
                None => unreachable!("a call completes once"),
            }
        }
    }

    fn flush(&mut self, socket: &UdpSocket) {
        self.pack(socket);
        for place in 0..self.writers.len() {
            self.send(socket, place);
        }
    }

    /// Frames for one node share datagrams.
    fn pack(&mut self, socket: &UdpSocket) {
        while let Some(transmit) = self.session.poll_transmit() {
            let Transmit {
                node,
                cluster,
                destination,
                kind,
                body,
            } = transmit;
            let target = if self.addresses[node].ip().to_canonical().is_loopback() {
                DATAGRAM_SIZE_TARGET_LOOPBACK
            } else {
                DATAGRAM_SIZE_TARGET
            };
            let (writer, packed) = &self.writers[node];
            let full = writer.size() + FRAME_HEADER_SIZE + body.len() > target;
            if !writer.is_empty() && (full || *packed != cluster) {
                self.send(socket, node);
            }
            let (writer, packed) = &mut self.writers[node];
            *packed = cluster;
            writer.push(
                &FrameHeader {
                    kind,
                    destination,
                    ..FrameHeader::default()
                },
                &body,
            );
        }
    }

    fn send(&mut self, socket: &UdpSocket, place: usize) {
        let (writer, cluster) = &mut self.writers[place];
        if writer.is_empty() {
            return;
        }
        self.datagrams += 1;
        let (boot, number) = (self.boot, self.datagrams);
        let header = DatagramHeader {
            sender: 0,
            cluster: *cluster,
            boot,
            number,
        };
        // A datagram that can't leave is a lost one: attempts are repeated.
        let _ = socket.send_to(writer.seal(&header), self.addresses[place]);
        writer.clear();
    }
}

fn resolve(name: &str) -> Result<SocketAddr, OpenError> {
    if !name.contains(':') {
        return Err(OpenError::Address(name.into()));
    }
    let mut found = name
        .to_socket_addrs()
        .map_err(|e| OpenError::Resolve(name.into(), e))?;
    found.next().ok_or_else(|| OpenError::Address(name.into()))
}

/// An IPv4 address as a socket for both families has it.
fn mapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros())
        .unwrap_or(u64::MAX / 4)
        .min(u64::MAX / 4)
}

fn random() -> Result<u128, OpenError> {
    let random = getrandom::u64().map_err(|e| OpenError::Random(e.to_string()))?;
    Ok(u128::from(random))
}
