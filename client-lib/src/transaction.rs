//! Transactions over several keys: how an application puts one together, and what it is told.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use wire::{
    Action, Condition, FailureReason, KeyChange, KeyResult, Outcome, TRANSACTION_KEYS_MAX,
    Transaction, TransactionPart, VALUE_SIZE_MAX, Version,
};

use crate::client::Client;
use crate::session::{Call, CallError};

/// Conditions and operations that take effect together or not at all. Of each key at most one
/// operation may be a write. Gets and conditions see the state before the transaction.
#[derive(Debug)]
#[must_use = "a transaction does nothing until it is run"]
pub struct TransactionBuilder<'a> {
    client: &'a Client,
    draft: TransactionDraft,
    deadline: Option<Duration>,
}

/// The transaction itself, for `Client::submit`.
#[derive(Debug, Clone, Default)]
pub struct TransactionDraft {
    parts: Vec<TransactionPart>,
    places: BTreeMap<Bytes, usize>,
    /// The first mistake.
    error: Option<CallError>,
}

/// How a transaction ended that surely did or surely did not take effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransactionOutcome {
    /// All conditions held, and all operations took effect.
    Committed(TransactionResults),
    /// This condition did not hold, and nothing was done.
    Conflict {
        key: Bytes,
        condition: Condition,
        /// The version of the key; 0 if it is absent.
        version: Version,
    },
}

/// What a committed transaction found and did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionResults {
    /// Each key in the order in which the transaction first named it.
    pub keys: Vec<(Bytes, KeyResult)>,
}

impl TransactionResults {
    /// The result of a key that the transaction named.
    pub fn of(&self, key: &[u8]) -> Option<&KeyResult> {
        let mut keys = self.keys.iter();
        keys.find(|(named, _)| named == key)
            .map(|(_, result)| result)
    }
}

impl TransactionDraft {
    pub fn new() -> Self {
        TransactionDraft::default()
    }

    fn part(&mut self, key: impl Into<Bytes>) -> &mut TransactionPart {
        let key = key.into();
        let place = *self.places.entry(key.clone()).or_insert(self.parts.len());
        if place == self.parts.len() {
            self.parts.push(TransactionPart {
                key,
                ..TransactionPart::default()
            });
        }
        &mut self.parts[place]
    }

    pub fn condition(&mut self, key: impl Into<Bytes>, condition: Condition) {
        self.part(key).conditions.push(condition);
    }

    pub fn get(&mut self, key: impl Into<Bytes>) {
        self.part(key).get = true;
    }

    pub fn change(&mut self, key: impl Into<Bytes>, change: KeyChange) {
        let part = self.part(key);
        if part.change.replace(change).is_some() {
            let twice = "a key has two writes: a transaction writes each key at most once";
            self.error.get_or_insert(CallError::InvalidArgument(twice));
        }
    }

    /// The call that runs the transaction.
    pub fn call(&self) -> Result<Call, CallError> {
        if let Some(error) = &self.error {
            return Err(error.clone());
        }
        let invalid = |why| Err(CallError::InvalidArgument(why));
        let Some(first) = self.parts.first() else {
            return invalid("the transaction names no key");
        };
        if self.parts.len() > TRANSACTION_KEYS_MAX {
            return invalid("the transaction names more than 128 keys");
        }
        for part in &self.parts {
            // Each key has the bounds of a key of its own.
            Call::new(part.key.clone(), single(part)).check()?;
        }
        let transaction = Transaction {
            parts: self.parts.clone(),
        };
        if transaction.check().is_err() && transaction.value_size() <= VALUE_SIZE_MAX {
            return invalid("a key has more than 16 conditions");
        }
        let call = Call::new(first.key.clone(), Action::Transact { transaction });
        call.check()?;
        Ok(call)
    }

    /// What the outcome of that call means.
    pub fn outcome(
        &self,
        result: Result<Outcome, CallError>,
    ) -> Result<TransactionOutcome, CallError> {
        match result? {
            Outcome::Committed { results } if results.len() == self.parts.len() => {
                let keys = self.parts.iter().map(|part| part.key.clone());
                let keys = keys.zip(results).collect();
                Ok(TransactionOutcome::Committed(TransactionResults { keys }))
            }
            Outcome::Failed { failure } => {
                let part = self.parts.get(usize::from(failure.part));
                let part = part.ok_or(CallError::UnknownOutcome)?;
                match failure.reason {
                    FailureReason::Condition { place, version } => {
                        let condition = part.conditions.get(usize::from(place));
                        Ok(TransactionOutcome::Conflict {
                            key: part.key.clone(),
                            condition: condition.cloned().ok_or(CallError::UnknownOutcome)?,
                            version,
                        })
                    }
                    reason => Err(error_of(reason).unwrap_or(CallError::UnknownOutcome)),
                }
            }
            _ => Err(CallError::UnknownOutcome),
        }
    }
}

/// The error of a transaction that did nothing; `None` if a condition did not hold.
pub fn error_of(reason: FailureReason) -> Option<CallError> {
    Some(match reason {
        FailureReason::Condition { .. } => return None,
        FailureReason::NotANumber => CallError::NotANumber,
        FailureReason::Overflow => CallError::Overflow,
        FailureReason::TooLarge { limit } => CallError::TooLarge {
            what: if limit == 0 { "transaction" } else { "value" },
            // 0: the values that it reads and writes do not fit a record.
            limit: if limit == 0 {
                VALUE_SIZE_MAX as u64
            } else {
                limit
            },
        },
        FailureReason::Contended => CallError::Busy,
    })
}

/// An operation on one key with the bounds of that part of a transaction.
fn single(part: &TransactionPart) -> Action {
    match &part.change {
        Some(KeyChange::PutFor { value, ttl_ms }) => Action::PutFor {
            value: value.clone(),
            ttl_ms: *ttl_ms,
            over: None,
        },
        _ => Action::Get,
    }
}

impl<'a> TransactionBuilder<'a> {
    pub(crate) fn new(client: &'a Client) -> Self {
        TransactionBuilder {
            client,
            draft: TransactionDraft::new(),
            deadline: None,
        }
    }

    pub fn if_absent(self, key: impl Into<Bytes>) -> Self {
        self.when(key, Condition::Absent)
    }

    pub fn if_present(self, key: impl Into<Bytes>) -> Self {
        self.when(key, Condition::Present)
    }

    /// Version 0 is that of an absent key.
    pub fn if_version(self, key: impl Into<Bytes>, version: Version) -> Self {
        let condition = match version {
            0 => Condition::Absent,
            version => Condition::Version(version),
        };
        self.when(key, condition)
    }

    pub fn if_value(self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        let value = value.into();
        self.when(key, Condition::Value(value))
    }

    fn when(mut self, key: impl Into<Bytes>, condition: Condition) -> Self {
        self.draft.condition(key, condition);
        self
    }

    /// The result of the key has its value before the transaction.
    pub fn get(mut self, key: impl Into<Bytes>) -> Self {
        self.draft.get(key);
        self
    }

    pub fn put(self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        let value = value.into();
        self.change(key, KeyChange::Put(value))
    }

    /// A put of a key that expires. The time to live begins before the transaction commits.
    pub fn put_for(self, key: impl Into<Bytes>, value: impl Into<Bytes>, ttl: Duration) -> Self {
        let value = value.into();
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        self.change(key, KeyChange::PutFor { value, ttl_ms })
    }

    /// Nothing changes if the key is absent.
    pub fn delete(self, key: impl Into<Bytes>) -> Self {
        self.change(key, KeyChange::Delete)
    }

    pub fn add(self, key: impl Into<Bytes>, delta: i64) -> Self {
        self.change(key, KeyChange::Add(delta))
    }

    pub fn append(self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        let value = value.into();
        self.change(key, KeyChange::Append(value))
    }

    fn change(mut self, key: impl Into<Bytes>, change: KeyChange) -> Self {
        self.draft.change(key, change);
        self
    }

    /// How long to wait; else the client's default.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Runs it and waits. `UnknownOutcome` means that it may have been committed; every other error
    /// means that nothing was done.
    pub fn run(self) -> Result<TransactionOutcome, CallError> {
        let mut call = self.draft.call()?;
        call.deadline_us = self
            .deadline
            .map(|deadline| u64::try_from(deadline.as_micros()).unwrap_or(u64::MAX));
        let result = self.client.call(call);
        self.draft.outcome(result)
    }
}
