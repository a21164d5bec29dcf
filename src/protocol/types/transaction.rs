//! What transactions keep in records: intents in those of keys, and decisions in registers of their
//! own; and the steps by which a coordinator changes them. Data only; `register::applied` has the
//! rules of one record, `transactions` the course of a transaction.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use wire::clock::{READING_SANE_MAX, Reading};
use wire::{
    Birth, BodyError, ClientId, Failure, KEY_SIZE_MAX, KeyResult, OperationId, Outcome,
    TRANSACTION_KEYS_MAX, Version,
};

use crate::protocol::types::ballot::Ballot;
use crate::protocol::types::encoded_intent::EncodedIntent;
use crate::protocol::types::limits::DECISIONS_KNOWN_MAX;
use crate::protocol::types::message::{Epoch, NodeId};
use crate::protocol::types::record::{Key, Record};

/// One attempt of a transaction. Intents and decisions are for exactly one (T5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt {
    pub id: OperationId,
    pub number: u32,
}

/// The coordinator of an attempt, and its deadline (T6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Coordination {
    pub coordinator: NodeId,
    /// Of the coordinator.
    pub boot: u64,
    /// From this reading on nobody waits for the coordinator.
    pub deadline: Reading,
}

/// What an attempt does with one key, once it is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    pub of: Attempt,
    pub birth: Birth,
    /// A first attempt has no register before it is decided (T1).
    pub by: Coordination,
    /// The new value, or a tombstone; `None` leaves the key as it is.
    pub change: Option<Option<Bytes>>,
    /// T7: the version that comes with the change.
    pub version: Version,
    /// When the key expires once it is changed (L2).
    pub expiry_ms: Option<u64>,
    pub result: KeyResult,
}

#[derive(Serialize, Deserialize)]
struct FlatIntent {
    client: ClientId,
    sequence: u64,
    number: u32,
    birth: Birth,
    coordinator: NodeId,
    boot: u64,
    deadline: u64,
    changes: bool,
    value: Option<Bytes>,
    version: Version,
    expiry_ms: Option<u64>,
    result: KeyResult,
}

impl Intent {
    pub fn encode(&self) -> EncodedIntent {
        let mut body = Vec::new();
        let flat = FlatIntent {
            client: self.of.id.client,
            sequence: self.of.id.sequence,
            number: self.of.number,
            birth: self.birth,
            coordinator: self.by.coordinator,
            boot: self.by.boot,
            deadline: self.by.deadline,
            changes: self.change.is_some(),
            value: self.change.clone().flatten(),
            version: self.version,
            expiry_ms: self.expiry_ms,
            result: self.result.clone(),
        };
        wire::encode(&mut body, &flat);
        Bytes::from(body).into()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, BodyError> {
        let flat: FlatIntent = wire::decode(bytes)?;
        if flat.deadline > READING_SANE_MAX {
            return Err(BodyError::Bounds);
        }
        let id = OperationId {
            client: flat.client,
            sequence: flat.sequence,
        };
        Ok(Intent {
            of: Attempt {
                id,
                number: flat.number,
            },
            birth: flat.birth,
            by: Coordination {
                coordinator: flat.coordinator,
                boot: flat.boot,
                deadline: flat.deadline,
            },
            change: flat.changes.then_some(flat.value),
            version: flat.version,
            expiry_ms: flat.expiry_ms,
            result: flat.result,
        })
    }

    /// The register of a first attempt, as long as nothing is decided.
    pub fn undecided(&self) -> Register {
        Register {
            attempt: self.of.number,
            decision: AttemptState::Pending,
            birth: self.birth,
            deadline: self.by.deadline,
            coordinator: self.by.coordinator,
            boot: self.by.boot,
            // The intent of one key does not name the others.
            keys: Vec::new(),
        }
    }
}

/// How far an attempt has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttemptState {
    Pending,
    Committed(Vec<KeyResult>),
    Failed(Failure),
    /// Not final: the next attempt may follow (T1).
    Aborted,
}

/// The value of a decision register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Register {
    pub attempt: u32,
    pub decision: AttemptState,
    pub birth: Birth,
    /// From this reading on nobody waits for the coordinator.
    pub deadline: Reading,
    pub coordinator: NodeId,
    /// Of the coordinator.
    pub boot: u64,
    /// Empty if the first attempt was aborted by a node that knew only one of its keys.
    pub keys: Vec<Bytes>,
}

#[derive(Serialize, Deserialize)]
struct FlatRegister {
    attempt: u32,
    birth: Birth,
    deadline: u64,
    coordinator: NodeId,
    boot: u64,
    keys: Vec<Bytes>,
    decision: Option<Outcome>,
}

/// What the fields of a register, of one of its keys or of a result take at most, besides their
/// byte strings.
const FIELDS_SIZE_MAX: usize = 64;

/// The fields of `FlatRegister`, without the keys and results.
#[derive(Deserialize)]
struct FlatRegisterHead {
    _attempt: u32,
    _birth: Birth,
    _deadline: u64,
    _coordinator: NodeId,
    _boot: u64,
    _keys: IgnoredAny,
    decision: Option<IgnoredAny>,
}

impl Register {
    /// Whether these bytes are a register that is not pending.
    pub fn is_encoded_decision(bytes: &[u8]) -> bool {
        let head: Result<FlatRegisterHead, BodyError> = wire::decode(bytes);
        head.is_ok_and(|head| head.decision.is_some())
    }

    pub fn encode(&self) -> Bytes {
        let decision = match &self.decision {
            AttemptState::Pending => None,
            AttemptState::Committed(results) => Some(Outcome::Committed {
                results: results.clone(),
            }),
            AttemptState::Failed(failure) => Some(Outcome::Failed { failure: *failure }),
            AttemptState::Aborted => Some(Outcome::Absent),
        };
        let flat = FlatRegister {
            attempt: self.attempt,
            birth: self.birth,
            deadline: self.deadline,
            coordinator: self.coordinator,
            boot: self.boot,
            keys: self.keys.clone(),
            decision,
        };
        let mut body = Vec::new();
        wire::encode(&mut body, &flat);
        body.into()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, BodyError> {
        let flat: FlatRegister = wire::decode(bytes)?;
        let decision = match flat.decision {
            None => AttemptState::Pending,
            Some(Outcome::Committed { results }) => AttemptState::Committed(results),
            Some(Outcome::Failed { failure }) => AttemptState::Failed(failure),
            Some(Outcome::Absent) => AttemptState::Aborted,
            Some(_) => return Err(BodyError::Bounds),
        };
        let is_sized = |key: &Bytes| (1..=KEY_SIZE_MAX).contains(&key.len());
        let are_keys = flat.keys.len() <= TRANSACTION_KEYS_MAX && flat.keys.iter().all(is_sized);
        if !are_keys || flat.birth.max(flat.deadline) > READING_SANE_MAX {
            return Err(BodyError::Bounds);
        }
        Ok(Register {
            attempt: flat.attempt,
            decision,
            birth: flat.birth,
            deadline: flat.deadline,
            coordinator: flat.coordinator,
            boot: flat.boot,
            keys: flat.keys,
        })
    }

    /// Whether the encoded register may be larger than that. This is cheaper than to encode it.
    pub fn may_be_larger_than(&self, size_max: usize) -> bool {
        let results = match &self.decision {
            AttemptState::Committed(results) => results.as_slice(),
            _ => &[],
        };
        let values = results.iter().filter_map(|result| result.value.as_ref());
        let bytes: usize = self.keys.iter().chain(values).map(Bytes::len).sum();
        bytes + FIELDS_SIZE_MAX * (1 + self.keys.len() + results.len()) > size_max
    }

    pub fn by(&self) -> Coordination {
        Coordination {
            coordinator: self.coordinator,
            boot: self.boot,
            deadline: self.deadline,
        }
    }

    /// The register's value in a record.
    pub fn of(record: &Record) -> Option<Self> {
        record.value.as_ref().and_then(|v| Register::decode(v).ok())
    }

    /// Whether this is the last attempt, and it is not pending.
    pub fn is_decided(&self, attempt: u32) -> bool {
        self.attempt == attempt && self.decision != AttemptState::Pending
    }

    /// What the register says of that attempt's intents; `None` while nothing is decided.
    pub fn fate_of(&self, number: u32) -> Option<Fate> {
        if self.attempt != number {
            return Some(Fate::Void);
        }
        match self.decision {
            AttemptState::Pending => None,
            AttemptState::Committed(_) => Some(Fate::Committed),
            AttemptState::Failed(_) | AttemptState::Aborted => Some(Fate::Void),
        }
    }
}

/// What became of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Committed,
    Void,
    /// The register was removed after the intent was seen, or can't be created any more. For write
    /// rounds only (T5).
    Gone,
}

/// The fates that this node knows: they never change.
#[derive(Debug, Default)]
pub struct Decisions {
    fates: HashMap<Attempt, Fate, foldhash::fast::RandomState>,
    order: VecDeque<Attempt>,
}

impl Decisions {
    pub fn of(&self, attempt: Attempt) -> Option<Fate> {
        self.fates.get(&attempt).copied()
    }

    pub fn learn(&mut self, attempt: Attempt, fate: Fate) {
        if self.fates.insert(attempt, fate).is_none() {
            self.order.push_back(attempt);
        }
        while self.order.len() > DECISIONS_KNOWN_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.fates.remove(&oldest);
            }
        }
    }
}

/// One change of one record by a transaction's coordinator, or by a node that meets an intent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransactionStep {
    /// T1: absent -> pending(1), committed(1) or failed(1).
    Create(Register),
    /// T1: absent -> aborted(1), by a node that met an intent of the first attempt, or by the
    /// attempt's own coordinator.
    Abandon(Register),
    /// T1: replaces the register, if it is at `from`.
    Move { from: Register, to: Register },
    /// T8: removes the register, if that attempt is the last one, and was decided or aborted.
    Delete { attempt: u32 },
    /// T2: places the intent of one key. `vouched`: the register was seen pending after the key was
    /// seen without an entry, at this version (T3).
    Place {
        part: u16,
        number: u32,
        by: Coordination,
        vouched: Option<Version>,
    },
    /// Rolls the key's intent forward or back, if its fate is known. `decided`: the attempt whose
    /// intent it may be, and its fate, for a node that does not know it.
    Resolve { decided: Option<(u32, Fate)> },
    /// A read of the register of a transaction with that birth.
    Look { birth: Birth },
    /// A read of a key, for a snapshot (T11).
    Read,
}

impl TransactionStep {
    pub fn is_read(&self) -> bool {
        matches!(self, TransactionStep::Look { .. } | TransactionStep::Read)
    }
}

/// What a key was seen to be, in a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// 0 without a record.
    pub version: Version,
    pub value: Option<Bytes>,
    /// Without a record: the floors of the members that answered, and their epoch (T11).
    pub floors: Option<(Epoch, Vec<(NodeId, Ballot)>)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepAnswer {
    /// The register after the step. `None`: it was removed, or may have been (X1).
    Register(Option<Register>),
    /// T1: there is no register, and there was none.
    Unregistered,
    /// T1: there is no register, and there will be none.
    Barred,
    Held(KeyResult),
    Failed(Failure),
    /// T3: the table no longer answers for the transaction. The key is at this version.
    Forgotten(Version),
    /// A later attempt was placed, or this one was and is resolved, or the client has moved on.
    Refused,
    Seen(Seen),
    /// The key has no intent whose fate was known.
    Resolved,
    /// The step was not executed, or nobody can tell.
    Outcome(Outcome),
    Dropped,
}

/// Removes the intent from the record, and rolls it forward if it was committed. Members compute
/// the record of a Resolve by it, so it is part of the wire format. A release that computes another
/// record needs another kind of message.
pub fn resolved(record: &mut Record, intent: Intent, fate: Fate) {
    record.intent = None;
    if fate == Fate::Committed
        && let Some(value) = intent.change
    {
        record.value = value;
        record.version = intent.version;
        record.expiry_ms = intent.expiry_ms;
    }
}

/// Whether `made` is `found` with nothing changed but its intent, which is resolved; and if so,
/// whether the transaction was committed.
pub fn resolution(found: &Record, made: &Record, decisions: &Decisions) -> Option<bool> {
    let intent = Intent::decode(found.intent.as_ref()?).ok()?;
    let fate = decisions.of(intent.of)?;
    let mut expected = found.clone();
    resolved(&mut expected, intent, fate);
    (expected == *made).then_some(fate == Fate::Committed)
}

/// The key's record as a read that knows the fate answers it.
pub fn view(record: &Arc<Record>, fate: Option<Fate>) -> Arc<Record> {
    let intent = record.intent.as_ref().map(|bytes| Intent::decode(bytes));
    match (intent, fate) {
        (Some(Ok(intent)), Some(fate)) => {
            let mut made = record.as_ref().clone();
            resolved(&mut made, intent, fate);
            made.into()
        }
        _ => record.clone(),
    }
}

/// T1: the register in the record, or whether there was one. `forgotten` counts without a record:
/// registers of births up to it may have been purged (X3).
pub fn look_at(record: Option<&Record>, birth: Birth, forgotten: Birth) -> StepAnswer {
    let register = record.and_then(Register::of);
    let dropped = record.map_or(forgotten, |record| record.applied.dropped);
    let was_there = record.is_some_and(|record| record.version > 0) || birth <= dropped;
    match register.is_some() || was_there {
        true => StepAnswer::Register(register),
        false => StepAnswer::Unregistered,
    }
}

impl Key {
    /// The decision register of a transaction.
    pub fn transaction(id: OperationId) -> Self {
        let mut name = [0; 24];
        name[..16].copy_from_slice(&id.client.to_be_bytes());
        name[16..].copy_from_slice(&id.sequence.to_be_bytes());
        Key::of_transaction(&name)
    }

    /// The transaction whose register this is.
    pub fn transaction_id(&self) -> Option<OperationId> {
        let name: [u8; 24] = self.name().try_into().ok()?;
        let (client, sequence) = name.split_at(16);
        Some(OperationId {
            client: ClientId::from_be_bytes(client.try_into().ok()?),
            sequence: u64::from_be_bytes(sequence.try_into().ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::types::encoded_intent::IntentHead;

    const ID: OperationId = OperationId {
        client: 7 << 64 | 5,
        sequence: 3,
    };

    fn intent(change: Option<Option<Bytes>>) -> Intent {
        Intent {
            of: Attempt { id: ID, number: 2 },
            birth: 9,
            by: Coordination {
                coordinator: 3,
                boot: 8,
                deadline: 20,
            },
            change,
            version: 70,
            expiry_ms: Some(90),
            result: KeyResult {
                found: 60,
                value: Some("old".into()),
                version: 70,
                number: None,
            },
        }
    }

    #[test]
    fn what_is_kept_in_records_comes_back() {
        for change in [None, Some(None), Some(Some("new".into()))] {
            let intent = intent(change);
            let head = IntentHead {
                of: intent.of,
                latest: intent.birth,
            };
            assert_eq!(intent.encode().head(), Some(head));
            assert_eq!(Intent::decode(&intent.encode()), Ok(intent));
        }
        let failure = Failure {
            part: 4,
            reason: wire::FailureReason::Contended,
        };
        let results = vec![intent(None).result];
        for decision in [
            AttemptState::Pending,
            AttemptState::Committed(results),
            AttemptState::Failed(failure),
            AttemptState::Aborted,
        ] {
            let register = Register {
                attempt: 2,
                decision,
                birth: 9,
                deadline: 10,
                coordinator: 3,
                boot: 8,
                keys: vec!["a".into(), "b".into()],
            };
            let size = register.encode().len();
            assert!(register.may_be_larger_than(size - 1) && !register.may_be_larger_than(1_000));
            let is_decided = register.decision != AttemptState::Pending;
            assert_eq!(
                Register::is_encoded_decision(&register.encode()),
                is_decided
            );
            assert_eq!(Register::decode(&register.encode()), Ok(register));
        }
        assert!(Intent::decode(b"x").is_err() && Register::decode(b"").is_err());
        assert!(
            EncodedIntent::from(Bytes::from_static(b"x"))
                .head()
                .is_none()
        );
        assert!(!Register::is_encoded_decision(b"x"));
        let mut late = intent(None);
        late.by.deadline = READING_SANE_MAX + 1;
        assert!(Intent::decode(&late.encode()).is_err());
        let sound = Register {
            attempt: 1,
            decision: AttemptState::Pending,
            birth: 9,
            deadline: READING_SANE_MAX,
            coordinator: 3,
            boot: 8,
            keys: vec!["a".into()],
        };
        assert!(Register::decode(&sound.encode()).is_ok());
        for keys in [
            vec![Bytes::new()],
            vec![vec![b'k'; KEY_SIZE_MAX + 1].into()],
        ] {
            let unsound = Register {
                keys,
                ..sound.clone()
            };
            assert!(Register::decode(&unsound.encode()).is_err());
        }
        for (birth, deadline) in [(u64::MAX, 9), (9, READING_SANE_MAX + 1)] {
            let unsound = Register {
                birth,
                deadline,
                ..sound.clone()
            };
            assert!(Register::decode(&unsound.encode()).is_err());
        }
        assert_eq!(Key::transaction(ID).transaction_id(), Some(ID));
    }

    /// T5: an intent is for exactly one attempt, and only a commit makes it the value.
    #[test]
    fn only_a_committed_intent_becomes_the_value() {
        let under = |change| {
            Arc::new(Record {
                value: Some("old".into()),
                version: 60,
                intent: Some(intent(change).encode()),
                ..Record::default()
            })
        };
        let seen = |record: &Record| (record.value.clone(), record.version);
        let old = (Some("old".into()), 60);
        let record = under(Some(Some("new".into())));
        assert_eq!(seen(&view(&record, None)), old);
        for fate in [Fate::Void, Fate::Gone] {
            assert_eq!(seen(&view(&record, Some(fate))), old);
        }
        let new = view(&record, Some(Fate::Committed));
        assert_eq!((seen(&new), &new.intent), ((Some("new".into()), 70), &None));
        let deleted = view(&under(Some(None)), Some(Fate::Committed));
        assert_eq!(seen(&deleted), (None, 70));
        let read = view(&under(None), Some(Fate::Committed));
        assert_eq!(seen(&read), old);
    }
}
