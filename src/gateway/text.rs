//! Firecloud's text datagrams: `GET [key] [id]` and `PUT [key] [value] [id]`, answered `OK [id]
//! [value]` or `FL [id]`.
//!
//! The bytes may come from anywhere: nothing here panics on them. A client waits for an answer with
//! its id and otherwise tries another node, so no answer is right whenever the outcome is unknown.

use bytes::Bytes;
use wire::{Action, KEY_SIZE_MAX, Old, Outcome};

/// The largest value that fits a text client's buffer.
pub const VALUE_SIZE_MAX: usize = 2_048;
/// A value cannot contain the bytes that end it, in a datagram or in a client's buffer.
pub const VALUE_WITHOUT: &[u8] = b"[]\0";

/// A request that can be attempted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextRequest {
    pub id: u64,
    pub key: Bytes,
    pub action: Action,
}

/// Why a datagram is not a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParseError {
    /// No client can be answered.
    NoId,
    /// No node can execute it, whatever it requests: the answer is `failed`.
    Unfit { id: u64 },
}

/// Why an outcome is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    Busy,
    Unknown,
    Full,
    /// The write was applied earlier, but the value that it replaced is no longer known.
    Forgotten,
}

/// Whether a datagram is a text datagram, by its first three letters.
pub fn is_text(datagram: &[u8]) -> bool {
    datagram.starts_with(b"GET") || datagram.starts_with(b"PUT")
}

/// Decodes a datagram for which `is_text` holds.
pub fn parse(datagram: &[u8]) -> Result<TextRequest, ParseError> {
    let datagram = trim_end(datagram);
    let id = last_bracket(datagram).and_then(number);
    let id = id.ok_or(ParseError::NoId)?;
    match operation(datagram) {
        Some((key, action)) => Ok(TextRequest { id, key, action }),
        None => Err(ParseError::Unfit { id }),
    }
}

/// Some senders append line ends and NULs after the last bracket; these are ignored.
fn trim_end(datagram: &[u8]) -> &[u8] {
    let meant = |byte: &u8| !b"\r\n\0".contains(byte);
    let end = datagram.iter().rposition(meant).map_or(0, |last| last + 1);
    &datagram[..end]
}

fn last_bracket(datagram: &[u8]) -> Option<&[u8]> {
    let open = datagram.strip_suffix(b"]")?;
    let begin = open.iter().rposition(|byte| *byte == b'[')?;
    Some(&open[begin + 1..])
}

fn number(digits: &[u8]) -> Option<u64> {
    let decimal = digits.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(digits).ok()?;
    text.parse().ok().filter(|_| decimal)
}

/// The key ends at the first `] [`, the id is the last bracket, the value is everything between.
fn operation(datagram: &[u8]) -> Option<(Bytes, Action)> {
    let (word, rest) = datagram.split_at_checked(3)?;
    let inner = rest.strip_prefix(b" [")?.strip_suffix(b"]")?;
    let key_ends = inner.windows(3).position(|part| part == b"] [")?;
    let value_ends = inner.windows(3).rposition(|part| part == b"] [")?;
    let key = Bytes::copy_from_slice(&inner[..key_ends]);
    if key.is_empty() || key.len() > KEY_SIZE_MAX {
        return None;
    }
    let value = inner.get(key_ends + 3..value_ends);
    let action = match (word, value) {
        (b"GET", None) => Action::Get,
        (b"PUT", Some(value)) if is_printable(value) => Action::PutOver {
            value: Bytes::copy_from_slice(value),
            old_size_max: VALUE_SIZE_MAX as u64,
            old_without: Bytes::from_static(VALUE_WITHOUT),
        },
        _ => return None,
    };
    Some((key, action))
}

fn is_printable(value: &[u8]) -> bool {
    value.len() <= VALUE_SIZE_MAX && !value.iter().any(|byte| VALUE_WITHOUT.contains(byte))
}

/// The answer to a request with this outcome.
pub fn answer(id: u64, outcome: &Outcome) -> Result<Vec<u8>, Silence> {
    match outcome {
        Outcome::Absent => Ok(done(id, b"")),
        Outcome::Value { value, .. } if is_printable(value) => Ok(done(id, value)),
        Outcome::Written { old, .. } => match old {
            Old::Absent => Ok(done(id, b"")),
            Old::Value(value) if is_printable(value) => Ok(done(id, value)),
            // The put was applied, so it has not failed.
            Old::Value(_) | Old::NotAsked | Old::Forgotten => Err(Silence::Forgotten),
        },
        Outcome::Value { .. }
        | Outcome::Lives { .. }
        | Outcome::Stale { .. }
        | Outcome::NotKnown
        | Outcome::Page(_)
        | Outcome::Watched(_)
        | Outcome::NothingToDelete
        | Outcome::Conflict { .. }
        | Outcome::NotANumber
        | Outcome::Overflow
        | Outcome::TooLarge { .. }
        | Outcome::NoQuorum { .. } => Ok(failed(id)),
        // Nothing distinguishes a first attempt from a retry of a put that was done at another
        // node.
        Outcome::Full { .. } => Err(Silence::Full),
        Outcome::Busy { .. } => Err(Silence::Busy),
        Outcome::Unknown
        | Outcome::Remake { .. }
        | Outcome::Ahead { .. }
        | Outcome::Committed { .. }
        | Outcome::Failed { .. }
        | Outcome::Placed { .. } => Err(Silence::Unknown),
    }
}

fn done(id: u64, value: &[u8]) -> Vec<u8> {
    let mut bytes = format!("OK [{id}] [").into_bytes();
    bytes.extend_from_slice(value);
    bytes.push(b']');
    bytes
}

/// The answer to a request that cannot be done.
pub fn failed(id: u64) -> Vec<u8> {
    format!("FL [{id}]").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use wire::Full;

    fn get(id: u64, key: &str) -> Result<TextRequest, ParseError> {
        let key = Bytes::copy_from_slice(key.as_bytes());
        let action = Action::Get;
        Ok(TextRequest { id, key, action })
    }

    fn put(id: u64, key: &str, value: &[u8]) -> Result<TextRequest, ParseError> {
        let key = Bytes::copy_from_slice(key.as_bytes());
        let action = Action::PutOver {
            value: Bytes::copy_from_slice(value),
            old_size_max: 2_048,
            old_without: Bytes::from_static(b"[]\0"),
        };
        Ok(TextRequest { id, key, action })
    }

    #[test]
    fn requests_are_read_by_their_brackets() {
        for (text, request) in [
            ("GET [k] [5]", get(5, "k")),
            ("GET [a key] [0]", get(0, "a key")),
            ("GET [k]] [5]", get(5, "k]")),
            ("GET [[k] [5]", get(5, "[k")),
            ("GET [k] [18446744073709551615]", get(u64::MAX, "k")),
            ("PUT [k] [v] [5]", put(5, "k", b"v")),
            ("PUT [k] [] [5]", put(5, "k", b"")),
            (
                "PUT [k] [a value, of words] [7]\n",
                put(7, "k", b"a value, of words"),
            ),
            ("PUT [k] [v] [5]\0\0", put(5, "k", b"v")),
            ("PUT [PUT] [GET] [1]", put(1, "PUT", b"GET")),
        ] {
            assert!(is_text(text.as_bytes()));
            assert_eq!(parse(text.as_bytes()), request, "{text:?}");
        }
    }

    #[test]
    fn what_has_an_id_and_can_not_be_done_is_unfit() {
        let value = "v".repeat(VALUE_SIZE_MAX + 1);
        let key = "k".repeat(KEY_SIZE_MAX + 1);
        for text in [
            "GET [] [5]",
            "GET [5]",
            "GET [k] [v] [5]",
            "GET[k] [5]",
            "GETS [k] [5]",
            "GET  [k] [5]",
            "GET k] [5]",
            "PUT [k] [5]",
            "PUT [] [v] [5]",
            "PUT [k] [a] [b] [5]",
            "PUT [k] [a[b] [5]",
            "PUT [k] [a]b] [5]",
            "PUT [k] [a\0b] [5]",
            "PUT [k][v] [5]",
            "PUT [k] [v][5]",
            &format!("PUT [k] [{value}] [5]"),
            &format!("PUT [{key}] [v] [5]"),
        ] {
            let unfit = Err(ParseError::Unfit { id: 5 });
            assert_eq!(parse(text.as_bytes()), unfit, "{text:?}");
        }
        assert!(parse(format!("PUT [k] [{}] [5]", &value[1..]).as_bytes()).is_ok());
        assert!(parse(format!("GET [{}] [5]", &key[1..]).as_bytes()).is_ok());
    }

    #[test]
    fn without_an_id_nobody_can_be_answered() {
        for text in [
            "GET",
            "PUT",
            "GET [k] []",
            "GET [k] [x]",
            "GET [k] [+5]",
            "GET [k] [-5]",
            "GET [k] [ 5]",
            "GET [k] [18446744073709551616]",
            "GET [k] [5",
            "GET [k] 5]x",
            "PUT [k] [v] [5] ",
        ] {
            assert_eq!(parse(text.as_bytes()), Err(ParseError::NoId), "{text:?}");
        }
    }

    #[test]
    fn outcomes_are_told_or_not() {
        let value = |text: &'static str| Outcome::Value {
            version: 1,
            value: Bytes::from_static(text.as_bytes()),
        };
        let written = |old| Outcome::Written {
            version: 1,
            old,
            number: None,
        };
        let held = |size| Old::Value(Bytes::from(vec![b'v'; size]));
        let ok = |text: &str| Ok(text.as_bytes().to_vec());
        let reached = vec![1];
        for (outcome, reported) in [
            (value("v w"), ok("OK [5] [v w]")),
            (value(""), ok("OK [5] []")),
            (Outcome::Absent, ok("OK [5] []")),
            (value("a]"), ok("FL [5]")),
            (value("a\0"), ok("FL [5]")),
            (written(Old::Absent), ok("OK [5] []")),
            (
                written(Old::Value(Bytes::from_static(b"o"))),
                ok("OK [5] [o]"),
            ),
            (written(Old::Forgotten), Err(Silence::Forgotten)),
            (written(held(VALUE_SIZE_MAX + 1)), Err(Silence::Forgotten)),
            (Outcome::NoQuorum { reached }, ok("FL [5]")),
            (Outcome::TooLarge { limit: 1 }, ok("FL [5]")),
            (Outcome::Full { full: Full::Memory }, Err(Silence::Full)),
            (
                Outcome::Conflict {
                    version: 1,
                    old: Old::NotAsked,
                },
                ok("FL [5]"),
            ),
            (Outcome::Busy { after_ms: 0 }, Err(Silence::Busy)),
            (Outcome::Unknown, Err(Silence::Unknown)),
            (Outcome::Remake { dropped: 1 }, Err(Silence::Unknown)),
        ] {
            assert_eq!(answer(5, &outcome), reported, "{outcome:?}");
        }
        let largest = answer(u64::MAX, &written(held(VALUE_SIZE_MAX))).unwrap();
        assert_eq!(largest.len(), "OK [18446744073709551615] []".len() + 2_048);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_read_or_refused(
            word in prop::sample::select(vec!["GET", "PUT"]),
            parts in prop::collection::vec(
                prop_oneof![
                    prop::sample::select(vec!["[", "]", "] [", " ", "[7]", "\0", "k", "9"])
                        .prop_map(|text| text.as_bytes().to_vec()),
                    prop::collection::vec(any::<u8>(), 0..8),
                ],
                0..12,
            ),
        ) {
            let datagram = [word.as_bytes(), &parts.concat()].concat();
            match parse(&datagram) {
                Ok(TextRequest { id, key, action }) => {
                    prop_assert!((1..=KEY_SIZE_MAX).contains(&key.len()));
                    let value = match &action {
                        Action::Get => None,
                        Action::PutOver { value, .. } => Some(value),
                        other => panic!("text has no {other:?}"),
                    };
                    prop_assert!(value.is_none_or(|value| is_printable(value)));
                    // The canonical encoding decodes to the same request.
                    let mut said = [word.as_bytes(), b" [", &key].concat();
                    if let Some(value) = value {
                        said.extend_from_slice(&[b"] [", &value[..]].concat());
                    }
                    said.extend_from_slice(format!("] [{id}]").as_bytes());
                    prop_assert_eq!(parse(&said), Ok(TextRequest { id, key, action }));
                }
                Err(ParseError::Unfit { id }) => {
                    // The victim of a forged source receives no more than was sent in its name.
                    prop_assert!(failed(id).len() <= datagram.len());
                }
                Err(ParseError::NoId) => {}
            }
        }
    }
}
