//! A network whose links take packets of up to 1,500 bytes, and later only of 1,280, of which it
//! reports nothing. Transfers find out what gets through, between nodes and with clients.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::emulated::{Link, Network, is_lab};
use crate::emulated_cluster::{
    open, put_and_get_large, serve_all, wait_for_members, wait_until_equal,
};

const NODES: usize = 3;
const CLIENT_HOST: usize = NODES + 1;
/// Allowance for a machine that also runs other programs.
const PATIENCE: Duration = Duration::from_secs(60);
/// Probes are meant to be cut: they show whether fragments pass.
const PROBE_SIZE_MAX: usize = 1_700;

#[test]
fn datagrams_grow_to_what_a_path_takes_and_shrink_with_it() {
    if !is_lab() {
        return;
    }
    let link = Link {
        packet_size_max: 1_500,
        ..Link::GOOD
    };
    let network = Network::new("ps", CLIENT_HOST, link);
    let passing = network.passing.clone();
    let _nodes = serve_all(&network, NODES);
    network.on(CLIENT_HOST, || {
        let client = open(NODES, PATIENCE);
        wait_for_members(&client, NODES, PATIENCE);
        let began = Instant::now();
        (0..8).for_each(|key| put_and_get_large(&client, key));
        println!("with 1,500 bytes: {:?}", began.elapsed());
        assert_eq!(passing.largest.load(Ordering::Relaxed), 1_500);
        std::thread::scope(|scope| {
            let client = &client;
            let writing =
                scope.spawn(move || (8..16).for_each(|key| put_and_get_large(client, key)));
            std::thread::sleep(Duration::from_millis(30));
            passing.packet_size_max.store(1_280, Ordering::Relaxed);
            let began = Instant::now();
            writing.join().expect("all is written");
            println!("after the fall to 1,280 bytes: {:?}", began.elapsed());
        });
        wait_until_equal(&client, NODES, PATIENCE);
    });
    let largest_cut = passing.largest_cut.load(Ordering::Relaxed);
    assert!(
        largest_cut <= PROBE_SIZE_MAX,
        "{largest_cut} bytes in fragments"
    );
}
