//! What a seed means: the shape of the cluster, of the work and of the trouble of one run. Rare
//! things are common in some seeds and absent in others, so that each meets every other.

use super::cluster::Settings;
use super::faults::FaultKind;
use super::network::Quality;
use super::node::DiskSpeed;
use super::random::Random;
use super::trace::Detail;

/// What of a run does not come from its seed.
#[derive(Debug, Clone, Default)]
pub struct Config {
    pub detail: Detail,
}

/// How the operations on one key are mixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    Anything,
    Register,
    Counter,
    Log,
}

#[derive(Debug, Clone)]
pub struct Plan {
    pub settings: Settings,
    pub clients: usize,
    /// Beside these, clients that send Firecloud's text datagrams.
    pub text_clients: usize,
    pub in_flight_max: usize,
    pub operations: usize,
    pub keys: Vec<KeyKind>,
    /// How long the safety phase goes on at least.
    pub duration_us: u64,
    /// Values are filled up to this size.
    pub value_size: usize,
    pub want_old_per_mille: u64,
    pub read_per_mille: u64,
    pub short_deadline_per_mille: u64,
    /// The kinds of trouble that this run knows.
    pub faults: Vec<FaultKind>,
    pub fault_gap_us: u64,
    /// Trouble begins at once, before there is a configuration.
    pub early_trouble: bool,
    /// Wall clocks at the start, against the simulation's time.
    pub offset_max_ms: u64,
    /// The node whose clock is this many hours off from the start.
    pub bad_clock: Option<(usize, i64)>,
}

impl Plan {
    pub fn of(seed: u64, config: &Config) -> Self {
        let mut random = Random::stream(seed, 10);
        let nodes = *random.pick(&[1, 2, 3, 3, 3, 3, 3, 3, 4, 4, 4, 4, 4, 5, 5, 5, 5, 5, 5, 5]);
        let settings = settings(seed, nodes, config, &mut random);
        let key_count = *random.pick(&[1, 2, 3, 4, 5, 6, 8]);
        let duration_us = random.between(5_000_000, 9_000_000);
        let kinds = [
            KeyKind::Anything,
            KeyKind::Register,
            KeyKind::Counter,
            KeyKind::Log,
        ];
        let faults = faults(&mut random);
        let bad_clock = bad_clock(seed, nodes, &faults);
        Plan {
            settings,
            clients: random.between(4, 8) as usize,
            text_clients: *Random::stream(seed, 14).pick(&[0, 0, 1, 2]),
            in_flight_max: *random.pick(&[1, 2, 3, 4, 4, 16]),
            operations: random.between(200, 400) as usize,
            keys: (0..key_count).map(|_| *random.pick(&kinds)).collect(),
            duration_us,
            value_size: *random.pick(&[0, 0, 0, 0, 100, 200, 300]),
            want_old_per_mille: *random.pick(&[100, 300, 900]),
            read_per_mille: *random.pick(&[150, 400, 400, 700]),
            short_deadline_per_mille: *random.pick(&[0, 100, 400]),
            faults,
            fault_gap_us: duration_us / random.between(8, 20),
            early_trouble: random.chance(200),
            offset_max_ms: *random.pick(&[0, 5, 50, 500, 10_000]),
            bad_clock,
        }
    }
}

fn settings(seed: u64, nodes: usize, config: &Config, random: &mut Random) -> Settings {
    let sync_max_us = *random.pick(&[60, 60, 300, 300, 2_000, 15_000]);
    Settings {
        seed,
        nodes,
        quality: quality(random),
        speed: DiskSpeed {
            sync_min_us: sync_max_us / 4,
            sync_max_us,
            load_max_us: *random.pick(&[20, 200, 5_000]),
        },
        keeps_disk: random.chance(850),
        keys_cached_max: *random.pick(&[2, 2, 3, 4, 1_000]),
        shrink_after_ms: *Random::stream(seed, 15).pick(&[0, 0, 500, 1_000, 3_000]),
        skew_max_ms: *random.pick(&[500, 5_000, 60_000, 60_000]),
        late_max_us: *random.pick(&[0, 100, 1_000, 5_000]),
        detail: config.detail,
        ..Settings::calm(nodes)
    }
}

fn quality(random: &mut Random) -> Quality {
    let (delay_min_us, delay_max_us) = *random.pick(&[
        (50, 100),
        (100, 500),
        (100, 500),
        (300, 3_000),
        (1_000, 20_000),
    ]);
    let (late_per_mille, late_max_us) =
        *random.pick(&[(0, 0), (0, 0), (20, 50_000), (5, 1_000_000), (3, 8_000_000)]);
    Quality {
        delay_min_us,
        delay_max_us,
        lost_per_mille: *random.pick(&[0, 0, 10, 50, 150]),
        doubled_per_mille: *random.pick(&[0, 0, 20, 100]),
        echo_max_us: *random.pick(&[100, 100, 20_000, 2_000_000]),
        late_per_mille,
        late_max_us,
    }
}

/// A minority, so that it can be told by how much the others may be led astray: not at all.
fn bad_clock(seed: u64, nodes: usize, faults: &[FaultKind]) -> Option<(usize, i64)> {
    let mut random = Random::stream(seed, 16);
    let all_else_is_right = nodes >= 3 && !faults.contains(&FaultKind::LargeJump);
    let node = random.below(nodes as u64) as usize;
    let hours = *random.pick(&[-30, -2, 1, 8, 8_000]);
    (all_else_is_right && random.chance(400)).then_some((node, hours))
}

/// About half of all kinds of trouble, at least two.
fn faults(random: &mut Random) -> Vec<FaultKind> {
    loop {
        let chosen: Vec<FaultKind> = FaultKind::ALL
            .iter()
            .copied()
            .filter(|_| random.chance(450))
            .collect();
        if chosen.len() >= 2 {
            return chosen;
        }
    }
}
