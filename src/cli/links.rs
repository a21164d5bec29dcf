//! `horseshoe status --links`: which links between nodes work, in each direction, and the routes
//! between nodes.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Value, json};
use wire::{LinkStatus, NodeStatus, RouteStatus};

use super::status::{StatusRow, align, said};
use crate::protocol::types::limits::PROBE_SIZE;

/// Every link that a node reported. Of several reports the receiver's has precedence, because it
/// measures the link; then the sender's; then that of the first other node.
pub fn merged(rows: &[StatusRow]) -> Vec<LinkStatus> {
    let mut links: BTreeMap<(u8, u8), (u8, LinkStatus)> = BTreeMap::new();
    for status in said(rows) {
        for link in &status.links {
            let rank = match status.node {
                node if node == link.to => 0,
                node if node == link.from => 1,
                _ => 2,
            };
            let place = (link.from, link.to);
            if links.get(&place).is_none_or(|(known, _)| rank < *known) {
                links.insert(place, (rank, link.clone()));
            }
        }
    }
    links.into_values().map(|(_, link)| link).collect()
}

pub fn in_words(rows: &[StatusRow]) -> String {
    let links = merged(rows);
    let mut text =
        "Links, one row per sender, one column per receiver: round trip, loss.\n".to_owned();
    text.push_str(&matrix(&node_ids(rows, &links), &links));
    text.push_str(&small_ones(&links));
    text.push('\n');
    text.push_str(&components(rows));
    let routes = detours(rows, &links);
    if !routes.is_empty() {
        text.push_str("\nRoutes where there is no direct link:\n");
        text.push_str(&routes);
    }
    text
}

/// The ids of all members and of all ends of reported links.
fn node_ids(rows: &[StatusRow], links: &[LinkStatus]) -> Vec<u8> {
    let mut ids: Vec<u8> = links.iter().flat_map(|link| [link.from, link.to]).collect();
    for status in said(rows) {
        ids.push(status.node);
        ids.extend(status.members.iter().map(|member| member.node));
    }
    ids.retain(|id| *id > 0);
    ids.sort_unstable();
    ids.dedup();
    ids
}

fn matrix(ids: &[u8], links: &[LinkStatus]) -> String {
    let mut table = vec![vec!["from \\ to".to_owned()]];
    table[0].extend(ids.iter().map(u8::to_string));
    for from in ids {
        let mut line = vec![from.to_string()];
        line.extend(ids.iter().map(|to| {
            let link = links.iter().find(|l| (l.from, l.to) == (*from, *to));
            match link {
                _ if from == to => "-".to_owned(),
                None => "?".to_owned(),
                Some(link) => cell(link),
            }
        }));
        table.push(line);
    }
    align(&table)
}

fn cell(link: &LinkStatus) -> String {
    if !link.up {
        return "down".to_owned();
    }
    let mut cell = match link.rtt_us {
        0 => "up".to_owned(),
        rtt_us => format!("{:.2} ms", f64::from(rtt_us) / 1_000.0),
    };
    if link.loss_permille > 0 {
        write!(cell, " {:.1} %", f64::from(link.loss_permille) / 10.0).expect("a string takes all");
    }
    cell
}

/// The links that deliver no large datagrams; neither nodes nor clients depend on large datagrams.
fn small_ones(links: &[LinkStatus]) -> String {
    let small = links.iter().filter(|link| link.up && link.drops_large);
    let small: Vec<String> = small.map(|l| format!("{} -> {}", l.from, l.to)).collect();
    if small.is_empty() {
        return String::new();
    }
    format!(
        "Datagrams of {PROBE_SIZE} bytes do not get through: {}. The network drops IP fragments. \
         Nodes and clients do not need them; replies to text datagrams may.\n",
        small.join(", ")
    )
}

fn components(rows: &[StatusRow]) -> String {
    let mut table = vec![["node", "address", "component", "quorum"].map(str::to_owned)];
    for (address, status) in rows {
        let dash = || "-".to_owned();
        table.push(match status {
            None => [dash(), address.clone(), dash(), dash()],
            Some(status) => [
                status.node.to_string(),
                address.clone(),
                words(&status.component, " "),
                if status.quorum { "yes" } else { "no" }.to_owned(),
            ],
        });
    }
    align(&table)
}

/// One line for each pair without a direct link, as the sender reports it.
fn detours(rows: &[StatusRow], links: &[LinkStatus]) -> String {
    let mut text = String::new();
    for status in said(rows) {
        for route in status.routes.iter().filter(|r| is_detour(status, r, links)) {
            let way = match (route.works, route.through.is_empty()) {
                (false, _) => "no path is known".to_owned(),
                (true, true) => "direct".to_owned(),
                (true, false) => format!("through {}", words(&route.through, ", ")),
            };
            writeln!(text, "{} -> {}: {way}", status.node, route.to).expect("a string takes all");
        }
    }
    text
}

fn is_detour(status: &NodeStatus, route: &RouteStatus, links: &[LinkStatus]) -> bool {
    let ends = (status.node, route.to);
    let is_down = links.iter().any(|l| (l.from, l.to) == ends && !l.up);
    is_down || !route.works || !route.through.is_empty()
}

fn words(ids: &[u8], between: &str) -> String {
    let words: Vec<String> = ids.iter().map(u8::to_string).collect();
    words.join(between)
}

pub fn in_json(rows: &[StatusRow]) -> Value {
    let links = merged(rows);
    let objects = links.iter().map(|link| {
        json!({
            "from": link.from,
            "to": link.to,
            "up": link.up,
            "rtt_us": link.rtt_us,
            "loss_permille": link.loss_permille,
            "drops_large": link.drops_large,
        })
    });
    objects.collect()
}

/// The routes of one node to all others.
pub fn routes_in_json(status: &NodeStatus) -> Value {
    let routes = status.routes.iter();
    routes
        .map(|route| json!({ "to": route.to, "through": route.through, "works": route.works }))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(from: u8, to: u8, up: bool) -> LinkStatus {
        LinkStatus {
            from,
            to,
            up,
            rtt_us: if up { 314 } else { 0 },
            loss_permille: u16::from(from == 2) * 15,
            drops_large: false,
        }
    }

    fn node(id: u8, links: Vec<LinkStatus>, routes: Vec<RouteStatus>) -> StatusRow {
        let status = NodeStatus {
            node: id,
            quorum: true,
            component: vec![1, 2, 3],
            links,
            routes,
            ..NodeStatus::default()
        };
        (format!("10.0.0.{id}:7000"), Some(status))
    }

    fn route(to: u8, through: &[u8], works: bool) -> RouteStatus {
        let through = through.to_vec();
        RouteStatus { to, through, works }
    }

    #[test]
    fn a_matrix_components_and_detours() {
        let links = vec![
            link(1, 2, true),
            link(1, 3, false),
            link(2, 1, true),
            link(3, 1, true),
        ];
        let rows = [
            node(1, links, vec![route(2, &[], true), route(3, &[2], true)]),
            ("10.0.0.2:7000".to_owned(), None),
            node(3, vec![link(2, 3, true)], vec![route(2, &[], false)]),
        ];
        let expected = "\
Links, one row per sender, one column per receiver: round trip, loss.
from \\ to  1              2        3
1          -              0.31 ms  down
2          0.31 ms 1.5 %  -        0.31 ms 1.5 %
3          0.31 ms        ?        -

node  address        component  quorum
1     10.0.0.1:7000  1 2 3      yes
-     10.0.0.2:7000  -          -
3     10.0.0.3:7000  1 2 3      yes

Routes where there is no direct link:
1 -> 3: through 2
3 -> 2: no path is known
";
        assert_eq!(in_words(&rows), expected);
    }

    #[test]
    fn links_that_drop_large_datagrams_are_named() {
        let small = |from, to, up| LinkStatus {
            drops_large: true,
            ..link(from, to, up)
        };
        let links = vec![small(1, 2, true), small(1, 3, false), link(3, 2, true)];
        let text = in_words(&[node(2, links, Vec::new())]);
        assert!(
            text.contains("of 1600 bytes do not get through: 1 -> 2. The"),
            "{text}"
        );
        assert!(!in_words(&[node(2, vec![link(1, 2, true)], Vec::new())]).contains("get through"));
    }

    #[test]
    fn the_receiver_of_a_link_is_believed() {
        let seen = |reporter, up| node(reporter, vec![link(1, 2, up)], Vec::new());
        for order in [[3, 1, 2], [2, 1, 3], [1, 2, 3]] {
            let rows = order.map(|reporter| seen(reporter, reporter == 2));
            assert_eq!(merged(&rows), [link(1, 2, true)]);
        }
        assert_eq!(
            merged(&[seen(3, true), seen(1, false)]),
            [link(1, 2, false)]
        );
    }

    #[test]
    fn all_is_well_without_routes() {
        let rows = [node(1, Vec::new(), vec![route(2, &[], true)])];
        assert!(!in_words(&rows).contains("Routes"));
    }
}
