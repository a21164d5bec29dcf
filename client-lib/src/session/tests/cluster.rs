//! A client uses one cluster for its life, whatever answers at the given addresses.

use super::*;

const OTHER: u64 = 78;
const TWO_CLUSTERS: CallError = CallError::TwoClusters {
    first: CLUSTER,
    second: OTHER,
};

fn put(key: &str) -> Call {
    let value = "v".into();
    Call::new(key.to_owned(), wire::Action::Put { value })
}

#[test]
fn one_answer_is_enough_once_the_others_had_their_time() {
    let mut script = Script::new(5);
    script.submit(put("k"), 1);
    script.greet(&[3], CLUSTER);
    script.pass(399 * MS);
    assert!(script.requests().is_empty());
    script.pass(2 * MS);
    let sent = script.request();
    assert_eq!(sent.node, 3);
    let born_ms = clock::to_ms(sent.request.operation.birth);
    assert!(born_ms >= CLOCK_MS, "born by the nodes' clock: {born_ms}");
}

#[test]
fn a_short_deadline_is_not_spent_on_nodes_that_do_not_answer() {
    let mut script = Script::new(5);
    script.session.options.deadline_us = 200 * MS;
    script.submit(put("k"), 1);
    script.greet(&[3], CLUSTER);
    script.pass(51 * MS);
    assert_eq!(script.request().node, 3);
}

/// The nodes of the intended cluster are slow; a machine of an earlier cluster is not.
#[test]
fn a_node_of_a_cluster_of_few_that_answers_first_is_not_believed_at_once() {
    let mut script = Script::new(3);
    script.submit(put("k"), 1);
    script.greet(&[0], OTHER);
    script.pass(390 * MS);
    script.greet(&[1, 2], CLUSTER);
    assert_ne!(script.request().node, 0);
}

#[test]
fn a_majority_that_tells_another_cluster_later_ends_the_calls() {
    let mut script = Script::new(3);
    script.submit(put("a"), 1);
    script.greet(&[0], OTHER);
    script.pass(401 * MS);
    let written = script.request();
    assert_eq!(written.node, 0);
    script.submit(get("b"), 2);
    script.requests();
    script.greet(&[1], CLUSTER);
    assert!(script.is_pending(), "one of each is no majority");
    script.greet(&[2], CLUSTER);
    let read = script.completion();
    assert_eq!((read.tag, read.result), (2, Err(TWO_CLUSTERS)));
    script.submit(put("c"), 3);
    let new = script.completion();
    assert_eq!((new.tag, new.result), (3, Err(TWO_CLUSTERS)));
    // An operation that was sent earlier may have been applied, so it is not sent to the other
    // cluster.
    script.pass(400 * MS);
    assert!(script.requests().iter().all(|sent| sent.node == 0));
    script.answer(&written, super::written());
    let done = script.completion();
    assert!(done.tag == 1 && done.result.is_ok(), "{done:?}");
    // A node that leaves the majority's cluster does not make the first cluster the right one.
    script.submit(put("d"), 4);
    script.pass(300 * MS);
    script.greet(&[1, 2], 0);
    assert_eq!(script.result(), Err(TWO_CLUSTERS));
    script.submit(put("e"), 5);
    assert_eq!(script.result(), Err(TWO_CLUSTERS));
}

#[test]
fn a_majority_that_confirms_the_cluster_later_makes_it_sure() {
    let mut script = Script::new(3);
    script.submit(put("a"), 1);
    script.greet(&[0], CLUSTER);
    script.pass(401 * MS);
    let sent = script.request();
    script.greet(&[1], CLUSTER);
    script.answer(&sent, written());
    script.result().unwrap();
    // The addresses of two of the nodes now belong to another cluster.
    script.submit(put("b"), 2);
    script.pass(20 * MS);
    script.greet(&[1, 2], OTHER);
    let sent = script.requests().pop().expect("sent");
    script.answer(&sent, written());
    script.result().unwrap();
}

#[test]
fn nothing_is_sent_to_a_node_that_has_no_cluster_yet() {
    let mut script = Script::new(3);
    script.submit(put("a"), 1);
    script.greet(&[0, 1, 2], 0);
    script.pass(600 * MS);
    assert!(script.requests().is_empty());
    script.greet(&[0, 1], CLUSTER);
    let sent = script.request();
    script.answer(&sent, written());
    script.result().unwrap();
    // The same holds once the cluster is known.
    for tag in 0..20 {
        script.submit(put(&format!("k{tag}")), tag);
        script.pass(20 * MS);
        script.greet(&[2], 0);
        let sent = script.requests().pop().expect("sent");
        assert_ne!(sent.node, 2);
        script.answer(&sent, written());
        script.result().unwrap();
    }
    let mut none = Script::new(1);
    none.submit(put("a"), 1);
    none.greet(&[0], 0);
    none.pass(1_100 * MS);
    let Err(CallError::NoQuorum { detail }) = none.result() else {
        panic!("nobody serves");
    };
    assert!(detail.contains("belongs to no cluster yet"), "{detail}");
}

#[test]
fn nodes_of_two_clusters_are_an_error_and_nothing_is_sent() {
    let mut script = Script::new(3);
    script.submit(put("a"), 1);
    script.greet(&[0], OTHER);
    script.greet(&[1], CLUSTER);
    assert!(
        script.session.poll_completion().is_none(),
        "the third decides"
    );
    script.pass(401 * MS);
    assert_eq!(script.result(), Err(TWO_CLUSTERS));
    script.submit(put("b"), 2);
    assert_eq!(script.result(), Err(TWO_CLUSTERS));
    assert!(script.requests().is_empty());
}

/// One machine of an earlier cluster still runs.
#[test]
fn the_cluster_of_more_than_half_is_used_whoever_answers_first() {
    let mut script = Script::new(4);
    script.submit(put("k"), 1);
    script.greet(&[0], OTHER);
    script.greet(&[1, 2], CLUSTER);
    assert!(script.requests().is_empty());
    script.greet(&[3], CLUSTER);
    assert_ne!(script.request().node, 0);
}

#[test]
fn all_have_answered_and_no_cluster_has_more_than_half() {
    let mut script = Script::new(2);
    script.submit(put("k"), 1);
    script.greet(&[0], OTHER);
    script.greet(&[1], CLUSTER);
    assert_eq!(script.result(), Err(TWO_CLUSTERS));
    assert_eq!(script.session.next_timeout(), None);
}

#[test]
fn a_cluster_that_is_named_is_used_whoever_answers_first() {
    let mut script = Script::of_cluster(3, CLUSTER);
    script.submit(put("a"), 1);
    script.greet(&[0, 1], OTHER);
    assert_eq!(script.session.counters().foreign, 2);
    script.pass(100 * MS);
    assert!(script.requests().is_empty());
    script.greet(&[2], CLUSTER);
    assert_eq!(script.request().node, 2);
}

/// The address of a node that is down now belongs to another cluster.
#[test]
fn a_client_stays_with_its_cluster_though_only_another_one_answers() {
    let mut script = Script::new(2);
    script.submit(put("k"), 1);
    script.greet(&[0, 1], CLUSTER);
    let sent = script.request();
    script.answer(&sent, written());
    assert!(script.completion().result.is_ok());
    // All nodes are silent; then one address answers as a node of another cluster.
    script.submit(put("new"), 2);
    script.pass(400 * MS);
    script.requests();
    for _ in 0..800 {
        script.greet(&[0, 1], OTHER);
        script.pass(10 * MS);
    }
    assert!(script.requests().is_empty());
    // The operation was sent to the first cluster, and no node of it has answered.
    assert_eq!(script.result(), Err(CallError::UnknownOutcome));
    script.submit(put("newer"), 3);
    for _ in 0..200 {
        script.greet(&[0, 1], OTHER);
        script.pass(10 * MS);
    }
    assert!(script.requests().is_empty());
    let Err(CallError::NoQuorum { detail }) = script.result() else {
        panic!("no node of its cluster answers");
    };
    let words = "belongs to cluster 000000000000004e, not 000000000000004d";
    assert!(detail.contains(words), "{detail}");
}
