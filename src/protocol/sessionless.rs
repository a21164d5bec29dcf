//! Operations of clients that have no session: Firecloud's text datagrams. Owns what such an
//! operation's identity is.
//!
//! A text client sends the same words, under the same id, to one node after another. Where it sends
//! from and that id make the operation the same one at every node (X1).

use std::sync::Arc;

use bytes::Bytes;
use kvclient::wire::{Action, ClientId, Operation, OperationId};
use xxhash_rust::xxh3::Xxh3Default;

use super::Replica;
use super::message::{Endpoint, Now};
use super::pending::{Pending, ReplyTo};

/// The upper half of a text client's id; no session is opened under such an id.
const TEXT_TAG: u64 = 0x7e87_da7a_6c11_e275;

/// Whether this is the id of a text client.
pub fn is_text(client: ClientId) -> bool {
    (client >> 64) as u64 == TEXT_TAG
}

/// The id of the text client that sends from there.
pub fn text_client(from: Endpoint) -> ClientId {
    let mut hash = Xxh3Default::new();
    hash.update(&from.ip.to_be_bytes());
    hash.update(&from.port.to_be_bytes());
    ClientId::from(TEXT_TAG) << 64 | ClientId::from(hash.digest())
}

impl Replica {
    pub(super) fn handle_sessionless(
        &mut self,
        now: Now,
        from: Endpoint,
        id: u64,
        key: Bytes,
        action: Action,
    ) {
        // As for requests: the client turns to another node.
        if self.stopping {
            return;
        }
        let operation = Operation {
            id: OperationId {
                client: text_client(from),
                sequence: id,
            },
            birth: self.clock.tick(now),
            low_mark: 0,
            key,
            want_old: !action.is_read(),
            action,
        };
        let pending = Pending {
            operation: Arc::new(operation),
            reply: ReplyTo::Sessionless { to: from, id },
            also: Vec::new(),
            // Nothing tells a retry from a first attempt.
            tried: true,
            sent: false,
            arrived_us: now.mono_us,
        };
        self.operations += 1;
        self.take(now, pending);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_client_is_known_by_where_it_sends_from() {
        let at = |ip, port| text_client(Endpoint { ip, port });
        assert!(is_text(at(1, 2)) && !is_text(7) && !is_text(ClientId::MAX));
        assert_eq!(at(1, 2), at(1, 2));
        assert_ne!(at(1, 2), at(1, 3));
        assert_ne!(at(1, 2), at(2, 2));
    }
}
