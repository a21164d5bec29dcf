//! Checks whether the puts of one key, each with a unique value, were applied at most once, and the
//! answered ones exactly once: old values form a chain, which may also contain unanswered puts.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

#[derive(Debug, Clone)]
pub struct Put {
    pub value: String,
    pub began: Instant,
    /// The old value in the answer, empty if there was none, and when it came.
    pub told: Option<(String, Instant)>,
}

/// `last` is the value at the end, empty if there is none.
pub fn check(puts: &[Put], last: &str) -> Result<(), String> {
    let by_value: HashMap<&str, &Put> = puts.iter().map(|put| (&put.value[..], put)).collect();
    assert_eq!(by_value.len(), puts.len(), "each put has its own value");
    let mut next: HashMap<&str, &Put> = HashMap::new();
    for put in puts {
        let Some((old, _)) = &put.told else { continue };
        if !old.is_empty() && !by_value.contains_key(&old[..]) {
            return Err(format!("{old:?} was there, which nobody put"));
        }
        if let Some(other) = next.insert(old, put) {
            let (one, two) = (&put.value, &other.value);
            return Err(format!("{old:?} was overwritten by {one:?} and by {two:?}"));
        }
    }
    if !last.is_empty() && !by_value.contains_key(last) {
        return Err(format!("{last:?} is there, which nobody put"));
    }
    if let Some(put) = next.get(last) {
        let value = &put.value;
        return Err(format!(
            "{last:?} was overwritten by {value:?} and is there"
        ));
    }
    check_order(puts, &next)
}

/// Each part of the chain begins with an absent key, or with an unanswered put; its order is
/// possible according to the times.
fn check_order(puts: &[Put], next: &HashMap<&str, &Put>) -> Result<(), String> {
    let unanswered = puts.iter().filter(|put| put.told.is_none());
    let heads = unanswered.map(|put| (&put.value[..], Some(put.began)));
    let mut linked = HashSet::new();
    for (head, began) in heads.chain([("", None)]) {
        let (mut value, mut latest) = (head, began);
        while let Some(put) = next.get(value) {
            value = &put.value;
            let ended = put.told.as_ref().map(|(_, ended)| *ended);
            if latest > ended {
                return Err(format!("{value:?} was told before what it overwrote began"));
            }
            latest = latest.max(Some(put.began));
            linked.insert(value);
        }
    }
    match next.values().find(|put| !linked.contains(&put.value[..])) {
        Some(put) => Err(format!(
            "{:?} was overwritten by what came after",
            put.value
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Puts one after the other: each with its value, and its old value or none.
    fn puts(told: &[(&str, Option<&str>)]) -> Vec<Put> {
        let start = Instant::now();
        let at = |ms: usize| start + Duration::from_millis(ms as u64);
        let put = |(place, (value, old)): (usize, &(&str, Option<&str>))| Put {
            value: value.to_string(),
            began: at(2 * place),
            told: old.map(|old| (old.to_owned(), at(2 * place + 1))),
        };
        told.iter().enumerate().map(put).collect()
    }

    #[test]
    fn a_chain_with_a_link_that_was_not_answered_is_right() {
        let chain = puts(&[("a", Some("")), ("b", None), ("c", Some("b")), ("d", None)]);
        assert_eq!(check(&chain, "c"), Ok(()));
        assert_eq!(check(&chain, "d"), Ok(()));
        assert_eq!(check(&[], ""), Ok(()));
    }

    #[test]
    fn what_is_applied_twice_is_seen() {
        for (told, last) in [
            (
                &[("a", Some("")), ("b", Some("a")), ("c", Some("a"))][..],
                "c",
            ),
            (&[("a", Some("")), ("b", Some("a"))], "a"),
            (&[("a", Some("")), ("b", Some(""))], "b"),
            (&[("a", Some("b")), ("b", Some("a")), ("c", Some(""))], "c"),
            (&[("a", Some("")), ("b", Some("x"))], "b"),
            (&[("a", Some("c")), ("c", None)], "a"),
        ] {
            assert!(check(&puts(told), last).is_err(), "{told:?} then {last}");
        }
    }
}
