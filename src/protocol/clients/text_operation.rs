//! Operations of clients that have no session: Firecloud's text datagrams. This module owns the
//! identity of such an operation.
//!
//! A text client sends the same request, under the same id, to one node after another. The request
//! and the id identify the operation (X1). The source address does not: it depends on the network,
//! and a client with several addresses may appear to each node under a different one. But another
//! client may use the same request and id.

use wire::ClientId;
use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

use crate::protocol::types::message::Endpoint;

/// The upper half of a text client's id. No session is opened under such an id.
const TEXT_TAG: u64 = 0x7e87_da7a_6c11_e275;
/// The number of low bits of such an id that identify the source.
const SOURCE_BITS: u32 = 32;

/// Whether this is the id of a text client.
pub fn is_text(client: ClientId) -> bool {
    (client >> 64) as u64 == TEXT_TAG
}

/// The client id for a text client at this source that puts this value.
pub fn text_client(from: Endpoint, value: &[u8]) -> ClientId {
    let mut source = Xxh3Default::new();
    source.update(&from.ip.to_be_bytes());
    source.update(&from.port.to_be_bytes());
    let value = ClientId::from(xxh3_64(value) as u32);
    let source = ClientId::from(source.digest() as u32);
    ClientId::from(TEXT_TAG) << 64 | value << SOURCE_BITS | source
}

/// Whether these are the ids of text clients that put the same value from different sources.
pub fn is_from_elsewhere(client: ClientId, other: ClientId) -> bool {
    is_text(client) && client != other && client >> SOURCE_BITS == other >> SOURCE_BITS
}

/// What the table keeps of a text operation whose outcome has left it. The source is not part of
/// it, so a retry from another source has the same hash.
pub fn hash_of(client: ClientId, sequence: u64) -> u64 {
    let words = (client >> SOURCE_BITS) as u32;
    let mut hash = Xxh3Default::new();
    hash.update(&words.to_be_bytes());
    hash.update(&sequence.to_be_bytes());
    hash.digest()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_operation_is_known_by_its_words_and_where_they_come_from() {
        let at = |ip, port, value| text_client(Endpoint::new(ip, port), value);
        let first = at(1, 2, b"a");
        assert!(is_text(first) && !is_text(7) && !is_text(ClientId::MAX));
        assert_eq!(first, at(1, 2, b"a"));
        for elsewhere in [at(1, 3, b"a"), at(2, 2, b"a")] {
            assert!(first != elsewhere && is_from_elsewhere(first, elsewhere));
        }
        assert!(!is_from_elsewhere(first, first));
        assert!(first != at(1, 2, b"b") && !is_from_elsewhere(first, at(2, 2, b"b")));
        assert!(!is_from_elsewhere(7, 8));
        let hash = |client| hash_of(client, 5);
        assert_eq!(hash(first), hash(at(2, 3, b"a")));
        assert!(hash(first) != hash(at(1, 2, b"b")) && hash(first) != hash_of(first, 6));
    }
}
