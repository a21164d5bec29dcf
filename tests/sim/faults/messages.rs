//! Faults of messages: lost, late and duplicated ones, of all kinds or of one.

use super::super::cluster::{Cluster, Fate};
use super::super::network::{Place, Quality};
use super::super::random::Random;
use super::{FaultKind, Faults, Then, When};

pub(super) const PEER_MESSAGES: [&str; 27] = [
    "Prepare",
    "Promise",
    "Nack",
    "Accept",
    "Accept",
    "Accepted",
    "Accepted",
    "Chosen",
    "Read",
    "ReadAnswer",
    "Forward",
    "ForwardAnswer",
    "ForwardStep",
    "ForwardStepAnswer",
    "SurveyAnswer",
    "ConfigurationUpdate",
    "ConfigurationUpdate",
    "DigestsRequest",
    "DigestsReply",
    "DigestsEqual",
    "BucketReply",
    "AdmissionRequest",
    "Copy",
    "Purge",
    "RangeRequest",
    "RangeEqual",
    "RangeReply",
];
const CLIENT_MESSAGES: [&str; 4] = ["Request", "Answer", "HelloAnswer", "NoSession"];

impl Faults {
    pub(super) fn burst(
        &mut self,
        kind: FaultKind,
        cluster: &mut Cluster,
        for_us: u64,
    ) -> Vec<(When, Then)> {
        let usual = cluster.network.quality();
        let quality = match kind {
            FaultKind::LossBurst => Quality {
                lost_per_mille: self.random.between(100, 600),
                ..usual
            },
            FaultKind::DoubleBurst => Quality {
                doubled_per_mille: 500,
                echo_max_us: *self.random.pick(&[1_000, 100_000, 2_000_000]),
                ..usual
            },
            _ => Quality {
                late_per_mille: self.random.between(50, 500),
                late_max_us: *self.random.pick(&[20_000, 200_000, 1_500_000, 5_000_000]),
                ..usual
            },
        };
        cluster.trace.story(cluster.now_us, || {
            format!("{kind:?} for {} ms: {quality:?}", for_us / 1_000)
        });
        let name = self.number + 1;
        cluster.network.begin_burst(name, quality);
        vec![(When::After(for_us), Then::Calm(name))]
    }

    /// Most messages of one kind, from or to a node or everywhere, are lost or late.
    pub(super) fn trouble_kind(
        &mut self,
        kind: FaultKind,
        cluster: &mut Cluster,
        node: usize,
        for_us: u64,
    ) -> Vec<(When, Then)> {
        let all = [&PEER_MESSAGES[..], &CLIENT_MESSAGES[..]].concat();
        let name = *self.random.pick(&all);
        let place = *self.random.pick(&[None, Some(Place::Node(node))]);
        let late_max_us = *self.random.pick(&[30_000, 300_000, 3_000_000]);
        let mut random = Random::new(self.random.word());
        let number = cluster.filter(move |passing| {
            let there = place.is_none_or(|p| p == passing.from || p == passing.to);
            if !there || passing.name() != name || random.chance(200) {
                Fate::Pass
            } else if kind == FaultKind::KindLost {
                Fate::Drop
            } else {
                Fate::Late(random.below(late_max_us))
            }
        });
        cluster.trace.story(cluster.now_us, || {
            format!("{kind:?} for {} ms: {name} of {place:?}", for_us / 1_000)
        });
        vec![(When::After(for_us), Then::Unfilter(number))]
    }
}
