//! Transactions of clients: amounts that move between accounts whose sum stays zero, and snapshots
//! of all accounts.

use bytes::Bytes;
use wire::{Action, KeyChange, Outcome, Transaction, TransactionPart};

use crate::history::{Ending, RecordedCall};
use crate::random::Random;

/// The accounts of a scenario's clients.
pub const ACCOUNTS: u64 = 6;

pub fn account(index: u64) -> Bytes {
    format!("account/{index:02}").into()
}

/// A call's key is the first that its transaction names.
pub type KeyAction = (String, Action);

fn transact(parts: Vec<TransactionPart>) -> KeyAction {
    let key = String::from_utf8_lossy(&parts[0].key).into_owned();
    let transaction = Transaction { parts };
    (key, Action::Transact { transaction })
}

/// Two different accounts and an amount.
pub fn choose(random: &mut Random, accounts: u64) -> (u64, u64, i64) {
    let from = random.below(accounts);
    let to = (from + 1 + random.below(accounts - 1)) % accounts;
    (from, to, random.between(1, 9) as i64)
}

pub fn transfer(from: u64, to: u64, amount: i64, more: Option<TransactionPart>) -> KeyAction {
    let add = |index, delta| TransactionPart {
        key: account(index),
        change: Some(KeyChange::Add(delta)),
        ..TransactionPart::default()
    };
    let mut parts = vec![add(from, -amount), add(to, amount)];
    parts.extend(more);
    transact(parts)
}

pub fn snapshot(accounts: u64) -> KeyAction {
    let get = |index| TransactionPart {
        key: account(index),
        get: true,
        ..TransactionPart::default()
    };
    transact((0..accounts).map(get).collect())
}

/// The balances that a snapshot of all accounts told; `None`: the call is none, or failed.
pub fn balances(call: &RecordedCall) -> Option<Vec<i64>> {
    let Action::Transact { transaction } = &call.action else {
        return None;
    };
    let Ending::Answered(Outcome::Committed { results }) = &call.ending else {
        return None;
    };
    let are_read = transaction.parts.iter().all(|part| part.get);
    let balance = |value: &Option<Bytes>| match value {
        None => 0,
        Some(value) => {
            let text = String::from_utf8_lossy(value);
            text.parse().expect("an account is a number")
        }
    };
    are_read.then(|| results.iter().map(|r| balance(&r.value)).collect())
}

/// A snapshot in which an amount was lost or made.
pub fn wrong_sum(calls: &[RecordedCall]) -> Option<&RecordedCall> {
    let is_wrong =
        |call: &&RecordedCall| balances(call).is_some_and(|all| all.iter().sum::<i64>() != 0);
    calls.iter().find(is_wrong)
}
