//! What still works when nodes are killed.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use kvclient::{CallError, session};

use super::clients::{assert_no_quorum, assert_serves, client, get, put, try_get, try_put};
use super::nodes::{Cluster, Keep};

const NO_QUORUM_BOUND: Duration = Duration::from_secs(2);
const DEADLINE: Duration = Duration::from_micros(session::DEADLINE_US_DEFAULT);
/// The delay that a busy machine may add to a deadline.
const SLACK: Duration = Duration::from_secs(1);

#[test]
fn three_of_five_serve() {
    let mut cluster = Cluster::start(5, Keep::Memory);
    let before = client(&cluster.list());
    put(&before, "before", "1");
    // The master does not matter here: five votes need no tie-breaker.
    cluster.kill([0, 3]);
    // Clients that existed before, and new ones, are served even while the nodes still consider the
    // killed ones reachable.
    assert_eq!(get(&before, "before").as_deref(), Some("1"));
    put(&before, "after", "2");
    for node in [1, 2, 4] {
        let alone = client(cluster.address(node));
        assert_eq!(get(&alone, "after").as_deref(), Some("2"));
        assert_serves(cluster.address(node), &format!("through-{node}"));
    }
}

/// An operation that ran while too few nodes were up.
struct Tried {
    what: &'static str,
    key: String,
    /// Relative to when the nodes were killed.
    started: Duration,
    took: Duration,
    error: Option<CallError>,
}

/// Kills three nodes of five; then, every few milliseconds for a while, starts a get by a new
/// client, one by a client that existed before, and a put by a new client.
fn operations_without_a_quorum(cluster: &mut Cluster) -> Vec<Tried> {
    let nodes = &cluster.list();
    let veterans: Vec<_> = (0..4).map(|_| client(nodes)).collect();
    for (at, veteran) in veterans.iter().enumerate() {
        put(veteran, &format!("veteran-{at}"), "1");
    }
    let tried = Mutex::new(Vec::new());
    cluster.kill([1, 2, 3]);
    let killed = Instant::now();
    let run = |what, key: &str, operation: &dyn Fn() -> Result<(), CallError>| {
        let began = Instant::now();
        let error = operation().err();
        tried.lock().unwrap().push(Tried {
            what,
            key: key.to_owned(),
            started: began - killed,
            took: began.elapsed(),
            error,
        });
    };
    std::thread::scope(|scope| {
        let (run, veterans) = (&run, &veterans);
        for number in 0..60_u32 {
            let at = killed + Duration::from_millis(50) * number;
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            let key = format!("dark-{number}");
            let get_key = format!("veteran-{}", number % 4);
            let (veteran, other_key) = (&veterans[number as usize % 4], get_key.clone());
            scope.spawn(move || {
                run("get", &get_key, &|| {
                    try_get(&client(nodes), &get_key).map(drop)
                });
            });
            scope.spawn(move || {
                run("veteran's get", &other_key, &|| {
                    try_get(veteran, &other_key).map(drop)
                });
            });
            scope.spawn(move || {
                run("put", &key, &|| try_put(&client(nodes), &key, "1"));
            });
        }
    });
    tried.into_inner().unwrap()
}

fn assert_honest(tried: &Tried) {
    let Tried {
        what,
        key,
        started,
        took,
        error,
    } = tried;
    let said =
        format!("{what} {key}, started {started:?} after the kill, took {took:?}: {error:?}");
    match error {
        Some(CallError::NoQuorum { .. }) => {
            let bound = match *what {
                // A first attempt may have been sent; the client waits for its outcome.
                "put" if *started < Duration::from_secs(1) => DEADLINE + SLACK,
                _ => NO_QUORUM_BOUND,
            };
            assert!(*took < bound, "{said}");
        }
        Some(CallError::UnknownOutcome) => {
            assert!(
                *what == "put" && *started < Duration::from_secs(1),
                "{said}"
            );
            assert!(*took < DEADLINE + SLACK, "{said}");
        }
        _ => panic!("{said}"),
    }
}

#[test]
fn two_of_five_say_no_quorum_and_mean_it() {
    let mut cluster = Cluster::start(5, Keep::Fsync);
    assert_serves(&cluster.list(), "before");
    let nodes = cluster.list();
    let tried = operations_without_a_quorum(&mut cluster);
    tried.iter().for_each(assert_honest);
    let unknown = tried
        .iter()
        .filter(|t| t.error == Some(CallError::UnknownOutcome));
    println!("{} unknown outcomes of puts", unknown.count());
    assert_no_quorum(&nodes, "dark", NO_QUORUM_BOUND);

    cluster.start_nodes([1, 2, 3]);
    cluster.wait_until_serving(0..5);
    let reader = client(&nodes);
    assert_eq!(get(&reader, "before").as_deref(), Some("before"));
    assert_eq!(get(&reader, "dark"), None);
    for put in tried.iter().filter(|t| t.what == "put") {
        let found = get(&reader, &put.key);
        let refused = matches!(put.error, Some(CallError::NoQuorum { .. }));
        assert!(
            !refused || found.is_none(),
            "{} was said not to be done",
            put.key
        );
    }
}

#[test]
fn four_nodes_in_halves_serve_where_the_master_is() {
    let mut cluster = Cluster::start(4, Keep::Memory);
    put(&client(&cluster.list()), "before", "1");
    cluster.kill([1, 2]);
    assert_serves(&cluster.list(), "master and one");
    assert_eq!(
        get(&client(cluster.address(3)), "before").as_deref(),
        Some("1")
    );

    let mut cluster = Cluster::start(4, Keep::Memory);
    cluster.kill([0, 1]);
    cluster.wait_until_dark([2, 3]);
    assert_no_quorum(&cluster.list(), "two without the master", NO_QUORUM_BOUND);
}
