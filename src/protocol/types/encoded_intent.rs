//! A transaction's intent as records carry it: encoded, with the fields that a node needs before it
//! looks at the values.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use wire::clock::Reading;
use wire::{Birth, ClientId, OperationId, Version};

use crate::protocol::types::ballot::Ballot;
use crate::protocol::types::message::NodeId;
use crate::protocol::types::transaction::Attempt;

/// Shared, because a record is copied for each change of it. The head is decoded once: several
/// rules look at it for each message.
#[derive(Clone, PartialEq, Eq)]
pub struct EncodedIntent(Arc<Encoded>);

#[derive(PartialEq, Eq)]
struct Encoded {
    bytes: Bytes,
    /// `None` for an intent that does not decode: the key waits for a release that knows it.
    head: Option<IntentHead>,
}

/// The fields of an intent that a node needs before it looks at the values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IntentHead {
    pub of: Attempt,
    /// The latest reading in the intent.
    pub latest: Reading,
}

/// An encoded `Intent` (`types::transaction`), without the values.
#[derive(Deserialize)]
struct FlatIntentHead {
    client: ClientId,
    sequence: u64,
    number: u32,
    birth: Birth,
    _coordinator: NodeId,
    _boot: u64,
    _deadline: u64,
    _changes: bool,
    _value: IgnoredAny,
    version: Version,
    _expiry_ms: Option<u64>,
    _result: IgnoredAny,
}

impl IntentHead {
    fn decode(bytes: &[u8]) -> Option<Self> {
        let flat: FlatIntentHead = wire::decode(bytes).ok()?;
        let id = OperationId {
            client: flat.client,
            sequence: flat.sequence,
        };
        Some(IntentHead {
            of: Attempt {
                id,
                number: flat.number,
            },
            latest: flat.birth.max(Ballot(flat.version).reading()),
        })
    }
}

impl EncodedIntent {
    pub fn head(&self) -> Option<IntentHead> {
        self.0.head
    }
}

impl From<Bytes> for EncodedIntent {
    fn from(bytes: Bytes) -> Self {
        let head = IntentHead::decode(&bytes);
        EncodedIntent(Arc::new(Encoded { bytes, head }))
    }
}

impl Deref for EncodedIntent {
    type Target = Bytes;

    fn deref(&self) -> &Bytes {
        &self.0.bytes
    }
}

impl fmt::Debug for EncodedIntent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.bytes.fmt(f)
    }
}

impl Serialize for EncodedIntent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.bytes.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for EncodedIntent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Bytes::deserialize(deserializer).map(EncodedIntent::from)
    }
}
