//! X5: `no quorum` is reported soon, and is true.

use wire::Outcome;

use crate::sim::script::{Script, msg, put};

/// An isolated node answers `no quorum` at once, and what it refused never happens.
#[test]
pub fn x5_no_quorum_is_said_soon() {
    let mut c = Script::new(3);
    let (key, client) = (c.key_of(0), c.client());
    let mut hand = c.hand();
    c.isolate(0);
    c.run_ms(600);
    let operation = c.operation(&mut hand, &key, put("refused"));
    let attempt = c.attempt(&mut hand, 0, &operation, false);
    c.run_ms(5);
    assert!(matches!(
        c.answer(&hand, attempt),
        Some(Outcome::NoQuorum { .. })
    ));
    c.heal();
    c.run_ms(600);
    assert_eq!(c.get(client, &key), "");
    c.check();
}

/// Node 0's write was accepted by node 1 and refused by node 2; then node 0 is isolated. It must
/// not answer `no quorum` to an operation that the others may still finish.
#[test]
pub fn x5_what_was_sent_is_not_refused() {
    let mut c = Script::new(3);
    let (key, client) = (c.key_of(0), c.client());
    let mut hand = c.hand();
    c.put(client, &key, "before");
    // Node 2 promises a ballot of its own that no other node receives.
    for to in [0, 1] {
        c.lose(msg("Prepare").from(2).to(to));
        c.lose(msg("Forward").from(2).to(to));
    }
    let two = c.client_of(&[2]);
    c.begin(two, &key, put("never"));
    c.until_sent(msg("Prepare").from(2));
    c.lose(msg("Accepted").from(1).to(0));
    c.lose(msg("Prepare").from(0));
    let operation = c.operation(&mut hand, &key, put("sent"));
    let attempt = c.attempt(&mut hand, 0, &operation, false);
    c.run_ms(100);
    c.isolate(0);
    c.run_ms(1_000);
    let refused = matches!(c.answer(&hand, attempt), Some(Outcome::NoQuorum { .. }));
    c.let_pass();
    // Node 2's operation does not complete meanwhile.
    for to in [0, 1] {
        c.lose(msg("Prepare").from(2).to(to));
        c.lose(msg("Forward").from(2).to(to));
    }
    let one = c.client_of(&[1]);
    let value = c.get(one, &key);
    assert_ne!(c.sent(msg("Nack").from(2).to(0)).len(), 0, "node 2 refused");
    assert!(!(refused && value == "sent"), "refused, and yet done");
    assert_eq!(value, "sent");
    c.check();
}

/// A write that was forwarded, reclaimed, and joined by a retry was sent all the same: the other
/// node, which was paused, executes it later.
#[test]
pub fn x5_a_retry_does_not_make_a_forwarded_write_refusable() {
    let mut c = Script::new(2);
    let (key, client) = (c.key_of(0), c.client());
    let mut hand = c.hand();
    c.hold(msg("Forward").to(0));
    let operation = c.operation(&mut hand, &key, put("forwarded"));
    let attempts = [c.attempt(&mut hand, 1, &operation, false), {
        c.isolate(0);
        c.run_ms(220);
        c.attempt(&mut hand, 1, &operation, true)
    }];
    c.run_ms(1_000);
    let refused = |a: &u64| {
        matches!(
            c.answer(&hand, *a),
            Some(Outcome::NoQuorum { .. } | Outcome::Busy { .. })
        )
    };
    let all_refused = attempts.iter().all(refused);
    c.heal();
    c.let_pass();
    assert_ne!(c.release(msg("Forward").to(0)), 0);
    c.run_ms(600);
    assert!(!all_refused, "refused, though the other node had it");
    assert_eq!(c.get(client, &key), "forwarded");
    c.check();
}
