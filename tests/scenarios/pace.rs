//! The slowest heartbeats that the settings allow: all waits for them are long enough.

use horseshoe::protocol::types::message::ClientReply;
use wire::{Action, Outcome};

use crate::scenarios::changes::has_members;
use crate::sim::event::{Parcel, Passing};
use crate::sim::script::{Script, msg};

fn at_pace(nodes: usize, heartbeat_ms: u64, link_down_ms: u64, shrink_after_ms: u64) -> Script {
    let mut c = Script::cold(nodes);
    c.cluster.settings.heartbeat_ms = heartbeat_ms;
    c.cluster.settings.link_down_ms = link_down_ms;
    c.cluster.settings.shrink_after_ms = shrink_after_ms;
    c.cluster.start_all();
    c.until("a configuration", |c| c.is_formed());
    c.run_ms(5_000);
    c
}

/// A learner requests its admission with each heartbeat: between two heartbeats the request still
/// counts.
#[test]
pub fn a_removed_node_is_admitted_again_at_any_pace() {
    for (heartbeat_ms, link_down_ms) in [(10, 30), (500, 1_500), (1_000, 3_000)] {
        let mut c = at_pace(5, heartbeat_ms, link_down_ms, 3_000);
        c.crash_hard(4);
        c.run_ms(link_down_ms + 15_000);
        assert!(has_members(&c, &[0, 1, 2, 3], &[1, 2, 3, 4]), "removed");
        c.cluster.start(4);
        c.run_ms(40_000);
        let pace = format!("a heartbeat each {heartbeat_ms} ms, down after {link_down_ms} ms");
        assert!(c.vote_of(4).is_some(), "{pace}: not admitted again");
        c.check();
    }
}

/// Whether that answer is `no quorum`.
fn says_no_quorum(passing: &Passing) -> bool {
    let Parcel::Reply { reply } = &passing.parcel else {
        return false;
    };
    let ClientReply::Answer(answer) = reply else {
        return false;
    };
    matches!(answer.outcome, Outcome::NoQuorum { .. })
}

/// Links stay up as long as `--link-down-ms` says, and so do the rows received over them: two lost
/// heartbeats do not lose the quorum.
#[test]
pub fn slow_heartbeats_that_get_lost_do_not_lose_the_quorum() {
    let mut c = at_pace(3, 1_000, 10_000, 0);
    let client = c.client_of(&[0]);
    c.lose(msg("Heartbeat").to(0));
    for _ in 0..13 {
        c.begin(client, "k", Action::Get);
        c.run_ms(200);
    }
    let answers = c.sent(msg("Answer").from(0));
    let refused = answers.iter().filter(|passing| says_no_quorum(passing));
    assert!(answers.len() >= 13, "{} answers", answers.len());
    assert_eq!(refused.count(), 0, "of {} answers", answers.len());
}
