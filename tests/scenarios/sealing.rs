//! E3: the evidence that is needed about every key before a joint configuration is completed.

use crate::scenarios::changes::{are_all_members, has_members};
use crate::sim::script::{Script, append, msg};

fn lose_copies(c: &mut Script) {
    for name in ["Copy", "CopiesRequest"] {
        c.lose(msg(name));
    }
}

/// Two keys of one bucket are written at nodes 2, 3 and 4; the last two fail, so in the new
/// configuration only node 2 holds the acknowledged values. With `apart` the repair rounds of the
/// second key complete long after those of the first.
fn two_keys_of_a_bucket_at_one_node(c: &mut Script, apart: bool) {
    let first = c.key_of(2);
    let second = c.key_beside(&first);
    let (zero, two) = (c.client_of(&[0]), c.client_of(&[2]));
    c.put(zero, &first, "a");
    c.put(zero, &second, "a");
    c.run_ms(500);
    lose_copies(c);
    c.lose(msg("Forward"));
    for far in [0, 1] {
        c.lose(msg("Accept").from(2).to(far));
    }
    c.run(two, &first, append("b"));
    c.run(two, &second, append("b"));
    if apart {
        c.lose(msg("Prepare").about(&second));
        c.lose(msg("Accept").about(&second));
    }
    c.crash_hard(4);
    c.crash_hard(3);
    c.run_ms(4_000);
    assert!(!apart || !has_members(c, &[0, 1, 2], &[1, 2, 3]));
    c.let_pass();
    lose_copies(c);
    c.until("three members", |c| has_members(c, &[0, 1, 2], &[1, 2, 3]));
    c.cut(&[0, 1], &[2]);
    c.run_ms(600);
    assert_eq!(c.get(zero, &first), "ab");
    assert_eq!(c.get(zero, &second), "ab");
    c.check();
}

#[test]
pub fn e3_a_bucket_is_settled_once_all_its_keys_are_mended() {
    let mut c = Script::shrinking(5, 1);
    two_keys_of_a_bucket_at_one_node(&mut c, true);
}

/// Evidence of an earlier change says nothing about what was written since.
#[test]
pub fn e3_a_second_change_by_one_node_gathers_its_own_evidence() {
    let mut c = Script::shrinking(5, 1);
    c.crash_hard(4);
    c.until("four members", |c| {
        has_members(c, &[0, 1, 2, 3], &[1, 2, 3, 4])
    });
    c.cluster.start(4);
    c.until("five members", are_all_members);
    c.run_ms(500);
    two_keys_of_a_bucket_at_one_node(&mut c, false);
}
