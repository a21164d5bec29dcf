//! The offsets of the nodes' clocks from the median, as `status` shows them.

use wire::ClockStatus;

use crate::sim::cluster::Fate;
use crate::sim::network::Place;
use crate::sim::script::Script;

/// The clocks that a node reports as off.
fn off(c: &Script, node: usize) -> Vec<(u8, i64)> {
    let node = &c.cluster.nodes[node];
    let replica = node.replica.as_ref().expect("it runs");
    let clocks = replica.status(node.now(c.now_us)).clocks;
    let off = clocks.into_iter().filter(ClockStatus::is_off);
    off.map(|clock| (clock.node, clock.offset_ms)).collect()
}

#[track_caller]
fn is_off(c: &Script, node: u8, offset_ms: i64) {
    for teller in 0..c.nodes.len() {
        let told = off(c, teller);
        let [(told, reported_ms)] = told[..] else {
            panic!("{teller} tells {told:?}");
        };
        assert_eq!(told, node, "told by {teller}");
        let error_ms = (reported_ms - offset_ms).abs();
        assert!(error_ms <= 3, "{teller} tells {reported_ms} ms");
    }
}

/// Every node reports which clock is off and by how much, and stops when the clock is corrected.
#[test]
pub fn a_clock_that_is_off_is_told_by_all() {
    let mut c = Script::new(5);
    for by_ms in [3_200, -1_100, 86_400_000] {
        c.cluster.jump(3, by_ms);
        c.run_ms(17_000);
        is_off(&c, 4, by_ms);
        c.cluster.jump(3, -by_ms);
        c.run_ms(17_000);
        assert_eq!(off(&c, 0), [], "it is right again");
    }
    c.cluster.jump(3, 900);
    c.run_ms(17_000);
    assert_eq!(off(&c, 0), [], "less than a second is not worth a word");
    c.check();
}

/// The clock of the reporting node is the one that is off.
#[test]
pub fn a_clock_that_is_off_is_not_taken_for_the_others() {
    let mut c = Script::new(3);
    c.cluster.jump(0, -5_000);
    c.run_ms(17_000);
    is_off(&c, 1, -5_000);
}

/// All datagrams take up to a second more, randomly or always, and nodes pause meanwhile.
#[test]
pub fn slow_links_and_slow_nodes_make_no_offsets() {
    for (delay_ms, seed) in [(100, 1), (500, 2), (1_000, 3), (2_000, 4)] {
        let mut c = Script::slow(5);
        c.slow_links(delay_ms * 1_000, seed);
        for second in 0..120 {
            if second % 20 == 10 {
                c.cluster.stall(second / 20 % 5, 2_500_000);
            }
            c.run_ms(1_000);
            let node = second % 5;
            assert_eq!(off(&c, node), [], "{delay_ms} ms, {second} s, node {node}");
        }
    }
}

/// One direction takes 900 ms more than the other: half of the round-trip time is not the delay of
/// either direction.
#[test]
pub fn a_link_that_is_slow_one_way_makes_no_offset() {
    let mut c = Script::slow(3);
    c.cluster.filter(|passing| match passing.from {
        Place::Node(1) => Fate::Late(900_000),
        _ => Fate::Pass,
    });
    c.run_ms(30_000);
    for node in 0..3 {
        assert_eq!(off(&c, node), [], "node {node}");
    }
}
