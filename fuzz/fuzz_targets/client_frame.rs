//! What the client library does with frames from its nodes while calls are in progress.
#![no_main]

use horseshoe_fuzz::pieces;
use kvclient::Call;
use kvclient::session::{Question, Session, SessionOptions};
use wire::Action;
use libfuzzer_sys::fuzz_target;

const CALLS: u64 = 4;

fn drain(session: &mut Session, completed: &mut u64) {
    while session.poll_transmit().is_some() {}
    while session.poll_completion().is_some() {
        *completed += 1;
    }
    while session.poll_reply().is_some() {}
}

fuzz_target!(|bytes: &[u8]| {
    let options = SessionOptions {
        client: 1,
        seed: 1,
        nodes: 2,
        deadline_us: 5_000_000,
        no_quorum_after_us: 1_000_000,
        cluster: 0,
        library_version: "fuzz".to_owned(),
    };
    let mut now_us = 1;
    let mut session = Session::new(options, now_us);
    for tag in 0..CALLS {
        let action = match tag {
            0 => Action::Get,
            1 => Action::Delete,
            _ => Action::Add { delta: 1 },
        };
        session
            .submit(now_us, Call::new("key", action), tag)
            .unwrap();
    }
    session.ask(now_us, 0, Question::Status, 1_000_000, CALLS);
    let mut completed = 0;
    for piece in pieces(bytes) {
        drain(&mut session, &mut completed);
        now_us += [0, 100, 5_000, 700_000][usize::from(piece.flags >> 6)];
        session.handle_timeout(now_us);
        let node = usize::from(piece.flags & 0b11);
        session.handle_frame(now_us, node, piece.kind, piece.body);
    }
    // Every call ends exactly once, whatever the nodes sent.
    while let Some(at_us) = session.next_timeout() {
        drain(&mut session, &mut completed);
        now_us = now_us.max(at_us);
        session.handle_timeout(now_us);
    }
    drain(&mut session, &mut completed);
    assert_eq!(completed, CALLS);
});
