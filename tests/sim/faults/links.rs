//! Faults of links: which directions are cut, all, some or only one.

use super::super::cluster::Cluster;
use super::super::network::{Place, between};
use super::{FaultKind, Faults, Then, When};

type Way = (Place, Place);

impl Faults {
    pub(super) fn cut(
        &mut self,
        kind: FaultKind,
        cluster: &mut Cluster,
        node: usize,
        for_us: u64,
    ) -> Option<Vec<(When, Then)>> {
        let ways = self.ways(kind, cluster, node);
        if ways.is_empty() {
            return None;
        }
        let for_us = match kind {
            FaultKind::Removal => {
                cluster.settings.shrink_after_ms * 1_000 + self.random.between(300_000, 1_500_000)
            }
            _ => for_us,
        };
        cluster.trace.story(cluster.now_us, || {
            let ways: Vec<String> = ways.iter().map(|(a, b)| format!("{a} > {b}")).collect();
            format!("{kind:?} for {} ms: {}", for_us / 1_000, ways.join(", "))
        });
        cluster.network.cut(&ways);
        Some(vec![(When::After(for_us), Then::Mend(ways))])
    }

    fn ways(&mut self, kind: FaultKind, cluster: &Cluster, node: usize) -> Vec<Way> {
        let nodes: Vec<Place> = (0..cluster.nodes.len()).map(Place::Node).collect();
        let node = Place::Node(node);
        let others: Vec<Place> = nodes.iter().copied().filter(|p| *p != node).collect();
        match kind {
            FaultKind::Split => {
                let (left, right): (Vec<Place>, Vec<Place>) =
                    nodes.iter().partition(|_| self.random.chance(500));
                between(&left, &right)
            }
            FaultKind::Isolation | FaultKind::Removal => between(&[node], &others),
            FaultKind::CutLinks => {
                let mut ways = between(&nodes, &nodes);
                ways.retain(|(a, b)| a < b && self.random.chance(400));
                ways.iter()
                    .flat_map(|(a, b)| [(*a, *b), (*b, *a)])
                    .collect()
            }
            FaultKind::OneWayCut => {
                let out = self.random.chance(500);
                let far = others.iter().filter(|_| self.random.chance(600));
                far.map(|o| if out { (node, *o) } else { (*o, node) })
                    .collect()
            }
            _ => {
                let clients: Vec<Place> = (0..cluster.clients.len()).map(Place::Client).collect();
                let mut ways = between(&clients, &nodes);
                ways.retain(|_| self.random.chance(400));
                ways
            }
        }
    }
}
