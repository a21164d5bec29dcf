//! The transactions of a run's clients: transfers between accounts whose sum stays zero, snapshots
//! of all accounts, writes that depend on what another key is, lists that are appended to, and
//! conditions on the keys that single operations use.

use bytes::Bytes;
use wire::{Action, Condition, KeyChange, Outcome, Transaction, TransactionPart};

use super::cluster::Cluster;
use super::history::{Ending, RecordedCall};
use super::plan::{KeyKind, Plan};
use super::random::Random;
use super::workload::key_name;

const ACCOUNTS: u64 = 4;

pub struct Transacting {
    random: Random,
    values: u64,
}

fn account(index: u64) -> Bytes {
    format!("account{index}").into()
}

fn change(key: Bytes, change: KeyChange) -> TransactionPart {
    TransactionPart {
        key,
        change: Some(change),
        ..TransactionPart::default()
    }
}

fn delete(key: &'static str) -> TransactionPart {
    change(key.into(), KeyChange::Delete)
}

fn snapshot() -> Vec<TransactionPart> {
    (0..ACCOUNTS).map(|index| get(account(index))).collect()
}

fn get(key: Bytes) -> TransactionPart {
    TransactionPart {
        key,
        get: true,
        ..TransactionPart::default()
    }
}

impl Transacting {
    pub fn new(seed: u64) -> Self {
        Transacting {
            random: Random::stream(seed, 31),
            values: 0,
        }
    }

    /// Whether this operation of a client is about several keys.
    pub fn takes_over(&mut self, plan: &Plan) -> bool {
        plan.transact_per_mille > 0 && self.random.chance(plan.transact_per_mille)
    }

    pub fn begin_one(&mut self, client: usize, plan: &Plan, cluster: &mut Cluster) {
        for (key, action) in self.actions(plan) {
            let deadline_us = match self.random.chance(plan.short_deadline_per_mille) {
                true => self.random.between(10_000, 1_000_000),
                false => self.random.between(2_000_000, 6_500_000),
            };
            cluster.begin(client, &key, action, false, deadline_us);
        }
    }

    /// Some are begun together, so that they meet each other.
    fn actions(&mut self, plan: &Plan) -> Vec<(Bytes, Action)> {
        self.values += 1;
        let many = match self.random.below(100) {
            0..=29 => vec![self.transfer()],
            30..=34 => vec![self.transfer(), self.transfer()],
            35..=54 => vec![snapshot()],
            55..=59 => vec![self.transfer(), snapshot()],
            60..=64 => {
                let index = self.random.below(ACCOUNTS);
                return vec![(account(index), Action::Get)];
            }
            65..=69 => vec![vec![delete("left"), delete("right")]],
            70..=79 => vec![self.skew("left", "right"), self.skew("right", "left")],
            80..=89 => vec![self.lists()],
            _ => vec![self.shared(plan)],
        };
        let actions = many.into_iter().map(|parts| {
            let key = parts[0].key.clone();
            let transaction = Transaction { parts };
            (key, Action::Transact { transaction })
        });
        actions.collect()
    }

    fn transfer(&mut self) -> Vec<TransactionPart> {
        let from = self.random.below(ACCOUNTS);
        let to = (from + 1 + self.random.below(ACCOUNTS - 1)) % ACCOUNTS;
        let amount = self.random.between(1, 9) as i64;
        vec![
            change(account(from), KeyChange::Add(-amount)),
            change(account(to), KeyChange::Add(amount)),
        ]
    }

    /// Of the two keys at most one is ever present, if every order is one after the other.
    fn skew(&mut self, one: &'static str, other: &'static str) -> Vec<TransactionPart> {
        let checked = TransactionPart {
            key: other.into(),
            conditions: vec![Condition::Absent],
            ..TransactionPart::default()
        };
        let value = format!("{one}{}", self.values).into();
        vec![checked, change(one.into(), KeyChange::Put(value))]
    }

    fn lists(&mut self) -> Vec<TransactionPart> {
        let token: Bytes = format!("+t{};", self.values).into();
        let mut parts = Vec::new();
        for key in ["list a", "list b", "list c"] {
            match self.random.below(3) {
                0 => parts.push(TransactionPart {
                    get: true,
                    ..change(key.into(), KeyChange::Append(token.clone()))
                }),
                1 => parts.push(get(key.into())),
                _ => {}
            }
        }
        if parts.is_empty() {
            parts.push(change("list a".into(), KeyChange::Append(token)));
        }
        parts
    }

    /// A key that single operations use, too.
    fn shared(&mut self, plan: &Plan) -> Vec<TransactionPart> {
        let index = self.random.below(plan.keys.len() as u64) as usize;
        // The checker of several keys does not know that keys expire.
        let key = match plan.keys[index] {
            KeyKind::Expiring => Bytes::from_static(b"shared"),
            _ => key_name(index, plan.key_size),
        };
        let value: Bytes = format!("s{};", self.values).into();
        let mut parts = match self.random.below(4) {
            0 => vec![change(key, KeyChange::Put(value.clone()))],
            1 => vec![TransactionPart {
                conditions: vec![Condition::Present],
                ..get(key)
            }],
            2 => vec![change(key, KeyChange::Add(1))],
            _ => vec![change(key, KeyChange::Append(value.clone()))],
        };
        parts.push(change("beside".into(), KeyChange::Put(value)));
        parts
    }
}

/// A snapshot of all accounts in which money was lost or made.
pub fn wrong_sum(calls: &[RecordedCall]) -> Option<&RecordedCall> {
    calls.iter().find(|call| {
        let Action::Transact { transaction } = &call.action else {
            return false;
        };
        let Ending::Answered(Outcome::Committed { results }) = &call.ending else {
            return false;
        };
        let parts = &transaction.parts;
        let is_account = |part: &TransactionPart| part.get && part.key.starts_with(b"account");
        if parts.len() != ACCOUNTS as usize || !parts.iter().all(is_account) {
            return false;
        }
        let balances = results.iter().filter_map(|result| result.value.as_ref());
        let sum: i64 = balances
            .map(|value| {
                String::from_utf8_lossy(value)
                    .parse::<i64>()
                    .expect("a sum")
            })
            .sum();
        sum != 0
    })
}
