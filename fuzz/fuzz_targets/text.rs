//! What a node does with a text datagram: the node turns it into a request within the bounds, or
//! sends a reply that is no longer than the datagram, or counts it as dropped. The same datagram
//! gives the same request each time.
#![no_main]

use std::net::SocketAddr;

use horseshoe::gateway::text::{self, TextRequest};
use horseshoe::protocol::types::message::{ClientMessage, Input};
use horseshoe::runtime::decode::{Source, decode_text};
use horseshoe::runtime::tally::Tally;
use wire::{Action, KEY_SIZE_MAX};
use libfuzzer_sys::fuzz_target;

fn said_again(id: u64, key: &[u8], action: &Action) -> Vec<u8> {
    let (word, value): (&[u8], Option<&[u8]>) = match action {
        Action::Get => (b"GET [", None),
        Action::PutOver { value, .. } => (b"PUT [", Some(value)),
        other => panic!("text has no {other:?}"),
    };
    let mut bytes = [word, key].concat();
    if let Some(value) = value {
        assert!(value.len() <= text::VALUE_SIZE_MAX);
        assert!(!value.iter().any(|byte| text::VALUE_WITHOUT.contains(byte)));
        bytes.extend_from_slice(&[b"] [", value].concat());
    }
    bytes.extend_from_slice(format!("] [{id}]").as_bytes());
    bytes
}

fn run(datagram: &[u8]) {
    let from = Source {
        address: SocketAddr::from(([127, 0, 0, 1], 7)),
        is_own_machine: true,
    };
    let mut tally = Tally::default();
    match decode_text(datagram, from, &mut tally) {
        Some(Ok(Input::Client {
            message: ClientMessage::Sessionless { id, key, action },
            ..
        })) => {
            assert!((1..=KEY_SIZE_MAX).contains(&key.len()));
            let again = said_again(id, &key, &action);
            assert_eq!(text::parse(&again), Ok(TextRequest { id, key, action }));
        }
        Some(Ok(other)) => panic!("text does not become {other:?}"),
        Some(Err(answer)) => assert!(answer.len() <= datagram.len()),
        None => assert_eq!(tally.total(), 1),
    }
}

fuzz_target!(|bytes: &[u8]| {
    if text::is_text(bytes) {
        run(bytes);
    }
    run(&[b"GET [", bytes].concat());
    run(&[b"PUT [", bytes, b"] [7]"].concat());
});
