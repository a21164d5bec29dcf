//! X4: operations that nodes forward to each other, over restarts of either.

use crate::sim::script::{Script, msg};

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
