//! Values of many datagrams on links that lose some of them and drop packets of more than 1,280
//! bytes. One link works in one direction only. Senders repeat the lost pieces, and
//! acknowledgements take a path that works.

use std::time::Duration;

use crate::emulated::{Link, Network, is_lab};
use crate::emulated_cluster::{
    open, put_and_get_large, serve_all, wait_for_members, wait_until_equal,
};

const NODES: usize = 3;
const CLIENT_HOST: usize = NODES + 1;
const VALUES: usize = 4;
/// Allowance for a machine that also runs other programs.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn large_values_pass_where_datagrams_are_lost_and_a_link_has_one_direction() {
    if !is_lab() {
        return;
    }
    let link = Link {
        delay_min_ms: 1,
        delay_max_ms: 2,
        packet_size_max: 1_280,
        drops_fragments: true,
        loss_percent: 5,
        cut: Some((3, 2)),
    };
    let network = Network::new("ll", CLIENT_HOST, link);
    let _nodes = serve_all(&network, NODES);
    network.on(CLIENT_HOST, || {
        let client = open(NODES, PATIENCE);
        wait_for_members(&client, NODES, PATIENCE);
        (0..VALUES).for_each(|key| put_and_get_large(&client, key));
        // Every member gets every value, also over the link of one direction.
        wait_until_equal(&client, NODES, PATIENCE);
    });
}
