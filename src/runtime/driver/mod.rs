//! The event loop.
//!
//! An iteration receives what has arrived, then drains the replica. So everything that one batch of
//! datagrams changes is one group for the disk, and the messages that it causes share datagrams.
//! Outputs that need not wait for the group are drained after each datagram. An iteration ends
//! after some time, or once it has caused much to be sent: a few bytes that arrive can cause a
//! thousand times as many.

mod observe;
mod send;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Sleep;
use wire::Full;

use super::addresses::AddressBook;
use super::allocator;
use super::bind::bind;
use super::decode::{Arrival, Datagram, address_of, decode, decode_text};
use super::disk::Disk;
use super::frame_sender::FrameSender;
use super::joiners::Joiners;
use super::memory::Gauge;
use super::observation::{Pulse, TurnFigures};
use super::packer::Packer;
use super::serve::RuntimeError;
use super::socket::Socket;
use super::tally::{Cause, Tally};
use super::{Notice, events};
use crate::config::ServerConfig;
use crate::gateway::text;
use crate::protocol::types::limits::{CACHE_PART, KEYS_CACHED_MAX, SKEW_MAX_MS_DEFAULT};
use crate::protocol::types::message::{Group, Input, Now, Output, encode_reply};
use crate::protocol::{Options, Replica, Tuning};
use crate::storage::{Opened, Table};

/// The most batches of datagrams that one iteration receives.
const RECEIVES_PER_TURN_MAX: usize = 4;
/// An iteration that causes more datagrams than this, or more bytes, sends some before it ends.
const FLUSH_AT: usize = 256;
const FLUSH_SIZE: usize = 1 << 20;
/// An iteration handles datagrams of others than nodes for this long, whatever came from nodes.
const OTHERS_MAX: Duration = Duration::from_millis(2);
/// An iteration receives nothing more after this time.
const TURN_MAX: Duration = Duration::from_millis(5);
/// An iteration receives nothing more once it has caused this many bytes to be sent.
pub const TURN_SIZE_MAX: u64 = 4 << 20;
/// A timer that is this late shows that the process was paused.
const LATE_US: u64 = 50_000;
/// How long operations in progress may take to end once the node is told to stop.
const DRAIN_US: u64 = 500_000;
/// How long the store may take to close.
const CLOSE_MAX: Duration = Duration::from_secs(10);

/// Monotonic time since the start, and the wall clock.
#[derive(Debug, Clone, Copy)]
struct Clock {
    started: Instant,
}

impl Clock {
    fn now(self) -> Now {
        let wall = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        Now {
            mono_us: micros(self.started.elapsed()),
            wall_ms: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX),
        }
    }

    fn instant(self, mono_us: u64) -> tokio::time::Instant {
        (self.started + Duration::from_micros(mono_us)).into()
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// The bounds of one iteration.
#[derive(Debug, Clone, Copy)]
struct Budget {
    ends: Instant,
    pushed_max: u64,
}

impl Budget {
    fn is_spent(self, packer: &Packer) -> bool {
        packer.pushed() >= self.pushed_max || Instant::now() >= self.ends
    }
}

/// Whose datagrams are handled.
#[derive(Debug, Clone, Copy)]
enum Senders {
    Nodes,
    Others,
}

/// One running node.
pub struct Driver {
    /// This node's own address, as listed.
    name: String,
    clock: Clock,
    replica: Replica,
    table: Table,
    /// `None`: the state is in memory only.
    disk: Option<Disk>,
    socket: Socket,
    outbox: FrameSender,
    /// Joins frames that arrive in several datagrams.
    joiners: Joiners,
    /// The socket's send buffer is full until the socket reports that it is writable.
    send_blocked: bool,
    /// The iteration ended before all outputs were drained.
    is_unfinished: bool,
    addresses: AddressBook,
    tally: Tally,
    memory: Gauge,
    /// `None`: the node does not serve HTTP.
    pulse: Option<Arc<Pulse>>,
    turns: TurnFigures,
    notices: UnboundedReceiver<Notice>,
    boot: u64,
    durability: &'static str,
    /// Whether Firecloud's text datagrams are accepted.
    takes_text: bool,
    /// Whether other machines can send to it.
    is_exposed: bool,
    /// The epoch of the configuration whose nodes' addresses are known.
    nodes_of_epoch: u64,
    /// When the node ends even if operations are still in progress.
    stop_at_us: Option<u64>,
    /// Why the node cannot continue.
    refusal: Option<RuntimeError>,
}

/// A node that has its address, but no state yet.
pub struct Bound {
    own: SocketAddr,
    socket: Socket,
    notices: UnboundedReceiver<Notice>,
    notifier: UnboundedSender<Notice>,
}

impl Bound {
    /// Binds to one of `all`, the configured addresses. Call from within the tokio runtime.
    pub fn new(config: &ServerConfig, all: &[SocketAddr]) -> Result<Self, RuntimeError> {
        let (own, socket) = bind(config, all)?;
        let (notifier, notices) = unbounded_channel();
        Ok(Bound {
            own,
            socket,
            notices,
            notifier,
        })
    }

    /// Where to send `Notice::Stop`.
    pub fn notifier(&self) -> UnboundedSender<Notice> {
        self.notifier.clone()
    }

    pub fn start(self, config: &ServerConfig, opened: Opened) -> Result<Driver, RuntimeError> {
        let clock = Clock {
            started: Instant::now(),
        };
        let random = || getrandom::u64().map_err(RuntimeError::Random);
        let boot = random()?;
        let options = Options {
            list: config.list(),
            index: config.index,
            boot,
            seed: random()?,
            skew_max_ms: SKEW_MAX_MS_DEFAULT,
            value_size_max: config.value_size_max,
            keys_cached_max: KEYS_CACHED_MAX,
            cache_size_max: usize::try_from(config.memory_max / CACHE_PART).unwrap_or(usize::MAX),
            heartbeat_ms: config.heartbeat_ms,
            link_down_ms: config.link_down_ms,
            cluster_name: config.cluster_name.clone(),
            bootstrap: config.bootstrap,
            tuning: Tuning::default(),
            shrink_after_ms: config.shrink_after_ms,
            disk_hung_ms: config.disk_hung_ms,
            insecure_admin: config.insecure_admin,
        };
        let disk = config.data_dir.as_ref();
        let disk = disk.map(|_| Disk::start(opened.storage, self.notifier.clone()));
        // The kernel doubles what it was asked for.
        let socket_buffer = 2 * self.socket.granted().receive_size;
        Ok(Driver {
            name: config.own().to_string(),
            clock,
            replica: Replica::new(options, opened.recovered, clock.now()),
            table: opened.table,
            disk: disk.transpose().map_err(RuntimeError::Thread)?,
            socket: self.socket,
            outbox: FrameSender::new(boot, config.value_size_max),
            joiners: Joiners::new(socket_buffer, config.value_size_max),
            send_blocked: false,
            is_unfinished: false,
            addresses: AddressBook::new(self.own, &config.nodes, self.notifier),
            tally: Tally::default(),
            memory: Gauge::new(config.memory_max),
            pulse: None,
            turns: TurnFigures::default(),
            notices: self.notices,
            boot,
            durability: config.durability_name(),
            takes_text: config.takes_text(self.own.ip()),
            is_exposed: !self.own.ip().is_loopback(),
            nodes_of_epoch: 0,
            stop_at_us: None,
            refusal: None,
        })
    }
}

impl Driver {
    /// The loop reports its turns there.
    pub fn report_turns(&mut self, pulse: Arc<Pulse>) {
        self.pulse = Some(pulse);
    }

    /// Runs until the node is told to stop, or cannot continue.
    pub async fn run(&mut self) -> Result<(), RuntimeError> {
        let result = self.take_turns().await;
        if let Err(RuntimeError::Storage(_) | RuntimeError::StoragePanicked) = result {
            // What the store holds is not known, so the stop was not clean.
            return result;
        }
        let closed = self.close().await;
        result.and(closed)
    }

    async fn take_turns(&mut self) -> Result<(), RuntimeError> {
        let mut alarm = Box::pin(tokio::time::sleep(Duration::ZERO));
        loop {
            let mut now = self.clock.now();
            if self.is_late(now) {
                tokio::task::yield_now().await;
                now = self.clock.now();
            }
            while let Ok(notice) = self.notices.try_recv() {
                self.handle_notice(now, notice)?;
            }
            self.turn(now)?;
            if let Some(refusal) = self.refusal.take() {
                return Err(refusal);
            }
            if self.is_done(now) {
                return Ok(());
            }
            if let Some(notice) = self.wait(alarm.as_mut()).await? {
                let now = self.clock.now();
                self.handle_notice(now, notice)?;
            }
        }
    }

    /// Whether the process did not run for a while. The datagrams that arrived meanwhile should be
    /// received before the timers run, but the reactor may not know of them yet.
    fn is_late(&self, now: Now) -> bool {
        let late_us = now.mono_us.saturating_sub(LATE_US);
        self.replica
            .next_timeout()
            .is_some_and(|at_us| at_us < late_us)
    }

    /// Receives what has arrived, then drains the outputs that it caused.
    fn turn(&mut self, now: Now) -> Result<(), RuntimeError> {
        let began = self.clock.instant(now.mono_us).into_std();
        let budget = Budget {
            ends: began + TURN_MAX,
            pushed_max: self.outbox.packer().pushed() + TURN_SIZE_MAX,
        };
        if self
            .memory
            .look(now.mono_us, allocator::live_bytes)
            .is_some()
        {
            self.report_full(now);
        }
        // Before the timers: after a stall, the messages whose absence they would act on may have
        // arrived.
        self.receive(now, budget)?;
        let is_due = |at_us| now.mono_us >= at_us;
        if self.replica.next_timeout().is_some_and(is_due) {
            self.replica.handle_input(now, Input::Timeout);
        }
        self.is_unfinished = false;
        while let Some(output) = self.replica.poll_output() {
            let is_list = matches!(output, Output::List { .. } | Output::ListRange { .. });
            self.hand_out(now, output);
            // All other outputs leave within this iteration; bucket entries come last and may wait
            // for the next.
            if is_list && budget.is_spent(self.outbox.packer()) {
                self.is_unfinished = true;
                break;
            }
        }
        self.send_all(now);
        self.report(now);
        self.count_turn(began);
        Ok(())
    }

    /// Reports to the replica which resource is full, when that may have changed.
    fn report_full(&mut self, now: Now) {
        let disk = self.disk.as_ref().is_some_and(|disk| disk.space().is_full);
        let full = match self.memory.is_full() {
            true => Some(Full::Memory),
            false => disk.then_some(Full::Disk),
        };
        self.replica.handle_input(now, Input::Full(full));
    }

    fn hand_out(&mut self, now: Now, output: Output) {
        self.handle_output(now, output);
        let packer = self.outbox.packer();
        if packer.len() >= FLUSH_AT || packer.size() >= FLUSH_SIZE {
            self.flush();
        }
    }

    /// Receives what has arrived, and handles it: first what nodes sent, then the requests of
    /// clients, so that what was begun is finished before more is begun.
    fn receive(&mut self, now: Now, budget: Budget) -> Result<(), RuntimeError> {
        self.learn_nodes(now);
        let mut batches = 0;
        let mut more = true;
        while self.handle_all(now, Senders::Nodes, budget)
            && more
            && batches < RECEIVES_PER_TURN_MAX
        {
            let received = self.socket.receive(now.mono_us, &mut self.tally);
            more = received.map_err(RuntimeError::Socket)?;
            batches += 1;
            if let Some(waited) = self.socket.take_waited(now.mono_us) {
                self.replica.handle_input(now, Input::Waited(waited));
            }
        }
        if self.socket.has_received() {
            let budget = Budget {
                ends: Instant::now() + OTHERS_MAX,
                ..budget
            };
            self.handle_all(now, Senders::Others, budget);
        }
        Ok(())
    }

    /// Handles received datagrams, at least one. `false` if the budget is spent.
    fn handle_all(&mut self, now: Now, from: Senders, budget: Budget) -> bool {
        while self.take_in(now, from) {
            while let Some(output) = self.replica.poll_ready() {
                self.hand_out(now, output);
            }
            if budget.is_spent(self.outbox.packer()) {
                return false;
            }
        }
        true
    }

    /// Handles one of the received datagrams; returns false if there is none.
    fn take_in(&mut self, now: Now, which: Senders) -> bool {
        let Self {
            socket,
            tally,
            replica,
            outbox,
            joiners,
            addresses,
            takes_text,
            ..
        } = self;
        let arrived = socket.arrived();
        let next = match which {
            Senders::Nodes => arrived.pop_of_node(|at| addresses.is_nodes(at, now.mono_us)),
            Senders::Others => arrived.pop(now.mono_us, tally),
        };
        let Some((bytes, from)) = next else {
            return false;
        };
        if !text::is_text(bytes) {
            let mut transits = Vec::new();
            let own = (replica.cluster(), replica.node());
            // Without a configuration this node cannot know which nodes have moved since the list
            // was written, and there is nothing yet to protect from unknown senders.
            let datagram = Datagram {
                bytes,
                from,
                now_us: now.mono_us,
                is_nodes: addresses.is_nodes(from.address, now.mono_us),
                is_open: replica.configuration().is_none(),
            };
            let before = tally.of(Cause::Stranger);
            decode(
                &datagram,
                own,
                joiners,
                tally,
                &mut |arrival| match arrival {
                    Arrival::Input(input) => replica.handle_input(now, input),
                    Arrival::Transit(transit) => transits.push(transit),
                    Arrival::Ack { from, ack } => outbox.handle_ack(now.mono_us, from, &ack),
                },
            );
            if tally.of(Cause::Stranger) > before {
                addresses.heard_stranger(from.address, now.mono_us);
            }
            for transit in transits {
                send::relay_frame(now, replica, addresses, outbox, tally, &transit);
            }
        } else if !*takes_text {
            tally.count(Cause::TextOff);
        } else {
            match decode_text(bytes, from, tally) {
                Some(Ok(input)) => replica.handle_input(now, input),
                Some(Err(bytes)) => outbox.push_plain(from.address, bytes, tally),
                None => {}
            }
        }
        true
    }

    /// Nodes' datagrams are accepted only from the addresses of nodes.
    fn learn_nodes(&mut self, now: Now) {
        let epoch = self.replica.configuration().map_or(0, |c| c.epoch);
        if epoch != self.nodes_of_epoch {
            self.nodes_of_epoch = epoch;
            let names = self.replica.node_addresses().map(str::to_owned);
            self.addresses.set_nodes(names.collect(), now.mono_us);
        }
        self.addresses.find_silent(now.mono_us);
    }

    fn handle_output(&mut self, now: Now, output: Output) {
        match output {
            Output::Load(key) => {
                let state = self.table.load(&key);
                self.replica.handle_input(now, Input::Loaded { key, state });
            }
            Output::List {
                bucket,
                after,
                epoch,
            } => {
                let page = self.table.list(bucket, after.as_ref());
                let listed = Input::Listed {
                    bucket,
                    after,
                    epoch,
                    page,
                };
                self.replica.handle_input(now, listed);
            }
            Output::ListRange {
                listing,
                range,
                bounds,
                epoch,
            } => {
                let page = self.table.list_range(&range, bounds);
                let listed = Input::RangeListed {
                    listing,
                    epoch,
                    page,
                };
                self.replica.handle_input(now, listed);
            }
            Output::Persist(group) => self.persist(now, group),
            Output::Send { to, envelope } => self.send(now, to, &envelope),
            Output::Reply { to, reply } => self.reply(now, to, reply),
            Output::Event(event) => {
                events::log(&event);
                if let Some(refusal) = events::refusal(event) {
                    self.refusal = Some(refusal);
                }
            }
        }
    }

    fn persist(&mut self, now: Now, mut group: Box<Group>) {
        self.table.apply(&group);
        if let Some(disk) = &mut self.disk {
            // A chosen mark may be reported for any key: without a register it would stay on disk
            // for good.
            group.chosen.retain(|(key, _)| self.table.holds(key));
            disk.commit(*group);
        } else {
            let group = group.number;
            self.replica.handle_input(now, Input::Persisted { group });
        }
    }

    fn report(&mut self, now: Now) {
        let counters = self.replica.counters();
        self.tally.raise_to(Cause::Stray, counters.stray);
        self.tally
            .raise_to(Cause::Contradiction, counters.contradictions);
        self.tally.raise_to(Cause::Overflow, counters.overflow);
        self.tally.raise_to(Cause::Unroutable, counters.unroutable);
        self.tally.raise_to(Cause::Ahead, counters.ahead);
        if let Some(line) = self.tally.report(now.mono_us) {
            tracing::warn!("dropped: {line}");
        }
    }

    fn handle_notice(&mut self, now: Now, notice: Notice) -> Result<(), RuntimeError> {
        match notice {
            Notice::Stop if self.stop_at_us.is_none() => {
                tracing::info!("stopping");
                self.replica.handle_input(now, Input::Stop);
                self.stop_at_us = Some(now.mono_us + DRAIN_US);
            }
            // A second request to stop: operations in progress are not awaited.
            Notice::Stop => self.stop_at_us = Some(now.mono_us),
            Notice::Resolved(resolved) => {
                let name = resolved.name.clone();
                if name == self.name
                    && let Ok([own, ..]) = resolved.addresses.as_deref()
                {
                    self.socket.announce(own.ip());
                }
                self.addresses.resolved(resolved, now.mono_us);
                if self.addresses.is_cut_off_from(&name) {
                    return Err(RuntimeError::Loopback {
                        name: self.name.clone(),
                        own: self.addresses.own(),
                        other: name,
                    });
                }
            }
            Notice::Persisted(group, took) => {
                let disk = self.disk.as_mut();
                disk.expect("only a disk tells that").persisted(group, took);
                self.replica.handle_input(now, Input::Persisted { group });
            }
            Notice::Space(space) => {
                let disk = self.disk.as_mut().expect("only a disk tells that");
                let was_full = disk.space().is_full;
                disk.set_space(space);
                if was_full != space.is_full {
                    self.report_full(now);
                }
            }
            // The thread may have ended, or have given up waiting.
            Notice::Observe(answer) => drop(answer.send(self.observe(now))),
            Notice::StorageFailed(error) => return Err(error.into()),
            Notice::StoragePanicked => return Err(RuntimeError::StoragePanicked),
            Notice::StorageClosed(_) => unreachable!("the store is closed after the last turn"),
        }
        Ok(())
    }

    /// Sleeps until there is something to do. A driver event also ends the sleep, and is returned.
    async fn wait(&mut self, mut alarm: Pin<&mut Sleep>) -> Result<Option<Notice>, RuntimeError> {
        // Transfers wait for the socket like everything else.
        let sends_us = self.outbox.next_timeout().filter(|_| !self.send_blocked);
        let sends_now = sends_us.is_some_and(|at_us| at_us <= self.clock.now().mono_us);
        if self.is_unfinished || sends_now || self.socket.has_received() {
            tokio::task::yield_now().await;
            return Ok(None);
        }
        let timeout_us = self.replica.next_timeout().into_iter();
        let wanted = timeout_us.chain(self.stop_at_us).chain(sends_us).min();
        if let Some(at) = wanted.map(|at_us| self.clock.instant(at_us))
            && alarm.deadline() != at
        {
            alarm.as_mut().reset(at);
        }
        tokio::select! {
            biased;
            notice = self.notices.recv() => return Ok(notice),
            () = alarm, if wanted.is_some() => {}
            ready = self.socket.readable() => ready.map_err(RuntimeError::Socket)?,
            ready = self.socket.writable(), if self.send_blocked => {
                ready.map_err(RuntimeError::Socket)?;
                self.send_blocked = false;
            }
        }
        Ok(None)
    }

    fn is_done(&self, now: Now) -> bool {
        let drained = self.replica.operations_under_way() == 0 && self.outbox.is_empty();
        self.stop_at_us
            .is_some_and(|at_us| drained || now.mono_us >= at_us)
    }

    /// Ends the storage thread, which leaves a cleanly stopped store.
    async fn close(&mut self) -> Result<(), RuntimeError> {
        let Some(mut disk) = self.disk.take() else {
            return Ok(());
        };
        disk.close();
        let closed = async {
            loop {
                match self.notices.recv().await {
                    Some(Notice::StorageClosed(result)) => {
                        return Ok(result?);
                    }
                    Some(Notice::StorageFailed(error)) => return Err(error.into()),
                    Some(Notice::StoragePanicked) | None => {
                        return Err(RuntimeError::StoragePanicked);
                    }
                    Some(
                        Notice::Stop
                        | Notice::Observe(_)
                        | Notice::Resolved(_)
                        | Notice::Persisted(..)
                        | Notice::Space(_),
                    ) => {}
                }
            }
        };
        let in_time = tokio::time::timeout(CLOSE_MAX, closed).await;
        in_time.unwrap_or(Err(RuntimeError::StorageStuck))
    }
}

#[cfg(test)]
mod tests;
