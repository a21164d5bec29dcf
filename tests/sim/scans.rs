//! What scans have told, as reads of single keys (S2): each key of a page was, at some moment
//! during the call, as it is told; and a key that the page reaches and does not tell was absent.

use std::collections::BTreeSet;

use bytes::Bytes;
use wire::{Action, Outcome, ScanPage};

use super::checker::several::keys_of;
use super::history::{Ending, RecordedCall};

/// The same history with reads in place of scans. All keys are those that some other operation
/// names. An error says which key was told that nobody has written.
pub fn as_reads(calls: &[RecordedCall]) -> Result<Vec<RecordedCall>, String> {
    let (scans, mut others): (Vec<_>, Vec<_>) = calls
        .iter()
        .cloned()
        .partition(|call| call.action.is_scan());
    let keys: BTreeSet<Bytes> = others.iter().flat_map(keys_of).collect();
    for scan in scans {
        let Ending::Answered(Outcome::Page(page)) = &scan.ending else {
            continue;
        };
        if let Some(entry) = page.entries.iter().find(|e| !keys.contains(&e.key)) {
            return Err(format!(
                "{scan} tells {:?}, which nobody has written",
                entry.key
            ));
        }
        let reached = keys.iter().filter(|key| reaches(&scan, page, key));
        others.extend(reached.map(|key| read(&scan, page, key)));
    }
    Ok(others)
}

fn reaches(scan: &RecordedCall, page: &ScanPage, key: &Bytes) -> bool {
    let Action::Scan { is_after, end, .. } = &scan.action else {
        unreachable!("only scans have pages");
    };
    let is_in = *key > scan.key || *key == scan.key && !is_after;
    let is_before = end.is_empty() || key < end;
    is_in && is_before && page.next.as_ref().is_none_or(|next| key <= next)
}

fn read(scan: &RecordedCall, page: &ScanPage, key: &Bytes) -> RecordedCall {
    let told = page.entries.iter().find(|entry| entry.key == *key);
    let outcome = match told {
        None => Outcome::Absent,
        Some(entry) => Outcome::Value {
            version: entry.version,
            value: entry.value.clone().expect("simulated scans ask for values"),
        },
    };
    RecordedCall {
        key: key.clone(),
        action: Action::Get,
        ending: Ending::Answered(outcome),
        ..scan.clone()
    }
}
