//! T6, T11: transactions that need the same keys at the same time.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use horseshoe::protocol::types::message::Message;
use horseshoe::protocol::types::record::Key;
use horseshoe::protocol::types::transaction::{Attempt, AttemptState, Intent};
use wire::{Action, KeyChange, Outcome, clock};

use super::transactions::{
    change, get, held, is_committed, proposes, put_of, registers, transaction,
};
use crate::sim::cluster::Fate;
use crate::sim::event::Passing;
use crate::sim::hand::Hand;
use crate::sim::network::Place;
use crate::sim::node::EPOCH_MS;
use crate::sim::random::Random;
use crate::sim::script::{Script, msg, put, user_key};

/// The intent that an Accept is to place, and its key.
fn intent_of(passing: &Passing) -> Option<(Key, Intent)> {
    let Message::Accept(accept) = &passing.envelope()?.message else {
        return None;
    };
    let intent = Intent::decode(accept.record.intent.as_ref()?).ok()?;
    Some((accept.key.clone(), intent))
}

/// Begins a transaction at node 0 that holds `held` and never gets `missing`, until the returned
/// filter is removed and the messages are released.
fn hold(c: &mut Script, hand: &mut Hand, missing: &str, held: &str) -> (u64, usize) {
    let parts = vec![put_of(missing, "holder"), put_of(held, "holder")];
    let operation = c.operation(hand, missing, transaction(parts));
    let missing = user_key(missing);
    let number = c.cluster.filter(move |passing| match intent_of(passing) {
        Some((key, _)) if key == missing => Fate::Hold,
        _ => Fate::Pass,
    });
    let attempt = c.attempt(hand, 0, &operation, false);
    c.run_ms(50);
    (attempt, number)
}

/// T6: a transaction that was aborted comes back after a while, and then waits at its first key.
#[test]
fn t6_an_aborted_transaction_waits_in_line() {
    let mut c = Script::new(3);
    let (one, two) = (c.key_of(0), c.key_of(1));
    let (first, second) = (c.client(), c.client());
    let mut aborted: BTreeMap<(u64, u32), u64> = BTreeMap::new();
    let mut again = BTreeSet::new();
    for n in 0..40 {
        let value = n.to_string();
        let a = transaction(vec![put_of(&one, &value), put_of(&two, &value)]);
        let b = transaction(vec![put_of(&two, &value), put_of(&one, &value)]);
        let (a, b) = (c.begin(first, &one, a), c.begin(second, &two, b));
        while c.is_open(a) || c.is_open(b) {
            c.run_ms(1);
            for register in registers(&c, 1) {
                let (birth, attempt) = (register.birth, register.attempt);
                if register.decision == AttemptState::Aborted {
                    aborted.entry((birth, attempt)).or_insert(c.now_us);
                } else if let Some(at_us) = aborted.get(&(birth, attempt - 1))
                    && again.insert((birth, attempt))
                {
                    let rest_us = c.now_us - at_us;
                    assert!(rest_us >= 9_000, "attempt {attempt} after {rest_us} us");
                }
            }
        }
        assert!(is_committed(&c.end(a)) && is_committed(&c.end(b)));
    }
    assert!(!again.is_empty(), "none was aborted");
    let mut begun: BTreeSet<Attempt> = BTreeSet::new();
    let lowest = user_key(one.as_str().min(two.as_str()));
    for (key, intent) in c.sent(msg("Accept")).iter().filter_map(intent_of) {
        if intent.of.number > 1 && begun.insert(intent.of) {
            assert_eq!(key, lowest, "{:?}", intent.of);
        }
    }
    c.check();
}

/// T5: this node holds the intent already, so it starts no round of the key only to meet it.
#[test]
fn t5_a_placement_waits_without_a_round() {
    let mut c = Script::new(3);
    let (key, other, client) = (c.key_of(0), c.key_of(1), c.client());
    c.put(client, "b", "old");
    let mut hand = c.hand();
    let (attempt, number) = hold(&mut c, &mut hand, &key, "b");
    let rounds = |c: &Script| c.sent(msg("Prepare").from(1).about("b")).len();
    let before = rounds(&c);
    let parts = vec![put_of(&other, "new"), put_of("b", "new")];
    let call = c.begin(client, &other, transaction(parts));
    c.run_ms(30);
    assert!(c.is_open(call));
    assert_eq!(rounds(&c), before);
    c.cluster.unfilter(number);
    c.release(msg("Accept"));
    assert!(is_committed(&c.end(call)));
    assert!(c.answer(&hand, attempt).is_some_and(|o| is_committed(&o)));
    assert_eq!(c.get(client, "b"), "new");
    c.check();
}

/// Two coordinators place intents on the same key: the second one lets the first one's round end.
#[test]
fn a_step_lets_another_nodes_round_end() {
    let mut c = Script::new(3);
    let (key, other, client) = (c.key_of(0), c.key_of(1), c.client());
    c.hold(msg("Accept").from(0).about("b"));
    let first = vec![put_of(&key, "first"), put_of("b", "first")];
    let first = c.begin(client, &key, transaction(first));
    c.until_sent(msg("Accept").from(0).about("b"));
    let second = vec![put_of(&other, "second"), put_of("b", "second")];
    let second = c.begin(client, &other, transaction(second));
    c.run_ms(3);
    assert!(c.sent(msg("Prepare").from(1).about("b")).is_empty());
    c.let_pass();
    c.release(msg("Accept"));
    assert!(is_committed(&c.end(first)) && is_committed(&c.end(second)));
    assert!(c.sent(msg("Nack")).is_empty());
    assert_eq!(c.get(client, "b"), "second");
    c.check();
}

/// T6: of those that wait on a node for the same key, the oldest one gets it first.
#[test]
fn t6_the_oldest_that_waits_comes_first() {
    let mut c = Script::new(3);
    let (key, wanted, client) = (c.key_of(0), c.key_of(1), c.client());
    let (mut holder, mut older, mut younger) = (c.hand(), c.hand(), c.hand());
    let one = transaction(vec![put_of(&wanted, "older")]);
    let one = c.operation(&mut older, &wanted, one);
    let two = transaction(vec![put_of(&wanted, "younger")]);
    let two = c.operation(&mut younger, &wanted, two);
    let (_, number) = hold(&mut c, &mut holder, &key, &wanted);
    c.attempt(&mut younger, 1, &two, false);
    c.run_ms(10);
    c.attempt(&mut older, 1, &one, false);
    c.run_ms(10);
    c.cluster.unfilter(number);
    c.release(msg("Accept"));
    c.run_ms(300);
    assert_eq!(c.get(client, &wanted), "younger");
    let aborts = |p: &Passing| proposes(p, |decision| *decision == AttemptState::Aborted);
    assert!(!c.sent(msg("Accept")).iter().any(aborts));
    c.check();
}

/// Each writer whose last write has ended begins another one of its key.
fn write_again(c: &mut Script, writers: &[usize], keys: &[String], writes: &mut [usize]) {
    for (place, write) in writes.iter_mut().enumerate() {
        if !c.is_open(*write) {
            let value = c.now_us.to_string();
            *write = c.begin(writers[place], &keys[place], put(&value));
        }
    }
}

/// T11, T6: between the reads of two snapshots all keys are written. They run in place, as one
/// transaction, and with the age of the first.
#[test]
fn t11_snapshots_in_place_are_one_and_keep_their_age() {
    let mut c = Script::new(3);
    c.slow_links(6_000, 1);
    let keys: Vec<String> = (0..8).map(|n| format!("key{n}")).collect();
    let writers: Vec<usize> = keys.iter().map(|_| c.client()).collect();
    let readers = [c.client_of(&[0]), c.client_of(&[0])];
    let mut writes: Vec<usize> = Vec::new();
    for (writer, key) in writers.iter().zip(&keys) {
        c.put(*writer, key, "old");
        writes.push(c.begin(*writer, key, put("new")));
    }
    c.run_ms(20);
    let begun_ms = EPOCH_MS + c.now_us / 1_000;
    let snapshot = || transaction(keys.iter().map(|key| get(key)).collect());
    let calls = readers.map(|reader| c.begin(reader, &keys[0], snapshot()));
    let mut births = BTreeSet::new();
    while calls.iter().any(|call| c.is_open(*call)) {
        c.run_ms(1);
        let whole = registers(&c, 1).into_iter();
        births.extend(whole.filter(|r| r.keys.len() == 8).map(|r| r.birth));
        write_again(&mut c, &writers, &keys, &mut writes);
    }
    assert!(calls.into_iter().all(|call| is_committed(&c.end(call))));
    let births: Vec<u64> = births.into_iter().map(clock::to_ms).collect();
    assert_eq!(births.len(), 1, "{births:?}");
    // The client's estimate of the clock is a few milliseconds ahead. Two reads take longer.
    assert!(births[0] <= begun_ms + 8, "{births:?}, begun at {begun_ms}");
    c.check();
}

/// T11, X5: a snapshot runs in place on a node that is cut off. The client is told as soon as that
/// is noticed, and can ask another one.
#[test]
fn t11_a_snapshot_is_refused_by_a_node_without_a_quorum() {
    let mut c = Script::new(3);
    c.slow_links(6_000, 1);
    let keys: Vec<String> = (0..8).map(|n| format!("key{n}")).collect();
    let writers: Vec<usize> = keys.iter().map(|_| c.client()).collect();
    let (at, mut hand) = (c.key_of(0), c.hand());
    let mut writes: Vec<usize> = Vec::new();
    for (writer, key) in writers.iter().zip(&keys) {
        c.put(*writer, key, "old");
        writes.push(c.begin(*writer, key, put("new")));
    }
    let mut parts = vec![get(&at)];
    parts.extend(keys.iter().map(|key| get(key)));
    let snapshot = c.operation(&mut hand, &at, transaction(parts));
    let attempt = c.attempt(&mut hand, 0, &snapshot, false);
    let mut cut_us = None;
    while c.answer(&hand, attempt).is_none() && c.now_us < 3_000_000 {
        c.run_ms(1);
        // Nobody writes this key.
        let is_in_place = held(&c, 1, &at).is_some();
        if is_in_place && cut_us.is_none() {
            c.isolate(0);
            cut_us = Some(c.now_us);
        }
        write_again(&mut c, &writers, &keys, &mut writes);
    }
    let answer = c.answer(&hand, attempt);
    assert!(
        matches!(answer, Some(Outcome::NoQuorum { .. })),
        "{answer:?}"
    );
    let took_us = c.now_us - cut_us.expect("it ran in place");
    assert!(took_us < 700_000, "{took_us} us");
    c.heal();
    c.run_ms(1_000);
    c.check();
}

/// Each message costs a node so long, as on a busy machine.
const MESSAGE_US: u64 = 50;

/// What each node sent and was sent since the last event.
fn count_messages(c: &mut Script) -> Rc<RefCell<Vec<u64>>> {
    let counts = Rc::new(RefCell::new(vec![0; c.nodes.len()]));
    let counted = counts.clone();
    c.cluster.filter(move |passing| {
        for place in [passing.from, passing.to] {
            if let Place::Node(node) = place {
                counted.borrow_mut()[node] += 1;
            }
        }
        Fate::Pass
    });
    counts
}

/// Runs for a millisecond on machines that need time for each message.
fn run_busy(c: &mut Script, counts: &RefCell<Vec<u64>>) {
    let until_us = c.now_us + 1_000;
    while c.cluster.step(until_us) {
        for (node, count) in counts.borrow_mut().iter_mut().enumerate() {
            let work_us = std::mem::take(count) * MESSAGE_US;
            if work_us > 0 {
                let now_us = c.cluster.now_us;
                let busy_until_us = &mut c.cluster.nodes[node].stalled_until_us;
                *busy_until_us = now_us.max(*busy_until_us) + work_us;
            }
        }
    }
    c.cluster.due.clear();
}

fn transfer_or_snapshot(random: &mut Random, accounts: u64, reads: bool) -> (String, Action) {
    let account = |index: u64| format!("account{index:02}");
    let add = |index, delta| change(&account(index), KeyChange::Add(delta));
    if reads {
        let parts = (0..accounts).map(|index| get(&account(index))).collect();
        return (account(0), transaction(parts));
    }
    let from = random.below(accounts);
    let to = (from + 1 + random.below(accounts - 1)) % accounts;
    (account(from), transaction(vec![add(from, -1), add(to, 1)]))
}

/// What the clients of a bank saw.
#[derive(Debug, Default)]
struct BankFigures {
    done: usize,
    longest_transfer_us: u64,
    longest_snapshot_us: u64,
}

/// A bank on busy machines for three seconds: 32 clients transfer between 50 accounts, and 4 read
/// all of them. The node `killed` dies after a second, and starts again after two.
fn run_bank(seed: u64, killed: Option<usize>) -> BankFigures {
    let (accounts, clients) = (50, 36);
    let mut c = Script::seeded(5, seed);
    let clients: Vec<usize> = (0..clients).map(|_| c.client()).collect();
    c.run_ms(300);
    let counts = count_messages(&mut c);
    let mut random = Random::new(seed);
    let mut open: Vec<Option<(usize, u64)>> = vec![None; clients.len()];
    let mut figures = BankFigures::default();
    let begun_us = c.now_us;
    let until_us = begun_us + 3_000_000;
    let (mut dies_us, mut starts_us) = (begun_us + 1_000_000, begun_us + 2_000_000);
    while c.now_us < until_us || open.iter().any(Option::is_some) {
        for (place, client) in clients.iter().enumerate() {
            let reads = place % 9 == 0;
            match open[place] {
                Some((call, _)) if c.is_open(call) => {}
                Some((call, begun_us)) => {
                    assert!(is_committed(&c.end(call)));
                    let longest_us = match reads {
                        true => &mut figures.longest_snapshot_us,
                        false => &mut figures.longest_transfer_us,
                    };
                    *longest_us = (*longest_us).max(c.now_us - begun_us);
                    figures.done += 1;
                    open[place] = None;
                }
                None if c.now_us < until_us => {
                    let (key, action) = transfer_or_snapshot(&mut random, accounts, reads);
                    open[place] = Some((c.begin(*client, &key, action), c.now_us));
                }
                None => {}
            }
        }
        if let Some(node) = killed {
            if c.now_us >= dies_us {
                c.crash_hard(node);
                dies_us = u64::MAX;
            }
            if c.now_us >= starts_us {
                c.cluster.start(node);
                starts_us = u64::MAX;
            }
        }
        run_busy(&mut c, &counts);
    }
    assert!(c.watch.violation().is_none());
    figures
}

/// With rounds that interrupt each other, and snapshots that each abort what they meet and are
/// aborted in turn, all clients of a bank wait until their deadlines.
#[test]
fn clients_that_contend_do_not_wait_for_long() {
    let figures = run_bank(1, None);
    println!("{figures:?}");
    let longest_us = figures.longest_transfer_us.max(figures.longest_snapshot_us);
    assert!(longest_us < 2_000_000 && figures.done > 300, "{figures:?}");
}

#[test]
fn clients_that_contend_do_not_wait_for_long_at_a_killed_node() {
    let figures = run_bank(1, Some(0));
    println!("{figures:?}");
    let longest_us = figures.longest_transfer_us.max(figures.longest_snapshot_us);
    assert!(longest_us < 3_000_000 && figures.done > 200, "{figures:?}");
}
