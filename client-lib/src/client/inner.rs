//! The state that the threads of a client share under its lock: the session, the datagrams being
//! packed, and the calls that threads wait for.

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Condvar};
use std::time::{Duration, Instant};

use super::look_up::LookUps;
use super::wake::{self, Alarm, Wake};
use crate::session::{
    Call, CallError, Completion, IN_FLIGHT_MAX, QuestionCompletion, QuestionReply, Session,
    Transmit,
};
use wire::Outcome;
use wire::datagram::{
    self, DATAGRAM_SIZE_MAX, DatagramHeader, DatagramWriter, FRAME_HEADER_SIZE, Frame, FrameHeader,
};
use wire::parts::{self, Joiner, NoPart};
use wire::transfer::{self, NoPiece, Offer, Taken, Transfers};

/// The most datagrams that are read before completions are delivered.
const RECEIVE_MAX: usize = 256;

/// So many submitted operations are packed into datagrams together.
const PACKED_TOGETHER: usize = 32;

/// The owner of a call.
#[derive(Debug, Clone, Copy)]
pub(super) enum Owner {
    /// A waiting thread, by its waiter.
    Thread(usize),
    /// The application, by its tag.
    Application(u64),
}

/// A waiting thread.
#[derive(Debug, Default)]
pub(super) struct Waiter {
    condvar: Arc<Condvar>,
    pub result: Option<Result<Outcome, CallError>>,
    /// By the node's index: its answer, or why there is none.
    pub replies: Vec<(usize, Result<QuestionReply, CallError>)>,
}

/// A node's address, if it is known, and the datagram that is being packed for it.
#[derive(Debug)]
struct SendTarget {
    address: Option<SocketAddr>,
    is_loopback: bool,
    writer: DatagramWriter,
    /// Of the datagram that is being packed.
    cluster: u64,
    /// Of the last frame that was no hello.
    last_cluster: u64,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub session: Session,
    pub look_ups: LookUps,
    began: Instant,
    boot: u64,
    datagrams: u64,
    destinations: Vec<SendTarget>,
    buffer: Vec<u8>,
    /// Answers that arrive in parts, by the node's index.
    joiner: Joiner<usize>,
    /// The number of the next frame that is sent in parts.
    next_parts: u64,
    /// Large requests and answers, by the node's index.
    transfers: Transfers<usize>,
    /// Frames that found no memory. They count as lost: attempts are repeated.
    dropped: u64,
    /// Owners of calls, by the session's tag.
    owners: Vec<Option<Owner>>,
    free_owners: Vec<u64>,
    /// How many of the owners are `Application`.
    applications: usize,
    waiters: Vec<Waiter>,
    free_waiters: Vec<usize>,
    /// The waiter whose thread waits on the socket.
    pub driver: Option<usize>,
    /// Waiters whose threads sleep until another thread completes their calls, or no thread drives.
    sleepers: BTreeSet<usize>,
    alarm: Alarm,
    /// The operations that were submitted since the last flush.
    unsent: usize,
    /// Completions for the application.
    pub done: std::collections::VecDeque<Completion>,
    /// Datagrams that are malformed or come from an unknown address.
    foreign: u64,
    /// The program has closed the client's descriptors. Their numbers may belong to other files
    /// now, so they are not used any more.
    is_lost: bool,
}

impl SendTarget {
    fn new(address: Option<SocketAddr>) -> Self {
        let is_loopback = address.is_some_and(|at| at.ip().to_canonical().is_loopback());
        SendTarget {
            address,
            is_loopback,
            writer: DatagramWriter::default(),
            cluster: 0,
            last_cluster: 0,
        }
    }
}

impl Inner {
    /// `socket_buffer`: the size of the kernel's receive buffer.
    pub fn new(session: Session, look_ups: LookUps, boot: u64, socket_buffer: usize) -> Self {
        let destinations = look_ups.addresses().into_iter().map(SendTarget::new);
        Inner {
            destinations: destinations.collect(),
            session,
            look_ups,
            began: Instant::now(),
            boot,
            datagrams: 0,
            buffer: vec![0; DATAGRAM_SIZE_MAX],
            joiner: Joiner::default(),
            next_parts: boot,
            transfers: Transfers::new(boot, socket_buffer),
            dropped: 0,
            owners: Vec::new(),
            free_owners: Vec::new(),
            applications: 0,
            waiters: Vec::new(),
            free_waiters: Vec::new(),
            driver: None,
            sleepers: BTreeSet::new(),
            alarm: Alarm::default(),
            unsent: 0,
            done: std::collections::VecDeque::new(),
            foreign: 0,
            is_lost: false,
        }
    }

    pub fn now_us(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }

    /// The time until the next timeout.
    pub fn next_wait(&self) -> Duration {
        let Some(at_us) = self.next_timeout() else {
            return Duration::MAX;
        };
        Duration::from_micros(at_us.saturating_sub(self.now_us()))
    }

    fn next_timeout(&self) -> Option<u64> {
        let both = [self.session.next_timeout(), self.transfers.next_timeout()];
        both.into_iter().flatten().min()
    }

    pub fn submit(&mut self, call: Call, owner: Owner) -> Result<(), CallError> {
        // The number of completions that were not taken is limited too, whichever thread received
        // them.
        let untaken = self.applications + self.done.len();
        let is_full = matches!(owner, Owner::Application(_)) && untaken >= IN_FLIGHT_MAX;
        if is_full && !self.session.is_closed() {
            return Err(CallError::Busy);
        }
        let now_us = self.now_us();
        let tag = self.free_owners.pop().unwrap_or_else(|| {
            self.owners.push(None);
            self.owners.len() as u64 - 1
        });
        if let Err(error) = self.session.submit(now_us, call, tag) {
            self.free_owners.push(tag);
            return Err(error);
        }
        self.owners[tag as usize] = Some(owner);
        self.applications += usize::from(matches!(owner, Owner::Application(_)));
        self.unsent += 1;
        Ok(())
    }

    /// Whether the next submitted operation, with those before it, is to be packed at once. The
    /// first one is, so that the application's descriptor becomes readable; later ones in groups,
    /// because each time costs a system call (`check_loss`).
    pub fn is_to_pack(&self) -> bool {
        self.unsent.is_multiple_of(PACKED_TOGETHER)
    }

    pub fn add_waiter(&mut self) -> usize {
        self.free_waiters.pop().unwrap_or_else(|| {
            self.waiters.push(Waiter::default());
            self.waiters.len() - 1
        })
    }

    pub fn waiter(&mut self, waiter: usize) -> &mut Waiter {
        &mut self.waiters[waiter]
    }

    /// Removes a waiter whose call has completed. If no thread waits on the socket, another one
    /// must.
    pub fn remove_waiter(&mut self, waiter: usize) {
        self.free_waiters.push(waiter);
        if self.driver.is_none()
            && let Some(next) = self.sleepers.first()
        {
            self.waiters[*next].condvar.notify_one();
        }
    }

    /// Records that the thread will sleep on the returned condition variable.
    pub fn sleeps(&mut self, waiter: usize) -> Arc<Condvar> {
        self.sleepers.insert(waiter);
        Arc::clone(&self.waiters[waiter].condvar)
    }

    pub fn awakes(&mut self, waiter: usize) {
        self.sleepers.remove(&waiter);
    }

    /// Receives the datagrams that have arrived, handles timeouts, and sends. Stops receiving when
    /// the call of `waiter` has completed.
    pub fn drive(&mut self, socket: &UdpSocket, wake: &Wake, waiter: Option<usize>) {
        let mut buffer = std::mem::take(&mut self.buffer);
        self.check_loss(socket, wake);
        for _ in 0..RECEIVE_MAX {
            if self.is_lost {
                break;
            }
            match socket.recv_from(&mut buffer) {
                Ok((size, from)) => self.receive(&buffer[..size], from),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(error) if wake::is_closed(&error) => self.lose(),
                // An interruption, or the error of an earlier datagram: more datagrams may follow.
                Err(_) => continue,
            }
            self.hand_out(wake);
            if waiter.is_some_and(|waiter| self.waiters[waiter].result.is_some()) {
                break;
            }
        }
        self.buffer = buffer;
        self.check_time(socket, wake);
    }

    /// Must be called before any send or receive: the socket's number may now belong to a socket of
    /// the program, possibly a blocking one.
    pub fn check_loss(&mut self, socket: &UdpSocket, wake: &Wake) {
        if !self.is_lost && !wake.is_own(socket) {
            self.lose();
        }
    }

    /// Nothing can be sent or received any more: calls in progress end, and later calls fail as
    /// closed.
    pub fn lose(&mut self) {
        if !self.is_lost {
            self.is_lost = true;
            self.session.close();
        }
    }

    pub fn is_lost(&self) -> bool {
        self.is_lost
    }

    pub fn check_time(&mut self, socket: &UdpSocket, wake: &Wake) {
        let now_us = self.now_us();
        self.look_up_names(now_us);
        if self.session.wants_new_port(now_us) {
            // The next datagram binds the socket again. If disconnecting fails, the socket keeps
            // its port.
            let _ = rustix::net::connect_unspec(socket);
        }
        self.session.handle_timeout(now_us);
        self.flush(socket);
        self.hand_out(wake);
        self.set_alarm(wake);
    }

    /// Starts lookups, in other threads, of the names of nodes that became silent.
    fn look_up_names(&mut self, now_us: u64) {
        while let Some((place, address)) = self.look_ups.poll_moved() {
            self.destinations[place] = SendTarget::new(Some(address));
            self.session.moved(now_us, place);
        }
        if self.session.is_active() && self.look_ups.is_due(now_us) {
            for place in 0..self.destinations.len() {
                let seems_moved = self.session.seems_moved(now_us, place);
                self.look_ups.again(now_us, place, seems_moved);
            }
        }
    }

    /// The node at an address, which may be IPv4 itself or mapped.
    pub fn place_of(&self, address: SocketAddr) -> Option<usize> {
        let is_at = |d: &SendTarget| {
            d.address.is_some_and(|at| {
                at.ip().to_canonical() == address.ip().to_canonical() && at.port() == address.port()
            })
        };
        self.destinations.iter().position(is_at)
    }

    fn receive(&mut self, bytes: &[u8], from: SocketAddr) {
        let Some(place) = self.place_of(from) else {
            self.foreign += 1;
            return;
        };
        let now_us = self.now_us();
        match datagram::open(bytes) {
            Ok((_, frames)) => {
                for frame in frames.flatten() {
                    self.handle_frame(now_us, place, &frame);
                }
            }
            Err(_) => self.foreign += 1,
        }
    }

    fn handle_frame(&mut self, now_us: u64, place: usize, frame: &Frame<'_>) {
        let kind = frame.header.kind;
        let taken = self.transfers.take(now_us, place, frame);
        match taken {
            Ok(Taken::Plain) => {}
            Ok(Taken::Noted) => return,
            Ok(Taken::Whole(_, body)) => {
                return self.session.handle_frame(now_us, place, kind, &body);
            }
            Err(NoPiece) => return self.foreign += 1,
        }
        if frame.header.flags & parts::PART == 0 {
            return self.session.handle_frame(now_us, place, kind, frame.body);
        }
        match self.joiner.take(now_us, (place, 0), kind, frame.body) {
            Ok(Some(body)) => self.session.handle_frame(now_us, place, kind, &body),
            Ok(None) => {}
            Err(NoPart) => self.foreign += 1,
        }
    }

    /// Delivers completions to their owners.
    pub fn hand_out(&mut self, wake: &Wake) {
        while let Some(Completion { tag, result }) = self.session.poll_completion() {
            let owner = self.owners[tag as usize].take();
            self.free_owners.push(tag);
            match owner.expect("a call completes once") {
                Owner::Thread(waiter) => {
                    self.waiters[waiter].result = Some(result);
                    self.rouse(waiter, wake);
                }
                Owner::Application(tag) => {
                    self.applications -= 1;
                    self.done.push_back(Completion { tag, result });
                }
            }
        }
        while let Some(QuestionCompletion { tag, node, reply }) = self.session.poll_reply() {
            let waiter = tag as usize;
            self.waiters[waiter].replies.push((node, reply));
            self.rouse(waiter, wake);
        }
    }

    fn rouse(&self, waiter: usize, wake: &Wake) {
        if self.driver == Some(waiter) && !self.is_lost {
            wake.nudge();
        } else {
            self.waiters[waiter].condvar.notify_one();
        }
    }

    /// Sets the alarm of the application's file descriptor.
    pub fn set_alarm(&mut self, wake: &Wake) {
        if self.is_lost {
            return;
        }
        let none_waits = self.applications == 0 && self.done.is_empty();
        if none_waits && self.alarm.is_off() {
            // The common case of synchronous callers.
            return;
        }
        let now_us = self.now_us();
        let next_us = self.next_timeout().filter(|_| !none_waits);
        let now = !none_waits && (self.unsent > 0 || !self.done.is_empty());
        let now = now || next_us.is_some_and(|at_us| at_us <= now_us);
        wake.set(&mut self.alarm, now, next_us, now_us);
    }

    pub fn flush(&mut self, socket: &UdpSocket) {
        self.pack(socket);
        self.unsent = 0;
        self.send_packed(socket);
        // After the small frames.
        self.send_pieces(socket);
        self.send_packed(socket);
    }

    fn send_packed(&mut self, socket: &UdpSocket) {
        for place in 0..self.destinations.len() {
            self.send(socket, place);
        }
    }

    /// Packs acknowledgements, and the pieces of transfers that may leave now.
    fn send_pieces(&mut self, socket: &UdpSocket) {
        let now_us = self.now_us();
        if !self.transfers.is_due(now_us) {
            return;
        }
        // Packing needs the rest of `self`.
        let idle = Transfers::new(0, 0);
        let mut transfers = std::mem::replace(&mut self.transfers, idle);
        transfers.poll(now_us, &mut |node, header, body| {
            let cluster = self.destinations[node].last_cluster;
            self.put(socket, node, cluster, header, body);
        });
        self.transfers = transfers;
    }

    /// Packs frames for the same node into shared datagrams, and sends the full ones.
    pub fn pack(&mut self, socket: &UdpSocket) {
        while let Some(transmit) = self.session.poll_transmit() {
            let Transmit {
                node,
                cluster,
                destination,
                kind,
                body,
            } = transmit;
            let mut header = FrameHeader {
                kind,
                destination,
                ..FrameHeader::default()
            };
            let to = &mut self.destinations[node];
            if cluster != 0 {
                to.last_cluster = cluster;
            }
            let is_loopback = to.is_loopback;
            if transfer::is_large(is_loopback, body.len()) {
                self.transfer(node, header, body);
                continue;
            }
            if is_loopback || !parts::is_cut(&body) {
                self.put(socket, node, cluster, &header, &body);
                continue;
            }
            header.flags = parts::PART;
            self.next_parts = self.next_parts.wrapping_add(1);
            for part in parts::cut(&body, self.next_parts) {
                self.put(socket, node, cluster, &header, &part);
            }
        }
    }

    fn transfer(&mut self, node: usize, header: FrameHeader, body: Vec<u8>) {
        let to = (
            node,
            transfer::datagram_size(self.destinations[node].is_loopback),
        );
        match self.transfers.offer(self.now_us(), to, header, body) {
            Offer::Begun | Offer::UnderWay => {}
            Offer::NoRoom => self.dropped += 1,
        }
    }

    /// Adds a frame to the datagram for a node, and sends the datagram if it is full.
    fn put(
        &mut self,
        socket: &UdpSocket,
        node: usize,
        cluster: u64,
        header: &FrameHeader,
        body: &[u8],
    ) {
        let to = &self.destinations[node];
        let size_target = transfer::datagram_size(to.is_loopback);
        let full = to.writer.size() + FRAME_HEADER_SIZE + body.len() > size_target;
        if !to.writer.is_empty() && (full || to.cluster != cluster) {
            self.send(socket, node);
        }
        let to = &mut self.destinations[node];
        to.cluster = cluster;
        to.writer.push(header, body);
    }

    fn send(&mut self, socket: &UdpSocket, place: usize) {
        let to = &mut self.destinations[place];
        if to.writer.is_empty() || self.is_lost {
            return;
        }
        self.datagrams += 1;
        let header = DatagramHeader {
            sender: 0,
            cluster: to.cluster,
            boot: self.boot,
            number: self.datagrams,
        };
        let Some(address) = to.address else {
            to.writer.clear();
            return;
        };
        // A datagram that cannot be sent counts as lost: attempts are repeated.
        let sent = socket.send_to(to.writer.seal(&header), address);
        to.writer.clear();
        if sent.is_err_and(|error| wake::is_closed(&error)) {
            self.lose();
        }
    }
}
