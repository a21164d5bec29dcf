//! The trouble of a run: what strikes, whom, for how long, and how it ends.

use std::collections::BTreeMap;

use super::cluster::Cluster;
use super::network::{Place, Quality, between};
use super::node::DiskSpeed;
use super::random::Random;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    Crash,
    /// All nodes at once.
    PowerCut,
    /// A crash that takes the state with it.
    MemoryLoss,
    CleanStop,
    Stall,
    Split,
    Isolation,
    CutLinks,
    OneWayCut,
    CutClients,
    LossBurst,
    LateBurst,
    DoubleBurst,
    SmallJump,
    LargeJump,
    SlowDisk,
    ClientCrash,
}

impl FaultKind {
    pub const ALL: [FaultKind; 17] = [
        FaultKind::Crash,
        FaultKind::PowerCut,
        FaultKind::MemoryLoss,
        FaultKind::CleanStop,
        FaultKind::Stall,
        FaultKind::Split,
        FaultKind::Isolation,
        FaultKind::CutLinks,
        FaultKind::OneWayCut,
        FaultKind::CutClients,
        FaultKind::LossBurst,
        FaultKind::LateBurst,
        FaultKind::DoubleBurst,
        FaultKind::SmallJump,
        FaultKind::LargeJump,
        FaultKind::SlowDisk,
        FaultKind::ClientCrash,
    ];
}

/// What ends a fault.
#[derive(Debug)]
enum Undo {
    Start(usize),
    CrashThenStart(usize, u64),
    Mend(Vec<(Place, Place)>),
    Calm(u64),
    Speed(usize, DiskSpeed),
}

pub struct Faults {
    random: Random,
    undo: BTreeMap<u64, Undo>,
    number: u64,
    pub struck: BTreeMap<FaultKind, u64>,
    /// State was lost before there was a configuration: there may never be one (E6).
    pub may_not_form: bool,
}

impl Faults {
    pub fn new(random: Random) -> Self {
        Faults {
            random,
            undo: BTreeMap::new(),
            number: 0,
            struck: BTreeMap::new(),
            may_not_form: false,
        }
    }

    pub fn total(&self) -> u64 {
        self.struck.values().sum()
    }

    /// Something happens, if it can now. `plan` makes the number under which its end comes due.
    pub fn strike(&mut self, kind: FaultKind, cluster: &mut Cluster, plan: impl Fn(u64) -> u64) {
        let Some(undo) = self.begin(kind, cluster) else {
            return;
        };
        *self.struck.entry(kind).or_default() += 1;
        for (after_us, undo) in undo {
            self.number += 1;
            self.undo.insert(self.number, undo);
            cluster.plan(cluster.now_us + after_us, plan(self.number));
        }
    }

    /// A node that is down from the beginning.
    pub fn starts_late(
        &mut self,
        node: usize,
        after_us: u64,
        cluster: &mut Cluster,
        plan: impl Fn(u64) -> u64,
    ) {
        self.number += 1;
        self.undo.insert(self.number, Undo::Start(node));
        cluster.plan(cluster.now_us + after_us, plan(self.number));
    }

    /// The end of one fault has come.
    pub fn end(&mut self, number: u64, cluster: &mut Cluster, plan: impl Fn(u64) -> u64) {
        match self.undo.remove(&number) {
            None => {}
            Some(Undo::CrashThenStart(node, after_us)) => {
                if cluster.nodes[node].is_up() {
                    cluster.crash(node);
                }
                self.number += 1;
                self.undo.insert(self.number, Undo::Start(node));
                cluster.plan(cluster.now_us + after_us, plan(self.number));
            }
            Some(undo) => undo_one(undo, cluster),
        }
    }

    /// Ends all at once.
    pub fn end_all(&mut self, cluster: &mut Cluster) {
        for (_, undo) in std::mem::take(&mut self.undo) {
            undo_one(undo, cluster);
        }
    }

    fn begin(&mut self, kind: FaultKind, cluster: &mut Cluster) -> Option<Vec<(u64, Undo)>> {
        let node = self.random.below(cluster.nodes.len() as u64) as usize;
        let while_us = *self.random.pick(&[50_000, 300_000, 1_000_000, 2_500_000]);
        let while_us = self.random.between(while_us / 4, while_us);
        match kind {
            FaultKind::Crash => self.crash(cluster, node, while_us),
            FaultKind::PowerCut => self.power_cut(cluster),
            FaultKind::MemoryLoss => self.lose_memory(cluster, node, while_us),
            FaultKind::CleanStop => self.stop(cluster, node, while_us),
            FaultKind::Stall => {
                cluster.nodes[node]
                    .is_up()
                    .then(|| cluster.stall(node, while_us))?;
                Some(Vec::new())
            }
            FaultKind::Split
            | FaultKind::Isolation
            | FaultKind::CutLinks
            | FaultKind::OneWayCut
            | FaultKind::CutClients => self.cut(kind, cluster, node, while_us),
            FaultKind::LossBurst | FaultKind::LateBurst | FaultKind::DoubleBurst => {
                Some(self.burst(kind, cluster, while_us))
            }
            FaultKind::SmallJump => {
                let by = self.random.below(1_000) as i64 - 500;
                cluster.jump(node, by);
                Some(Vec::new())
            }
            FaultKind::LargeJump => {
                let hours = self.random.below(7) as i64 - 3;
                let by = hours * 3_600_000 + self.random.below(120_000) as i64 - 60_000;
                cluster.jump(node, by);
                Some(Vec::new())
            }
            FaultKind::SlowDisk => Some(self.slow_disk(cluster, node, while_us)),
            FaultKind::ClientCrash => {
                let there: Vec<usize> = cluster
                    .clients
                    .iter()
                    .filter(|c| c.is_there())
                    .map(|c| c.index)
                    .collect();
                let client = *self.random.pick(&there);
                cluster.crash_client(client);
                Some(Vec::new())
            }
        }
    }

    /// A crash is harmless for who finds its state again; who does not must be one that the others
    /// can do without.
    fn crash(
        &mut self,
        cluster: &mut Cluster,
        node: usize,
        while_us: u64,
    ) -> Option<Vec<(u64, Undo)>> {
        let harmless = cluster.settings.keeps_disk || self.may_forget(cluster, node);
        if !harmless || !cluster.nodes[node].is_up() {
            return None;
        }
        cluster.crash(node);
        Some(vec![(while_us, Undo::Start(node))])
    }

    fn may_forget(&mut self, cluster: &Cluster, node: usize) -> bool {
        // The only node there is would start a new cluster, as it should.
        if cluster.nodes.len() == 1 {
            return false;
        }
        if cluster.watch.configuration().is_none() {
            self.may_not_form = true;
            return true;
        }
        cluster.vote_of(node).is_none() || cluster.can_lose(&[node])
    }

    fn power_cut(&mut self, cluster: &mut Cluster) -> Option<Vec<(u64, Undo)>> {
        if !cluster.settings.keeps_disk {
            return None;
        }
        let mut undo = Vec::new();
        for node in 0..cluster.nodes.len() {
            if cluster.nodes[node].is_up() {
                cluster.crash(node);
                undo.push((self.random.between(1_000, 500_000), Undo::Start(node)));
            }
        }
        Some(undo)
    }

    fn lose_memory(
        &mut self,
        cluster: &mut Cluster,
        node: usize,
        while_us: u64,
    ) -> Option<Vec<(u64, Undo)>> {
        if !cluster.nodes[node].is_up() || !self.may_forget(cluster, node) {
            return None;
        }
        cluster.crash(node);
        if cluster.settings.keeps_disk {
            cluster.wipe(node);
        }
        Some(vec![(while_us, Undo::Start(node))])
    }

    fn stop(
        &mut self,
        cluster: &mut Cluster,
        node: usize,
        while_us: u64,
    ) -> Option<Vec<(u64, Undo)>> {
        if !cluster.nodes[node].is_up() || !cluster.settings.keeps_disk {
            return None;
        }
        cluster.ask_to_stop(node);
        let runs_on_us = self.random.below(300_000);
        Some(vec![(runs_on_us, Undo::CrashThenStart(node, while_us))])
    }

    fn cut(
        &mut self,
        kind: FaultKind,
        cluster: &mut Cluster,
        node: usize,
        while_us: u64,
    ) -> Option<Vec<(u64, Undo)>> {
        let nodes: Vec<Place> = (0..cluster.nodes.len()).map(Place::Node).collect();
        let others: Vec<Place> = nodes
            .iter()
            .copied()
            .filter(|p| *p != Place::Node(node))
            .collect();
        let ways: Vec<(Place, Place)> = match kind {
            FaultKind::Split => {
                let (left, right): (Vec<Place>, Vec<Place>) =
                    nodes.iter().partition(|_| self.random.chance(500));
                between(&left, &right)
            }
            FaultKind::Isolation => between(&[Place::Node(node)], &others),
            FaultKind::CutLinks => {
                let mut ways = between(&nodes, &nodes);
                ways.retain(|(a, b)| a < b && self.random.chance(400));
                ways.iter()
                    .flat_map(|(a, b)| [(*a, *b), (*b, *a)])
                    .collect()
            }
            FaultKind::OneWayCut => {
                let out = self.random.chance(500);
                let to = others.iter().filter(|_| self.random.chance(600));
                to.map(|o| {
                    if out {
                        (Place::Node(node), *o)
                    } else {
                        (*o, Place::Node(node))
                    }
                })
                .collect()
            }
            _ => {
                let clients: Vec<Place> = (0..cluster.clients.len()).map(Place::Client).collect();
                let mut ways = between(&clients, &nodes);
                ways.retain(|_| self.random.chance(400));
                ways
            }
        };
        if ways.is_empty() {
            return None;
        }
        cluster.trace.story(cluster.now_us, || {
            let ways: Vec<String> = ways.iter().map(|(a, b)| format!("{a} > {b}")).collect();
            format!("{kind:?} for {} ms: {}", while_us / 1_000, ways.join(", "))
        });
        cluster.network.cut(&ways);
        Some(vec![(while_us, Undo::Mend(ways))])
    }

    fn burst(&mut self, kind: FaultKind, cluster: &mut Cluster, while_us: u64) -> Vec<(u64, Undo)> {
        let usual = cluster.network.quality();
        let quality = match kind {
            FaultKind::LossBurst => Quality {
                lost_per_mille: self.random.between(100, 600),
                ..usual
            },
            FaultKind::DoubleBurst => Quality {
                doubled_per_mille: 500,
                ..usual
            },
            _ => Quality {
                late_per_mille: self.random.between(50, 500),
                late_max_us: *self.random.pick(&[20_000, 200_000, 1_500_000, 5_000_000]),
                ..usual
            },
        };
        cluster.trace.story(cluster.now_us, || {
            format!("{kind:?} for {} ms: {quality:?}", while_us / 1_000)
        });
        let name = self.number + 1;
        cluster.network.begin_burst(name, quality);
        vec![(while_us, Undo::Calm(name))]
    }

    fn slow_disk(&mut self, cluster: &mut Cluster, node: usize, while_us: u64) -> Vec<(u64, Undo)> {
        let usual = cluster.settings.speed;
        let sync_max_us = *self.random.pick(&[20_000, 100_000, 800_000]);
        let slow = DiskSpeed {
            sync_min_us: sync_max_us / 4,
            sync_max_us,
            ..usual
        };
        cluster.trace.story(cluster.now_us, || {
            format!("node {node}'s disk takes up to {} ms", sync_max_us / 1_000)
        });
        cluster.nodes[node].speed = slow;
        vec![(while_us, Undo::Speed(node, usual))]
    }
}

fn undo_one(undo: Undo, cluster: &mut Cluster) {
    match undo {
        Undo::Start(node) => {
            if !cluster.nodes[node].is_up() {
                cluster.start(node);
            }
        }
        Undo::CrashThenStart(node, _) => {
            if cluster.nodes[node].is_up() {
                cluster.crash(node);
            }
            cluster.start(node);
        }
        Undo::Mend(ways) => {
            cluster
                .trace
                .story(cluster.now_us, || "links are mended".into());
            cluster.network.mend(&ways);
        }
        Undo::Calm(name) => cluster.network.end_burst(name),
        Undo::Speed(node, speed) => cluster.nodes[node].speed = speed,
    }
}
