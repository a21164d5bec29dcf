//! The operations of a run's clients: which operation, on which key, when.

use std::collections::BTreeMap;

use bytes::Bytes;
use horseshoe::gateway::text::VALUE_SIZE_MAX;
use wire::{Action, Outcome, Version};

use super::cluster::Cluster;
use super::history::Ending;
use super::plan::{KeyKind, Plan};
use super::random::Random;
use super::text;
use super::transactions::Transacting;

/// The state that any client last saw of a key: the operands of comparisons.
#[derive(Debug, Clone, Default)]
struct Seen {
    version: Version,
    value: Bytes,
}

pub struct Workload {
    random: Random,
    pub begun: usize,
    seen: BTreeMap<usize, Seen>,
    looked_at: usize,
    values: u64,
    transacting: Transacting,
}

/// Filled up to this size.
pub fn key_name(index: usize, size: usize) -> Bytes {
    Bytes::from(format!("{:.<size$}", format!("key{index}")))
}

impl Workload {
    pub fn new(random: Random, seed: u64) -> Self {
        Workload {
            random,
            begun: 0,
            seen: BTreeMap::new(),
            looked_at: 0,
            values: 0,
            transacting: Transacting::new(seed),
        }
    }

    /// How long a client thinks, so that the operations fill the run.
    pub fn think_us(&mut self, plan: &Plan) -> u64 {
        let mean = plan.duration_us * plan.clients as u64 / plan.operations as u64;
        if self.random.chance(200) {
            mean / 20
        } else {
            self.random.below(mean * 2)
        }
    }

    /// The client begins an operation, unless it has enough in progress.
    pub fn begin_one(&mut self, client: usize, plan: &Plan, cluster: &mut Cluster) {
        let text = cluster.clients[client].is_text();
        let in_flight_max = if text { 1 } else { plan.in_flight_max };
        if cluster.clients[client].in_flight() >= in_flight_max {
            return;
        }
        if !text && self.transacting.takes_over(plan) {
            self.transacting.begin_one(client, plan, cluster);
            self.begun += 1;
            return;
        }
        self.look(cluster);
        let index = if self.random.chance(400) {
            0
        } else {
            self.random.below(plan.keys.len() as u64) as usize
        };
        if text {
            self.begin_text(client, index, plan, cluster);
            return;
        }
        if plan.scan_per_mille > 0 && self.random.chance(plan.scan_per_mille) {
            self.begin_scan(client, index, plan, cluster);
            return;
        }
        let action = self.action(index, plan);
        let want_old = !action.is_read() && self.random.chance(plan.want_old_per_mille);
        let deadline_us = if self.random.chance(plan.short_deadline_per_mille) {
            self.random.between(10_000, 1_000_000)
        } else {
            self.random.between(2_000_000, 6_500_000)
        };
        let key = key_name(index, plan.key_size);
        cluster.begin(client, &key, action, want_old, deadline_us);
        self.begun += 1;
    }

    /// From any key on, or from before all of them; sometimes not to the end.
    fn begin_scan(&mut self, client: usize, index: usize, plan: &Plan, cluster: &mut Cluster) {
        let key = match self.random.chance(500) {
            true => Bytes::from_static(b"key"),
            false => key_name(index, plan.key_size),
        };
        let last = self.random.below(plan.keys.len() as u64) as usize;
        let action = Action::Scan {
            is_after: self.random.chance(300),
            end: match self.random.chance(200) {
                true => key_name(last, plan.key_size),
                false => Bytes::new(),
            },
            limit: *self.random.pick(&[0, 0, 0, 1, 2]),
            keys_only: false,
            deleted: false,
        };
        let deadline_us = self.random.between(500_000, 6_500_000);
        cluster.begin(client, &key, action, false, deadline_us);
        self.begun += 1;
    }

    fn begin_text(&mut self, client: usize, index: usize, plan: &Plan, cluster: &mut Cluster) {
        let action = if self.random.chance(plan.read_per_mille) {
            Action::Get
        } else if plan.keys[index] == KeyKind::Counter {
            self.values += 1;
            text::put(Bytes::from((self.values * 1_000).to_string()))
        } else {
            let mut value = self.value(plan);
            value.truncate(VALUE_SIZE_MAX);
            text::put(value)
        };
        cluster.begin_text(client, &key_name(index, plan.key_size), action);
        self.begun += 1;
    }

    /// Records what clients have seen since.
    fn look(&mut self, cluster: &Cluster) {
        // Calls end out of order: the last few are checked again.
        let from = self.looked_at.saturating_sub(40);
        for call in &cluster.calls[from..] {
            let Some(index) = call.key.strip_prefix(b"key").and_then(|n| n.first()) else {
                continue;
            };
            let seen = self.seen.entry(usize::from(index - b'0')).or_default();
            match &call.ending {
                Ending::Answered(Outcome::Value { version, value }) => {
                    *seen = Seen {
                        version: *version,
                        value: value.clone(),
                    };
                }
                Ending::Answered(Outcome::Written { version, .. }) => seen.version = *version,
                _ => {}
            }
        }
        self.looked_at = cluster.calls.len();
    }

    fn value(&mut self, plan: &Plan) -> Bytes {
        self.values += 1;
        let mut text = format!("v{};", self.values);
        let size = match plan.value_size {
            large @ 1_000.. => self.random.below(large as u64) as usize,
            small => small,
        };
        while text.len() < size {
            text.push('.');
        }
        text.into()
    }

    fn expiring(&mut self, choice: u64, value: Bytes, seen: &Seen) -> Action {
        let ttl_ms = match self.random.chance(300) {
            true => self.random.between(1, 100),
            false => self.random.between(100, 3_000),
        };
        let version = seen.version;
        let over = *self
            .random
            .pick(&[None, None, Some(version), Some(version), Some(0)]);
        let same = over.filter(|version| *version > 0);
        match choice {
            0..=34 => Action::PutFor {
                value,
                ttl_ms,
                over,
            },
            35..=49 => Action::Expire { ttl_ms, over: same },
            50..=56 => Action::Persist { over: same },
            57..=60 => Action::TimeToLive,
            61..=64 => Action::GetStale,
            65..=71 => Action::DeleteVersion { version },
            72..=74 => Action::Delete,
            75..=79 => Action::Put { value },
            80..=85 => Action::PutIfAbsent { value },
            86..=91 => Action::CompareVersion { version, value },
            _ => Action::Append {
                value: format!("+{};", self.values).into(),
            },
        }
    }

    fn action(&mut self, index: usize, plan: &Plan) -> Action {
        if self.random.chance(plan.read_per_mille) {
            return Action::Get;
        }
        let mut value = self.value(plan);
        let seen = self.seen.get(&index).cloned().unwrap_or_default();
        // The limit applies to the operation as a whole.
        value.truncate(super::plan::LARGE_VALUE_SIZE - seen.value.len());
        let choice = self.random.below(100);
        match plan.keys[index] {
            KeyKind::Register => match choice {
                0..=44 => Action::Put { value },
                45..=54 => Action::Delete,
                55..=64 => Action::PutIfAbsent { value },
                65..=84 => Action::CompareVersion {
                    version: seen.version,
                    value,
                },
                _ => Action::CompareValue {
                    expected: seen.value,
                    value,
                },
            },
            KeyKind::Counter => match choice {
                0..=89 => Action::Add {
                    delta: self.random.between(1, 9) as i64,
                },
                90..=94 => Action::Delete,
                _ => Action::Put {
                    value: Bytes::from((self.values * 1_000).to_string()),
                },
            },
            KeyKind::Log => match choice {
                0..=89 => Action::Append {
                    value: format!("+{};", self.values).into(),
                },
                90..=94 => Action::Delete,
                _ => Action::Put { value },
            },
            KeyKind::Expiring => self.expiring(choice, value, &seen),
            KeyKind::Anything => match choice {
                0..=19 => Action::Put { value },
                20..=29 => Action::PutOver {
                    value,
                    old_size_max: self.values % 3 * 8,
                    old_without: Bytes::from_static(if choice < 25 { b"+" } else { b"" }),
                },
                30..=39 => Action::Delete,
                40..=49 => Action::PutIfAbsent { value },
                50..=64 => Action::CompareVersion {
                    version: seen.version,
                    value,
                },
                65..=74 => Action::CompareValue {
                    expected: seen.value,
                    value,
                },
                75..=84 => Action::Add { delta: 1 },
                85..=89 => Action::Put {
                    value: Bytes::from(self.values.to_string()),
                },
                _ => Action::Append {
                    value: format!("+{};", self.values).into(),
                },
            },
        }
    }
}
