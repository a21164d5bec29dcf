//! Faults of nodes: crashes, lost state, pauses, disks, clocks.

use super::super::cluster::Cluster;
use super::super::node::DiskSpeed;
use super::messages::PEER_MESSAGES;
use super::{FaultKind, Faults, Then, When};

type Begun = Option<Vec<(When, Then)>>;

impl Faults {
    /// A crash is harmless for a node that finds its state again; a node that does not must be one
    /// that the others do not need.
    pub(super) fn is_harmless(&mut self, cluster: &Cluster, node: usize) -> bool {
        // This node may be the only one that knows that another's disk is an older copy.
        if cluster.is_somebody_rolled_back() {
            return false;
        }
        cluster.settings.keeps_disk || self.may_forget(cluster, node)
    }

    pub(super) fn may_forget(&mut self, cluster: &Cluster, node: usize) -> bool {
        // The only node would start a new cluster, as it should.
        if cluster.nodes.len() == 1 {
            return false;
        }
        if cluster.watch.configuration().is_none() {
            self.may_not_form = true;
            return true;
        }
        cluster.vote_of(node).is_none() || cluster.can_lose(&[node])
    }

    pub(super) fn crash(&mut self, cluster: &mut Cluster, node: usize, for_us: u64) -> Begun {
        if !cluster.nodes[node].is_up() || !self.is_harmless(cluster, node) {
            return None;
        }
        cluster.crash(node);
        Some(vec![(When::After(for_us), Then::Start(node))])
    }

    pub(super) fn crash_at_send(
        &mut self,
        cluster: &mut Cluster,
        node: usize,
        for_us: u64,
    ) -> Begun {
        let name = *self.random.pick(&PEER_MESSAGES);
        let count = self.random.between(1, 4);
        cluster.trace.story(cluster.now_us, || {
            format!("node {node} will crash when it has sent {count} {name}")
        });
        Some(vec![(
            When::Sends(node, name, count),
            Then::CrashFor(node, for_us),
        )])
    }

    pub(super) fn crash_and_set_back(
        &mut self,
        cluster: &mut Cluster,
        node: usize,
        for_us: u64,
    ) -> Begun {
        let then = self.crash(cluster, node, for_us.min(500_000))?;
        let back_ms = self.random.below(2_000) as i64;
        cluster.jump(node, -back_ms);
        Some(then)
    }

    pub(super) fn power_cut(&mut self, cluster: &mut Cluster) -> Begun {
        if !cluster.settings.keeps_disk || cluster.is_somebody_rolled_back() {
            return None;
        }
        let mut then = Vec::new();
        for node in 0..cluster.nodes.len() {
            if cluster.nodes[node].is_up() {
                cluster.crash(node);
                let down_us = self.random.between(1_000, 500_000);
                then.push((When::After(down_us), Then::Start(node)));
            }
        }
        Some(then)
    }

    pub(super) fn lose_memory(&mut self, cluster: &mut Cluster, node: usize, for_us: u64) -> Begun {
        if !cluster.nodes[node].is_up() || !self.is_harmless(cluster, node) {
            return None;
        }
        if !self.may_forget(cluster, node) {
            return None;
        }
        cluster.crash(node);
        if cluster.settings.keeps_disk {
            cluster.wipe(node);
        }
        Some(vec![(When::After(for_us), Then::Start(node))])
    }

    pub(super) fn stop(&mut self, cluster: &mut Cluster, node: usize, for_us: u64) -> Begun {
        let is_rolled_back = cluster.is_somebody_rolled_back();
        if !cluster.nodes[node].is_up() || !cluster.settings.keeps_disk || is_rolled_back {
            return None;
        }
        cluster.ask_to_stop(node);
        let runs_on_us = self.random.below(300_000);
        Some(vec![(When::After(runs_on_us), Then::EndFor(node, for_us))])
    }

    pub(super) fn stall(&mut self, cluster: &mut Cluster, node: usize, for_us: u64) -> Begun {
        if !cluster.nodes[node].is_up() {
            return None;
        }
        cluster.stall(node, for_us);
        Some(Vec::new())
    }

    pub(super) fn slow_disk(
        &mut self,
        cluster: &mut Cluster,
        node: usize,
        for_us: u64,
    ) -> Vec<(When, Then)> {
        let usual = cluster.settings.speed;
        let sync_max_us = *self.random.pick(&[20_000, 100_000, 800_000]);
        cluster.trace.story(cluster.now_us, || {
            format!("node {node}'s disk takes up to {} ms", sync_max_us / 1_000)
        });
        let speed = DiskSpeed {
            sync_min_us: sync_max_us / 4,
            sync_max_us,
            ..usual
        };
        cluster.nodes[node].speed = speed;
        vec![(When::After(for_us), Then::Speed(node, usual))]
    }

    pub(super) fn jump(&mut self, kind: FaultKind, cluster: &mut Cluster, node: usize) -> Begun {
        let by_ms = if kind == FaultKind::SmallJump {
            self.random.below(1_000) as i64 - 500
        } else {
            let hours = self.random.below(7) as i64 - 3;
            hours * 3_600_000 + self.random.below(120_000) as i64 - 60_000
        };
        cluster.jump(node, by_ms);
        Some(Vec::new())
    }
}
