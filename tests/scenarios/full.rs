//! X6: while a member is full, writes that grow are refused, and surely not done; all other
//! operations succeed.

use bytes::Bytes;
use horseshoe::protocol::types::limits::{OPERATIONS_SIZE_MAX, RETRY_HORIZON_MS};
use horseshoe::protocol::types::message::Input;
use wire::{Action, Full, KeyChange, NodeStatus, Outcome, Transaction, TransactionPart};

use crate::scenarios::handoff::{are_equal, held};
use crate::sim::cluster::Cluster;
use crate::sim::script::{Script, append, msg, put, put_if_absent};

const FULL: Outcome = Outcome::Full { full: Full::Memory };

fn fill(c: &mut Script, node: usize, full: Option<Full>) {
    let now = c.cluster.nodes[node].now(c.cluster.now_us);
    let replica = c.cluster.nodes[node].replica.as_mut();
    replica
        .expect("it runs")
        .handle_input(now, Input::Full(full));
    c.run_ms(100);
}

/// Node 1 is full; every coordinator refuses.
#[test]
pub fn x6_what_grows_is_refused_by_all() {
    let mut c = Script::new(3);
    let clients: Vec<usize> = (0..3).map(|node| c.client_of(&[node])).collect();
    let keys: Vec<String> = (0..3).map(|node| c.key_of(node)).collect();
    for key in &keys {
        c.put(clients[0], key, "1234");
    }
    fill(&mut c, 1, Some(Full::Memory));
    let accepts = c.sent(msg("Accept")).len();
    for (&client, key) in clients.iter().zip(&keys) {
        for action in [put("12345"), append("5")] {
            assert_eq!(c.run(client, key, action), FULL);
        }
        assert_eq!(
            c.run(client, &format!("new {key}"), put_if_absent("")),
            FULL
        );
    }
    c.run_ms(500);
    assert_eq!(
        c.sent(msg("Accept")).len(),
        accepts,
        "nothing of it is sent"
    );
    for (&client, key) in clients.iter().zip(&keys) {
        assert_eq!(c.get(client, key), "1234");
        c.put(client, key, "567");
        let deleted = c.run(client, key, Action::Delete);
        assert!(matches!(deleted, Outcome::Written { .. }), "{deleted:?}");
    }
    fill(&mut c, 1, None);
    for (&client, key) in clients.iter().zip(&keys) {
        c.put(client, key, "123456789");
    }
    c.check();
}

/// A full member dies. The others do not relay its last row to each other for ever: they refuse
/// writes for at most a second because of it, and soon know nothing of its links.
#[test]
pub fn x6_a_full_member_that_is_dead_refuses_nothing() {
    for seed in 1..6 {
        let mut c = Script::seeded(3, seed);
        c.slow_links(60_000, seed);
        c.run_ms(1_000);
        let client = c.client_of(&[0, 1]);
        c.put(client, "k", "1");
        fill(&mut c, 2, Some(Full::Memory));
        c.run_ms(500);
        assert_eq!(c.run(client, "k", put("12")), FULL);
        c.crash_hard(2);
        c.run_ms(1_000);
        c.put(client, "k", "12");
        c.run_ms(3_000);
        for node in [0, 1] {
            let now = c.nodes[node].now(c.now_us);
            let status = c.nodes[node].replica.as_ref().map(|r| r.status(now));
            let status: NodeStatus = status.expect("it runs");
            assert_eq!(status.warnings, [""; 0], "seed {seed}");
            let told = status.links.iter().filter(|link| link.to == 3).count();
            assert_eq!(told, 0, "seed {seed}: node {node} still knows what it told");
        }
        c.check();
    }
}

/// A full member that is unreachable causes no refusals; when it is back, it does again.
#[test]
pub fn x6_a_full_member_that_is_cut_off_refuses_nothing() {
    let mut c = Script::new(3);
    let client = c.client_of(&[0, 1]);
    fill(&mut c, 2, Some(Full::Memory));
    assert_eq!(c.run(client, "k", put("1")), FULL);
    c.isolate(2);
    c.until("it is not joined", |c| {
        let joined = |node: usize| {
            let replica = c.nodes[node].replica.as_ref().expect("it runs");
            replica.status(c.nodes[node].now(c.now_us)).component
        };
        [0, 1].iter().all(|node| !joined(*node).contains(&3))
    });
    c.put(client, "k", "1");
    c.heal();
    c.run_ms(1_000);
    assert_eq!(c.run(client, "k", put("12")), FULL);
    c.check();
}

/// Puts of the same size, each by another client: the table that stores their outcomes does not
/// grow any more.
#[test]
pub fn x6_tables_do_not_grow() {
    let mut c = Script::new(3);
    let client = c.client();
    c.put(client, "k", "1");
    c.run_ms(RETRY_HORIZON_MS + 1_000);
    c.put(client, "k", "1");
    let size = |c: &Cluster| {
        let record = held(c, 0, "k").and_then(|state| state.record);
        record.expect("it is written").applied.size()
    };
    c.run_ms(500);
    let before = size(&c);
    fill(&mut c, 0, Some(Full::Memory));
    for n in 0..60 {
        let mut hand = c.hand();
        let mut operation = c.operation(&mut hand, "k", put("2"));
        operation.want_old = true;
        let outcome = c.ask(&mut hand, n % 3, &operation, false);
        assert!(matches!(outcome, Outcome::Written { .. }), "{outcome:?}");
    }
    c.run_ms(1_000);
    assert!((0..3).all(|n| held(&c, n, "k").is_some()));
    assert!(size(&c) <= before, "{before} bytes before, {}", size(&c));
    c.check();
}

/// A write was applied, its answer is lost, and then the node is full: the retry gets the answer.
#[test]
pub fn x6_the_retry_of_what_was_done_is_answered() {
    let mut c = Script::new(3);
    let (key, client) = (c.key_of(0), c.client_of(&[0]));
    c.put(client, &key, "1");
    c.lose(msg("Answer").towards_client(client));
    let call = c.begin(client, &key, put("12345"));
    c.until("it is done", |c| are_equal(c, &key));
    c.run_ms(20);
    fill(&mut c, 0, Some(Full::Memory));
    c.let_pass();
    let outcome = c.end(call);
    assert!(matches!(outcome, Outcome::Written { .. }), "{outcome:?}");
    assert_eq!(c.get(client, &key), "12345");
    c.check();
}

fn transact(keys: &[&str]) -> Action {
    let part = |key: &&str| TransactionPart {
        key: Bytes::copy_from_slice(key.as_bytes()),
        change: Some(KeyChange::Put("new".into())),
        ..TransactionPart::default()
    };
    let parts = keys.iter().map(part).collect();
    Action::Transact {
        transaction: Transaction { parts },
    }
}

/// The same for a transaction, which has its outcome in a register.
#[test]
pub fn x6_the_retry_of_a_transaction_that_was_done_is_answered() {
    let mut c = Script::new(3);
    let (key, mut hand) = (c.key_of(0), c.hand());
    let done = c.operation(&mut hand, &key, transact(&[&key, "b"]));
    let outcome = c.ask(&mut hand, 0, &done, false);
    assert!(matches!(outcome, Outcome::Committed { .. }), "{outcome:?}");
    fill(&mut c, 1, Some(Full::Memory));
    for node in 0..3 {
        assert_eq!(c.ask(&mut hand, node, &done, true), outcome);
    }
    for (node, retry) in [(0, false), (0, true), (2, true)] {
        let new = c.operation(&mut hand, &key, transact(&[&key, "c"]));
        assert_eq!(c.ask(&mut hand, node, &new, retry), FULL);
    }
    c.check();
}

/// A member is full while a transaction is in progress: a retry waits for its outcome.
#[test]
pub fn x6_the_retry_of_a_transaction_in_progress_is_answered() {
    let mut c = Script::new(3);
    let (key, mut hand) = (c.key_of(0), c.hand());
    let operation = c.operation(&mut hand, &key, transact(&[&key, "b"]));
    c.hold(msg("Accept").from(0));
    let first = c.attempt(&mut hand, 0, &operation, false);
    c.run_ms(5);
    fill(&mut c, 1, Some(Full::Memory));
    let second = c.attempt(&mut hand, 0, &operation, true);
    c.run_ms(20);
    assert_eq!(c.answer(&hand, second), None);
    c.let_pass();
    c.release(msg("Accept"));
    c.run_ms(500);
    for attempt in [first, second] {
        let outcome = c.answer(&hand, attempt);
        let is_committed = matches!(outcome, Some(Outcome::Committed { .. }));
        assert!(is_committed, "{outcome:?}");
    }
    c.check();
}

/// A member accepts what a quorum has chosen, full or not.
#[test]
pub fn x6_a_member_that_is_full_takes_copies() {
    let mut c = Script::new(3);
    let (key, client) = (c.key_of(0), c.client_of(&[0, 1]));
    c.isolate(2);
    c.put(client, &key, "1");
    fill(&mut c, 2, Some(Full::Memory));
    assert!(held(&c, 2, &key).is_none());
    c.heal_nodes();
    c.until("node 2 has it", |c| are_equal(c, &key));
    c.check();
}

/// A learner has no influence on what members accept, and is not admitted while it is full.
#[test]
pub fn x6_a_learner_that_is_full_waits() {
    let mut c = Script::shrinking(5, 1);
    let client = c.client_of(&[0, 1]);
    let is_member = |c: &Cluster| {
        let replica = c.nodes[0].replica.as_ref();
        let configuration = replica.and_then(|r| r.configuration());
        configuration.is_some_and(|c| c.joint.is_none() && c.members.iter().any(|m| m.node == 5))
    };
    c.isolate(4);
    c.until("node 4 is removed", |c| !is_member(c));
    c.put(client, "k", "1");
    c.heal_nodes();
    c.until("it hears of that", |c| {
        let replica = c.nodes[4].replica.as_ref();
        replica
            .and_then(|r| r.configuration())
            .is_some_and(|c| c.voter(5).is_none())
    });
    fill(&mut c, 4, Some(Full::Memory));
    c.run_ms(5_000);
    assert!(!is_member(&c.cluster));
    c.put(client, "k", "12");
    fill(&mut c, 4, None);
    c.until("it is a member", is_member);
    c.check();
}

/// One of three members is down: tombstones stay, and the others report that.
#[test]
pub fn p1_held_up_for_a_member_that_is_away_is_a_warning() {
    let mut c = Script::new(3);
    let client = c.client_of(&[0, 1]);
    let warnings = |c: &Script| {
        let now = c.cluster.nodes[0].now(c.cluster.now_us);
        let replica = c.cluster.nodes[0].replica.as_ref();
        let status: NodeStatus = replica.expect("it runs").status(now);
        status.warnings
    };
    let keys: Vec<String> = (0..20).map(|n| format!("key {n}")).collect();
    for key in &keys {
        c.put(client, key, "x");
    }
    c.isolate(2);
    for key in &keys {
        c.run(client, key, Action::Delete);
    }
    c.run_ms(20_000);
    assert_eq!(warnings(&c), [""; 0]);
    c.run_ms(40_000);
    let said = warnings(&c);
    assert!(
        said.len() == 1 && said[0].contains("are unreachable: 3 ("),
        "{said:?}"
    );
    c.heal_nodes();
    // Buckets that node 2 is responsible for are due only when the horizon has passed since it
    // accepted the tombstones.
    c.run_ms(RETRY_HORIZON_MS);
    let is_gone = |c: &Cluster, key: &String| (0..3).all(|n| held(c, n, key).is_none());
    c.until("nothing is held", |c| keys.iter().all(|k| is_gone(c, k)));
    assert_eq!(warnings(&c), [""; 0]);
    c.check();
}

/// Concurrent operations with large values are limited by their bytes, far below the limit of their
/// number.
#[test]
pub fn large_operations_under_way_are_bounded() {
    let mut c = Script::new(3);
    // Each has at most 64 operations in progress at a node.
    let clients: Vec<usize> = (0..32).map(|_| c.client_of(&[0])).collect();
    for &client in &clients {
        // It has settled on its cluster, and sends from now on without waiting for the other nodes.
        c.put(client, "k", "x");
    }
    c.cut(&[0], &[1, 2]);
    const VALUE_SIZE: usize = 48 << 10;
    let value = Bytes::from(vec![b'x'; VALUE_SIZE]);
    let action = Action::Put { value };
    let calls = (0..2_000).map(|n| c.begin(clients[n % 32], &format!("key {n}"), action.clone()));
    let calls: Vec<usize> = calls.collect();
    c.run_ms(20);
    let replica = c.cluster.nodes[0].replica.as_ref().expect("it runs");
    let under_way = replica.operations_under_way();
    let fit = OPERATIONS_SIZE_MAX / VALUE_SIZE;
    assert!((fit * 3 / 4..fit + 32).contains(&under_way), "{under_way}");
    c.heal();
    calls.into_iter().for_each(|call| drop(c.end(call)));
}
