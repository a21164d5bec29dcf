//! Lists of what a node's disk holds, of a bucket or of a range of keys. They take as long as
//! loads.

use horseshoe::protocol::types::message::{Input, Output};

use super::cluster::Cluster;
use super::event::Event;

impl Cluster {
    /// `list` asks for one.
    pub(super) fn answer_list(&mut self, node: usize, list: Output) {
        let length_max = self.settings.page_length_max;
        let disk = &self.nodes[node].disk;
        let listed = match list {
            Output::List {
                bucket,
                after,
                epoch,
            } => Input::Listed {
                page: disk.list(bucket, after.as_ref(), length_max),
                bucket,
                after,
                epoch,
            },
            Output::ListRange {
                listing,
                range,
                mut bounds,
                epoch,
            } => {
                bounds.length_max = bounds.length_max.min(length_max);
                Input::RangeListed {
                    page: disk.list_range(&range, bounds),
                    listing,
                    epoch,
                }
            }
            other => unreachable!("{other:?} is no list"),
        };
        let delay = self.random.below(self.nodes[node].speed.load_max_us + 1);
        let life = self.nodes[node].life;
        let input = Box::new(listed);
        let event = Event::Listed { node, life, input };
        self.queue.push(self.now_us + delay, event);
    }
}
