//! X4: operations that nodes forward to each other, over restarts of either.

use wire::{Action, Outcome};

use crate::sim::script::{Script, any, msg};

/// A forwarder that restarts counts its attempts from one again.
#[test]
pub fn a_forwarder_that_restarted_is_answered() {
    let mut c = Script::new(3);
    let (key, client) = (c.key_of(0), c.client_of(&[1]));
    for n in 0..5 {
        c.put(client, &key, &n.to_string());
    }
    for _ in 0..2 {
        c.restart(1);
        c.run_ms(800);
        let before = c.sent(msg("ForwardAnswer").from(0).to(1)).len();
        c.put(client, &key, "after");
        c.run_ms(100);
        assert!(c.sent(msg("ForwardAnswer").from(0).to(1)).len() > before);
    }
    c.check();
}

/// A restarted node does not know which attempts it has executed. X4: a forward to its earlier boot
/// is not executed after the restart; a forward to its present boot is.
#[test]
pub fn x4_a_forward_to_an_earlier_life_is_not_executed() {
    let mut c = Script::new(3);
    let (key, client) = (c.key_of(0), c.client_of(&[1]));
    c.put(client, &key, "a");
    for life in ["second", "third"] {
        c.restart(0);
        c.run_ms(800);
        let answers = |c: &Script| c.sent(msg("ForwardAnswer").from(0).to(1)).len();
        let before = answers(&c);
        c.repeat(msg("Forward").from(1).to(0));
        c.run_ms(100);
        assert_eq!(answers(&c), before, "in its {life} life");
        c.put(client, &key, life);
        c.run_ms(100);
        assert!(answers(&c) > before, "in its {life} life");
    }
    c.check();
}

/// Node 1 takes too long for node 0, which runs the operation itself then. When node 1 has the
/// operation at last, it does not interrupt node 0, which is sending the value, but it does not
/// wait for it for long either.
#[test]
pub fn a_coordinator_lets_the_round_of_another_with_a_large_value_end() {
    let mut c = Script::new(3);
    let (key, client) = (c.key_of(1), c.client_of(&[0]));
    c.put(client, &key, "before");
    let before = c.ballots_of(1).len();
    assert!(before > 0, "node 1 had the right to a short round");
    c.hold(msg("Forward").from(0).to(1));
    c.hold(msg("Accept").from(0));
    let value = bytes::Bytes::from(vec![b'v'; 48 << 10]);
    let call = c.begin(client, &key, Action::Put { value });
    c.until_sent(msg("Accept").from(0));
    assert!(c.release(msg("Forward").from(0).to(1)) > 0);
    c.run_ms(10);
    assert_eq!(c.ballots_of(1).len(), before, "node 1 waits");
    c.run_ms(20);
    assert!(c.ballots_of(1).len() > before, "node 0 may be gone");
    let outcome = c.end(call);
    assert!(matches!(outcome, Outcome::Written { .. }), "{outcome:?}");
    c.let_pass();
    c.release(any());
    c.run_ms(1_000);
    c.check();
}
