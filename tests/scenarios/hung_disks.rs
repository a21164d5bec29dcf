//! A node whose disk hangs is heard, but answers nothing: it is no more use than one that is gone.

use kvclient::wire::Outcome;

use crate::scenarios::changes::has_members;
use crate::sim::node::DiskSpeed;
use crate::sim::script::{Script, append, msg};

/// Longer than any scenario.
const FOR_EVER_MS: u64 = 10_000_000;

fn mend_disk(c: &mut Script, node: usize) {
    c.cluster.nodes[node].speed = DiskSpeed::FAST;
    c.restart(node);
}

/// It is removed, as one that is gone: else the next two failures of five take the quorum away.
#[test]
pub fn a_member_whose_disk_hangs_is_removed() {
    let mut c = Script::shrinking(5, 1);
    let client = c.client();
    c.put(client, "k", "x");
    c.slow_disk(4, FOR_EVER_MS);
    c.until("four members", |c| {
        has_members(c, &[0, 1, 2, 3], &[1, 2, 3, 4])
    });
    c.crash_hard(3);
    c.until("three members", |c| has_members(c, &[0, 1, 2], &[1, 2, 3]));
    c.crash_hard(0);
    c.run_ms(2_000);
    let outcome = c.run(client, "k", append("y"));
    assert!(matches!(outcome, Outcome::Written { .. }), "{outcome:?}");
    mend_disk(&mut c, 4);
    c.until("it is a member again", |c| c.vote_of(4).is_some());
    c.check();
}

/// A master whose disk hangs is the first to propose, and can't.
#[test]
pub fn a_master_whose_disk_hangs_is_removed() {
    let mut c = Script::shrinking(4, 1);
    c.slow_disk(0, FOR_EVER_MS);
    c.until("another master", |c| has_members(c, &[1, 2, 3], &[2, 3, 4]));
    let client = c.client();
    c.put(client, "k", "x");
    c.check();
}

/// A learner that has caught up, and then can't write any more, is no gain.
#[test]
pub fn a_learner_whose_disk_hangs_is_not_admitted() {
    let mut c = Script::shrinking(4, 1);
    c.crash_hard(3);
    c.until("three members", |c| has_members(c, &[0, 1, 2], &[1, 2, 3]));
    c.cluster.start(3);
    c.until_sent(msg("AdmissionAsked").from(3));
    c.slow_disk(3, FOR_EVER_MS);
    c.run_ms(30_000);
    assert!(has_members(&c, &[0, 1, 2], &[1, 2, 3]), "not admitted");
    let epoch = c.nodes[0]
        .replica
        .as_ref()
        .unwrap()
        .configuration()
        .unwrap()
        .epoch;
    c.run_ms(10_000);
    let replica = c.nodes[0].replica.as_ref().unwrap();
    assert_eq!(
        replica.configuration().unwrap().epoch,
        epoch,
        "and not tried"
    );
    mend_disk(&mut c, 3);
    c.until("it is a member again", |c| c.vote_of(3).is_some());
    c.check();
}

/// What a node tells of its disk, at most.
fn unsynced_max_ms(c: &Script, node: usize) -> u32 {
    use horseshoe::protocol::message::Message;
    let sent = c.sent(msg("Heartbeat").from(node));
    let told = sent.iter().filter_map(|p| match &p.envelope()?.message {
        Message::Heartbeat(h) => Some(h.rows[0].unsynced_ms),
        _ => None,
    });
    told.max().unwrap_or(0)
}

/// A disk that is slow, but gets on, costs nobody the vote.
#[test]
pub fn a_member_with_a_slow_disk_stays() {
    let mut c = Script::shrinking(5, 1);
    let client = c.client();
    c.slow_disk(4, 800);
    for _ in 0..50 {
        c.begin(client, "k", append("x"));
        c.run_ms(400);
    }
    let told = unsynced_max_ms(&c, 4);
    assert!((500..1_000).contains(&told), "{told} ms");
    assert!(c.vote_of(4).is_some());
    let epoch = |c: &Script| {
        c.nodes[0]
            .replica
            .as_ref()
            .unwrap()
            .configuration()
            .unwrap()
            .epoch
    };
    assert_eq!(epoch(&c), 1);
}
