//! What long values show about the appends that made them. A text that only one append can have
//! written stays in a value at the position where it was appended, so everything before it was
//! there at that time.
//!
//! This holds for texts of the form `+...;` that are appended once, as long as no other written
//! text contains a `+`.

use std::collections::HashMap;

use bytes::Bytes;
use wire::Action;

use super::items::CheckItem;

fn is_token(text: &Bytes) -> bool {
    text.len() > 2
        && text.starts_with(b"+")
        && text.ends_with(b";")
        && !text[1..text.len() - 1]
            .iter()
            .any(|b| matches!(b, b'+' | b';'))
}

/// The item that appended each token of the history; `None` if tokens cannot be relied on.
fn writers(items: &[CheckItem]) -> Option<HashMap<Bytes, usize>> {
    let mut writers = HashMap::new();
    for (index, item) in items.iter().enumerate() {
        match &item.call.action {
            Action::Append { value } if is_token(value) => {
                if writers.insert(value.clone(), index).is_some() {
                    return None;
                }
            }
            Action::Put { value }
            | Action::PutFor { value, .. }
            | Action::PutIfAbsent { value }
            | Action::CompareVersion { value, .. }
            | Action::CompareValue { value, .. }
            | Action::PutOver { value, .. }
            | Action::Append { value } => {
                if value.contains(&b'+') {
                    return None;
                }
            }
            Action::Get
            | Action::GetStale
            | Action::TimeToLive
            | Action::Scan { .. }
            | Action::Watch { .. }
            | Action::Transact { .. }
            | Action::Delete
            | Action::DeleteVersion { .. }
            | Action::Expire { .. }
            | Action::Persist { .. }
            | Action::Add { .. } => {}
        }
    }
    Some(writers)
}

/// The tokens of a value, each with the part of the value up to its end.
fn beginnings(value: &Bytes) -> impl Iterator<Item = (Bytes, Bytes)> + '_ {
    let starts = (0..value.len()).filter(|at| value[*at] == b'+');
    starts.filter_map(|start| {
        let length = value[start..].iter().position(|b| *b == b';')? + 1;
        Some((
            value.slice(start..start + length),
            value.slice(..start + length),
        ))
    })
}

/// The value that each append, by its index among the items, must have left, according to the
/// values that were seen; or the append about which two of these disagree, and the two.
pub fn left_by_appends(
    items: &[CheckItem],
    seen: &[Bytes],
) -> Result<HashMap<usize, Bytes>, (usize, Bytes, Bytes)> {
    let mut left: HashMap<usize, Bytes> = HashMap::new();
    let Some(writers) = writers(items) else {
        return Ok(left);
    };
    for (token, beginning) in seen.iter().flat_map(beginnings) {
        let Some(index) = writers.get(&token) else {
            continue;
        };
        let reported = left.entry(*index).or_insert_with(|| beginning.clone());
        if *reported != beginning {
            return Err((*index, reported.clone(), beginning));
        }
    }
    Ok(left)
}
