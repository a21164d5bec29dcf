use std::collections::HashMap;
use std::sync::Mutex;

use super::*;

/// The addresses of names, which a test may change. Lookups of other names do not end within a
/// test.
#[derive(Default, Clone)]
struct Names(Arc<Mutex<HashMap<String, Vec<SocketAddr>>>>);

impl Names {
    fn set(&self, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|address| at(address)).collect();
        self.0.lock().unwrap().insert(name.to_owned(), addresses);
    }

    fn resolver(&self) -> Resolver {
        let names = self.clone();
        Arc::new(move |name| {
            let found = names.0.lock().unwrap().get(name).cloned();
            if found.is_none() {
                std::thread::sleep(LONG);
            }
            match found.unwrap_or_default() {
                none if none.is_empty() => Err(io::Error::other("no such name")),
                found => Ok(found),
            }
        })
    }
}

const LONG: Duration = Duration::from_secs(60);

fn at(address: &str) -> SocketAddr {
    address.parse().unwrap()
}

fn look_ups(names: &Names, nodes: &str) -> LookUps {
    LookUps::new(address::parse_all(nodes).unwrap(), false, names.resolver())
}

/// Waits for the next node that moved.
fn moved(look_ups: &mut LookUps) -> Option<(usize, SocketAddr)> {
    while look_ups.under_way > 0 {
        let moved = look_ups.poll_moved();
        if moved.is_some() {
            return moved;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    None
}

#[test]
fn what_resolves_is_used_and_the_rest_is_told() {
    let names = Names::default();
    names.set("n1:1", &["10.0.0.1:1"]);
    names.set("n2:1", &[]);
    let mut look_ups = look_ups(&names, "n1:1 n2:1 n3:1 10.0.0.4:1 10.0.0.1:1");
    look_ups.first(LONG).unwrap();
    // The last name has the address of the first one.
    assert_eq!(look_ups.names(), ["n1:1", "n2:1", "n3:1", "10.0.0.4:1"]);
    let known = [Some(at("10.0.0.1:1")), None, None, Some(at("10.0.0.4:1"))];
    assert_eq!(look_ups.addresses(), known);
    let unresolved = look_ups.unresolved();
    assert_eq!(
        unresolved[0],
        ("n2:1".to_owned(), "no such name".to_owned())
    );
    assert!(
        unresolved[1].1.contains("has not answered"),
        "{unresolved:?}"
    );
}

#[test]
fn none_that_resolves_is_an_error_that_names_one_within_the_time() {
    let names = Names::default();
    let error = look_ups(&names, "n1:1 n2:1").first(Duration::from_millis(50));
    let text = error.unwrap_err().to_string();
    assert!(
        text.contains("n1:1") && text.contains("within 50ms"),
        "{text}"
    );
    names.set("n1:1", &[]);
    let text = look_ups(&names, "n1:1")
        .first(LONG)
        .unwrap_err()
        .to_string();
    assert!(text.contains("no such name"), "{text}");
}

#[test]
fn a_name_is_looked_up_again_ever_less_often_while_it_seems_moved() {
    let names = Names::default();
    names.set("n1:1", &["10.0.0.1:1"]);
    let mut look_ups = look_ups(&names, "n1:1");
    look_ups.first(LONG).unwrap();
    let mut asked_s = Vec::new();
    for now_ms in 0..30_000 {
        look_ups.again(now_ms * 1_000, 0, true);
        if look_ups.under_way > 0 {
            assert_eq!(moved(&mut look_ups), None);
            asked_s.push(now_ms / 1_000);
        }
    }
    assert_eq!(asked_s, [1, 3, 7, 15, 23]);
    names.set("n1:1", &["10.0.0.2:1"]);
    look_ups.again(31_000_000, 0, true);
    assert_eq!(moved(&mut look_ups), Some((0, at("10.0.0.2:1"))));
    // The node answered and became silent again: the wait is as short as at first.
    look_ups.again(31_500_000, 0, false);
    look_ups.again(32_499_999, 0, true);
    assert_eq!(look_ups.under_way, 0);
    look_ups.again(32_500_000, 0, true);
    assert_eq!(look_ups.under_way, 1);
}

#[test]
fn names_that_take_each_others_addresses_are_sorted_out() {
    let names = Names::default();
    names.set("n1:1", &["10.0.0.1:1"]);
    names.set("n2:1", &["10.0.0.2:1"]);
    let mut look_ups = look_ups(&names, "n1:1 n2:1");
    look_ups.first(LONG).unwrap();
    names.set("n1:1", &["10.0.0.3:1"]);
    names.set("n2:1", &["10.0.0.1:1"]);
    // Another node answers at the address of the first one.
    look_ups.again(1_000_000, 1, true);
    assert_eq!(moved(&mut look_ups), None);
    look_ups.again(1_000_000, 0, false);
    assert_eq!(moved(&mut look_ups), Some((0, at("10.0.0.3:1"))));
    look_ups.again(3_000_000, 1, true);
    assert_eq!(moved(&mut look_ups), Some((1, at("10.0.0.1:1"))));
}
