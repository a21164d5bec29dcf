//! X7: an overloaded node refuses new operations before it begins them, and finishes the others.
//! X8: a node does not begin an operation after its deadline.

use horseshoe::protocol::types::message::Input;
use wire::Outcome;

use crate::sim::script::{Script, msg, put};

/// Reports to the node that a datagram waited this long in its receive buffer.
fn waited(c: &mut Script, node: usize, waited_ms: u64) {
    let now = c.cluster.nodes[node].now(c.cluster.now_us);
    let replica = c.cluster.nodes[node].replica.as_mut();
    let waited_us = waited_ms * 1_000;
    let input = Input::Waited { waited_us };
    replica.expect("it runs").handle_input(now, input);
}

/// The key's coordinator is overloaded. Its own clients, and clients of other nodes, receive
/// `busy`, and the coordinator sends no Accept.
#[test]
pub fn x7_an_overloaded_coordinator_refuses_and_recovers() {
    let mut c = Script::new(3);
    let key = c.key_of(1);
    let clients: Vec<usize> = (0..3).map(|node| c.client_of(&[node])).collect();
    c.put(clients[0], &key, "1");
    waited(&mut c, 1, 60);
    c.put(clients[1], &key, "2");
    c.run_ms(150);
    waited(&mut c, 1, 60);
    let accepts = c.sent(msg("Accept")).len();
    for &client in &clients {
        assert_eq!(c.run(client, &key, put("3")), Outcome::Busy);
    }
    assert_eq!(c.sent(msg("Accept")).len(), accepts);
    let other = c.key_of(2);
    c.put(clients[2], &other, "elsewhere");
    let warnings = |c: &mut Script| {
        let now = c.cluster.nodes[1].now(c.cluster.now_us);
        let replica = c.cluster.nodes[1].replica.as_ref().expect("it runs");
        replica.status(now).warnings.join(" ")
    };
    assert!(warnings(&mut c).contains("overloaded"));
    waited(&mut c, 1, 0);
    for &client in &clients {
        c.put(client, &key, "4");
    }
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
