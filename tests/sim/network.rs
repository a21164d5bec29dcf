//! The simulated network: decides about each message between two places. It models loss,
//! duplication, delay (hence reordering) and cut links; it ignores what the messages contain.

use std::collections::BTreeMap;

use super::random::Random;

/// Where messages come from and go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    Node(usize),
    Client(usize),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Node(index) => write!(f, "node {index}"),
            Place::Client(index) => write!(f, "client {index}"),
        }
    }
}

/// How a link behaves while it is not cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quality {
    pub delay_min_us: u64,
    pub delay_max_us: u64,
    /// Rates in messages per thousand.
    pub lost_per_mille: u64,
    pub doubled_per_mille: u64,
    /// The second copy arrives up to this much after the first.
    pub echo_max_us: u64,
    /// Late messages take up to `late_max_us` more.
    pub late_per_mille: u64,
    pub late_max_us: u64,
}

impl Quality {
    pub const CALM: Quality = Quality {
        delay_min_us: 200,
        delay_max_us: 200,
        lost_per_mille: 0,
        doubled_per_mille: 0,
        echo_max_us: 0,
        late_per_mille: 0,
        late_max_us: 0,
    };
}

#[derive(Debug)]
pub struct Network {
    random: Random,
    usual: Quality,
    /// In place of `usual` while a burst of faults lasts; the latest counts.
    bursts: Vec<(u64, Quality)>,
    /// One direction each; a link may be cut for several reasons at once.
    cuts: BTreeMap<(Place, Place), u32>,
}

impl Network {
    pub fn new(random: Random, usual: Quality) -> Self {
        Network {
            random,
            usual,
            bursts: Vec::new(),
            cuts: BTreeMap::new(),
        }
    }

    pub fn quality(&self) -> Quality {
        self.bursts
            .last()
            .map_or(self.usual, |(_, quality)| *quality)
    }

    /// The delays after which copies of a message arrive: none, one or two.
    pub fn send(&mut self, from: Place, to: Place) -> [Option<u64>; 2] {
        if self.is_cut(from, to) {
            return [None, None];
        }
        let quality = self.quality();
        if self.random.chance(quality.lost_per_mille) {
            return [None, None];
        }
        let first = self.delay_us(quality);
        let doubled = self.random.chance(quality.doubled_per_mille);
        let echo = |random: &mut Random| first + random.below(quality.echo_max_us + 1);
        [Some(first), doubled.then(|| echo(&mut self.random))]
    }

    fn delay_us(&mut self, quality: Quality) -> u64 {
        let usual = self
            .random
            .between(quality.delay_min_us, quality.delay_max_us);
        let late = self.random.chance(quality.late_per_mille);
        usual
            + if late {
                self.random.below(quality.late_max_us)
            } else {
                0
            }
    }

    pub fn is_cut(&self, from: Place, to: Place) -> bool {
        self.cuts.contains_key(&(from, to))
    }

    /// Messages sent in these directions no longer arrive; those in flight do.
    pub fn cut(&mut self, ways: &[(Place, Place)]) {
        for way in ways {
            *self.cuts.entry(*way).or_default() += 1;
        }
    }

    /// Undoes one `cut` of these directions.
    pub fn mend(&mut self, ways: &[(Place, Place)]) {
        for way in ways {
            if let Some(count) = self.cuts.get_mut(way) {
                *count -= 1;
                if *count == 0 {
                    self.cuts.remove(way);
                }
            }
        }
    }

    /// Starts a burst of faults, identified by `name`.
    pub fn begin_burst(&mut self, name: u64, quality: Quality) {
        self.bursts.push((name, quality));
    }

    pub fn end_burst(&mut self, name: u64) {
        self.bursts.retain(|(n, _)| *n != name);
    }

    /// Restores all links between nodes.
    pub fn heal_nodes(&mut self) {
        let between_nodes =
            |(from, to): &(Place, Place)| matches!((from, to), (Place::Node(_), Place::Node(_)));
        self.cuts.retain(|way, _| !between_nodes(way));
    }

    /// From now on all links work without faults.
    pub fn heal(&mut self) {
        self.cuts.clear();
        self.bursts.clear();
        self.usual.lost_per_mille = 0;
        self.usual.late_per_mille = 0;
    }
}

/// Both directions between each place of one group and each of the other.
pub fn between(group: &[Place], other: &[Place]) -> Vec<(Place, Place)> {
    let pairs = group
        .iter()
        .flat_map(|a| other.iter().map(move |b| (*a, *b)));
    pairs.flat_map(|(a, b)| [(a, b), (b, a)]).collect()
}
