//! Steps of transactions that a node leaves to the preferred coordinator of a key, and the answers,
//! as they travel.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use wire::clock::READING_SANE_MAX;
use wire::{
    Action, BodyError, KEY_SIZE_MAX, KeyResult, Operation, Outcome, Transaction, TransactionPart,
    Version,
};

use crate::protocol::types::message::NodeId;
use crate::protocol::types::transaction::{Coordination, Fate, StepAnswer, TransactionStep};

/// A step on the key of the operation that comes with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "FlatRemoteStep", into = "FlatRemoteStep")]
pub enum RemoteStep {
    /// T2: the operation is the transaction, with one part.
    Place {
        number: u32,
        by: Coordination,
        vouched: Option<Version>,
    },
    /// T5: that attempt of the operation was decided.
    Resolve { number: u32, is_committed: bool },
}

#[derive(Serialize, Deserialize)]
struct FlatRemoteStep {
    code: u8,
    number: u32,
    coordinator: NodeId,
    boot: u64,
    deadline: u64,
    vouched: Option<Version>,
}

impl From<RemoteStep> for FlatRemoteStep {
    fn from(step: RemoteStep) -> Self {
        let (code, number, by, vouched) = match step {
            RemoteStep::Place {
                number,
                by,
                vouched,
            } => (0, number, Some(by), vouched),
            RemoteStep::Resolve {
                number,
                is_committed: true,
            } => (1, number, None, None),
            RemoteStep::Resolve { number, .. } => (2, number, None, None),
        };
        FlatRemoteStep {
            code,
            number,
            coordinator: by.map_or(0, |by| by.coordinator),
            boot: by.map_or(0, |by| by.boot),
            deadline: by.map_or(0, |by| by.deadline),
            vouched,
        }
    }
}

impl TryFrom<FlatRemoteStep> for RemoteStep {
    type Error = BodyError;

    fn try_from(flat: FlatRemoteStep) -> Result<Self, BodyError> {
        let number = flat.number;
        match flat.code {
            0 if flat.deadline <= READING_SANE_MAX => Ok(RemoteStep::Place {
                number,
                by: Coordination {
                    coordinator: flat.coordinator,
                    boot: flat.boot,
                    deadline: flat.deadline,
                },
                vouched: flat.vouched,
            }),
            1 | 2 => Ok(RemoteStep::Resolve {
                number,
                is_committed: flat.code == 1,
            }),
            _ => Err(BodyError::Bounds),
        }
    }
}

impl RemoteStep {
    /// `None` for a step on a register, and for a read: no other node takes these.
    pub fn of(step: &TransactionStep) -> Option<Self> {
        match *step {
            TransactionStep::Place {
                number,
                by,
                vouched,
                ..
            } => Some(RemoteStep::Place {
                number,
                by,
                vouched,
            }),
            TransactionStep::Resolve {
                decided: Some((number, fate)),
            } => Some(RemoteStep::Resolve {
                number,
                is_committed: fate == Fate::Committed,
            }),
            _ => None,
        }
    }

    /// `None` if it does not fit the operation.
    pub fn into_step(self, operation: &Operation) -> Option<TransactionStep> {
        match self {
            RemoteStep::Place {
                number,
                by,
                vouched,
            } => {
                let Action::Transact { transaction } = &operation.action else {
                    return None;
                };
                let is_of_key = |part: &TransactionPart| part.key == operation.key;
                let fits = transaction.parts.len() == 1 && transaction.parts.iter().all(is_of_key);
                fits.then_some(TransactionStep::Place {
                    part: 0,
                    number,
                    by,
                    vouched,
                })
            }
            RemoteStep::Resolve {
                number,
                is_committed,
            } => {
                let fate = match is_committed {
                    true => Fate::Committed,
                    false => Fate::Void,
                };
                let is_key = (1..=KEY_SIZE_MAX).contains(&operation.key.len());
                let fits = is_key && operation.action == Action::Get;
                let decided = Some((number, fate));
                fits.then_some(TransactionStep::Resolve { decided })
            }
        }
    }
}

/// The operation that comes with the step: of a placement the transaction with that part alone,
/// whose key is the operation's.
pub fn operation_for(operation: &Arc<Operation>, step: &TransactionStep) -> Arc<Operation> {
    let (TransactionStep::Place { part, .. }, Action::Transact { transaction }) =
        (step, &operation.action)
    else {
        return operation.clone();
    };
    let part = transaction.parts[usize::from(*part)].clone();
    let key = part.key.clone();
    let transaction = Transaction { parts: vec![part] };
    Arc::new(Operation {
        id: operation.id,
        birth: operation.birth,
        low_mark: operation.low_mark,
        key,
        want_old: operation.want_old,
        action: Action::Transact { transaction },
    })
}

/// The answers that a `RemoteStep` has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "FlatRemoteStepAnswer", into = "FlatRemoteStepAnswer")]
pub enum RemoteStepAnswer {
    Held(KeyResult),
    Forgotten(Version),
    Refused,
    Resolved,
    /// Also of a condition that did not hold.
    Outcome(Outcome),
    Dropped,
}

#[derive(Serialize, Deserialize)]
struct FlatRemoteStepAnswer {
    code: u8,
    version: Version,
    result: Option<KeyResult>,
    outcome: Option<Outcome>,
}

impl From<RemoteStepAnswer> for FlatRemoteStepAnswer {
    fn from(answer: RemoteStepAnswer) -> Self {
        let (code, version, result, outcome) = match answer {
            RemoteStepAnswer::Held(result) => (0, 0, Some(result), None),
            RemoteStepAnswer::Forgotten(version) => (1, version, None, None),
            RemoteStepAnswer::Refused => (2, 0, None, None),
            RemoteStepAnswer::Resolved => (3, 0, None, None),
            RemoteStepAnswer::Outcome(outcome) => (4, 0, None, Some(outcome)),
            RemoteStepAnswer::Dropped => (5, 0, None, None),
        };
        FlatRemoteStepAnswer {
            code,
            version,
            result,
            outcome,
        }
    }
}

impl TryFrom<FlatRemoteStepAnswer> for RemoteStepAnswer {
    type Error = BodyError;

    fn try_from(flat: FlatRemoteStepAnswer) -> Result<Self, BodyError> {
        match (flat.code, flat.result, flat.outcome) {
            (0, Some(result), _) => Ok(RemoteStepAnswer::Held(result)),
            (1, ..) => Ok(RemoteStepAnswer::Forgotten(flat.version)),
            (2, ..) => Ok(RemoteStepAnswer::Refused),
            (3, ..) => Ok(RemoteStepAnswer::Resolved),
            (4, _, Some(outcome)) => Ok(RemoteStepAnswer::Outcome(outcome)),
            (5, ..) => Ok(RemoteStepAnswer::Dropped),
            _ => Err(BodyError::Bounds),
        }
    }
}

impl From<StepAnswer> for RemoteStepAnswer {
    fn from(answer: StepAnswer) -> Self {
        match answer {
            StepAnswer::Held(result) => RemoteStepAnswer::Held(result),
            StepAnswer::Failed(failure) => RemoteStepAnswer::Outcome(Outcome::Failed { failure }),
            StepAnswer::Forgotten(version) => RemoteStepAnswer::Forgotten(version),
            StepAnswer::Refused => RemoteStepAnswer::Refused,
            StepAnswer::Resolved => RemoteStepAnswer::Resolved,
            StepAnswer::Outcome(outcome) => RemoteStepAnswer::Outcome(outcome),
            StepAnswer::Dropped => RemoteStepAnswer::Dropped,
            StepAnswer::Register(_)
            | StepAnswer::Unregistered
            | StepAnswer::Barred
            | StepAnswer::Seen(_) => unreachable!("of steps that are not left to other nodes"),
        }
    }
}

impl From<RemoteStepAnswer> for StepAnswer {
    fn from(answer: RemoteStepAnswer) -> Self {
        match answer {
            RemoteStepAnswer::Held(result) => StepAnswer::Held(result),
            RemoteStepAnswer::Outcome(Outcome::Failed { failure }) => StepAnswer::Failed(failure),
            RemoteStepAnswer::Forgotten(version) => StepAnswer::Forgotten(version),
            RemoteStepAnswer::Refused => StepAnswer::Refused,
            RemoteStepAnswer::Resolved => StepAnswer::Resolved,
            RemoteStepAnswer::Outcome(outcome) => StepAnswer::Outcome(outcome),
            RemoteStepAnswer::Dropped => StepAnswer::Dropped,
        }
    }
}

#[cfg(test)]
mod tests {
    use wire::{KeyChange, OperationId};

    use super::*;

    fn part(key: &'static str) -> TransactionPart {
        TransactionPart {
            key: key.into(),
            change: Some(KeyChange::Delete),
            ..TransactionPart::default()
        }
    }

    fn operation(parts: Vec<TransactionPart>) -> Arc<Operation> {
        let transaction = Transaction { parts };
        Arc::new(Operation {
            id: OperationId {
                client: 1,
                sequence: 1,
            },
            birth: 1,
            low_mark: 1,
            key: transaction.parts[0].key.clone(),
            want_old: false,
            action: Action::Transact { transaction },
        })
    }

    fn place(part: u16, deadline: u64) -> TransactionStep {
        let by = Coordination {
            coordinator: 1,
            boot: 2,
            deadline,
        };
        TransactionStep::Place {
            part,
            number: 3,
            by,
            vouched: Some(4),
        }
    }

    #[test]
    fn a_placement_travels_with_its_part_alone() {
        let whole = operation(vec![part("a"), part("b")]);
        let of_part = operation_for(&whole, &place(1, 5));
        assert_eq!(of_part, operation(vec![part("b")]));
        let step = RemoteStep::of(&place(1, 5)).expect("it may travel");
        assert_eq!(step.into_step(&of_part), Some(place(0, 5)));
    }

    #[test]
    fn a_placement_of_another_key_or_of_several_is_none() {
        let one = operation(vec![part("a")]);
        let step = RemoteStep::of(&place(0, 5)).expect("a placement");
        assert!(step.clone().into_step(&one).is_some());
        let two = operation(vec![part("a"), part("b")]);
        assert_eq!(step.clone().into_step(&two), None);
        let mut other = (*one).clone();
        other.key = "b".into();
        assert_eq!(step.clone().into_step(&other), None);
        other.action = Action::Delete;
        assert_eq!(step.clone().into_step(&other), None);
    }

    #[test]
    fn a_resolution_of_what_is_no_key_is_none() {
        let resolve = RemoteStep::Resolve {
            number: 1,
            is_committed: true,
        };
        let of = |key: Vec<u8>, action| {
            let mut operation = (*operation(vec![part("a")])).clone();
            (operation.key, operation.action) = (key.into(), action);
            resolve.clone().into_step(&operation)
        };
        assert!(of(vec![b'a'; KEY_SIZE_MAX], Action::Get).is_some());
        assert_eq!(of(vec![b'a'; KEY_SIZE_MAX + 1], Action::Get), None);
        assert_eq!(of(Vec::new(), Action::Get), None);
        assert_eq!(of(vec![b'a'], Action::Delete), None);
    }

    fn flat(code: u8) -> FlatRemoteStep {
        FlatRemoteStep {
            code,
            number: 3,
            coordinator: 1,
            boot: 2,
            deadline: 5,
            vouched: Some(4),
        }
    }

    #[test]
    fn what_travels_arrives_as_it_was_sent() {
        let one = operation(vec![part("a")]);
        let mut get = (*one).clone();
        get.action = Action::Get;
        let get = Arc::new(get);
        let decided = |fate| TransactionStep::Resolve {
            decided: Some((3, fate)),
        };
        for (one, step) in [
            (&one, place(0, 5)),
            (&get, decided(Fate::Committed)),
            (&get, decided(Fate::Void)),
        ] {
            let remote = RemoteStep::of(&step).expect("it may travel");
            let mut body = Vec::new();
            wire::encode(&mut body, &remote);
            let arrived: RemoteStep = wire::decode(&body).expect("it was just encoded");
            assert_eq!(arrived.into_step(one), Some(step));
        }
        let failed = Outcome::Failed {
            failure: wire::Failure {
                part: 0,
                reason: wire::FailureReason::Contended,
            },
        };
        for answer in [
            RemoteStepAnswer::Held(KeyResult::default()),
            RemoteStepAnswer::Forgotten(7),
            RemoteStepAnswer::Refused,
            RemoteStepAnswer::Resolved,
            RemoteStepAnswer::Outcome(failed),
            RemoteStepAnswer::Dropped,
        ] {
            let mut body = Vec::new();
            wire::encode(&mut body, &answer);
            assert_eq!(wire::decode(&body), Ok(answer.clone()));
            assert_eq!(
                RemoteStepAnswer::from(StepAnswer::from(answer.clone())),
                answer
            );
        }
    }

    #[test]
    fn what_no_node_sends_is_refused() {
        for code in 3..=9 {
            assert!(RemoteStep::try_from(flat(code)).is_err(), "{code}");
        }
        let late = FlatRemoteStep {
            deadline: READING_SANE_MAX + 1,
            ..flat(0)
        };
        assert!(RemoteStep::try_from(late).is_err());
        for code in [0, 4, 6, 255] {
            let empty = FlatRemoteStepAnswer {
                code,
                version: 0,
                result: None,
                outcome: None,
            };
            assert!(RemoteStepAnswer::try_from(empty).is_err(), "{code}");
        }
    }
}
