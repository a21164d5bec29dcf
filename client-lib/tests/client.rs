//! The client over loopback UDP, with nodes in this process.

mod balancer;
mod fake;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fake::{Node, cluster};
use kvclient::lock::{Lock, LockOptions};
use kvclient::session::IN_FLIGHT_MAX;
use kvclient::{Call, CallError, Client, ClientOptions, Completion, OpenError, Scan};
use nix::poll::{PollFd, PollFlags, poll};
use wire::{Action, Old, Outcome};

/// Far more than any step of these tests should take.
const LONG: Duration = Duration::from_secs(20);

fn open(list: &str) -> Client {
    Client::open(list, ClientOptions::default()).unwrap()
}

fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Call {
    let value = value.into();
    Call::new(key, Action::Put { value })
}

fn get(key: impl Into<Bytes>) -> Call {
    Call::new(key, Action::Get)
}

fn add(key: impl Into<Bytes>, delta: i64) -> Call {
    Call::new(key, Action::Add { delta })
}

fn is_written(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Written { .. })
}

/// Takes completions as an application's own loop does, until there are `count`.
fn collect(client: &Client, count: usize) -> Vec<Completion> {
    let mut all = Vec::new();
    let began = Instant::now();
    while all.len() < count {
        assert!(began.elapsed() < LONG, "{} of {count}", all.len());
        let mut fds = [PollFd::new(client.poll_fd(), PollFlags::POLLIN)];
        poll(&mut fds, 1_000u16).unwrap();
        client.completions(&mut all, 100);
    }
    all
}

#[test]
fn a_scan_tells_all_keys_in_order_page_by_page() {
    let (_nodes, list) = cluster(3);
    let client = open(&list);
    let names: Vec<String> = (0..20).map(|n| format!("key {n:02}")).collect();
    for name in names.iter().rev() {
        client
            .call(put(name.clone(), format!("of {name}")))
            .unwrap();
    }
    client.call(put("last", "other")).unwrap();
    let told = |scan: Scan| -> Vec<(String, Option<Bytes>)> {
        let text = |key: Bytes| String::from_utf8(key.to_vec()).unwrap();
        let entries = client.scan(scan).map(Result::unwrap);
        entries
            .map(|entry| (text(entry.key), entry.value))
            .collect()
    };
    let expected = |names: &[String]| -> Vec<(String, Option<Bytes>)> {
        let value = |name: &String| Some(format!("of {name}").into());
        names
            .iter()
            .map(|name| (name.clone(), value(name)))
            .collect()
    };
    assert_eq!(told(Scan::prefix(b"key")), expected(&names));
    assert_eq!(told(Scan::all()).len(), 21);
    assert_eq!(told(Scan::all().limit(5)), expected(&names[..5]));
    let part = Scan::all().starting_at("key 03").ending_before("key 11");
    assert_eq!(told(part), expected(&names[3..11]));
    let without = told(Scan::prefix(b"l").keys_only());
    assert_eq!(without, [("last".to_owned(), None)]);
    client.close();
    let ended: Vec<_> = client.scan(Scan::all()).collect();
    assert_eq!(ended, [Err(CallError::Closed)]);
}

#[test]
fn every_operation() {
    let (_nodes, list) = cluster(3);
    let client = open(&list);
    assert_eq!(client.call(get("k")), Ok(Outcome::Absent));
    let mut first = put("k", "one");
    first.want_old = true;
    let Ok(Outcome::Written { version, old, .. }) = client.call(first) else {
        panic!("not written");
    };
    assert_eq!(old, Old::Absent);
    let value = Bytes::from("one");
    let expected = Outcome::Value { version, value };
    assert_eq!(client.call(get("k")), Ok(expected));
    let value = Bytes::from("two");
    let call = Call::new(
        "k",
        Action::CompareVersion {
            version,
            value: value.clone(),
        },
    );
    assert!(is_written(&client.call(call.clone()).unwrap()));
    assert!(matches!(client.call(call), Ok(Outcome::Conflict { .. })));
    let expected = value.clone();
    let call = Call::new("k", Action::CompareValue { expected, value });
    assert!(is_written(&client.call(call).unwrap()));
    assert!(is_written(
        &client.call(Call::new("k", Action::Delete)).unwrap()
    ));
    assert_eq!(
        client.call(Call::new("k", Action::Delete)),
        Ok(Outcome::NothingToDelete)
    );
    let sum = client.call(add("n", -5)).unwrap();
    assert!(matches!(
        sum,
        Outcome::Written {
            number: Some(-5),
            ..
        }
    ));
    let value = Bytes::from("x");
    assert!(is_written(
        &client
            .call(Call::new("n", Action::Append { value }))
            .unwrap()
    ));
    assert_eq!(client.call(add("n", 1)), Err(CallError::NotANumber));
    let error = client.call(get("")).unwrap_err();
    assert!(matches!(error, CallError::InvalidArgument(_)));
    let large = client.call(put("k", vec![0; 48 * 1_024])).unwrap();
    assert!(is_written(&large));
}

/// Requests and answers that are transferred, from threads and from an application's loop.
#[test]
fn large_values_arrive_although_datagrams_are_lost() {
    let (nodes, list) = cluster(3);
    for node in &nodes {
        node.behaviour.lose_every.store(12, Ordering::Relaxed);
    }
    let client = open(&list);
    let value = |seed: u64| -> Bytes {
        let bytes = (0..256 << 10).map(|at| (at * 7 % 251 + seed) as u8);
        bytes.collect()
    };
    for key in 0..4 {
        let written = client.call(put(key.to_string(), value(key)));
        assert!(is_written(&written.unwrap()));
        let got = client.call(get(key.to_string()));
        assert!(matches!(got, Ok(Outcome::Value { value: got, .. }) if got == value(key)));
    }
    for key in 0..10 {
        let call = put(format!("loop {key}"), value(key));
        client.submit(call, key).unwrap();
    }
    let all = collect(&client, 10);
    assert!(
        all.iter()
            .all(|one| is_written(one.result.as_ref().unwrap()))
    );
}

#[test]
fn threads_share_a_client() {
    let (nodes, list) = cluster(3);
    nodes[1].behaviour.drop_every.store(50, Ordering::Relaxed);
    let client = open(&list);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let client = &client;
            scope.spawn(move || {
                for at in 0..300 {
                    let key = format!("{thread}/{}", at % 7);
                    client.call(add(key, 1)).unwrap();
                    client.call(add("all", 1)).unwrap();
                }
            });
        }
    });
    let all = client.call(get("all")).unwrap();
    assert!(matches!(all, Outcome::Value { value, .. } if value == "2400"));
}

#[test]
fn a_thousand_in_flight_from_one_thread() {
    let (nodes, list) = cluster(3);
    let client = open(&list);
    for round in 0..5 {
        for tag in 0..1_000 {
            client
                .submit(add(format!("k{}", tag % 100), 1), tag)
                .unwrap();
        }
        let tags: HashSet<u64> = collect(&client, 1_000)
            .into_iter()
            .map(|completion| {
                assert!(is_written(&completion.result.unwrap()));
                completion.tag
            })
            .collect();
        assert_eq!(tags.len(), 1_000, "round {round}");
    }
    let count = |pick: fn(&fake::Behaviour) -> u64| -> u64 {
        nodes.iter().map(|node| pick(&node.behaviour)).sum()
    };
    let requests = count(|b| b.requests.load(Ordering::Relaxed));
    let datagrams = count(|b| b.datagrams.load(Ordering::Relaxed));
    assert!(requests >= 5_000);
    assert!(
        datagrams * 20 < requests,
        "{requests} requests in {datagrams} datagrams"
    );
    let sum = client.call(get("k7")).unwrap();
    assert!(matches!(sum, Outcome::Value { value, .. } if value == "50"));
}

#[test]
fn threads_and_an_applications_loop_share_a_client() {
    let (nodes, list) = cluster(3);
    nodes[0].behaviour.drop_every.store(40, Ordering::Relaxed);
    let client = open(&list);
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let client = &client;
            scope.spawn(move || {
                for _ in 0..500 {
                    client.call(add(format!("sync {thread}"), 1)).unwrap();
                }
            });
        }
        for _ in 0..50 {
            for tag in 0..20 {
                client.submit(add("async", 1), tag).unwrap();
            }
            for completion in collect(&client, 20) {
                assert!(is_written(&completion.result.unwrap()));
            }
        }
    });
    let sum = client.call(get("async")).unwrap();
    assert!(matches!(sum, Outcome::Value { value, .. } if value == "1000"));
}

#[test]
fn an_idle_descriptor_is_not_readable() {
    let (_nodes, list) = cluster(1);
    let client = open(&list);
    let readable = |wait_ms: u16| {
        let mut fds = [PollFd::new(client.poll_fd(), PollFlags::POLLIN)];
        poll(&mut fds, wait_ms).unwrap() > 0
    };
    assert!(!readable(0));
    client.call(put("k", "v")).unwrap();
    client.submit(put("k", "v"), 1).unwrap();
    assert!(readable(0), "there is something to send");
    collect(&client, 1);
    // At most the timer of the completed call expires, once.
    let began = Instant::now();
    let mut none = Vec::new();
    while readable(100) {
        assert!(began.elapsed() < LONG);
        client.completions(&mut none, 1);
    }
    assert!(none.is_empty());
}

#[test]
fn what_is_not_taken_keeps_the_descriptor_readable() {
    let (_nodes, list) = cluster(1);
    let client = open(&list);
    for tag in 0..10 {
        client.submit(put("k", "v"), tag).unwrap();
    }
    let mut taken = Vec::new();
    let began = Instant::now();
    while taken.len() < 10 {
        client.wait(LONG);
        assert!(began.elapsed() < LONG);
        assert!(client.completions(&mut taken, 1) <= 1);
    }
}

#[test]
fn completions_that_nobody_takes_are_bounded() {
    let (_nodes, list) = cluster(1);
    let client = open(&list);
    let mut submitted = 0;
    // The waiting calls also receive the other calls' answers.
    while submitted <= IN_FLIGHT_MAX {
        match client.submit(get("k"), 0) {
            Ok(()) => submitted += 1,
            Err(error) => {
                assert_eq!(error, CallError::Busy);
                break;
            }
        }
        if submitted % 1_000 == 0 {
            client.call(get("k")).unwrap();
        }
    }
    assert_eq!(submitted, IN_FLIGHT_MAX);
    let taken = collect(&client, submitted);
    assert!(taken.iter().all(|completion| completion.result.is_ok()));
    client.submit(get("k"), 0).unwrap();
}

#[test]
fn a_node_that_falls_silent_costs_no_call_its_outcome() {
    let (nodes, list) = cluster(3);
    let client = open(&list);
    for at in 0..300 {
        if at == 100 {
            nodes[2].behaviour.silent.store(true, Ordering::Relaxed);
        }
        if at == 200 {
            nodes[2].behaviour.silent.store(false, Ordering::Relaxed);
        }
        client.call(add(format!("k{}", at % 30), 1)).unwrap();
    }
    for at in 0..30 {
        let sum = client.call(get(format!("k{at}"))).unwrap();
        assert!(matches!(sum, Outcome::Value { value, .. } if value == "10"));
    }
}

#[test]
fn nobody_there_is_no_quorum_for_both_forms() {
    let (nodes, list) = cluster(2);
    for node in &nodes {
        node.behaviour.silent.store(true, Ordering::Relaxed);
    }
    let options = ClientOptions {
        no_quorum_after: Duration::from_millis(150),
        ..ClientOptions::default()
    };
    let client = Client::open(&list, options).unwrap();
    client.submit(put("k", "v"), 4).unwrap();
    let began = Instant::now();
    let error = client.call(put("k", "v")).unwrap_err();
    assert!(matches!(error, CallError::NoQuorum { .. }), "{error}");
    assert!(began.elapsed() >= Duration::from_millis(150));
    // The descriptor becomes readable for timers too.
    let completion = collect(&client, 1).remove(0);
    assert_eq!((completion.tag, completion.result), (4, Err(error)));
}

/// The virtual address keeps each port of a client at one node, even when that node is dead.
#[test]
fn a_client_behind_a_virtual_address_reaches_another_node_when_its_own_dies() {
    let (nodes, _) = cluster(2);
    let balancer = balancer::Balancer::start(nodes.iter().map(|node| node.address).collect());
    let client = open(&balancer.address.to_string());
    assert!(is_written(&client.call(put("k", "v")).unwrap()));
    let requests = |at: usize| nodes[at].behaviour.requests.load(Ordering::Relaxed);
    assert_eq!(requests(1), 0, "all goes to the first");
    nodes[0].behaviour.silent.store(true, Ordering::Relaxed);
    let began = Instant::now();
    while client.call(put("k", "w")).is_err() {
        assert!(began.elapsed() < LONG);
    }
    assert!(requests(1) > 0);
}

#[test]
fn a_spared_node_is_sent_nothing_until_it_is_used_again() {
    let (nodes, list) = cluster(2);
    let client = open(&list);
    client.call(put("k", "v")).unwrap();
    let requests = |at: usize| nodes[at].behaviour.requests.load(Ordering::Relaxed);
    // The name was not among the given ones.
    let other_name = format!("localhost:{}", nodes[0].address.port());
    for name in [other_name, nodes[0].address.to_string()] {
        assert!(client.spare(&name, true));
        let before = requests(0);
        for at in 0..50 {
            client.call(put(format!("k{at}"), "v")).unwrap();
        }
        assert_eq!(requests(0), before);
        assert!(client.spare(&name, false));
        let began = Instant::now();
        for at in 0.. {
            if requests(0) > before {
                break;
            }
            assert!(began.elapsed() < LONG, "not used again");
            client.call(put(format!("k{at}"), "v")).unwrap();
        }
    }
    for name in ["127.0.0.1:1", "nothing", "", "127.0.0.1:x"] {
        assert!(!client.spare(name, true), "{name}");
    }
}

#[test]
fn sparing_the_last_node_ends_calls_that_wait() {
    let (nodes, list) = cluster(1);
    let client = open(&list);
    client.call(put("k", "v")).unwrap();
    nodes[0].behaviour.deaf.store(true, Ordering::Relaxed);
    let before = nodes[0].behaviour.requests.load(Ordering::Relaxed);
    let mut call = get("k");
    call.deadline_us = Some(LONG.as_micros() as u64 * 10);
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| client.call(call));
        let began = Instant::now();
        while nodes[0].behaviour.requests.load(Ordering::Relaxed) == before {
            assert!(began.elapsed() < LONG);
            std::thread::yield_now();
        }
        assert!(client.spare(&list, true));
        let error = waits.join().unwrap().unwrap_err();
        assert!(matches!(error, CallError::NoQuorum { .. }), "{error}");
    });
    let began = Instant::now();
    let error = client.call(put("k", "v")).unwrap_err();
    assert!(matches!(error, CallError::NoQuorum { .. }), "{error}");
    assert!(began.elapsed() < Duration::from_millis(500));
}

#[test]
fn a_deadline_holds_whatever_happens() {
    let (nodes, list) = cluster(1);
    let client = open(&list);
    client.call(put("k", "v")).unwrap();
    nodes[0].behaviour.deaf.store(true, Ordering::Relaxed);
    let calls = [
        (put("k", "v"), CallError::UnknownOutcome),
        (get("k"), CallError::TimedOut),
    ];
    for (mut call, error) in calls {
        call.deadline_us = Some(60_000);
        let began = Instant::now();
        assert_eq!(client.call(call), Err(error));
        assert!(began.elapsed() >= Duration::from_millis(60));
        assert!(began.elapsed() < LONG);
    }
}

#[test]
fn closing_ends_calls_that_wait() {
    let (nodes, list) = cluster(1);
    let client = Arc::new(open(&list));
    client.call(put("k", "v")).unwrap();
    nodes[0].behaviour.deaf.store(true, Ordering::Relaxed);
    let before = nodes[0].behaviour.requests.load(Ordering::Relaxed);
    let threads: Vec<_> = (0..4)
        .map(|at| {
            let client = Arc::clone(&client);
            let mut call = if at % 2 == 0 { get("k") } else { put("k", "v") };
            call.deadline_us = Some(LONG.as_micros() as u64 * 2);
            std::thread::spawn(move || client.call(call))
        })
        .collect();
    client.submit(get("k"), 8).unwrap();
    let mut none = Vec::new();
    let began = Instant::now();
    while nodes[0].behaviour.requests.load(Ordering::Relaxed) < before + 5 {
        assert!(began.elapsed() < LONG);
        client.completions(&mut none, 1);
        std::thread::yield_now();
    }
    client.close();
    for (at, thread) in threads.into_iter().enumerate() {
        let error = if at % 2 == 0 {
            CallError::Closed
        } else {
            CallError::UnknownOutcome
        };
        assert_eq!(thread.join().unwrap(), Err(error));
    }
    assert_eq!(collect(&client, 1)[0].result, Err(CallError::Closed));
    assert_eq!(client.call(get("k")), Err(CallError::Closed));
    assert_eq!(client.submit(get("k"), 1), Err(CallError::Closed));
    assert_eq!(client.status(LONG)[0].1, None);
}

#[test]
fn the_status_of_each_node() {
    let (nodes, list) = cluster(3);
    nodes[1].behaviour.silent.store(true, Ordering::Relaxed);
    let client = open(&list);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let statuses = client.status(Duration::from_millis(300));
                for (at, (name, status)) in statuses.iter().enumerate() {
                    assert_eq!(*name, nodes[at].address.to_string());
                    let node = status.as_ref().map(|status| status.node);
                    assert_eq!(node, (at != 1).then_some(at as u8 + 1));
                }
                assert_eq!(statuses.len(), 3);
            });
        }
    });
}

#[test]
fn only_the_given_nodes_are_listened_to() {
    let (nodes, list) = cluster(1);
    let client = open(&list);
    client.call(put("k", "v")).unwrap();
    nodes[0]
        .behaviour
        .from_elsewhere
        .store(true, Ordering::Relaxed);
    let mut call = get("k");
    call.deadline_us = Some(100_000);
    assert_eq!(client.call(call), Err(CallError::TimedOut));
}

#[test]
fn both_families_in_one_list() {
    let store = Arc::default();
    let Ok(six) = Node::start(1, "[::1]:0", &store) else {
        return; // This machine has no IPv6.
    };
    let four = Node::start(2, "127.0.0.1:0", &store).unwrap();
    let client = open(&format!("{} {}", six.address, four.address));
    let began = Instant::now();
    let mut at = 0;
    for node in [six, four] {
        while node.behaviour.requests.load(Ordering::Relaxed) == 0 {
            assert!(began.elapsed() < LONG, "{} is not used", node.address);
            at += 1;
            client.call(add(format!("k{at}"), 1)).unwrap();
        }
    }
}

#[test]
fn what_cannot_be_opened_is_told() {
    let open = |list: &str| Client::open(list, ClientOptions::default()).unwrap_err();
    assert!(matches!(open(""), OpenError::NoNodes));
    assert!(matches!(open("127.0.0.1"), OpenError::Address(_)));
}

#[test]
fn a_lock_has_one_holder_and_tokens_rise() {
    let (_nodes, list) = cluster(3);
    let client = open(&list);
    let acquire = || Lock::acquire(&client, "lock", LockOptions::default()).unwrap();
    let mut first = acquire().expect("it is free");
    assert!(acquire().is_none());
    let token = first.token();
    assert!(first.renew(&client).unwrap() && first.is_held());
    assert_eq!(first.token(), token);
    assert!(first.release(&client).unwrap());
    let mut second = acquire().expect("it was given back");
    assert!(second.token() > token);
    client.call(Call::new("lock", Action::Delete)).unwrap();
    assert!(!second.renew(&client).unwrap() && !second.is_held());
    assert!(!second.release(&client).unwrap());
}

/// L3: the put that acquires the lock is applied, and its answer is lost for longer than the time
/// to live. By then another one may hold the lock, so the late success counts for nothing.
#[test]
fn a_lock_that_was_acquired_too_long_ago_is_not_held() {
    let (nodes, list) = cluster(1);
    let client = open(&list);
    // A session exists before the answers are lost.
    client.call(get("k")).unwrap();
    nodes[0].behaviour.mute.store(true, Ordering::Relaxed);
    let behaviour = Arc::clone(&nodes[0].behaviour);
    let ttl = Duration::from_millis(300);
    let speaks = std::thread::spawn(move || {
        std::thread::sleep(2 * ttl);
        behaviour.mute.store(false, Ordering::Relaxed);
    });
    let options = LockOptions {
        ttl,
        wait: LONG,
        ..LockOptions::default()
    };
    let began = Instant::now();
    let lock = Lock::acquire(&client, "lock", options).unwrap().unwrap();
    assert!(lock.is_held() && began.elapsed() >= ttl);
    // The first put had version 1; its lock was given back, and acquired again.
    assert_eq!(lock.token(), 3);
    speaks.join().unwrap();
}
