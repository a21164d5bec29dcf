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

/// When a key expires, as far as the run shows it: the store's clocks decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Gone {
    /// It is there until this time at least, ...
    pub from_us: u64,
    /// ... and gone from this time on.
    pub by_us: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ModelState {
    pub value: Option<Bytes>,
    pub version: KnownVersion,
    /// For a value that expires.
    pub gone: Option<Gone>,
}

/// What an operation would do to a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelEffect {
    Writes {
        value: Option<Bytes>,
        number: Option<i64>,
    },
    /// The value and its version stay.
    Renews,
    Conflict,
    NothingToDelete,
    NotANumber,
    Overflow,
    TooLarge,
}

/// The version of a present key that the action compares.
pub fn compared(action: &Action) -> Option<Version> {
    match action {
        Action::CompareVersion { version, .. } | Action::DeleteVersion { version } => {
            Some(*version)
        }
        Action::PutFor { over, .. } | Action::Expire { over, .. } | Action::Persist { over } => {
            *over
        }
        _ => None,
    }
}

/// Whether the action changes only when the key expires.
pub fn renews(action: &Action) -> bool {
    matches!(action, Action::Expire { .. } | Action::Persist { .. })
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
        Action::Get
        | Action::GetStale
        | Action::TimeToLive
        | Action::Scan { .. }
        | Action::Watch { .. } => panic!("a read writes nothing"),
        Action::Transact { .. } => panic!("`several` judges transactions"),
        // Version 0 is that of an absent key.
        Action::PutFor { value, over, .. } => {
            let holds = match (over, before) {
                (None, _) | (Some(0), None) => true,
                (Some(_), None) => false,
                (Some(over), Some(_)) => *over > 0 && version_holds,
            };
            put(value, holds)
        }
        Action::Expire { .. } | Action::Persist { .. } => match before.is_some() && version_holds {
            true => ModelEffect::Renews,
            false => ModelEffect::Conflict,
        },
        Action::DeleteVersion { version } => match before {
            Some(_) if version_holds => ModelEffect::Writes {
                value: None,
                number: None,
            },
            None if *version == 0 => ModelEffect::NothingToDelete,
            _ => ModelEffect::Conflict,
        },
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

pub(crate) fn number(value: &Bytes) -> Option<i64> {
    let text = std::str::from_utf8(value).ok()?;
    let number: i64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

impl ModelState {
    pub fn empty() -> Self {
        ModelState {
            value: None,
            version: KnownVersion::Exactly(0),
            gone: None,
        }
    }

    /// The state after the key has expired; `None` if it does not expire. The deletion has a
    /// version that no client sees.
    pub fn expired(&self) -> Option<ModelState> {
        self.gone?;
        Some(ModelState {
            value: None,
            version: KnownVersion::AtLeast(self.version.lowest() + 1),
            gone: None,
        })
    }

    /// The state after an operation with this outcome, or `None` if that outcome is impossible.
    /// `gone`: when the key expires if the operation sets a time to live.
    pub fn after(
        &self,
        action: &Action,
        want_old: bool,
        outcome: &Outcome,
        gone: Option<Gone>,
    ) -> Option<ModelState> {
        match outcome {
            Outcome::Value { version, value } => {
                let seen = matches!(action, Action::Get) && self.value.as_ref() == Some(value);
                if seen { self.pinned(*version) } else { None }
            }
            Outcome::Lives { version, left_ms } => {
                let fits = self.value.is_some() && left_ms.is_some() == self.gone.is_some();
                let seen = matches!(action, Action::TimeToLive) && fits;
                if seen { self.pinned(*version) } else { None }
            }
            Outcome::Absent => (action.is_read() && self.value.is_none()).then(|| self.clone()),
            Outcome::Written {
                version,
                old,
                number,
            } => {
                if !self.had(want_old, old) {
                    return None;
                }
                match renews(action) {
                    true => self.after_renewal(action, *version, gone),
                    false => self.after_write(action, *version, *number, gone),
                }
            }
            Outcome::Conflict { version, old } => {
                self.after_conflict(action, want_old, *version, old)
            }
            Outcome::NothingToDelete => self.unchanged(action, ModelEffect::NothingToDelete),
            Outcome::NotANumber => self.unchanged(action, ModelEffect::NotANumber),
            Outcome::Overflow => self.unchanged(action, ModelEffect::Overflow),
            Outcome::TooLarge { .. } => self.unchanged(action, ModelEffect::TooLarge),
            Outcome::Committed { .. } | Outcome::Failed { .. } | Outcome::Placed { .. } => None,
            Outcome::NoQuorum { .. }
            | Outcome::Busy { .. }
            | Outcome::Full { .. }
            | Outcome::Unknown
            | Outcome::Stale { .. }
            | Outcome::NotKnown
            | Outcome::Remake { .. }
            | Outcome::Page(_)
            | Outcome::Watched(_)
            | Outcome::Ahead { .. } => panic!("{outcome:?} says nothing of the register"),
        }
    }

    /// The state after a write with an unknown outcome, if it changed anything.
    pub fn after_unseen(&self, action: &Action, gone: Option<Gone>) -> Option<ModelState> {
        let before = self.compared(action)?;
        match effect(action, before.value.as_ref(), true) {
            ModelEffect::Writes { value, .. } => {
                let version = KnownVersion::AtLeast(before.version.lowest() + 1);
                let gone = before.gone_after(action, gone);
                Some(ModelState {
                    value,
                    version,
                    gone,
                })
            }
            ModelEffect::Renews if before.gone != gone => Some(ModelState { gone, ..before }),
            _ => None,
        }
    }

    /// The state, if a comparison of its version can succeed.
    fn compared(&self, action: &Action) -> Option<ModelState> {
        match compared(action) {
            Some(version) if self.value.is_some() => self.pinned(version),
            _ => Some(self.clone()),
        }
    }

    /// When the key expires after this action has written it.
    fn gone_after(&self, action: &Action, gone: Option<Gone>) -> Option<Gone> {
        match action {
            Action::Add { .. } | Action::Append { .. } => self.gone,
            _ => gone,
        }
    }

    fn after_renewal(
        &self,
        action: &Action,
        version: Version,
        gone: Option<Gone>,
    ) -> Option<ModelState> {
        let before = self.pinned(version)?;
        let holds = compared(action).is_none_or(|compared| compared == version);
        let renewed = effect(action, before.value.as_ref(), holds) == ModelEffect::Renews;
        renewed.then_some(ModelState { gone, ..before })
    }

    fn after_write(
        &self,
        action: &Action,
        version: Version,
        number: Option<i64>,
        gone: Option<Gone>,
    ) -> Option<ModelState> {
        if action.is_read() {
            return None;
        }
        let before = self.compared(action)?;
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
                gone: before.gone_after(action, gone),
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
        let compared_holds = compared(action).is_none_or(|compared| compared == version);
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
    pub(crate) fn pinned(&self, version: Version) -> Option<ModelState> {
        self.version.can_be(version).then(|| ModelState {
            value: self.value.clone(),
            version: KnownVersion::Exactly(version),
            gone: self.gone,
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
