//! docs/wire.md says what the code does, where that can be looked up.

use std::collections::BTreeMap;

use horseshoe::protocol::limits;
use horseshoe::protocol::message::{self, Message};
use kvclient::{datagram, wire};

const DOCUMENT: &str = include_str!("../docs/wire.md");

/// Number and name of each kind in the table of kinds.
fn documented_kinds() -> BTreeMap<u8, &'static str> {
    let section = DOCUMENT.split("### Kinds").nth(1).expect("a section");
    let section = section.split("\n###").next().expect("text");
    let row = |line: &'static str| {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let kind = cells.next()?.parse().ok()?;
        Some((kind, cells.next()?))
    };
    section.lines().filter_map(row).collect()
}

#[test]
fn every_kind_is_documented_and_every_documented_kind_is_known() {
    let documented = documented_kinds();
    for kind in 0..=u8::MAX {
        // An empty body is an error of a known kind.
        let between_nodes = !matches!(Message::decode(kind, &[]), Ok(None));
        let to_nodes = !matches!(message::decode_client(kind, &[]), Ok(None));
        let to_clients = [
            wire::kind::HELLO_ANSWER,
            wire::kind::ANSWER,
            wire::kind::NO_SESSION,
            wire::kind::STATUS_ANSWER,
            wire::kind::CHANGE_ANSWER,
        ];
        let known = between_nodes || to_nodes || to_clients.contains(&kind);
        assert_eq!(documented.contains_key(&kind), known, "kind {kind}");
    }
    assert_eq!(documented.get(&wire::kind::NO_SESSION), Some(&"NoSession"));
}

#[test]
fn bounds_are_those_of_the_code() {
    let thousands = |number: usize| {
        let digits = number.to_string();
        match digits.len() {
            ..=3 => digits,
            length => format!("{},{}", &digits[..length - 3], &digits[length - 3..]),
        }
    };
    for bound in [
        datagram::DATAGRAM_SIZE_MAX,
        datagram::DATAGRAM_SIZE_TARGET,
        datagram::DATAGRAM_SIZE_TARGET_LOOPBACK,
        wire::KEY_SIZE_MAX,
        wire::VALUE_SIZE_MAX,
        wire::OLD_VALUE_KEPT_SIZE_MAX,
        limits::APPLIED_OPERATIONS_MAX,
        limits::SESSIONS_MAX,
        limits::SESSION_WINDOW as usize,
        limits::CHOSEN_PER_MESSAGE_MAX,
        limits::ADDRESS_SIZE_MAX,
    ] {
        let bound = thousands(bound);
        assert!(DOCUMENT.contains(&bound), "{bound}");
    }
    let sizes = [
        datagram::DATAGRAM_HEADER_SIZE,
        datagram::FRAME_HEADER_SIZE,
        limits::APPLIED_SIZE_MAX / 1_024,
    ];
    assert_eq!(sizes, [44, 36, 12]);
}
