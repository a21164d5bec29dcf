//! One running node: a replica with its disk, and all inputs since its start, so that the same
//! state can be reconstructed.

use std::collections::VecDeque;
use std::rc::Rc;

use horseshoe::protocol::types::message::{
    ClientMessage, ClientReply, Destination, Endpoint, Envelope, Event, Group, Input, Message,
    Meta, Now, Output, Recovered,
};
use horseshoe::protocol::types::record::{AcceptorState, Key};
use horseshoe::protocol::{Options, Replica, Tuning};
use wire::{Hello, Request};

use super::scope::{CLUSTER, Scope, WALL_MS};
use crate::sim::disk::Disk;

/// There are no heartbeats: links stay as they are when the search begins, until a node is silent.
/// All rounds of a search have ended before a heartbeat is due.
const HEARTBEAT_MS: u64 = 1_000;
/// Longer than any wait after a change of links, shorter than any wait of a round.
const NEWS_US: u64 = 5_000;
/// A timer that is due later is not a timer of rounds.
const TIMER_US_MAX: u64 = 500_000;
/// After this time the reports of a silent neighbour count no longer, and the quorum is lost.
const SILENCE_US: u64 = 3 * HEARTBEAT_MS * 1_000;

/// How far a clock jumps: farther than everything in a search takes, and within the bound (B2).
const AHEAD_MS: u64 = 1_000;

/// One start of a node.
#[derive(Debug)]
pub struct Life {
    pub node: usize,
    boot: u64,
    recovered: Recovered,
    started: Now,
}

pub type Inputs = Vec<Rc<(Now, Input)>>;

pub struct Machine {
    pub life: Rc<Life>,
    pub inputs: Inputs,
    pub replica: Replica,
    pub disk: Disk,
    now: Now,
    slow_disk: bool,
    /// Session tokens, by operation.
    pub tokens: Rc<Vec<u64>>,
    pub sent: Vec<Envelope>,
    pub heartbeats: Vec<Envelope>,
    pub replies: Vec<(Endpoint, ClientReply)>,
    pub written: Vec<(Key, AcceptorState)>,
}

/// Each operation has its own address, as if its client had made it on another machine.
pub fn endpoint(plan: usize) -> Endpoint {
    Endpoint::new(1, plan as u16 + 1)
}

fn replica(scope: &Scope, life: &Life) -> Replica {
    let options = Options {
        list: scope.list(),
        index: life.node as u8,
        boot: life.boot,
        seed: life.boot,
        skew_max_ms: 60_000,
        insecure_admin: true,
        value_size_max: wire::VALUE_SIZE_DEFAULT,
        keys_cached_max: 100,
        cache_size_max: 64 << 20,
        heartbeat_ms: HEARTBEAT_MS,
        link_down_ms: HEARTBEAT_MS,
        shrink_after_ms: 0,
        disk_hung_ms: horseshoe::protocol::types::limits::DISK_HUNG_MS_DEFAULT,
        cluster_name: String::new(),
        bootstrap: false,
        tuning: Tuning::default(),
    };
    Replica::new(options, life.recovered.clone(), life.started)
}

impl Machine {
    /// A node with a configuration on its disk, as the scope describes it.
    pub fn first(scope: &Scope, node: usize) -> Machine {
        let incarnation = Scope::incarnation(node);
        let mut disk = Disk::new(incarnation);
        disk.write(Group {
            number: 1,
            registers: scope.registers(node),
            meta: Some(Meta {
                configuration: Some(scope.configuration(1)),
                ..Meta::default()
            }),
            ..Group::default()
        });
        disk.end_sync();
        let life = Life {
            node,
            boot: 10 + node as u64,
            recovered: disk.recovered(),
            started: Now {
                mono_us: NEWS_US,
                wall_ms: WALL_MS,
            },
        };
        Machine::start(scope, life, disk)
    }

    fn start(scope: &Scope, life: Life, disk: Disk) -> Machine {
        let mut machine = Machine {
            replica: replica(scope, &life),
            now: life.started,
            life: Rc::new(life),
            inputs: Vec::new(),
            disk,
            slow_disk: false,
            tokens: Rc::default(),
            sent: Vec::new(),
            heartbeats: Vec::new(),
            replies: Vec::new(),
            written: Vec::new(),
        };
        machine.handle(Input::Timeout);
        machine
    }

    /// The node in the state after these inputs.
    pub fn again(
        scope: &Scope,
        life: Rc<Life>,
        inputs: Inputs,
        disk: Disk,
        tokens: Rc<Vec<u64>>,
    ) -> Machine {
        let mut replica = replica(scope, &life);
        let mut now = life.started;
        for input in &inputs {
            now = input.0;
            replica.handle_input(now, input.1.clone());
            while replica.poll_output().is_some() {}
        }
        Machine {
            life,
            inputs,
            replica,
            disk,
            now,
            slow_disk: scope.slow_disks,
            tokens,
            sent: Vec::new(),
            heartbeats: Vec::new(),
            replies: Vec::new(),
            written: Vec::new(),
        }
    }

    /// Handles one input, and the inputs that follow immediately from its outputs.
    pub fn handle(&mut self, input: Input) {
        let mut due = VecDeque::from([input]);
        while let Some(input) = due.pop_front() {
            self.inputs.push(Rc::new((self.now, input.clone())));
            self.replica.handle_input(self.now, input);
            while let Some(output) = self.replica.poll_output() {
                match output {
                    Output::Persist(group) => {
                        self.written.extend(group.registers.iter().cloned());
                        let begins = self.disk.write(*group);
                        if begins && !self.slow_disk {
                            let (group, _) = self.disk.end_sync();
                            due.push_back(Input::Persisted { group });
                        }
                    }
                    Output::Load(key) => {
                        let state = self.disk.load(&key);
                        due.push_back(Input::Loaded { key, state });
                    }
                    Output::List {
                        bucket,
                        after,
                        epoch,
                    } => {
                        let page = self.disk.list(bucket, after.as_ref(), usize::MAX);
                        due.push_back(Input::Listed {
                            bucket,
                            after,
                            epoch,
                            page,
                        });
                    }
                    Output::ListRange {
                        listing,
                        range,
                        bounds,
                        epoch,
                    } => {
                        let page = self.disk.list_range(&range, bounds);
                        due.push_back(Input::RangeListed {
                            listing,
                            epoch,
                            page,
                        });
                    }
                    Output::Send { to, envelope } => self.send(to, envelope),
                    Output::Reply { to, reply } => self.replies.push((to, reply)),
                    Output::Event(event @ Event::Contradiction { .. }) => {
                        panic!("R3: {event:?}")
                    }
                    Output::Event(_) => {}
                }
            }
        }
    }

    /// Sends a message. A repetition of a direct message over an alternative path would only
    /// deliver it twice, so it is omitted. Requests for a configuration, and updates to a node that
    /// has shown that it lacks the configuration, are also omitted: the node sent its configuration
    /// to all when it installed it.
    fn send(&mut self, to: Destination, mut envelope: Envelope) {
        envelope.via = envelope.origin;
        if let Message::ConfigurationUpdate(_) = envelope.message {
            // The identity of the sender does not matter.
            envelope.origin = 0;
            envelope.via = 0;
            envelope.incarnation = 0;
        }
        if matches!(envelope.message, Message::Heartbeat(_)) {
            self.heartbeats.push(envelope);
        } else if to == Destination::Node(envelope.destination) {
            self.sent.push(envelope);
        }
    }

    pub fn deliver(&mut self, envelope: &Envelope) {
        let envelope = envelope.clone();
        let cluster = CLUSTER;
        self.handle(Input::Peer { cluster, envelope });
    }

    /// Lets the time pass after which changes of links are announced.
    pub fn pass_news_on(&mut self) {
        self.now.mono_us += NEWS_US;
        self.handle(Input::Timeout);
    }

    /// From now on the node's clock is ahead.
    pub fn jump_ahead(&mut self) {
        self.now.wall_ms += AHEAD_MS;
        self.handle(Input::Timeout);
    }

    /// When the next timer of a round is due.
    pub fn timer_us(&self) -> Option<u64> {
        let due_us = self.replica.next_timeout()?;
        (due_us < self.now.mono_us + TIMER_US_MAX).then_some(due_us)
    }

    pub fn fire_timer(&mut self) {
        let due_us = self.timer_us().expect("a timer is set");
        self.now.mono_us = self.now.mono_us.max(due_us);
        self.handle(Input::Timeout);
    }

    pub fn be_silent(&mut self) {
        self.now.mono_us += SILENCE_US;
        self.handle(Input::Timeout);
    }

    pub fn end_sync(&mut self) {
        let (group, _) = self.disk.end_sync();
        self.handle(Input::Persisted { group });
    }

    /// The clients of all operations that may use this node send hellos.
    pub fn greet(&mut self, scope: &Scope) {
        let mut tokens = Vec::new();
        for plan in 0..scope.plans.len() {
            let hello = Hello {
                client: scope.operation(plan).id.client,
                nonce: self.life.boot,
                library_version: String::new(),
            };
            let (from, message) = (endpoint(plan), ClientMessage::Hello(hello));
            self.handle(Input::Client { from, message });
            let Some((_, ClientReply::Hello(answer))) = self.replies.pop() else {
                panic!("a hello is answered");
            };
            tokens.push(answer.token);
        }
        self.tokens = Rc::new(tokens);
    }

    pub fn request(&mut self, scope: &Scope, plan: usize, attempt: usize) {
        let request = Request {
            token: self.tokens[plan],
            attempt: attempt as u64 + 1,
            retry: attempt > 0,
            left_ms: 5_000,
            operation: scope.operation(plan),
        };
        let (from, message) = (endpoint(plan), ClientMessage::Request(request));
        self.handle(Input::Client { from, message });
    }

    /// The heartbeat as it is once all nodes have received this start count, and none reports a
    /// rollback.
    fn is_seen_by(&self, heartbeat: &Envelope) -> Envelope {
        let mut heartbeat = heartbeat.clone();
        if let Message::Heartbeat(m) = &mut heartbeat.message {
            let seen = m.rows.iter_mut().flat_map(|row| &mut row.seen);
            seen.filter(|(node, _)| usize::from(*node) == self.life.node + 1)
                .for_each(|(_, boot)| *boot = self.life.boot);
        }
        heartbeat
    }

    /// The process ends and loses what was not synced, and starts again. It receives the other
    /// nodes' heartbeats at once, as they were before the search; they receive its heartbeat too,
    /// and could report a rollback (E1).
    pub fn restart(self, scope: &Scope, heard: &[Envelope]) -> Machine {
        let mut disk = self.disk;
        disk.crash(0);
        let recovered = disk.recovered();
        let life = Life {
            node: self.life.node,
            boot: self.life.boot + 100,
            recovered,
            started: self.now,
        };
        let mut machine = Machine::start(scope, life, disk);
        let heard = heard.iter().map(|heartbeat| machine.is_seen_by(heartbeat));
        let heard: Vec<Envelope> = heard.collect();
        heard
            .iter()
            .for_each(|heartbeat| machine.deliver(heartbeat));
        machine.heartbeats.clear();
        machine.pass_news_on();
        machine.greet(scope);
        machine.slow_disk = scope.slow_disks;
        machine
    }
}
