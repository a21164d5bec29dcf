//! Disks that are rolled back to a copy which was made earlier in the same run (E1). The fault
//! occurs only if the rule promises detection: each other voter has received a message about
//! something durable that the copy lacks, and stays up until then.

use super::super::cluster::Cluster;
use super::super::disk::Disk;
use super::{FaultKind, Faults, Then, When};

impl Faults {
    /// Makes a copy, as of a power failure at this moment. The fault comes later, when the disk is
    /// rolled back to it.
    pub(super) fn copy(&mut self, cluster: &mut Cluster, node: usize, for_us: u64) {
        if !cluster.settings.keeps_disk || !cluster.nodes[node].is_up() {
            return;
        }
        let mut copy = cluster.nodes[node].disk.clone();
        copy.crash(0);
        let heartbeats_us = 3_000 * cluster.settings.heartbeat_ms;
        let put_back = Then::RollBack(node, Box::new(copy));
        self.schedule(When::After(for_us + heartbeats_us), put_back, cluster);
    }

    pub(super) fn roll_back(&mut self, cluster: &mut Cluster, node: usize, copy: Disk) {
        let may = cluster.nodes[node].is_up()
            && !cluster.is_somebody_rolled_back()
            && cluster.is_loss_known(node, &copy)
            && self.may_forget(cluster, node);
        if may {
            *self.struck.entry(FaultKind::RollBack).or_default() += 1;
            cluster.roll_back(node, copy);
            let down_us = self.random.between(1_000, 500_000);
            self.schedule(When::After(down_us), Then::Start(node), cluster);
        }
    }
}
