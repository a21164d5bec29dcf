//! X7: an overloaded node refuses new operations before it begins them, except for a share of each
//! client, and finishes the others.
//! X8: a node does not begin an operation after its deadline.

use horseshoe::protocol::types::message::Input;
use horseshoe::protocol::types::receive_wait::ReceiveWait;
use wire::{Action, Outcome};

use crate::sim::hand::Hand;
use crate::sim::script::{Script, msg, put};

/// Reports to the node that a datagram waited this long in its receive buffer.
fn waited(c: &mut Script, node: usize, waited_ms: u64) {
    let now = c.cluster.nodes[node].now(c.cluster.now_us);
    let replica = c.cluster.nodes[node].replica.as_mut();
    let waited_us = waited_ms * 1_000;
    let lost = 0;
    let input = Input::Waited(ReceiveWait {
        buffered_us: 0,
        waited_us,
        lost,
    });
    replica.expect("it runs").handle_input(now, input);
}

/// The samples of more than 100 ms show an overload, which goes on until a sample shows none.
fn overload(c: &mut Script, node: usize) {
    waited(c, node, 60);
    c.run_ms(150);
    waited(c, node, 60);
}

/// Sends this many gets to a node at once; returns the attempts.
fn flood(c: &mut Script, hand: &mut Hand, node: usize, count: usize) -> Vec<u64> {
    let mut send = |_| {
        let operation = c.operation(hand, "flood", Action::Get);
        c.attempt(hand, node, &operation, false)
    };
    (0..count).map(&mut send).collect()
}

/// Attempts that were answered busy, with a hint: at least the time that datagrams wait.
fn count_busy(c: &Script, hand: &Hand, attempts: &[u64]) -> usize {
    let is_busy = |attempt: &&u64| {
        matches!(
            c.answer(hand, **attempt),
            Some(Outcome::Busy { after_ms: 60.. })
        )
    };
    attempts.iter().filter(is_busy).count()
}

/// A coordinator that is overloaded answers nearly all of one client's operations busy, before it
/// works on them. Others, which have one each, are served: its own clients, and clients of other
/// nodes. Without shares they all were refused, or those were served that sent most.
#[test]
pub fn x7_one_client_with_many_operations_does_not_starve_the_others() {
    let mut c = Script::new(3);
    let key = c.key_of(1);
    let clients: Vec<usize> = (0..6).map(|client| c.client_of(&[client % 3])).collect();
    let mut hand = c.hand();
    for &client in &clients {
        c.put(client, &key, "1");
    }
    overload(&mut c, 1);
    for _ in 0..3 {
        let reads = c.sent(msg("Read").from(1)).len();
        let attempts = flood(&mut c, &mut hand, 1, 200);
        let begin = |client: &usize| c.begin(*client, &key, put("2"));
        let calls: Vec<usize> = clients.iter().map(begin).collect();
        c.run_ms(20);
        for call in calls {
            assert!(!c.is_open(call), "served at once");
            assert!(matches!(c.end(call), Outcome::Written { .. }));
        }
        let busy = count_busy(&c, &hand, &attempts);
        assert!(busy > 180, "{busy} of 200");
        let reads = c.sent(msg("Read").from(1)).len() - reads;
        assert!(reads < 40, "{reads} messages, though refused");
        c.run_ms(100);
    }
    let warnings = |c: &mut Script| {
        let now = c.cluster.nodes[1].now(c.cluster.now_us);
        let replica = c.cluster.nodes[1].replica.as_ref().expect("it runs");
        replica.status(now).warnings.join(" ")
    };
    assert!(warnings(&mut c).contains("overloaded"));
    waited(&mut c, 1, 0);
    let attempts = flood(&mut c, &mut hand, 1, 200);
    c.run_ms(50);
    assert_eq!(count_busy(&c, &hand, &attempts), 0, "it has recovered");
    c.run_ms(5_000);
    waited(&mut c, 1, 0);
    assert!(!warnings(&mut c).contains("overloaded"));
    c.check();
}

/// A round in progress is completed although its coordinator is overloaded.
#[test]
pub fn x7_what_was_begun_is_finished() {
    let mut c = Script::new(3);
    let client = c.client_of(&[1]);
    let key = c.key_of(1);
    c.hold(msg("Accept"));
    let call = c.begin(client, &key, put("1"));
    c.until_sent(msg("Accept"));
    for _ in 0..3 {
        waited(&mut c, 1, 500);
        c.run_ms(60);
    }
    c.let_pass();
    c.release(msg("Accept"));
    let outcome = c.end(call);
    assert!(matches!(outcome, Outcome::Written { .. }), "{outcome:?}");
    c.check();
}

/// A put waits behind another put until its deadline. The coordinator does not begin it any more:
/// it would only delay operations whose clients still wait.
#[test]
pub fn x8_what_nobody_waits_for_is_not_begun() {
    let mut c = Script::new(3);
    let (first, second) = (c.client_of(&[1]), c.client_of(&[1]));
    let key = c.key_of(1);
    c.hold(msg("Accept"));
    let call = c.begin(first, &key, put("first"));
    c.until_sent(msg("Accept"));
    c.begin(second, &key, put("second"));
    c.run_ms(5_100);
    assert!(!c.is_open(call), "its deadline is 5 s");
    c.let_pass();
    c.release(msg("Accept"));
    c.run_ms(1_000);
    assert_eq!(c.get(first, &key), "first");
    c.check();
}
