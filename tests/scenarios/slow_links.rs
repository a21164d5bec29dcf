//! Links with round-trip times of up to a second, and jitter of half of that: retries must not make
//! coordinators compete, and a slow node must not be considered down.

use kvclient::session::{DEADLINE_US_DEFAULT, NO_QUORUM_AFTER_US_DEFAULT};
use wire::{Action, Outcome};

use crate::sim::history::Ending;
use crate::sim::network::{Network, Quality};
use crate::sim::random::Random;
use crate::sim::script::{Script, put};

/// The mean in one direction.
const DELAYS_MS: [u64; 4] = [50, 100, 250, 500];
/// The heartbeat interval, and the silence after which a link is down: the defaults, ...
const USUAL_PACE_MS: (u64, u64) = (50, 200);
/// ... and the shortest and the longest.
const OTHER_PACES_MS: [(u64, u64); 2] = [(10, 30), (1_000, 3_000)];

/// Between half and one and a half times the mean.
fn jittery(c: &mut Script, mean_ms: u64, seed: u64) {
    let quality = Quality {
        delay_min_us: mean_ms * 500,
        delay_max_us: mean_ms * 1_500,
        ..Quality::CALM
    };
    c.cluster.network = Network::new(Random::new(seed), quality);
}

/// Nodes that never had a faster link.
fn cold(nodes: usize, mean_ms: u64, seed: u64, (heartbeat_ms, down_ms): (u64, u64)) -> Script {
    let mut c = Script::cold(nodes);
    c.cluster.settings.heartbeat_ms = heartbeat_ms;
    c.cluster.settings.link_down_ms = down_ms;
    // Longer than a round trip, as the guide recommends to clients on such links.
    c.cluster.settings.no_quorum_after_us = Some(1_000_000.max(5_000 * mean_ms));
    jittery(&mut c, mean_ms, seed);
    c.cluster.start_all();
    let until_us = c.now_us + 30_000_000;
    while !c.is_formed() && c.cluster.step(until_us) {}
    assert!(c.is_formed(), "no configuration within 30 s");
    c.run_ms(2_000 + 4 * mean_ms);
    c
}

/// Clients with the default deadline and waits, over links that also lose messages.
struct Lossy {
    mean_ms: u64,
    lost_per_mille: u64,
}

impl Lossy {
    /// Puts, one after another, of one client per seed; returns those that did not end as written.
    fn puts(&self, seeds: u64, puts: usize) -> Vec<String> {
        let mut wrong = Vec::new();
        for seed in 1..=seeds {
            let mut c = cold(5, self.mean_ms, seed, USUAL_PACE_MS);
            let quality = Quality {
                lost_per_mille: self.lost_per_mille,
                ..c.cluster.network.quality()
            };
            c.cluster.network = Network::new(Random::new(seed), quality);
            c.cluster.settings.no_quorum_after_us = Some(NO_QUORUM_AFTER_US_DEFAULT);
            let client = c.client();
            for turn in 0..puts {
                let key = bytes::Bytes::from(format!("k{}", turn % 4));
                let action = put("v");
                let call = c
                    .cluster
                    .begin(client, &key, action, false, DEADLINE_US_DEFAULT);
                let (ending, time_us) = wait(&mut c, call);
                if !is_written(&ending) {
                    wrong.push(format!(
                        "seed {seed} put {turn}: {ending:?} after {time_us} us"
                    ));
                }
                c.run_ms(if turn % 8 == 0 { 10_000 } else { 10 });
            }
            c.check();
        }
        wrong
    }
}

/// Waits for the end of a call, however long that takes.
fn wait(c: &mut Script, call: usize) -> (Ending, u64) {
    let until_us = c.now_us + 60_000_000;
    while c.is_open(call) {
        assert!(c.cluster.step(until_us), "a call did not end");
    }
    let ended = &c.calls[call];
    let took_us = ended.ended_us.expect("it has ended") - ended.called_us;
    (ended.ending.clone(), took_us)
}

fn begin(c: &mut Script, client: usize, key: &str, action: Action, mean_ms: u64) -> usize {
    let key = bytes::Bytes::copy_from_slice(key.as_bytes());
    // As the guide recommends: ten round trips, at least the default.
    let deadline_us = 5_000_000.max(20_000 * mean_ms);
    c.cluster.begin(client, &key, action, false, deadline_us)
}

fn is_written(ending: &Ending) -> bool {
    matches!(ending, Ending::Answered(Outcome::Written { .. }))
}

fn median(mut times_us: Vec<u64>) -> u64 {
    times_us.sort_unstable();
    let middle = times_us.len() / 2;
    (times_us[(times_us.len() - 1) / 2] + times_us[middle]) / 2
}

/// One client: its first put, and later ones, on other keys and the same one.
fn one_client(mean_ms: u64, pace_ms: (u64, u64), seeds: u64) -> Vec<String> {
    let (mut wrong, mut took_us) = (Vec::new(), Vec::new());
    for seed in 1..=seeds {
        let mut c = cold(5, mean_ms, seed, pace_ms);
        let client = c.client();
        for turn in 0..12 {
            let key = format!("k{}", turn % 4);
            let call = begin(&mut c, client, &key, put("v"), mean_ms);
            let (ending, time_us) = wait(&mut c, call);
            if !is_written(&ending) {
                wrong.push(format!(
                    "seed {seed} put {turn}: {ending:?} after {time_us} us"
                ));
            }
            took_us.push(time_us);
            c.run_ms(if turn % 3 == 0 { 3_000 } else { 10 });
        }
        c.check();
    }
    let median_us = median(took_us.clone());
    if median_us > 3 * 2 * mean_ms * 1_000 {
        wrong.push(format!("a put takes {median_us} us: {took_us:?}"));
    }
    wrong
}

/// Clients each of which puts to its own key, and to one that all share.
fn many_clients(mean_ms: u64, pace_ms: (u64, u64)) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut c = cold(5, mean_ms, 1, pace_ms);
    let clients: Vec<usize> = (0..100).map(|_| c.client()).collect();
    let mut took_us = Vec::new();
    for turn in 0..3 {
        let mut calls = Vec::new();
        for client in &clients {
            let key = format!("k{client}");
            calls.push(begin(&mut c, *client, &key, put("v"), mean_ms));
            if client % 4 == 0 {
                let add = Action::Add { delta: 1 };
                calls.push(begin(&mut c, *client, "hot", add, mean_ms));
            }
        }
        for call in calls {
            let (ending, time_us) = wait(&mut c, call);
            if !is_written(&ending) {
                wrong.push(format!(
                    "turn {turn} call {call}: {ending:?} after {time_us} us"
                ));
            }
            if turn > 0 {
                took_us.push(time_us);
            }
        }
    }
    let median_us = median(took_us);
    if median_us > 3 * 2 * mean_ms * 1_000 {
        wrong.push(format!("a put takes {median_us} us"));
    }
    c.check();
    wrong
}

fn assert_none(what: &str, wrong: &[String]) {
    let shown = wrong
        .iter()
        .take(10)
        .cloned()
        .collect::<Vec<_>>()
        .join("\n");
    assert!(wrong.is_empty(), "{what}: {} wrong\n{shown}", wrong.len());
}

#[test]
pub fn one_client_writes_over_slow_links() {
    for mean_ms in DELAYS_MS {
        let wrong = one_client(mean_ms, USUAL_PACE_MS, 3);
        assert_none(&format!("{mean_ms} ms one way"), &wrong);
    }
}

#[test]
pub fn one_client_writes_over_slow_links_at_any_pace_of_heartbeats() {
    for pace_ms in OTHER_PACES_MS {
        for mean_ms in [100, 500] {
            let wrong = one_client(mean_ms, pace_ms, 3);
            assert_none(
                &format!("{mean_ms} ms one way, heartbeats {pace_ms:?}"),
                &wrong,
            );
        }
    }
}

#[test]
pub fn a_hundred_clients_write_over_slow_links() {
    for mean_ms in DELAYS_MS {
        let wrong = many_clients(mean_ms, USUAL_PACE_MS);
        assert_none(&format!("{mean_ms} ms one way"), &wrong);
    }
}

#[test]
pub fn a_hundred_clients_write_over_slow_links_at_any_pace_of_heartbeats() {
    for pace_ms in OTHER_PACES_MS {
        for mean_ms in [100, 500] {
            let wrong = many_clients(mean_ms, pace_ms);
            assert_none(
                &format!("{mean_ms} ms one way, heartbeats {pace_ms:?}"),
                &wrong,
            );
        }
    }
}

/// Digests, copies and requests for admission take as long as all other messages on these links.
#[test]
pub fn a_node_without_its_state_catches_up_over_slow_links() {
    for mean_ms in [100, 500] {
        let mut c = cold(5, mean_ms, 1, USUAL_PACE_MS);
        let client = c.client();
        for number in 0..10 {
            let key = format!("k{number}");
            let call = begin(&mut c, client, &key, put("v"), mean_ms);
            let (ending, time_us) = wait(&mut c, call);
            assert!(is_written(&ending), "{key}: {ending:?} after {time_us} us");
        }
        c.restart_empty(4);
        let until_us = c.now_us + 60_000_000;
        while c.vote_of(4).is_none() && c.cluster.step(until_us) {}
        assert!(c.vote_of(4).is_some(), "{mean_ms} ms one way: not admitted");
        c.check();
    }
}

/// An attempt is lost with its request or its answer: one in ten if 5 % of the messages are lost. A
/// put has time for two or three attempts, so about one in two hundred ends with an unknown
/// outcome.
#[test]
pub fn writes_over_slow_links_that_lose_messages_end_in_time() {
    const SEEDS: u64 = 20;
    const PUTS: usize = 40;
    for (lost_per_mille, wrong_max) in [(10, 1), (50, 12)] {
        let links = Lossy {
            mean_ms: 200,
            lost_per_mille,
        };
        let wrong = links.puts(SEEDS, PUTS);
        let (count, all) = (wrong.len(), SEEDS as usize * PUTS);
        let shown = wrong.join("\n");
        assert!(
            count <= wrong_max,
            "{lost_per_mille} of 1,000 lost: {count} of {all} puts\n{shown}"
        );
    }
}
