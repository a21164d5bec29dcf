//! When the client sends from another port.

use super::super::node::Node;
use super::*;

#[test]
fn another_port_is_tried_after_a_silence_of_all_ever_less_often() {
    another_port_is_tried(1, &[2_000, 4_000, 8_000, 8_000]);
    another_port_is_tried(2, &[4_000, 8_000, 8_000]);
}

fn another_port_is_tried(nodes: usize, expected_ms: &[u64]) {
    let mut script = Script::started(nodes);
    let mut silent_ms = None;
    let mut tried_ms = Vec::new();
    script.submit(put("k"), 1);
    for _ in 0..40_000 {
        script.pass(MS);
        script.drain();
        if script.session.in_flight() == 0 {
            script.submit(put("k"), 1);
        }
        let all_are_asked = script.session.nodes.iter().all(Node::is_gone);
        if all_are_asked {
            silent_ms.get_or_insert(script.now_us / MS);
        }
        if script.session.wants_new_port(script.now_us) {
            tried_ms.push(script.now_us / MS);
        }
    }
    let mut last_ms = silent_ms.expect("nodes that do not answer");
    let waits = tried_ms
        .iter()
        .map(|at_ms| at_ms - std::mem::replace(&mut last_ms, *at_ms));
    let waits: Vec<u64> = waits.collect();
    assert!(waits.starts_with(expected_ms), "{tried_ms:?}");
    // A node answers: the next silence counts as the first one.
    let hello = script
        .hellos
        .last()
        .cloned()
        .expect("one is asked again and again");
    script.answer_hello(hello.0, &hello.1);
    let now_us = script.now_us;
    assert!(!script.session.wants_new_port(now_us));
    assert!(!script.session.wants_new_port(now_us + 1_000 * MS));
}
