//! The session continues whatever input it receives.

use proptest::prelude::*;

use super::*;

/// Bodies that decode, with arbitrary numbers.
fn any_body() -> impl Strategy<Value = (u8, Vec<u8>)> {
    fn encoded(kind: u8, body: &impl Serialize) -> (u8, Vec<u8>) {
        let mut bytes = Vec::new();
        wire::encode(&mut bytes, body);
        (kind, bytes)
    }
    let outcome = prop_oneof![
        Just(Outcome::Absent),
        Just(written()),
        Just(conflict()),
        Just(no_quorum()),
        Just(Outcome::Busy { after_ms: 0 }),
        Just(Outcome::Unknown),
        any::<u64>().prop_map(|dropped| Outcome::Remake { dropped }),
        any::<u64>().prop_map(|clock| Outcome::Ahead { clock }),
        any::<u64>().prop_map(|limit| Outcome::TooLarge { limit }),
    ];
    prop_oneof![
        (any::<u8>(), prop::collection::vec(any::<u8>(), 0..100)),
        (any::<u64>(), any::<u64>(), outcome).prop_map(|(attempt, clock, outcome)| encoded(
            kind::ANSWER,
            &Answer {
                attempt,
                clock,
                outcome
            }
        )),
        (any::<u64>(), any::<u64>())
            .prop_map(|(token, attempt)| encoded(kind::NO_SESSION, &NoSession { token, attempt })),
    ]
}

proptest! {
    #[test]
    fn arbitrary_frames_change_nothing_for_a_call(
        frames in prop::collection::vec((0..5usize, any_body()), 0..60),
    ) {
        let mut script = Script::started(3);
        script.submit(put("k"), 1);
        let sent = script.request();
        for (node, (kind, body)) in frames {
            script.session.handle_frame(script.now_us, node, kind, &body);
            script.drain();
        }
        prop_assert!(script.is_pending());
        script.answer(&sent, written());
        prop_assert_eq!(script.result(), Ok(written()));
    }

    /// Numbers that match: answers of every kind and clock to attempts that were sent.
    #[test]
    fn any_outcome_to_any_attempt_ends_a_call_once(
        words in prop::collection::vec((0..10u8, any::<u64>(), 0..8usize), 1..80),
        read in any::<bool>(),
    ) {
        let mut script = Script::started(3);
        script.submit(if read { get("k") } else { put("k") }, 1);
        let mut all = Vec::new();
        for (word, number, which) in words {
            script.pass(number % (20 * MS));
            script.greet_all();
            all.append(&mut script.requests);
            let sent: &Sent = &all[which % all.len()].clone();
            let outcome = match word {
                0 => Outcome::Absent,
                1 => written(),
                2 => conflict(),
                3 => no_quorum(),
                4 => Outcome::Busy { after_ms: 0 },
                5 => Outcome::Unknown,
                6 => Outcome::Remake { dropped: number },
                7 => Outcome::TooLarge { limit: number },
                8 => { script.answer_no_session(sent); continue }
                _ => Outcome::NothingToDelete,
            };
            let answer = Answer { attempt: sent.request.attempt, clock: number, outcome };
            script.frame(sent.node, kind::ANSWER, &answer);
        }
        script.pass(6_000 * MS);
        prop_assert_eq!(script.completion().tag, 1);
        prop_assert!(script.is_pending());
        prop_assert_eq!(script.session.next_timeout(), None);
    }
}
