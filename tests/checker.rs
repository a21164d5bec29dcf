//! Tests the checker of histories with histories whose verdict is known, and compares it with a
//! naive checker.

#[path = "checker/naive.rs"]
mod naive;
mod sim;
#[path = "checker/text.rs"]
mod text;

use proptest::prelude::*;
use sim::checker::{CheckVerdict, check, check_within};
use text::history;

const EFFORT_MAX: u64 = 100_000;

fn is_linearizable(text: &str) -> bool {
    let calls = history(text);
    let verdict = check(&calls, EFFORT_MAX);
    assert_ne!(verdict, CheckVerdict::Undecided, "{text}");
    assert_eq!(
        verdict == CheckVerdict::Linearizable,
        naive::is_linearizable(&calls),
        "the twin: {text}"
    );
    verdict == CheckVerdict::Linearizable
}

/// Histories that a register explains. Each line: called-ended, action, `->`, outcome at version.
const GOOD: &[(&str, &str)] = &[
    ("nothing", ""),
    ("a get of nothing", "1-2 get -> absent"),
    ("write, then read", "1-2 put a -> w@5\n3-4 get -> a@5"),
    (
        "a read during a write sees it",
        "1-9 put a -> w@5\n2-3 get -> a@5",
    ),
    (
        "a read during a write does not see it",
        "1-9 put a -> w@5\n2-3 get -> absent\n4-5 get -> a@5",
    ),
    (
        "overlapping writes in the order of versions",
        "1-9 put a -> w@7\n2-8 put b -> w@6\n10-11 get -> a@7",
    ),
    (
        "old values chain",
        "1-2 put a+ -> w@1 over -\n3-4 put b+ -> w@2 over a\n5-6 del+ -> w@3 over b",
    ),
    (
        "an old value forgotten",
        "1-2 put a -> w@1\n3-4 put b+ -> w@2 over ?",
    ),
    (
        "an unknown write seen",
        "1-2 put a -> unknown\n3-4 get -> a@9\n5-6 get -> a@9",
    ),
    (
        "an unknown write never seen",
        "1-2 put a -> unknown\n3-4 get -> absent\n5-6 put b+ -> w@1 over -",
    ),
    (
        "an unknown write that happens late",
        "1-2 put a -> unknown\n3-4 get -> absent\n5-6 get -> a@3",
    ),
    (
        "an open write after its client's death",
        "1-* put a -> open\n3-4 put b -> w@4\n5-6 get -> a@8",
    ),
    (
        "an unknown write takes a version between",
        "1-2 put a -> w@3\n3-4 put b -> unknown\n5-6 put c+ -> w@9 over b",
    ),
    (
        "surely not done, and not seen",
        "1-2 put a -> noquorum\n3-4 put b -> busy\n5-6 get -> absent",
    ),
    (
        "a read that failed says nothing",
        "1-2 put a -> w@1\n3-4 get -> noquorum\n5-6 get -> timeout\n7-8 get -> unknown",
    ),
    (
        "compare version, held and not",
        "1-2 put a -> w@3\n3-4 casv 3 b -> w@5\n5-6 casv 3 c -> c@5\n7-8 get -> b@5",
    ),
    (
        "compare version over nothing",
        "1-2 casv 0 b -> c@0\n3-4 put a -> w@3\n5-6 del -> w@4\n7-8 casv 4 b -> c@0",
    ),
    (
        "compare value",
        "1-2 put a -> w@3\n3-4 cas a b+ -> w@5 over a\n5-6 cas a c+ -> c@5 over b",
    ),
    (
        "put if absent",
        "1-2 pia a -> w@1\n3-4 pia b+ -> c@1 over a\n5-6 del -> w@2\n7-8 pia c -> w@3",
    ),
    (
        "numbers",
        "1-2 add 5 -> w@1 = 5\n3-4 add -7+ -> w@2 = -2 over 5\n5-6 get -> -2@2",
    ),
    (
        "what is not a number",
        "1-2 put a -> w@1\n3-4 add 1 -> nan\n5-6 put 9223372036854775807 -> w@2\n7-8 add 1 -> overflow",
    ),
    (
        "appends",
        "1-2 app a -> w@1\n3-4 app b -> w@2\n5-6 get -> ab@2",
    ),
    (
        "an unknown append between",
        "1-2 app a -> w@1\n3-4 app b -> unknown\n5-6 app c -> w@9\n7-8 get -> abc@9",
    ),
    (
        "deletes",
        "1-2 del -> nothing\n3-4 put a -> w@1\n5-6 del -> w@2\n7-8 del -> nothing\n9-10 get -> absent",
    ),
    (
        "an unknown delete explains absence",
        "1-2 put a -> w@1\n3-4 del -> unknown\n5-6 get -> a@1\n7-8 get -> absent\n9-10 put b -> w@3",
    ),
    (
        "an unknown compare-and-swap at a version seen",
        "1-2 put a -> w@1\n3-4 casv 1 b -> unknown\n5-6 get -> b@2",
    ),
    (
        "an unknown write's version is fixed at the compare",
        "1-2 put a -> unknown\n3-4 casv 7 b -> w@8\n5-6 get -> b@8",
    ),
    (
        "two unknown adds, both needed",
        "1-2 add 1 -> unknown\n3-4 add 1 -> unknown\n5-6 get -> 2@9",
    ),
    (
        "reads of one version by two",
        "1-9 put a -> w@1\n2-5 get -> a@1\n3-4 get -> a@1\n10-11 get -> a@1",
    ),
    (
        "a key with a time to live is gone at some time",
        "1-2 for 9 a -> w@1\n3-4 get -> a@1\n5-6 get -> absent\n7-8 put b+ -> w@3 over -",
    ),
    (
        "a key gets a time to live",
        "1-2 put a -> w@1\n3-4 expire 9 -> w@1\n5-6 get -> a@1\n7-8 get -> absent",
    ),
    (
        "an unknown time to live",
        "1-2 put a -> w@1\n3-4 expire 9 -> unknown\n5-6 get -> absent",
    ),
    (
        "what is appended keeps the time to live",
        "1-2 for 9 a -> w@1\n3-4 app b -> w@2\n5-6 get -> ab@2\n7-8 get -> absent",
    ),
];

/// Histories that no register explains.
const BAD: &[(&str, &str)] = &[
    ("a value from nowhere", "1-2 get -> a@1"),
    (
        "an acknowledged write is lost",
        "1-2 put a -> w@5\n3-4 get -> absent",
    ),
    (
        "a stale read",
        "1-2 put a -> w@1\n3-4 put b -> w@2\n5-6 get -> a@1",
    ),
    (
        "two reads go back in time",
        "1-9 put a -> w@2\n2-3 get -> a@2\n4-5 get -> absent",
    ),
    (
        "a read before the write was called",
        "1-2 get -> a@1\n3-4 put a -> w@1",
    ),
    (
        "one version for two writes",
        "1-9 put a -> w@2\n2-8 put b -> w@2",
    ),
    ("a version that falls", "1-2 put a -> w@9\n3-4 put b -> w@4"),
    (
        "a read tells another version than the write",
        "1-2 put a -> w@1\n3-4 get -> a@2",
    ),
    (
        "one version for two values",
        "1-2 put a -> unknown\n1-2 put b -> unknown\n3-4 get -> a@5\n5-6 get -> b@5",
    ),
    (
        "the version of one value changes",
        "1-2 put a -> unknown\n3-4 get -> a@5\n5-6 get -> a@6",
    ),
    (
        "a refused write is seen",
        "1-2 put a -> noquorum\n3-4 get -> a@1",
    ),
    (
        "a busy write is seen",
        "1-2 put a -> w@1\n3-4 app b -> busy\n5-6 get -> ab@2",
    ),
    (
        "a refused delete is seen",
        "1-2 put a -> w@1\n3-4 del -> noquorum\n5-6 get -> absent",
    ),
    ("applied twice", "1-2 add 1 -> w@1 = 1\n3-4 get -> 2@2"),
    (
        "an unknown write seen twice, with another between",
        "1-2 put a -> unknown\n3-4 put b -> w@5\n5-6 get -> a@7\n7-8 put c -> w@8\n9-10 get -> a@9",
    ),
    (
        "an unknown append applied twice",
        "1-2 app b -> unknown\n3-4 get -> bb@2",
    ),
    (
        "a wrong old value",
        "1-2 put a -> w@1\n3-4 put b+ -> w@2 over -",
    ),
    ("an old value not told", "1-2 put a+ -> w@1"),
    (
        "two compare-and-swaps win",
        "1-2 put a -> w@1\n3-9 casv 1 b -> w@2\n4-8 casv 1 c -> w@3",
    ),
    (
        "compare version over another version",
        "1-2 put a -> w@1\n3-4 casv 2 b -> w@3",
    ),
    (
        "a conflict with what holds",
        "1-2 put a -> w@1\n3-4 casv 1 b -> c@1",
    ),
    (
        "a conflict over nothing names a version",
        "1-2 casv 0 b -> c@3",
    ),
    (
        "a conflict names another version",
        "1-2 put a -> w@1\n3-4 pia b -> c@2",
    ),
    ("two create", "1-9 pia a -> w@1\n2-8 pia b -> w@2"),
    (
        "a delete of nothing beside a key",
        "1-2 put a -> w@1\n3-4 del -> nothing",
    ),
    ("a delete of nothing succeeds", "1-2 del -> w@1"),
    (
        "a sum that does not fit",
        "1-2 add 1 -> w@1 = 1\n3-4 add 1 -> w@2 = 3",
    ),
    (
        "not a number, but it is",
        "1-2 add 1 -> w@1 = 1\n3-4 add 1 -> nan",
    ),
    (
        "appends in no order",
        "1-2 app a -> w@1\n3-4 app b -> w@2\n5-6 get -> ba@2",
    ),
    (
        "a deleted key comes back",
        "1-2 put a -> w@1\n3-4 del -> w@2\n5-6 get -> a@1",
    ),
    (
        "a write after a delete with a lower version",
        "1-2 put a -> w@5\n3-4 del -> w@6\n5-6 put b -> w@6",
    ),
    (
        "a retry's conflict, then the first attempt",
        "1-2 put a -> w@1\n3-4 casv 1 b -> c@1\n5-6 get -> b@2",
    ),
    (
        "no version left for an unknown write",
        "1-2 put a -> w@3\n3-4 put b -> unknown\n5-6 put c+ -> w@4 over b",
    ),
    (
        "an expired key does not come back",
        "1-2 for 9 a -> w@1\n3-4 get -> absent\n5-6 get -> a@1",
    ),
    (
        "a comparison that failed because the key had expired",
        "1-2 for 9 a -> w@1\n3-4 casv 1 b -> c@0\n5-6 get -> a@1",
    ),
    (
        "a key without a time to live is not gone",
        "1-2 for 9 a -> w@1\n3-4 persist -> w@1\n5-6 get -> absent",
    ),
    (
        "a put removes the time to live",
        "1-2 for 9 a -> w@1\n3-4 put b -> w@2\n5-6 get -> absent",
    ),
    (
        "a new time to live has no version",
        "1-2 put a -> w@1\n3-4 expire 9 -> w@2\n5-6 get -> a@2",
    ),
];

#[test]
fn good_histories_are_linearizable() {
    for (name, text) in GOOD {
        assert!(is_linearizable(text), "{name}:\n{text}");
    }
}

#[test]
fn bad_histories_are_not() {
    for (name, text) in BAD {
        assert!(!is_linearizable(text), "{name}:\n{text}");
    }
}

#[test]
fn a_counterexample_is_short() {
    let mut text = String::new();
    for n in 1..=50 {
        text += &format!("{}-{} put v{n} -> w@{n}\n", n * 10, n * 10 + 1);
        text += &format!("{}-{} get -> v{n}@{n}\n", n * 10 + 2, n * 10 + 3);
    }
    let stale =
        text.clone() + "600-601 get -> v50@50\n602-603 get -> v17@17\n700-701 get -> v50@50\n";
    let CheckVerdict::Violation(calls) = check(&history(&stale), EFFORT_MAX) else {
        panic!("a stale read passed");
    };
    assert_eq!(calls.len(), 2);
    let lost = text + "600-601 app x -> w@60\n602-603 get -> v50y@60\n700-701 get -> v50@61\n";
    let CheckVerdict::Violation(calls) = check(&history(&lost), EFFORT_MAX) else {
        panic!("a wrong append passed");
    };
    assert_eq!(
        calls.len(),
        3,
        "a write to start from, the append, and the read: {calls:#?}"
    );
}

/// The store is correct, and many concurrent clients often get no answer.
#[test]
fn long_histories_with_many_unknown_writes_are_decided_quickly() {
    for seed in 0..100 {
        for (count, width, lost) in [(200, 8, 20), (400, 16, 20)] {
            let calls = naive::run_of_a_register(seed, count, width, lost);
            assert_eq!(
                check(&calls, EFFORT_MAX),
                CheckVerdict::Linearizable,
                "seed {seed}"
            );
        }
    }
}

/// One unit of the histories is 2 ms.
#[test]
fn keys_expire_in_time() {
    let first = "1-2 for 100 a -> w@1\n";
    for (then, error_us, fits) in [
        ("20-21 get -> a@1", 0, true),
        ("20-21 get -> absent", 0, false),
        ("20-60 get -> absent", 0, true),
        ("60-61 get -> absent", 0, true),
        ("60-61 get -> a@1", 0, false),
        ("20-21 get -> absent", 70_000, true),
        ("60-61 get -> a@1", 70_000, true),
    ] {
        let calls = history(&format!("{first}{then}"));
        let verdict = check_within(&calls, EFFORT_MAX, Some(error_us));
        let expected = verdict == CheckVerdict::Linearizable;
        assert_eq!(expected, fits, "{then}: {verdict:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_the_naive_twin(steps in prop::collection::vec(naive::any_step(), 1..7), spoil in any::<Option<(u8, u8)>>()) {
        let calls = naive::small_run(&steps, spoil);
        let verdict = check(&calls, EFFORT_MAX);
        prop_assert_ne!(&verdict, &CheckVerdict::Undecided);
        prop_assert_eq!(verdict == CheckVerdict::Linearizable, naive::is_linearizable(&calls));
    }
}
