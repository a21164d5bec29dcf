//! One cluster for the life of a client, whatever answers at the given addresses.

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

impl Script {
    /// Answers the hellos to these nodes, as nodes of that cluster.
    fn greet(&mut self, nodes: &[usize], cluster: u64) {
        let (answered, left): (Vec<_>, Vec<_>) = std::mem::take(&mut self.hellos)
            .into_iter()
            .partition(|(node, _)| nodes.contains(node));
        self.hellos = left;
        for (node, hello) in answered {
            self.answer_hello_as(node, &hello, cluster);
        }
    }
}

#[test]
fn one_answer_is_enough_once_the_others_had_their_time() {
    let mut script = Script::new(5);
    script.submit(put("k"), 1);
    script.greet(&[3], CLUSTER);
    script.pass(19 * MS);
    assert!(script.requests().is_empty());
    script.pass(2 * MS);
    let sent = script.request();
    assert_eq!(sent.node, 3);
    let born_ms = clock::to_ms(sent.request.operation.birth);
    assert!(born_ms >= CLOCK_MS, "born by the nodes' clock: {born_ms}");
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
    script.pass(21 * MS);
    assert_eq!(script.result(), Err(TWO_CLUSTERS));
    script.submit(put("b"), 2);
    assert_eq!(script.result(), Err(TWO_CLUSTERS));
    assert!(script.requests().is_empty());
}

/// One machine of an earlier cluster is still there.
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

/// An address of a node that is down now belongs to another cluster.
#[test]
fn a_client_stays_with_its_cluster_though_only_another_one_answers() {
    let mut script = Script::new(2);
    script.submit(put("k"), 1);
    script.greet(&[0, 1], CLUSTER);
    let sent = script.request();
    script.answer(&sent, written());
    assert!(script.completion().result.is_ok());
    // All are silent; then one answers as a node of another cluster.
    script.submit(put("new"), 2);
    script.pass(400 * MS);
    script.requests();
    script.greet(&[0, 1], OTHER);
    script.pass(3_000 * MS);
    script.greet(&[0, 1], OTHER);
    assert!(script.requests().is_empty());
    script.pass(5_000 * MS);
    // It was sent to the first cluster, and nobody of it has answered.
    assert_eq!(script.result(), Err(CallError::UnknownOutcome));
    script.submit(put("newer"), 3);
    script.pass(100 * MS);
    script.greet(&[0, 1], OTHER);
    script.pass(2_000 * MS);
    assert!(script.requests().is_empty());
    let Err(CallError::NoQuorum { detail }) = script.result() else {
        panic!("no node of its cluster answers");
    };
    let words = "is of cluster 000000000000004e, not 000000000000004d";
    assert!(detail.contains(words), "{detail}");
}
