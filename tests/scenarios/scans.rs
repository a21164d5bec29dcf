//! S1, S2: what a scan tells. `Script::check` compares each key of a page with the history of that
//! key.

use bytes::Bytes;
use horseshoe::protocol::types::ballot::Ballot;
use horseshoe::protocol::types::limits::RANGE_SIZE_MAX;
use horseshoe::protocol::types::message::{Message, Purge, RangeRequest};
use horseshoe::protocol::types::range::KeyRange;
use horseshoe::protocol::types::record::{AcceptorState, Key};
use wire::{Action, Outcome, ScanPage};

use crate::scenarios::alone::{Alone, LIFE, ballot, record};
use crate::scenarios::handoff::{are_equal, held};
use crate::sim::script::{Script, any, msg, scan};

/// One page from the first key on.
#[track_caller]
fn page(c: &mut Script, client: usize) -> ScanPage {
    match c.run(client, "\0", scan()) {
        Outcome::Page(page) => page,
        other => panic!("{other:?}"),
    }
}

/// The keys of all pages.
#[track_caller]
fn told(c: &mut Script, client: usize) -> Vec<String> {
    let mut keys = Vec::new();
    let (mut from, mut is_after) = ("\0".to_owned(), false);
    loop {
        let action = Action::Scan {
            is_after,
            end: Bytes::new(),
            limit: 0,
            keys_only: false,
            deleted: false,
        };
        let Outcome::Page(page) = c.run(client, &from, action) else {
            panic!("no page from {from:?} on");
        };
        let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).expect("text");
        keys.extend(page.entries.iter().map(|entry| text(&entry.key)));
        let Some(next) = page.next else {
            return keys;
        };
        (from, is_after) = (text(&next), true);
    }
}

/// Node 2 is up again, and receives no copies of what it has missed.
fn without_copies(c: &mut Script) {
    c.lose(msg("Copy").to(2));
    c.heal_nodes();
    c.run_ms(1_000);
}

#[test]
pub fn keys_are_told_in_order_by_any_node() {
    for page_length_max in [1, 2, usize::MAX] {
        let mut c = Script::new(5);
        c.cluster.settings.page_length_max = page_length_max;
        let client = c.client();
        for key in ["b", "d", "a", "c", "ab"] {
            c.put(client, key, key);
        }
        c.run(client, "c", Action::Delete);
        for node in 0..5 {
            let near = c.client_of(&[node]);
            assert_eq!(told(&mut c, near), ["a", "ab", "b", "d"]);
        }
        c.check();
    }
}

/// A chain in which each node reaches only its neighbours, and one of its ends dies.
#[test]
pub fn a_chain_and_what_is_left_of_it_scan() {
    let mut c = Script::new(5);
    let client = c.client();
    for key in ["a", "b", "c"] {
        c.put(client, key, key);
    }
    for node in 0..5_usize {
        let far: Vec<usize> = (0..5_usize)
            .filter(|other| other.abs_diff(node) > 1)
            .collect();
        c.cut(&[node], &far);
    }
    c.run_ms(1_500);
    let ends = [c.client_of(&[0]), c.client_of(&[4])];
    for near in ends {
        assert_eq!(told(&mut c, near), ["a", "b", "c"]);
    }
    c.crash_hard(0);
    c.run_ms(500);
    assert_eq!(told(&mut c, ends[1]), ["a", "b", "c"]);
    c.check();
}

/// The nearest members do not answer: others are asked.
#[test]
pub fn a_lost_answer_is_asked_for_again() {
    let mut c = Script::new(5);
    let client = c.client_of(&[0]);
    c.put(client, "a", "1");
    c.lose(msg("RangeEqual").from(1).to(0));
    c.lose(msg("RangeEqual").from(2).to(0));
    assert_eq!(told(&mut c, client), ["a"]);
    c.check();
}

/// Node 2 was away when the key was deleted. It knows its value to be chosen.
#[test]
pub fn s1_a_deleted_key_is_not_told() {
    let mut c = Script::new(3);
    let client = c.client_of(&[0, 1]);
    c.put(client, "k", "old");
    c.until("the same everywhere", |c| are_equal(c, "k"));
    c.run_ms(500);
    c.isolate(2);
    c.run(client, "k", Action::Delete);
    without_copies(&mut c);
    let near = c.client_of(&[2]);
    let page = page(&mut c, near);
    assert_eq!(page.entries, []);
    c.check();
}

/// Node 2 lacks `a` and `b`, and lists `c`; the others list `a` first, and then end.
#[test]
pub fn s1_a_page_ends_where_the_first_list_does() {
    let mut c = Script::new(3);
    let client = c.client_of(&[0, 1]);
    c.put(client, "c", "1");
    c.until("the same everywhere", |c| are_equal(c, "c"));
    c.run_ms(500);
    c.isolate(2);
    c.put(client, "a", "1");
    c.put(client, "b", "1");
    without_copies(&mut c);
    assert!(held(&c.cluster, 2, "a").is_none());
    c.cluster.settings.page_length_max = 1;
    let near = c.client_of(&[2]);
    let page = page(&mut c, near);
    assert_eq!(page.next, Some(Bytes::from_static(b"a")));
    c.check();
}

/// Node 2 was away when the key was put.
#[test]
pub fn s2_what_this_node_lacks_is_read() {
    let mut c = Script::new(3);
    let client = c.client_of(&[0, 1]);
    c.isolate(2);
    c.put(client, "k", "new");
    without_copies(&mut c);
    assert!(held(&c.cluster, 2, "k").is_none());
    let near = c.client_of(&[2]);
    assert_eq!(told(&mut c, near), ["k"]);
    c.check();
}

/// Only some of the values that node 2 has to read fit a page.
#[test]
pub fn large_values_that_this_node_lacks_are_told_over_several_pages() {
    let mut c = Script::new(3);
    let client = c.client_of(&[0, 1]);
    c.isolate(2);
    let large = "v".repeat(RANGE_SIZE_MAX / 3);
    let keys = ["a", "b", "c", "d", "e", "f", "g"];
    for key in keys {
        c.put(client, key, &large);
    }
    c.run(client, "c", Action::Delete);
    without_copies(&mut c);
    let near = c.client_of(&[2]);
    let first = page(&mut c, near);
    assert_eq!(first.entries.len(), 2);
    // The page reaches up to the cut, which is before `d`.
    assert_eq!(first.next, Some(Bytes::from_static(b"c")));
    assert_eq!(told(&mut c, near), ["a", "b", "d", "e", "f", "g"]);
    c.check();
}

/// Deleted keys are listed until they are purged.
#[test]
pub fn a_small_limit_behind_tombstones_takes_one_page() {
    let mut c = Script::new(3);
    let client = c.client();
    for number in 0..40 {
        let key = format!("a{number:02}");
        c.put(client, &key, "1");
        c.run(client, &key, Action::Delete);
    }
    for key in ["b", "c"] {
        c.put(client, key, "1");
    }
    let first = Action::Scan {
        is_after: false,
        end: Bytes::new(),
        limit: 1,
        keys_only: false,
        deleted: false,
    };
    let Outcome::Page(page) = c.run(client, "a", first) else {
        panic!("no page");
    };
    let keys: Vec<&Bytes> = page.entries.iter().map(|entry| &entry.key).collect();
    assert_eq!(keys, ["b"]);
    assert_eq!(page.next, Some(Bytes::from_static(b"b")));
    c.check();
}

/// A scan that is in progress when the membership changes begins again.
#[test]
pub fn a_scan_survives_a_change_of_the_membership() {
    let mut c = Script::shrinking(5, 3);
    let client = c.client_of(&[0]);
    c.put(client, "k", "1");
    c.hold(any().from(1).to(0));
    c.hold(any().from(2).to(0));
    c.hold(any().from(3).to(0));
    let call = c.begin(client, "\0", scan());
    c.run_ms(100);
    assert!(c.is_open(call));
    c.let_pass();
    c.release(any().to(0));
    c.isolate(4);
    c.run_ms(5_000);
    assert!(matches!(c.end(call), Outcome::Page(_)));
    assert_eq!(told(&mut c, client), ["k"]);
    c.check();
}

fn all() -> KeyRange {
    KeyRange {
        first: Key::user(b"\0"),
        is_after: false,
        last: None,
        is_before: true,
    }
}

fn held_at(ms: u64, life: u32, value: Option<&str>) -> AcceptorState {
    AcceptorState {
        promised: ballot(ms).next(),
        accepted: ballot(ms),
        chosen: true,
        record: Some(record(value).into()),
        life,
    }
}

#[test]
pub fn e5_an_old_record_is_in_no_page() {
    for (life, count) in [(LIFE - 1, 0), (LIFE, 1)] {
        let mut node = Alone::new(&[(Key::user(b"k"), held_at(100, life, Some("v")))]);
        let answers = node.ask(RangeRequest {
            range: all(),
            sum: 1,
        });
        let [Message::RangeReply(told)] = &answers[..] else {
            panic!("{answers:?}");
        };
        assert_eq!(told.entries.len(), count);
    }
}

/// The key is purged between the request and the list. A reader that knew only the floor from
/// before would take the value that a third node holds for the present one.
#[test]
pub fn s1_the_floor_is_no_older_than_the_list() {
    let key = Key::user(b"k");
    let mut node = Alone::new(&[(key.clone(), held_at(100, LIFE, None))]);
    let purge = Purge {
        tombstones: vec![(key.clone(), ballot(100))],
    };
    let asked = RangeRequest {
        range: all(),
        sum: 1,
    };
    let answers = node.ask_together(asked, purge);
    let [Message::RangeReply(told)] = &answers[..] else {
        panic!("{answers:?}");
    };
    assert_eq!(told.entries, []);
    assert!(
        told.floor > ballot(100) && told.floor > Ballot::ZERO,
        "{}",
        told.floor
    );
}

/// R2: what is listed is answered once it is durable, and so is the floor.
#[test]
pub fn a_list_waits_for_the_disk() {
    let key = Key::user(b"k");
    let mut node = Alone::new(&[(key.clone(), held_at(100, LIFE, None))]);
    node.syncs_nothing = true;
    node.tell(
        2,
        0,
        Purge {
            tombstones: vec![(key, ballot(100))],
        },
    );
    let asked = RangeRequest {
        range: all(),
        sum: 1,
    };
    assert_eq!(node.ask(asked), []);
    node.sync_all();
    assert_eq!(node.sent("RangeReply").len(), 1);
}
