//! What a seed selects: the shape of the cluster, of the workload and of the faults of one run.
//! Rare events are common in some seeds and absent in others, so that each meets every other.

use horseshoe::protocol::Tuning;
use horseshoe::protocol::types::digest::BUCKETS_MAX;

use wire::KEY_SIZE_MAX;

use super::cluster::Settings;
use super::faults::FaultKind;
use super::network::Quality;
use super::node::DiskSpeed;
use super::random::Random;
use super::trace::Detail;

/// Settings that do not come from the seed of a run.
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
    /// With times to live.
    Expiring,
}

#[derive(Debug, Clone)]
pub struct Plan {
    pub settings: Settings,
    pub clients: usize,
    /// Clients that send Firecloud's text datagrams, beside the others.
    pub text_clients: usize,
    pub in_flight_max: usize,
    pub operations: usize,
    pub keys: Vec<KeyKind>,
    /// The shortest duration of the safety phase.
    pub duration_us: u64,
    /// Keys are filled up to this size.
    pub key_size: usize,
    /// Values are filled up to this size; large ones to less.
    pub value_size: usize,
    pub want_old_per_mille: u64,
    pub read_per_mille: u64,
    pub short_deadline_per_mille: u64,
    pub scan_per_mille: u64,
    /// Clients that watch all keys. In most runs there are none.
    pub watchers: usize,
    /// Operations over several keys. In most runs there are none.
    pub transact_per_mille: u64,
    /// The kinds of faults that strike in this run.
    pub faults: Vec<FaultKind>,
    pub fault_gap_us: u64,
    /// Faults begin at once, before there is a configuration.
    pub early_trouble: bool,
    /// Wall clocks at the start, relative to the simulation's time.
    pub offset_max_ms: u64,
    /// The node whose clock is this many hours off from the start.
    pub bad_clock: Option<(usize, i64)>,
}

impl Plan {
    pub fn of(seed: u64, config: &Config) -> Self {
        let mut random = Random::stream(seed, 10);
        let nodes = *random.pick(&[1, 2, 3, 3, 3, 3, 3, 3, 4, 4, 4, 4, 4, 5, 5, 5, 5, 5, 5, 5]);
        let mut settings = settings(seed, nodes, config, &mut random);
        let key_count = *random.pick(&[1, 2, 3, 4, 5, 6, 8]);
        let duration_us = random.between(5_000_000, 9_000_000);
        let kinds = [
            KeyKind::Anything,
            KeyKind::Register,
            KeyKind::Counter,
            KeyKind::Log,
        ];
        let faults = faults(seed, settings.shrink_after_ms, &mut random);
        let has_outsider = nodes >= 4
            && faults.contains(&FaultKind::Replacement)
            && Random::stream(seed, 27).chance(400);
        settings.listed = nodes - usize::from(has_outsider);
        let bad_clock = bad_clock(seed, nodes, &faults);
        let mut plan = Plan {
            settings,
            clients: random.between(4, 8) as usize,
            text_clients: *Random::stream(seed, 14).pick(&[0, 0, 1, 2]),
            in_flight_max: *random.pick(&[1, 2, 3, 4, 4, 16]),
            operations: random.between(200, 400) as usize,
            keys: (0..key_count).map(|_| *random.pick(&kinds)).collect(),
            duration_us,
            key_size: *Random::stream(seed, 19).pick(&[0, 0, 0, 0, 0, 0, 0, 200, KEY_SIZE_MAX]),
            value_size: value_size(seed, &mut random),
            want_old_per_mille: *random.pick(&[100, 300, 900]),
            read_per_mille: *random.pick(&[150, 400, 400, 700]),
            short_deadline_per_mille: *random.pick(&[0, 100, 400]),
            scan_per_mille: *Random::stream(seed, 28).pick(&[0, 50, 50, 200]),
            watchers: *Random::stream(seed, 31).pick(&[0, 0, 1, 2]),
            transact_per_mille: *Random::stream(seed, 30).pick(&[0, 0, 0, 250, 600]),
            faults,
            fault_gap_us: duration_us / random.between(8, 20),
            early_trouble: random.chance(200),
            offset_max_ms: *random.pick(&[0, 5, 50, 500, 10_000]),
            bad_clock,
        };
        // The other random choices of the seed stay.
        if Random::stream(seed, 29).chance(300) {
            plan.keys[0] = KeyKind::Expiring;
        }
        plan
    }
}

impl Plan {
    /// How far the time by which keys expire may be off, at most; `None`: there is no bound.
    pub fn clock_error_us(&self) -> Option<u64> {
        const DISTURBING: [FaultKind; 6] = [
            FaultKind::CrashAndSetBack,
            FaultKind::SmallJump,
            FaultKind::LargeJump,
            FaultKind::Stall,
            FaultKind::LateBurst,
            FaultKind::KindLate,
        ];
        let disturbed = self.faults.iter().any(|fault| DISTURBING.contains(fault));
        let is_late = self.settings.quality.late_per_mille > 0;
        let is_known = !disturbed && !is_late && self.bad_clock.is_none();
        is_known.then_some((2 * self.offset_max_ms + 1_000) * 1_000)
    }
}

/// In some seeds messages are much larger than usual.
pub const LARGE_VALUE_SIZE: usize = 48 << 10;

fn value_size(seed: u64, random: &mut Random) -> usize {
    let usual = *random.pick(&[0, 0, 0, 0, 100, 200, 300]);
    match Random::stream(seed, 20).chance(50) {
        true => LARGE_VALUE_SIZE,
        false => usual,
    }
}

/// A link counts as down after three heartbeats at least.
fn heartbeats(seed: u64) -> (u64, u64) {
    let mut slow = Random::stream(seed, 25);
    if slow.chance(40) {
        return *slow.pick(&[(500, 2_000), (1_000, 4_000)]);
    }
    *Random::stream(seed, 21).pick(&[
        (50, 200),
        (50, 200),
        (50, 200),
        (10, 30),
        (25, 200),
        (100, 300),
        (200, 1_000),
    ])
}

fn settings(seed: u64, nodes: usize, config: &Config, random: &mut Random) -> Settings {
    let (heartbeat_ms, link_down_ms) = heartbeats(seed);
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
        heartbeat_ms,
        link_down_ms,
        skew_max_ms: *random.pick(&[500, 5_000, 60_000, 60_000]),
        late_max_us: *random.pick(&[0, 100, 1_000, 5_000]),
        tuning: Tuning {
            buckets: *Random::stream(seed, 24).pick(&[BUCKETS_MAX, BUCKETS_MAX, 64, 4, 1]),
            retry_horizon_ms: *Random::stream(seed, 18).pick(&[10_000, 3_000, 1_500, 500]),
        },
        page_length_max: *Random::stream(seed, 17).pick(&[usize::MAX, 1, 2]),
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

/// Only a minority has a wrong clock, so that the bound on how far it leads the others astray is
/// known: not at all.
fn bad_clock(seed: u64, nodes: usize, faults: &[FaultKind]) -> Option<(usize, i64)> {
    let mut random = Random::stream(seed, 16);
    let all_else_is_right = nodes >= 3 && !faults.contains(&FaultKind::LargeJump);
    let node = random.below(nodes as u64) as usize;
    let hours = *random.pick(&[-30, -2, 1, 8, 8_000]);
    (all_else_is_right && random.chance(400)).then_some((node, hours))
}

/// About half of all kinds of faults, at least two; in a third of the runs operators too.
fn faults(seed: u64, shrink_after_ms: u64, random: &mut Random) -> Vec<FaultKind> {
    let removes = shrink_after_ms > 0 && Random::stream(seed, 23).chance(500);
    let mut operators = Random::stream(seed, 17);
    let operate = operators.chance(333);
    loop {
        let mut chosen: Vec<FaultKind> = FaultKind::ALL
            .iter()
            .copied()
            .filter(|_| random.chance(450))
            .collect();
        if chosen.len() >= 2 {
            // Removals are frequent, so that a node has several lives within one run.
            let often = if removes { chosen.len() / 2 } else { 0 };
            chosen.extend(std::iter::repeat_n(FaultKind::Removal, often));
            let mut copies = Random::stream(seed, 26);
            let rolled_back = if copies.chance(120) {
                chosen.len() / 2
            } else {
                0
            };
            chosen.extend(std::iter::repeat_n(FaultKind::RollBack, rolled_back));
            let kinds = FaultKind::OPERATORS.iter().copied();
            chosen.extend(kinds.filter(|_| operate && operators.chance(600)));
            return chosen;
        }
    }
}
