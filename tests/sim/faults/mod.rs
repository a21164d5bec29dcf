//! The faults of a run: which kind occurs, at which node, for how long, and how it ends.

mod copies;
mod links;
mod messages;
mod nodes;
mod operators;

use std::collections::BTreeMap;

use super::cluster::{Cluster, Trap};
use super::disk::Disk;
use super::network::Place;
use super::node::DiskSpeed;
use super::random::Random;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    Crash,
    /// Just after a message of some kind was sent.
    CrashAtSend,
    /// A crash, and a start with a clock that went back.
    CrashAndSetBack,
    /// All nodes at once.
    PowerCut,
    /// A crash that loses the state.
    MemoryLoss,
    /// A crash, and a start from a copy of the disk that was made earlier in this run.
    RollBack,
    CleanStop,
    Stall,
    SlowDisk,
    SmallJump,
    LargeJump,
    Split,
    Isolation,
    /// Isolates a node, in most cases until it is removed: it comes back with its process's memory
    /// intact.
    Removal,
    CutLinks,
    OneWayCut,
    CutClients,
    LossBurst,
    LateBurst,
    DoubleBurst,
    /// Most messages of one kind are lost, or late.
    KindLost,
    KindLate,
    ClientCrash,
    /// An operator requests another configuration.
    TakenOut,
    Replacement,
    Transfer,
    Force,
}

impl FaultKind {
    /// The faults that any run may have.
    pub const ALL: [FaultKind; 21] = [
        FaultKind::Crash,
        FaultKind::CrashAtSend,
        FaultKind::CrashAndSetBack,
        FaultKind::PowerCut,
        FaultKind::MemoryLoss,
        FaultKind::CleanStop,
        FaultKind::Stall,
        FaultKind::SlowDisk,
        FaultKind::SmallJump,
        FaultKind::LargeJump,
        FaultKind::Split,
        FaultKind::Isolation,
        FaultKind::CutLinks,
        FaultKind::OneWayCut,
        FaultKind::CutClients,
        FaultKind::LossBurst,
        FaultKind::LateBurst,
        FaultKind::DoubleBurst,
        FaultKind::KindLost,
        FaultKind::KindLate,
        FaultKind::ClientCrash,
    ];

    /// The faults of operators, which some runs have.
    pub const OPERATORS: [FaultKind; 4] = [
        FaultKind::TakenOut,
        FaultKind::Replacement,
        FaultKind::Transfer,
        FaultKind::Force,
    ];

    /// The faults that matter while a cluster is formed.
    pub const EARLY: [FaultKind; 6] = [
        FaultKind::Crash,
        FaultKind::CrashAtSend,
        FaultKind::MemoryLoss,
        FaultKind::Isolation,
        FaultKind::LateBurst,
        FaultKind::KindLate,
    ];
}

/// A node that was told to stop, but cannot end without harm yet, is tried again this much later.
const END_AGAIN_US: u64 = 100_000;

/// The end of a fault, or its next step.
#[derive(Debug)]
enum Then {
    Start(usize),
    /// The node crashes, and starts this much later.
    CrashFor(usize, u64),
    /// The same for a node that was told to stop: it does nothing any more, so it must end.
    EndFor(usize, u64),
    /// The node starts from this copy of its disk.
    RollBack(usize, Box<Disk>),
    Mend(Vec<(Place, Place)>),
    Calm(u64),
    Speed(usize, DiskSpeed),
    Unfilter(usize),
    /// A node that was removed is added.
    TakeIn,
}

/// When that happens.
#[derive(Debug, Clone, Copy)]
enum When {
    After(u64),
    /// When the node has sent this many messages of this name.
    Sends(usize, &'static str, u64),
}

pub struct Faults {
    random: Random,
    then: BTreeMap<u64, Then>,
    number: u64,
    /// Distinguishes the plans of these faults among those of the cluster.
    mark: u64,
    pub struck: BTreeMap<FaultKind, u64>,
    /// State was lost before there was a configuration: there may never be one (E6).
    pub may_not_form: bool,
    /// The client that requests membership changes.
    operator: Option<usize>,
    forced_us: Option<u64>,
}

impl Faults {
    /// The numbers of its plans have `mark` added.
    pub fn new(random: Random, mark: u64) -> Self {
        Faults {
            random,
            then: BTreeMap::new(),
            number: 0,
            mark,
            struck: BTreeMap::new(),
            may_not_form: false,
            operator: None,
            forced_us: None,
        }
    }

    pub fn total(&self) -> u64 {
        self.struck.values().sum()
    }

    /// Begins a fault of this kind, if that is possible now.
    pub fn strike(&mut self, kind: FaultKind, cluster: &mut Cluster) {
        if let Some(then) = self.begin(kind, cluster) {
            *self.struck.entry(kind).or_default() += 1;
            for (when, then) in then {
                self.schedule(when, then, cluster);
            }
        }
    }

    /// A node that is down from the beginning.
    pub fn starts_late(&mut self, node: usize, after_us: u64, cluster: &mut Cluster) {
        self.schedule(When::After(after_us), Then::Start(node), cluster);
    }

    fn schedule(&mut self, when: When, then: Then, cluster: &mut Cluster) {
        self.number += 1;
        self.then.insert(self.number, then);
        let plan = self.mark + self.number;
        match when {
            When::After(us) => cluster.plan(cluster.now_us + us, plan),
            When::Sends(node, name, count) => cluster.traps.push(Trap {
                node,
                name,
                count,
                plan,
            }),
        }
    }

    /// The plan of this number, without the mark, has come due.
    pub fn comes_due(&mut self, number: u64, cluster: &mut Cluster) {
        match self.then.remove(&number) {
            None => {}
            Some(then @ (Then::CrashFor(node, down_us) | Then::EndFor(node, down_us))) => {
                let is_up = cluster.nodes[node].is_up();
                if is_up && self.is_harmless(cluster, node) {
                    cluster.crash(node);
                    self.schedule(When::After(down_us), Then::Start(node), cluster);
                } else if is_up && matches!(then, Then::EndFor(..)) {
                    // It does nothing any more, so it must end.
                    self.schedule(When::After(END_AGAIN_US), then, cluster);
                }
            }
            Some(Then::TakeIn) => {
                self.take_in(cluster);
            }
            Some(Then::RollBack(node, copy)) => self.roll_back(cluster, node, *copy),
            Some(then) => end(then, cluster),
        }
    }

    /// Ends all faults at once.
    pub fn end_all(&mut self, cluster: &mut Cluster) {
        cluster.traps.clear();
        for (_, then) in std::mem::take(&mut self.then) {
            end(then, cluster);
        }
    }

    fn begin(&mut self, kind: FaultKind, cluster: &mut Cluster) -> Option<Vec<(When, Then)>> {
        let node = self.random.below(cluster.nodes.len() as u64) as usize;
        let for_us = *self.random.pick(&[50_000, 300_000, 1_000_000, 2_500_000]);
        let for_us = self.random.between(for_us / 4, for_us);
        match kind {
            FaultKind::Crash => self.crash(cluster, node, for_us),
            FaultKind::CrashAtSend => self.crash_at_send(cluster, node, for_us),
            FaultKind::CrashAndSetBack => self.crash_and_set_back(cluster, node, for_us),
            FaultKind::PowerCut => self.power_cut(cluster),
            FaultKind::MemoryLoss => self.lose_memory(cluster, node, for_us),
            FaultKind::RollBack => {
                self.copy(cluster, node, for_us);
                None
            }
            FaultKind::CleanStop => self.stop(cluster, node, for_us),
            FaultKind::Stall => self.stall(cluster, node, for_us),
            FaultKind::SlowDisk => Some(self.slow_disk(cluster, node, for_us)),
            FaultKind::SmallJump | FaultKind::LargeJump => self.jump(kind, cluster, node),
            FaultKind::Split
            | FaultKind::Isolation
            | FaultKind::Removal
            | FaultKind::CutLinks
            | FaultKind::OneWayCut
            | FaultKind::CutClients => self.cut(kind, cluster, node, for_us),
            FaultKind::LossBurst | FaultKind::LateBurst | FaultKind::DoubleBurst => {
                Some(self.burst(kind, cluster, for_us))
            }
            FaultKind::KindLost | FaultKind::KindLate => {
                Some(self.trouble_kind(kind, cluster, node, for_us))
            }
            FaultKind::ClientCrash => self.crash_client(cluster),
            FaultKind::TakenOut
            | FaultKind::Replacement
            | FaultKind::Transfer
            | FaultKind::Force => self.operate(kind, cluster, node, for_us),
        }
    }

    fn crash_client(&mut self, cluster: &mut Cluster) -> Option<Vec<(When, Then)>> {
        let there = cluster.clients.iter().filter(|c| c.is_there());
        let there: Vec<usize> = there.map(|c| c.index).collect();
        let client = *self.random.pick(&there);
        cluster.crash_client(client);
        Some(Vec::new())
    }
}

fn end(then: Then, cluster: &mut Cluster) {
    match then {
        Then::Start(node) => {
            if !cluster.nodes[node].is_up() {
                cluster.start(node);
            }
        }
        // The faults have ended, so these do not happen any more.
        Then::CrashFor(..) | Then::RollBack(..) => {}
        // All nodes are added once the faults have ended.
        Then::TakeIn => {}
        Then::EndFor(node, _) => {
            if cluster.nodes[node].is_up() {
                cluster.crash(node);
            }
            cluster.start(node);
        }
        Then::Mend(ways) => {
            cluster
                .trace
                .story(cluster.now_us, || "links are mended".into());
            cluster.network.mend(&ways);
        }
        Then::Calm(name) => cluster.network.end_burst(name),
        Then::Speed(node, speed) => cluster.nodes[node].speed = speed,
        Then::Unfilter(number) => cluster.unfilter(number),
    }
}
