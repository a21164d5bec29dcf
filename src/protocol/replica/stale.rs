//! Stale reads: this node answers with the last state that it knows to be chosen, without asking
//! another one, and also without a quorum.

use wire::Outcome;

use crate::protocol::clients::pending::Pending;
use crate::protocol::keys::resident::Waiting;
use crate::protocol::replica::Replica;
use crate::protocol::types::message::Now;
use crate::protocol::types::record::{AcceptorState, Key};

impl Replica {
    pub(super) fn read_stale(&mut self, now: Now, key: Key, pending: Pending) {
        let Some(resident) = self.keys.resident(&key) else {
            self.wait_for(key, Waiting::Operation(pending));
            return;
        };
        let state = resident.state.as_ref();
        let wall_ms = self.clock.expiry_ms(now);
        let apart_ms = self.view.apart_ms(now);
        let outcome = stale(state, self.identity.votes, wall_ms, apart_ms);
        self.answer(pending, outcome);
    }
}

/// An acceptor keeps one record. While that is not known to be chosen, what was chosen before it is
/// not known here. A node without a vote may lack a record that it has not copied yet.
fn stale(state: Option<&AcceptorState>, votes: bool, wall_ms: u64, apart_ms: u64) -> Outcome {
    let held = state.and_then(|state| Some((state.chosen, state.record.as_ref()?)));
    match held {
        Some((false, _)) => Outcome::NotKnown,
        Some((true, record)) => {
            let value = record.value.clone();
            Outcome::Stale {
                version: record.version,
                value: value.filter(|_| !record.is_expired(wall_ms)),
                apart_ms,
            }
        }
        None if !votes => Outcome::NotKnown,
        None => Outcome::Stale {
            version: 0,
            value: None,
            apart_ms,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::protocol::types::ballot::Ballot;
    use crate::protocol::types::record::Record;

    fn holding(record: Record, chosen: bool) -> AcceptorState {
        AcceptorState {
            accepted: Ballot(7),
            record: Some(Arc::new(record)),
            chosen,
            ..AcceptorState::default()
        }
    }

    #[test]
    fn only_what_is_known_to_be_chosen_is_told() {
        let record = |expiry_ms| Record {
            value: Some(Bytes::from_static(b"v")),
            version: 5,
            expiry_ms,
            ..Record::default()
        };
        let told = |version, value: Option<&'static [u8]>| Outcome::Stale {
            version,
            value: value.map(Bytes::from_static),
            apart_ms: 3,
        };
        let (chosen, unchosen) = (holding(record(None), true), holding(record(None), false));
        let expired = holding(record(Some(100)), true);
        let promised = AcceptorState::default();
        for (state, votes, expected) in [
            (Some(&chosen), true, told(5, Some(b"v"))),
            (Some(&chosen), false, told(5, Some(b"v"))),
            (Some(&unchosen), true, Outcome::NotKnown),
            (Some(&expired), true, told(5, None)),
            (Some(&promised), true, told(0, None)),
            (None, true, told(0, None)),
            (None, false, Outcome::NotKnown),
            (Some(&promised), false, Outcome::NotKnown),
        ] {
            assert_eq!(stale(state, votes, 100, 3), expected, "{state:?} {votes}");
        }
    }
}
