//! The model of one key: a register with a version, and what each operation does to it.

use bytes::Bytes;
use wire::{Action, Old, Outcome, VALUE_SIZE_DEFAULT, Version};

/// The known facts about the current version. The store chooses versions, so the version of a write
/// with an unknown outcome is unknown until a client sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KnownVersion {
    Exactly(Version),
    AtLeast(Version),
}

impl KnownVersion {
    /// The lowest possible version.
    pub fn lowest(self) -> Version {
        match self {
            KnownVersion::Exactly(version) | KnownVersion::AtLeast(version) => version,
        }
    }

    fn can_be(self, version: Version) -> bool {
        match self {
            KnownVersion::Exactly(stands) => stands == version,
            KnownVersion::AtLeast(lowest) => version >= lowest,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ModelState {
    pub value: Option<Bytes>,
    pub version: KnownVersion,
}

/// What an operation would do to a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelEffect {
    Writes {
        value: Option<Bytes>,
        number: Option<i64>,
    },
    Conflict,
    NothingToDelete,
    NotANumber,
    Overflow,
    TooLarge,
}

/// The effect of a write on a value. `version_holds` says whether a comparison of versions
/// succeeds.
pub fn effect(action: &Action, before: Option<&Bytes>, version_holds: bool) -> ModelEffect {
    let put = |value: &Bytes, holds: bool| {
        if holds {
            ModelEffect::Writes {
                value: Some(value.clone()),
                number: None,
            }
        } else {
            ModelEffect::Conflict
        }
    };
    match action {
        Action::Get => panic!("a get writes nothing"),
        Action::Put { value } => put(value, true),
        Action::PutIfAbsent { value } => put(value, before.is_none()),
        Action::CompareVersion { value, .. } => put(value, before.is_some() && version_holds),
        Action::CompareValue { expected, value } => put(value, before == Some(expected)),
        Action::PutOver {
            value,
            old_size_max,
            old_without,
        } => {
            let takes = |old: &Bytes| {
                old.len() as u64 <= *old_size_max && old.iter().all(|b| !old_without.contains(b))
            };
            put(value, before.is_none_or(takes))
        }
        Action::Delete => match before {
            Some(_) => ModelEffect::Writes {
                value: None,
                number: None,
            },
            None => ModelEffect::NothingToDelete,
        },
        Action::Add { delta } => {
            let Some(number) = before.map_or(Some(0), number) else {
                return ModelEffect::NotANumber;
            };
            match number.checked_add(*delta) {
                Some(sum) => ModelEffect::Writes {
                    value: Some(sum.to_string().into()),
                    number: Some(sum),
                },
                None => ModelEffect::Overflow,
            }
        }
        Action::Append { value } => {
            let mut joined = before.map(|b| b.to_vec()).unwrap_or_default();
            joined.extend_from_slice(value);
            if joined.len() > VALUE_SIZE_DEFAULT {
                return ModelEffect::TooLarge;
            }
            ModelEffect::Writes {
                value: Some(joined.into()),
                number: None,
            }
        }
    }
}

fn number(value: &Bytes) -> Option<i64> {
    let text = std::str::from_utf8(value).ok()?;
    let number: i64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

impl ModelState {
    pub fn empty() -> Self {
        ModelState {
            value: None,
            version: KnownVersion::Exactly(0),
        }
    }

    /// The state after an operation with this outcome, or `None` if that outcome is impossible.
    pub fn after(&self, action: &Action, want_old: bool, outcome: &Outcome) -> Option<ModelState> {
        match outcome {
            Outcome::Value { version, value } => {
                let seen = action.is_read() && self.value.as_ref() == Some(value);
                if seen { self.pinned(*version) } else { None }
            }
            Outcome::Absent => (action.is_read() && self.value.is_none()).then(|| self.clone()),
            Outcome::Written {
                version,
                old,
                number,
            } => self.after_write(action, want_old, *version, old, *number),
            Outcome::Conflict { version, old } => {
                self.after_conflict(action, want_old, *version, old)
            }
            Outcome::NothingToDelete => self.unchanged(action, ModelEffect::NothingToDelete),
            Outcome::NotANumber => self.unchanged(action, ModelEffect::NotANumber),
            Outcome::Overflow => self.unchanged(action, ModelEffect::Overflow),
            Outcome::TooLarge { .. } => self.unchanged(action, ModelEffect::TooLarge),
            Outcome::NoQuorum { .. }
            | Outcome::Busy { .. }
            | Outcome::Full { .. }
            | Outcome::Unknown
            | Outcome::Remake { .. }
            | Outcome::Ahead { .. } => panic!("{outcome:?} says nothing of the register"),
        }
    }

    /// The state after a write with an unknown outcome, if it changed anything.
    pub fn after_unseen(&self, action: &Action) -> Option<ModelState> {
        let before = match action {
            Action::CompareVersion { version, .. } => self.pinned(*version)?,
            _ => self.clone(),
        };
        match effect(action, before.value.as_ref(), true) {
            ModelEffect::Writes { value, .. } => {
                let version = KnownVersion::AtLeast(before.version.lowest() + 1);
                Some(ModelState { value, version })
            }
            _ => None,
        }
    }

    fn after_write(
        &self,
        action: &Action,
        want_old: bool,
        version: Version,
        old: &Old,
        number: Option<i64>,
    ) -> Option<ModelState> {
        if action.is_read() || !self.had(want_old, old) {
            return None;
        }
        let before = match action {
            Action::CompareVersion { version, .. } => self.pinned(*version)?,
            _ => self.clone(),
        };
        if version <= before.version.lowest() {
            return None;
        }
        match effect(action, before.value.as_ref(), true) {
            ModelEffect::Writes {
                value,
                number: reported,
            } if reported == number => Some(ModelState {
                value,
                version: KnownVersion::Exactly(version),
            }),
            _ => None,
        }
    }

    fn after_conflict(
        &self,
        action: &Action,
        want_old: bool,
        version: Version,
        old: &Old,
    ) -> Option<ModelState> {
        // A client that cannot receive an old value does not get it.
        let tells = want_old && !matches!(action, Action::PutOver { .. });
        if action.is_read() || !self.had(tells, old) {
            return None;
        }
        let compared_holds = match action {
            Action::CompareVersion {
                version: compared, ..
            } => *compared == version,
            _ => true,
        };
        if effect(action, self.value.as_ref(), compared_holds) != ModelEffect::Conflict {
            return None;
        }
        match self.value {
            Some(_) => self.pinned(version),
            None => (version == 0).then(|| self.clone()),
        }
    }

    fn unchanged(&self, action: &Action, expected: ModelEffect) -> Option<ModelState> {
        let same = !action.is_read() && effect(action, self.value.as_ref(), true) == expected;
        same.then(|| self.clone())
    }

    /// The state, if its version can be this one.
    fn pinned(&self, version: Version) -> Option<ModelState> {
        self.version.can_be(version).then(|| ModelState {
            value: self.value.clone(),
            version: KnownVersion::Exactly(version),
        })
    }

    fn had(&self, want_old: bool, old: &Old) -> bool {
        match old {
            Old::NotAsked => !want_old,
            Old::Forgotten => want_old,
            Old::Absent => want_old && self.value.is_none(),
            Old::Value(value) => want_old && self.value.as_ref() == Some(value),
        }
    }
}
