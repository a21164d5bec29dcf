use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use wire::NodeStatus;

use super::*;
use crate::protocol::Counters;
use crate::runtime::observation::Observation;
use crate::runtime::tally::Cause;

/// A bound for steps that take milliseconds on an idle machine.
const SOON: Duration = Duration::from_secs(20);

fn observation(status: NodeStatus) -> Observation {
    Observation {
        taken: Instant::now(),
        status,
        counts: Default::default(),
        counters: Counters::default(),
        depths: Default::default(),
        dropped: vec![0; Cause::ALL.len()],
        traffic: Default::default(),
        send_queue: (0, 0),
        commits: None,
        turns: Default::default(),
        is_stopping: false,
    }
}

fn serving() -> NodeStatus {
    NodeStatus {
        node: 1,
        votes: true,
        quorum: true,
        ..NodeStatus::default()
    }
}

struct Site {
    address: SocketAddr,
    pulse: Arc<Pulse>,
    notices: UnboundedReceiver<Notice>,
}

fn site() -> Site {
    let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let (notifier, notices) = unbounded_channel();
    let pulse = start(listener, notifier).unwrap();
    Site {
        address,
        pulse,
        notices,
    }
}

/// A loop that turns and answers until it is told to end; counts the questions.
fn run_loop(
    mut notices: UnboundedReceiver<Notice>,
    pulse: Arc<Pulse>,
    status: NodeStatus,
) -> (Arc<AtomicBool>, Arc<AtomicU64>) {
    let (ended, asked) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let (ended_there, asked_there) = (ended.clone(), asked.clone());
    pulse.turn(Instant::now());
    std::thread::spawn(move || {
        while !ended_there.load(Ordering::Relaxed) {
            pulse.turn(Instant::now());
            while let Ok(notice) = notices.try_recv() {
                let Notice::Observe(answer) = notice else {
                    panic!("{notice:?}");
                };
                asked_there.fetch_add(1, Ordering::Relaxed);
                let _ = answer.send(observation(status.clone()));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    (ended, asked)
}

/// Sends bytes, and returns what arrives until the end of the connection.
fn exchange(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    // The server may have refused the request before it received all of it.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

fn ask(address: SocketAddr, method: &str, path: &str, headers: &str) -> (u16, String) {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
    let answer = exchange(address, request.as_bytes());
    let status = answer.split(' ').nth(1).expect("a status line");
    (status.parse().unwrap(), answer)
}

#[track_caller]
fn says(address: SocketAddr, path: &str, status: u16, words: &str) {
    let (answered, answer) = ask(address, "GET", path, "");
    assert_eq!(answered, status, "{path}: {answer}");
    assert!(answer.ends_with(&format!("\r\n\r\n{words}\n")), "{answer}");
}

#[test]
fn a_node_that_starts_is_healthy_and_not_ready() {
    let site = site();
    says(site.address, "/healthz", 200, "starting");
    says(
        site.address,
        "/readyz",
        503,
        "not ready: the node is starting",
    );
    says(site.address, "/metrics", 503, "the node is starting");
}

#[test]
fn readiness_is_what_the_log_says() {
    let site = site();
    run_loop(site.notices, site.pulse, serving());
    says(site.address, "/healthz", 200, "ok");
    says(site.address, "/readyz", 200, "ready");
    let no_quorum = "no quorum; unreachable: n2:8801";
    let other = NodeStatus {
        quorum: false,
        waits_for: no_quorum.to_owned(),
        ..serving()
    };
    let (without_vote, without_quorum) = (
        NodeStatus {
            votes: false,
            ..serving()
        },
        NodeStatus {
            quorum: false,
            ..serving()
        },
    );
    for (status, words) in [
        (other, no_quorum),
        (without_vote, "this node has no vote yet"),
        (without_quorum, "no quorum"),
    ] {
        let site = self::site();
        run_loop(site.notices, site.pulse, status);
        says(site.address, "/readyz", 503, &format!("not ready: {words}"));
        says(site.address, "/healthz", 200, "ok");
    }
}

#[test]
fn a_node_that_stops_is_not_ready() {
    let stopping = Observation {
        is_stopping: true,
        ..observation(serving())
    };
    assert_eq!(stopping.obstacle().as_deref(), Some("stopping"));
    assert_eq!(observation(serving()).obstacle(), None);
}

#[test]
fn a_loop_that_does_not_turn_is_reported() {
    let mut site = site();
    let Some(long_ago) = Instant::now().checked_sub(Duration::from_secs(7)) else {
        return;
    };
    // As if the loop had begun then, and had not turned since.
    site.pulse = Arc::new(Pulse::new(long_ago));
    site.pulse.turn(long_ago);
    let age = site.pulse.age(Instant::now()).unwrap();
    assert!(age >= Duration::from_secs(7), "{age:?}");

    let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let (notifier, mut notices) = unbounded_channel();
    start_with(listener, notifier, Arc::clone(&site.pulse)).unwrap();
    for path in ["/healthz", "/readyz", "/metrics"] {
        let (status, answer) = ask(address, "GET", path, "");
        assert_eq!(status, 503, "{path}");
        assert!(
            answer.contains("the node's loop made no turn for 7."),
            "{answer}"
        );
    }
    assert!(
        notices.try_recv().is_err(),
        "a loop that is stuck is not asked"
    );
}

#[test]
fn a_loop_that_does_not_answer_is_asked_once() {
    let mut site = site();
    site.pulse.turn(Instant::now());
    let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
    // More connections than are allowed, so that waiting ones are ended.
    let mut open = Vec::new();
    for _ in 0..3 * CONNECTIONS_MAX {
        let mut stream = TcpStream::connect(site.address).unwrap();
        let _ = stream.write_all(request);
        open.push(stream);
    }
    let began = Instant::now();
    let notice = loop {
        match site.notices.try_recv() {
            Ok(notice) => break notice,
            Err(_) if began.elapsed() < SOON => std::thread::sleep(Duration::from_millis(1)),
            Err(error) => panic!("{error}"),
        }
    };
    let (status, _) = ask(site.address, "GET", "/metrics", "");
    assert_eq!(status, 503);
    assert!(site.notices.try_recv().is_err());
    // A late answer is not shown; the loop is asked again.
    let Notice::Observe(answer) = notice else {
        panic!("{notice:?}");
    };
    let late = Observation {
        taken: Instant::now() - Duration::from_secs(1),
        ..observation(serving())
    };
    answer.send(late).unwrap();
    drop(open);
    run_loop(site.notices, site.pulse, serving());
    let (status, text) = ask(site.address, "GET", "/metrics", "");
    assert_eq!(status, 200, "{text}");
}

#[test]
fn other_paths_and_methods_do_not_exist() {
    let site = site();
    run_loop(site.notices, site.pulse, serving());
    for path in ["/", "/metrics/", "/Metrics", "/../metrics", "/readyz/x"] {
        assert_eq!(ask(site.address, "GET", path, "").0, 404, "{path}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "BREW"] {
        for path in ["/metrics", "/healthz", "/readyz"] {
            let (status, answer) = ask(site.address, method, path, "Content-Length: 0\r\n");
            assert_eq!(status, 405, "{method} {path}");
            assert!(
                answer.to_lowercase().contains("allow: get,head"),
                "{answer}"
            );
        }
    }
    assert_eq!(ask(site.address, "HEAD", "/metrics", "").0, 200);
    assert_eq!(ask(site.address, "GET", "/metrics?x=1", "").0, 200);
    assert!(!exchange(site.address, b"\x16\x03\x01 not HTTP\r\n\r\n").contains(" 200 "));
}

#[test]
fn who_accepts_open_metrics_gets_it() {
    let site = site();
    run_loop(site.notices, site.pulse, serving());
    let (_, plain) = ask(site.address, "GET", "/metrics", "");
    assert!(plain.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"));
    assert!(
        plain.contains("\n# TYPE horseshoe_operations_total counter\n"),
        "{plain}"
    );
    assert!(!plain.contains("# EOF") && !plain.contains("# UNIT"));
    let accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n";
    let (_, open) = ask(site.address, "GET", "/metrics", accept);
    assert!(open.contains("content-type: application/openmetrics-text; version=1.0.0;"));
    assert!(
        open.contains("\n# TYPE horseshoe_operations counter\n"),
        "{open}"
    );
    assert!(open.ends_with("\n# EOF\n"));
    let sample =
        "\nhorseshoe_operations_total{source=\"client\",operation=\"put\",result=\"done\"} 0\n";
    assert!(plain.contains(sample) && open.contains(sample));
}

#[test]
fn silence_large_headers_and_floods_do_not_reach_the_loop() {
    let site = site();
    let (ended, asked) = run_loop(site.notices, site.pulse, serving());
    let silent: Vec<TcpStream> = (0..200)
        .map(|_| TcpStream::connect(site.address).unwrap())
        .collect();
    assert_eq!(ask(site.address, "GET", "/metrics", "").0, 200);

    let mut request = b"GET /metrics HTTP/1.1\r\nHost: x\r\nX: ".to_vec();
    request.resize(10 << 20, b'x');
    let refused = exchange(site.address, &request);
    assert!(
        refused.is_empty() || refused.starts_with("HTTP/1.1 431 "),
        "{refused}"
    );
    let many = "X: y\r\n".repeat(1_000);
    assert_eq!(ask(site.address, "GET", "/metrics", &many).0, 431);
    assert_eq!(ask(site.address, "GET", "/metrics", "").0, 200);

    let (before, began) = (asked.load(Ordering::Relaxed), Instant::now());
    let floods: Vec<_> = (0..8)
        .map(|_| {
            std::thread::spawn(move || {
                for _ in 0..50 {
                    assert_eq!(ask(site.address, "GET", "/metrics", "").0, 200);
                }
            })
        })
        .collect();
    for flood in floods {
        flood.join().unwrap();
    }
    // An observation serves all requests of 100 ms.
    let asked = asked.load(Ordering::Relaxed) - before;
    let most = began.elapsed().as_millis() as u64 / 100 + 1;
    assert!((1..=most).contains(&asked), "{asked} of {most}");
    drop(silent);
    ended.store(true, Ordering::Relaxed);
}

/// A request that never ends, in its header or in its body, and a client that does not read its
/// answer.
#[test]
fn endless_requests_time_out() {
    let site = site();
    run_loop(site.notices, site.pulse, serving());
    let began = Instant::now();
    let mut slow = TcpStream::connect(site.address).unwrap();
    slow.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n")
        .unwrap();
    slow.set_read_timeout(Some(SOON)).unwrap();
    let mut answer = Vec::new();
    let ended = slow.read_to_end(&mut answer);
    assert!(ended.is_ok() || began.elapsed() < SOON, "{ended:?}");
    assert!(began.elapsed() >= Duration::from_secs(4));

    let body = "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\nx";
    let answer = exchange(site.address, body.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
}

#[test]
fn an_address_that_is_taken_is_named_with_the_remedy() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = bind(address).unwrap_err();
    let words = format!("{:#}", anyhow::Error::from(error));
    let start =
        format!("the HTTP address {address} can't be bound, because another program listens");
    assert!(
        words.starts_with(&start) && words.contains("give --http another port"),
        "{words}"
    );
    let elsewhere = bind("192.0.2.1:9100".parse().unwrap()).unwrap_err();
    assert!(
        elsewhere
            .to_string()
            .contains("this machine does not have that address")
    );
}
