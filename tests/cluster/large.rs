//! Values of up to 1 MiB.

use bytes::Bytes;
use kvclient::{Call, CallError, Client};
use wire::{Action, Outcome, VALUE_SIZE_DEFAULT};

use super::clients::client;
use super::nodes::{Cluster, Keep};

const WRITERS: usize = 4;
const KEYS_PER_WRITER: usize = 3;

/// A value that differs from others everywhere, and is as large as values may be.
fn value(seed: usize) -> Bytes {
    let mut state = seed as u64 + 1;
    let word = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..VALUE_SIZE_DEFAULT / 8).flat_map(word).collect()
}

fn call(client: &Client, key: &str, action: Action) -> Result<Outcome, CallError> {
    client.call(Call::new(Bytes::copy_from_slice(key.as_bytes()), action))
}

#[track_caller]
fn put(client: &Client, key: &str, value: Bytes) {
    let done = call(client, key, Action::Put { value });
    assert!(matches!(done, Ok(Outcome::Written { .. })), "{done:?}");
}

#[track_caller]
fn assert_holds(client: &Client, key: &str, expected: &Bytes) {
    match call(client, key, Action::Get) {
        Ok(Outcome::Value { value, .. }) => assert!(value == expected, "{key} differs"),
        other => panic!("a get of {key} came to {other:?}"),
    }
}

/// Each value is written through one node, and read back through the others.
#[test]
fn the_largest_values_are_equal_when_read_back() {
    let cluster = Cluster::start(5, Keep::Fsync);
    let through = |node: usize| client(cluster.address(node % cluster.count()));
    let number = |writer: usize, key: usize| writer * KEYS_PER_WRITER + key;
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let through = &through;
            scope.spawn(move || {
                for key in 0..KEYS_PER_WRITER {
                    let number = number(writer, key);
                    put(&through(writer), &format!("k{number}"), value(number));
                    let reader = through(writer + key + 1);
                    assert_holds(&reader, &format!("k{number}"), &value(number));
                }
            });
        }
    });
    for number in 0..WRITERS * KEYS_PER_WRITER {
        let reader = through(number + 2);
        assert_holds(&reader, &format!("k{number}"), &value(number));
    }
}

/// The refusal says that nothing was done, and names the limit.
#[test]
fn what_is_over_the_limit_is_surely_not_done() {
    let cluster = Cluster::start_at(Cluster::addresses(1), Keep::Memory, &["--value-max", "64K"]);
    let client = client(&cluster.list());
    let limit = 64 << 10;
    let refused = Err(CallError::TooLarge {
        what: "value",
        limit,
    });
    put(&client, "k", vec![1; limit as usize].into());
    let value = Bytes::from(vec![2; limit as usize + 1]);
    assert_eq!(call(&client, "k", Action::Put { value }), refused);
    let value = Bytes::from_static(b"x");
    assert_eq!(call(&client, "k", Action::Append { value }), refused);
    assert_holds(&client, "k", &vec![1; limit as usize].into());
}
