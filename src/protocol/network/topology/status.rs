//! Links and routes for users.

use wire::{LinkStatus, RouteStatus};

use super::Links;
use crate::protocol::types::message::{NodeId, ReportedLink};

impl Links {
    /// Every directed link that is known, for users.
    pub fn status(&self) -> Vec<LinkStatus> {
        let show = |to: NodeId, link: &ReportedLink| LinkStatus {
            from: link.from,
            to,
            up: link.up,
            rtt_us: link.rtt_us,
            loss_permille: link.loss_permille,
            drops_large: false,
        };
        let own = self.others.iter();
        let own = own.filter_map(|(node, link)| Some(show(self.me, &link.reported(*node)?)));
        let rows = self.reported.values();
        let rows = rows.flat_map(|t| t.row.links.iter().map(move |link| show(t.row.node, link)));
        let mut all: Vec<LinkStatus> = own.chain(rows).collect();
        all.sort_by_key(|link| (link.from, link.to));
        all
    }

    pub fn routes(&self) -> Vec<RouteStatus> {
        let route = |to: &NodeId| {
            let mut through = Vec::new();
            let mut at = *to;
            while let Some(path) = self.paths.get(&at).filter(|path| path.before != self.me) {
                through.insert(0, path.before);
                at = path.before;
            }
            RouteStatus {
                to: *to,
                through,
                works: self.paths.contains_key(to),
            }
        };
        self.others.keys().map(route).collect()
    }

    /// The shortest and the longest of the recent round-trip times over the direct links to that
    /// node and back.
    pub fn straight_rtts_us(&self, node: NodeId) -> Option<(u32, u32)> {
        let link = self.others.get(&node)?;
        link.rtts_us().filter(|_| link.is_up())
    }
}
