//! The steps of transactions on one record: intents are placed (T2, T3, T7) and resolved (T5), and
//! decision registers move along (T1).

use bytes::Bytes;
use wire::{
    Action, Birth, Condition, Failure, FailureReason, KeyChange, KeyResult, Operation, Outcome,
    TransactionPart, VALUE_SIZE_MAX, Version,
};

use super::table::{CLIENT_SIZE, LookUp, OPERATION_SIZE};
use super::{ApplyVerdict, Proposal, number};
use crate::protocol::types::limits::RECORD_SIZE_MAX;
use crate::protocol::types::rules::rule;
use crate::protocol::types::transaction::{
    Attempt, Coordination, Decisions, Intent, Register, StepAnswer, TransactionStep, look_at,
    resolved,
};

impl Proposal {
    /// T5: an intent whose fate this node knows is rolled forward or back in the same round.
    pub fn resolve(&mut self, decisions: &Decisions) {
        let Some(intent) = self.intent() else { return };
        if let Some(fate) = decisions.of(intent.of) {
            resolved(&mut self.record, intent, fate);
            self.changed = true;
            // T9, L1: the intent kept the record from expiring.
            self.expire();
        }
    }

    /// An intent that does not decode is none of this release: the key waits for one that knows it.
    fn intent(&self) -> Option<Intent> {
        let bytes = self.record.intent.as_ref()?;
        Intent::decode(bytes).ok()
    }

    /// Whether an intent lies over the record, so that no operation may use it.
    pub(super) fn is_covered(&self) -> bool {
        self.record.intent.is_some()
    }

    pub fn step(
        &mut self,
        operation: &Operation,
        step: &TransactionStep,
        tried: bool,
    ) -> ApplyVerdict {
        let answer = match step {
            TransactionStep::Create(register) => self.create(operation, register, tried),
            TransactionStep::Abandon(register) => self.abandon(operation, register),
            TransactionStep::Move { from, to } => {
                if self.register().as_ref() == Some(from) {
                    self.write_register(Some(to));
                }
                StepAnswer::Register(self.register())
            }
            TransactionStep::Delete { attempt } => {
                let register = self.register();
                if register.is_some_and(|register| register.is_decided(*attempt)) {
                    self.write_register(None);
                }
                StepAnswer::Register(self.register())
            }
            TransactionStep::Place {
                part,
                number,
                by,
                vouched,
            } => match self.place(operation, *part, (*number, *by), *vouched) {
                Some(answer) => answer,
                None => return ApplyVerdict::Waits,
            },
            // T8: another transaction's intent shows that this one's is gone.
            TransactionStep::Resolve { .. } => match self.intent() {
                Some(intent) if intent.of.id == operation.id => return ApplyVerdict::Waits,
                // Nobody knows whose an unreadable intent is.
                None if self.is_covered() => StepAnswer::Dropped,
                _ => StepAnswer::Resolved,
            },
            TransactionStep::Look { birth } => self.look(*birth),
            TransactionStep::Read if self.is_covered() => return ApplyVerdict::Waits,
            // A key that is read in a write round has a record from then on.
            TransactionStep::Read => StepAnswer::Seen(super::seen(&self.record)),
        };
        ApplyVerdict::Step(answer)
    }

    fn register(&self) -> Option<Register> {
        Register::of(&self.record)
    }

    fn write_register(&mut self, register: Option<&Register>) {
        let value = register.map(Register::encode);
        self.write(value, wire::Old::NotAsked, None);
        self.changed = true;
    }

    /// T1: a register is created once. What is there is looked at before the table, which may no
    /// longer answer for it.
    fn create(&mut self, operation: &Operation, register: &Register, tried: bool) -> StepAnswer {
        if let Some(present) = self.register() {
            return StepAnswer::Register(Some(present));
        }
        let refused = match self.record.applied.look_up(operation, &self.moment) {
            LookUp::BelowMark | LookUp::Found(_) | LookUp::Unanswerable => Outcome::Unknown,
            LookUp::Forgotten(_) if tried => Outcome::Unknown,
            LookUp::Forgotten(dropped) => Outcome::Remake { dropped },
            LookUp::New => {
                let version = self.next_version();
                self.write_register(Some(register));
                self.enter(operation, &written(version));
                return StepAnswer::Register(Some(register.clone()));
            }
        };
        StepAnswer::Outcome(refused)
    }

    fn look(&self, birth: Birth) -> StepAnswer {
        look_at(Some(&self.record), birth, 0)
    }

    /// T1: a register that was removed, or may have been, is not created again. This round chooses
    /// it absent, so that no round at a lower ballot creates it.
    fn abandon(&mut self, operation: &Operation, register: &Register) -> StepAnswer {
        let present = self.register();
        if present.is_some() || self.record.version > 0 {
            return StepAnswer::Register(present);
        }
        if self.look(register.birth) != StepAnswer::Unregistered {
            return StepAnswer::Barred;
        }
        let version = self.next_version();
        self.write_register(Some(register));
        self.enter(operation, &written(version));
        StepAnswer::Register(Some(register.clone()))
    }

    /// `None`: another transaction's intent is there.
    fn place(
        &mut self,
        operation: &Operation,
        part: u16,
        (number, by): (u32, Coordination),
        vouched: Option<Version>,
    ) -> Option<StepAnswer> {
        let of = Attempt {
            id: operation.id,
            number,
        };
        if let Some(intent) = self.intent()
            && intent.of.id == of.id
        {
            if intent.of.number == number {
                return Some(StepAnswer::Held(intent.result));
            }
            if intent.of.number > number {
                return Some(StepAnswer::Refused);
            }
            // T3: this attempt is pending, so the intent of an earlier one is void.
            self.record.intent = None;
            self.changed = true;
            self.expire();
        }
        if self.is_covered() {
            return None;
        }
        if let Some(refused) = self.placed_before(operation, (number, by), vouched) {
            return Some(refused);
        }
        let Action::Transact { transaction } = &operation.action else {
            return Some(StepAnswer::Refused);
        };
        let wanted = transaction.parts.get(usize::from(part))?;
        Some(match self.intend((of, by), operation, wanted) {
            Ok(intent) => {
                let result = intent.result.clone();
                self.record.intent = Some(intent.encode());
                self.enter(operation, &Outcome::Placed { attempt: number });
                StepAnswer::Held(result)
            }
            Err(reason) => StepAnswer::Failed(Failure { part, reason }),
        })
    }

    /// T3: what the table says of earlier placements. `vouched` counts until the deadline: after it
    /// the key may have been purged since it was looked at, and have the same version again.
    fn placed_before(
        &self,
        operation: &Operation,
        (number, by): (u32, Coordination),
        vouched: Option<Version>,
    ) -> Option<StepAnswer> {
        let vouched = vouched.filter(|_| self.moment.now < by.deadline);
        match self.record.applied.look_up(operation, &self.moment) {
            LookUp::Found(Outcome::Placed { attempt }) if attempt < number && rule!(T3_attempt) => {
                None
            }
            LookUp::Found(_) | LookUp::BelowMark | LookUp::Unanswerable => {
                Some(StepAnswer::Refused)
            }
            LookUp::Forgotten(_) if vouched == Some(self.record.version) => None,
            LookUp::Forgotten(_) => Some(StepAnswer::Forgotten(self.record.version)),
            LookUp::New => None,
        }
    }

    /// Evaluates the conditions and the operation on the record.
    fn intend(
        &self,
        (of, by): (Attempt, Coordination),
        operation: &Operation,
        part: &TransactionPart,
    ) -> Result<Intent, FailureReason> {
        let current = self.record.value.as_ref();
        let found = current.map_or(0, |_| self.record.version);
        check_conditions(part, current, found)?;
        let (change, sum) = change(part, current, self.value_size_max)?;
        let version = match &change {
            Some(_) => self.next_version(),
            None => found,
        };
        let intent = Intent {
            of,
            birth: operation.birth,
            by,
            change,
            version,
            expiry_ms: self.expiry_after(part),
            result: KeyResult {
                found,
                value: current.filter(|_| part.get).cloned(),
                version,
                number: sum,
            },
        };
        // T10
        let size = intent.encode().len();
        let entry_size = CLIENT_SIZE + OPERATION_SIZE;
        if size > VALUE_SIZE_MAX || self.record.size() + size + entry_size > RECORD_SIZE_MAX {
            return Err(FailureReason::TooLarge { limit: 0 });
        }
        Ok(intent)
    }
}

impl Proposal {
    /// L2: a put and a delete remove the time to live, an add and an append keep it. One that is
    /// set begins when the intent is placed.
    fn expiry_after(&self, part: &TransactionPart) -> Option<u64> {
        match part.change {
            Some(KeyChange::Add(_) | KeyChange::Append(_)) => self.record.expiry_ms,
            Some(KeyChange::PutFor { ttl_ms, .. }) => Some(self.expiry_ms(ttl_ms)),
            Some(KeyChange::Put(_) | KeyChange::Delete) | None => None,
        }
    }
}

fn written(version: Version) -> Outcome {
    Outcome::Written {
        version,
        old: wire::Old::NotAsked,
        number: None,
    }
}

pub fn check_conditions(
    part: &TransactionPart,
    current: Option<&Bytes>,
    found: Version,
) -> Result<(), FailureReason> {
    let fails = part
        .conditions
        .iter()
        .position(|condition| match condition {
            Condition::Absent => current.is_some(),
            Condition::Present => current.is_none(),
            Condition::Version(version) => current.is_none() || found != *version,
            Condition::Value(value) => current != Some(value),
        });
    match fails {
        Some(place) => Err(FailureReason::Condition {
            place: place as u16,
            version: found,
        }),
        None => Ok(()),
    }
}

/// The new value, if the operation changes the key, and the sum after an add.
type IntendedChange = (Option<Option<Bytes>>, Option<i64>);

fn change(
    part: &TransactionPart,
    current: Option<&Bytes>,
    value_size_max: usize,
) -> Result<IntendedChange, FailureReason> {
    Ok(match &part.change {
        None => (None, None),
        Some(KeyChange::Put(value) | KeyChange::PutFor { value, .. }) => {
            (Some(Some(value.clone())), None)
        }
        Some(KeyChange::Delete) => (current.map(|_| None), None),
        Some(KeyChange::Add(delta)) => {
            let before = current.map_or(Some(0), number);
            let before = before.ok_or(FailureReason::NotANumber)?;
            let sum = before.checked_add(*delta);
            let sum = sum.ok_or(FailureReason::Overflow)?;
            (Some(Some(Bytes::from(sum.to_string()))), Some(sum))
        }
        Some(KeyChange::Append(value)) => {
            let before = current.cloned().unwrap_or_default();
            if before.len() + value.len() > value_size_max {
                let limit = value_size_max as u64;
                return Err(FailureReason::TooLarge { limit });
            }
            (Some(Some([before, value.clone()].concat().into())), None)
        }
    })
}
