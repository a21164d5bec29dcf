//! Which clocks are off, in `horseshoe status`: each node's offset once, as the node itself reports
//! it, or, if the node does not answer, as another node does.

use std::fmt::Write;

use serde_json::{Value, json};
use wire::{ClockStatus, NodeStatus};

use super::status::{StatusRow, said};

fn offset(of: u8, status: &NodeStatus) -> Option<&ClockStatus> {
    status.clocks.iter().find(|clock| clock.node == of)
}

fn in_words(clock: Option<&ClockStatus>) -> Option<String> {
    let off = clock.filter(|clock| clock.is_off())?;
    Some(format!("clock {}; correct it", off.in_words()))
}

/// The text about the clock of a node that answered, if the clock is off.
pub fn of_answering(rows: &[StatusRow], status: &NodeStatus) -> Option<String> {
    let node = status.node;
    let mut by_others = said(rows).filter_map(|other| offset(node, other));
    in_words(offset(node, status).or_else(|| by_others.next()))
}

/// A line for each other node whose clock is off.
pub fn of_silent(rows: &[StatusRow]) -> String {
    let mut text = String::new();
    let mut seen: Vec<u8> = said(rows).map(|status| status.node).collect();
    for status in said(rows) {
        for clock in &status.clocks {
            if seen.contains(&clock.node) {
                continue;
            }
            seen.push(clock.node);
            if let Some(line) = in_words(Some(clock)) {
                let name = name(clock.node, status);
                writeln!(text, "{name}: {line}").expect("a string takes all");
            }
        }
    }
    text
}

fn name(node: u8, status: &NodeStatus) -> String {
    let mut nodes = status.members.iter().chain(&status.away);
    let named = nodes.find(|member| member.node == node);
    named.map_or_else(|| format!("node {node}"), |member| member.address.clone())
}

pub fn in_json(status: &NodeStatus) -> Value {
    let clocks = status.clocks.iter();
    clocks
        .map(|c| json!({ "node": c.node, "offset_ms": c.offset_ms, "error_ms": c.error_ms }))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::MemberStatus;

    fn node(id: u8, offsets_ms: [i64; 3]) -> StatusRow {
        let clock = |(index, offset_ms)| ClockStatus {
            node: index as u8 + 1,
            offset_ms,
            error_ms: 1,
        };
        let member = |node| MemberStatus {
            node,
            address: format!("10.0.0.{node}:7000"),
            ..MemberStatus::default()
        };
        let status = NodeStatus {
            node: id,
            members: (1..=3).map(member).collect(),
            clocks: offsets_ms.into_iter().enumerate().map(clock).collect(),
            ..NodeStatus::default()
        };
        (format!("10.0.0.{id}:7000"), Some(status))
    }

    #[test]
    fn each_clock_that_is_off_is_told_once() {
        let silent = ("10.0.0.3:7000".to_owned(), None);
        let rows = [
            node(1, [0, -1_500, 3_200]),
            node(2, [2, -1_600, 3_300]),
            silent,
        ];
        let own: Vec<_> = said(&rows).map(|s| of_answering(&rows, s)).collect();
        let of_2 = "clock 1.6 s behind the median; correct it";
        assert_eq!(own, [None, Some(of_2.to_owned())]);
        let of_3 = "10.0.0.3:7000: clock 3.2 s ahead of the median; correct it\n";
        assert_eq!(of_silent(&rows), of_3);
        let first = &in_json(rows[0].1.as_ref().unwrap())[1];
        let expected = json!({ "node": 2, "offset_ms": -1_500, "error_ms": 1 });
        assert_eq!(first, &expected);
    }
}
