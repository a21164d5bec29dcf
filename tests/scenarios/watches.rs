//! Watches (W1 to W4).

use kvclient::session::Watch;
use wire::Action;

use crate::sim::cluster::Cluster;
use crate::sim::script::{Script, msg, put};

/// The keys and versions that the watcher was told, and whether they were present.
fn told(c: &Cluster, watcher: usize) -> Vec<(String, u64, bool)> {
    let told = c.watchers[watcher].told.iter().map(|told| {
        let key = String::from_utf8_lossy(&told.key).into_owned();
        (key, told.version, told.value.is_some())
    });
    told.collect()
}

/// A watcher of `k` at that node alone, once it has begun.
#[track_caller]
fn watching(c: &mut Script, node: usize) -> usize {
    let client = c.client_of(&[node]);
    let watcher = c.cluster.watch_with(client, Watch::prefix(b"k"));
    c.until("the watch to begin", |c| {
        c.watchers[watcher].current.is_some()
    });
    watcher
}

#[track_caller]
fn until_told(c: &mut Script, watcher: usize, what: &(String, u64, bool)) {
    c.until("a change to be told", |c| told(c, watcher).contains(what));
}

#[track_caller]
fn check(c: &Script) {
    for watcher in &c.cluster.watchers {
        assert_eq!(watcher.fault(&c.cluster.calls), None);
    }
    c.check();
}

#[test]
pub fn a_watcher_at_each_node_is_told_every_change() {
    let mut c = Script::new(5);
    let client = c.client();
    let first = c.put(client, "k1", "1");
    let watchers: Vec<usize> = (0..5).map(|node| watching(&mut c, node)).collect();
    for watcher in &watchers {
        assert_eq!(told(&c, *watcher), [("k1".to_owned(), first, true)]);
    }
    c.put(client, "other", "1");
    let second = c.put(client, "k2", "2");
    for watcher in &watchers {
        until_told(&mut c, *watcher, &("k2".to_owned(), second, true));
    }
    c.run(client, "k1", Action::Delete);
    for watcher in &watchers {
        c.until("the deletion", |c| {
            let last = told(c, *watcher).pop();
            last.is_some_and(|(key, version, present)| key == "k1" && version > first && !present)
        });
        assert_eq!(told(&c, *watcher).len(), 3);
    }
    check(&c);
}

/// The node that is watched at dies; what changes meanwhile is told at another one.
#[test]
pub fn a_watch_survives_its_node() {
    let mut c = Script::new(5);
    let client = c.client();
    c.put(client, "k1", "1");
    c.put(client, "k2", "1");
    let near = c.client_of(&[3, 4]);
    let watcher = c.cluster.watch_with(near, Watch::prefix(b"k"));
    c.until("the watch to begin", |c| {
        c.watchers[watcher].current.is_some()
    });
    for node in [3, 4, 3] {
        c.crash_hard(node);
        c.run(client, "k2", Action::Delete);
        let version = c.put(client, "k1", "2");
        until_told(&mut c, watcher, &("k1".to_owned(), version, true));
        c.cluster.start(node);
        c.run_ms(2_000);
        let version = c.put(client, "k2", "2");
        until_told(&mut c, watcher, &("k2".to_owned(), version, true));
    }
    check(&c);
}

/// Two of five nodes have accepted the record, so it may still vanish.
#[test]
pub fn w1_what_is_not_chosen_is_not_told() {
    let mut c = Script::new(5);
    let client = c.client();
    let key = c.key_of(0);
    let watcher = watching(&mut c, 2);
    for node in [1, 3, 4] {
        c.lose(msg("Accept").to(node));
    }
    let call = c.begin(client, &key, put("1"));
    c.until_sent(msg("Accepted").from(2));
    // Less than the time after which unsettled keys are read.
    c.run_ms(45);
    assert_eq!(told(&c, watcher), []);
    c.let_pass();
    c.end(call);
    c.until("the change", |c| told(c, watcher).len() == 1);
    check(&c);
}

/// A node that hears no quorum does not pretend that nothing changes.
#[test]
pub fn w1_a_node_that_is_cut_off_ends_its_watches() {
    let mut c = Script::new(3);
    let client = c.client_of(&[0, 1]);
    let watcher = watching(&mut c, 2);
    c.isolate(2);
    let version = c.put(client, "k", "1");
    c.until("the watch to be told", |c| c.watchers[watcher].is_apart);
    assert_eq!(told(&c, watcher), []);
    c.heal_nodes();
    until_told(&mut c, watcher, &("k".to_owned(), version, true));
    check(&c);
}

/// The notice that was sent once is lost, and digests are equal.
#[test]
pub fn w2_a_change_whose_notice_is_lost_is_told() {
    let mut c = Script::new(3);
    let client = c.client_of(&[0, 1]);
    let watcher = watching(&mut c, 2);
    c.lose(msg("Chosen").to(2));
    let key = c.key_of(0);
    let version = c.put(client, &key, "1");
    until_told(&mut c, watcher, &(key, version, true));
    check(&c);
}

/// Node 2 does not know that the value was chosen, and has missed that the key was deleted. When
/// the notice about the value comes, the watch has begun: the key was absent.
#[test]
pub fn w3_a_late_notice_brings_no_deleted_key_back() {
    let mut c = Script::new(3);
    let client = c.client_of(&[0, 1]);
    c.hold(msg("Chosen").to(2));
    let key = c.key_of(0);
    c.put(client, &key, "old");
    c.run_ms(100);
    c.isolate(2);
    c.run(client, &key, Action::Delete);
    c.lose(msg("Copy").to(2));
    c.heal_nodes();
    c.run_ms(1_000);
    let watcher = watching(&mut c, 2);
    assert_eq!(told(&c, watcher), []);
    assert!(c.release(msg("Chosen").to(2)) > 0, "the notice was held");
    c.run_ms(200);
    assert_eq!(told(&c, watcher), []);
    check(&c);
}

/// Node 2 has accepted the put, and cannot learn whether it is chosen.
#[test]
pub fn w4_a_watch_is_not_current_while_a_key_is_unsettled() {
    let mut c = Script::new(3);
    let client = c.client_of(&[0, 1]);
    let watcher = watching(&mut c, 2);
    c.until("the watch to be current", |c| {
        c.watchers[watcher].current.flatten().is_some()
    });
    c.lose(msg("Chosen").to(2));
    c.lose(msg("ReadAnswer").to(2));
    let put_us = c.cluster.now_us;
    let key = c.key_of(0);
    c.put(client, &key, "1");
    c.run_ms(8_000);
    let behind_ms = c.cluster.watchers[watcher]
        .current
        .flatten()
        .expect("known");
    let claimed_us = c.cluster.now_us - behind_ms * 1_000;
    assert!(told(&c, watcher).is_empty());
    assert!(claimed_us <= put_us + 1_000_000, "{claimed_us} {put_us}");
}
