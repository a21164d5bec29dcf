//! Values that the metrics must have.

use std::io::Write;
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use super::clients::{client, get, put};
use super::nodes::{Cluster, Keep, SOON, wait_until};
use super::page::{self, Metrics, wait_for};

/// Conditions that hold for every node at any time.
fn assert_sound(metrics: &Metrics) {
    for kind in ["get", "put", "delete", "add", "append", "compare_value"] {
        let of_kind = format!("operation=\"{kind}\"");
        let decided: f64 = ["value", "absent", "done", "conflict"]
            .iter()
            .map(|result| {
                let labels = [
                    "source=\"client\"",
                    &of_kind,
                    &format!("result=\"{result}\""),
                ];
                metrics.sum("horseshoe_operations_total", &labels)
            })
            .sum();
        let (name, labels) = ("horseshoe_operation_duration_seconds", [of_kind.as_str()]);
        assert_eq!(
            metrics.sum(&format!("{name}_count"), &labels),
            decided,
            "{kind}"
        );
        let last = [of_kind.as_str(), "le=\"+Inf\""];
        assert_eq!(
            metrics.sum(&format!("{name}_bucket"), &last),
            decided,
            "{kind}"
        );
        let seconds = metrics.sum(&format!("{name}_sum"), &labels);
        // An operation that begins and ends within one turn of the loop has a duration of zero.
        assert!((0.0..1e4).contains(&seconds), "{kind}: {seconds} s");
        assert!(decided > 0.0 || seconds == 0.0, "{kind}: {seconds} s");
    }
    let begun = metrics.sum("horseshoe_rounds_started_total", &[]);
    let ended = metrics.sum("horseshoe_rounds_ended_total", &[]);
    assert_eq!(begun - ended, metrics.one("horseshoe_rounds_in_progress"));
    assert!(
        metrics.one("horseshoe_memory_used_bytes") < metrics.one("horseshoe_memory_limit_bytes")
    );
    assert!(metrics.one("horseshoe_keys") <= metrics.one("horseshoe_records"));
    assert!(metrics.one("process_resident_memory_bytes") > 1e6);
    assert!(metrics.one("horseshoe_loop_turns_total") > 0.0);
}

#[test]
fn what_clients_did_is_counted() {
    let cluster = page::cluster(3, Keep::Fsync);
    let client = client(&cluster.list());
    for number in 0..20 {
        put(&client, &format!("key-{number}"), "value");
        assert_eq!(
            get(&client, &format!("key-{number}")).as_deref(),
            Some("value")
        );
    }
    assert_eq!(get(&client, "never written"), None);
    let all: Vec<Metrics> = (0..3).map(|node| Metrics::of(&cluster, node)).collect();
    all.iter().for_each(assert_sound);

    let counted =
        |name: &str, labels: &[&str]| all.iter().map(|m| m.sum(name, labels)).sum::<f64>();
    // A client that gets no answer in time asks another node, and both count the operation.
    let of = |kind: &str, result: &str| {
        let labels = [
            "source=\"client\"",
            &format!("operation=\"{kind}\""),
            &format!("result=\"{result}\""),
        ];
        counted("horseshoe_operations_total", &labels)
    };
    let done = (of("put", "done"), of("get", "value"), of("get", "absent"));
    assert!(
        done.0 >= 20.0 && done.1 >= 20.0 && done.2 >= 1.0,
        "{done:?}"
    );
    assert!(done.0 < 60.0 && done.1 < 60.0 && done.2 < 4.0, "{done:?}");
    assert_eq!((of("put", "no_quorum"), of("get", "unknown")), (0.0, 0.0));
    let full = counted("horseshoe_rounds_started_total", &["kind=\"full\""]);
    assert!(
        full >= 20.0,
        "each of twenty new keys takes a full round: {full}"
    );
    assert!(counted("horseshoe_rounds_started_total", &["kind=\"read\""]) >= 1.0);
    assert!(counted("horseshoe_messages_sent_total", &[]) >= 40.0);
    assert!(
        counted(
            "horseshoe_operation_duration_seconds_sum",
            &["operation=\"put\""]
        ) > 0.0
    );

    for (node, metrics) in all.iter().enumerate() {
        assert!(metrics.one("horseshoe_disk_commit_duration_seconds_count") > 0.0);
        let groups = metrics.one("horseshoe_disk_commit_groups_sum");
        assert!(groups >= metrics.one("horseshoe_disk_commit_groups_count"));
        assert_eq!(metrics.one("horseshoe_disk_hung"), 0.0);
        assert!(metrics.one("horseshoe_disk_free_bytes") > 0.0);
        for (name, value) in [
            ("horseshoe_ready", 1.0),
            ("horseshoe_has_vote", 1.0),
            ("horseshoe_has_quorum", 1.0),
            ("horseshoe_members", 3.0),
            ("horseshoe_members_reachable", 3.0),
            ("horseshoe_change_in_progress", 0.0),
            ("horseshoe_nodes_without_vote", 0.0),
            ("horseshoe_clock_clamped", 0.0),
        ] {
            assert_eq!(metrics.one(name), value, "{name} of node {node}");
        }
        assert_eq!(metrics.sum("horseshoe_link_up", &[]), 2.0);
        assert_eq!(metrics.sum("horseshoe_node_reachable", &[]), 2.0);
        let build = format!(
            "version=\"{}\",durability=\"fsync\"",
            env!("CARGO_PKG_VERSION")
        );
        assert_eq!(
            metrics.one(&format!("horseshoe_build_info{{{build}}}")),
            1.0
        );
        wait_for(&cluster, node, "all keys", |m| {
            m.one("horseshoe_keys") == 20.0
        });
        wait_for(&cluster, node, "round trips", |m| {
            let seconds = m.sum("horseshoe_link_round_trip_seconds", &[]);
            seconds > 0.0 && seconds < 1.0
        });
    }
    let masters: f64 = all.iter().map(|m| m.one("horseshoe_is_master")).sum();
    assert_eq!(masters, 1.0);
}

#[test]
fn counters_rise_and_never_fall() {
    let cluster = page::cluster(1, Keep::Memory);
    let client = client(&cluster.list());
    let counters = |metrics: &Metrics| -> Vec<(String, f64)> {
        let is_counter = |name: &str| {
            metrics
                .types
                .get(name)
                .is_some_and(|kind| kind == "counter")
        };
        let samples = metrics.samples.iter();
        let counters = samples.filter(|(series, _)| is_counter(series.split('{').next().unwrap()));
        counters
            .map(|(series, value)| (series.clone(), *value))
            .collect()
    };
    let mut before = Metrics::of(&cluster, 0);
    for round in 0..5 {
        put(&client, "key", &round.to_string());
        std::thread::sleep(std::time::Duration::from_millis(110));
        let now = Metrics::of(&cluster, 0);
        for (series, value) in counters(&before) {
            assert!(now.one(&series) >= value, "{series}");
        }
        let puts = |m: &Metrics| {
            m.sum(
                "horseshoe_operations_total",
                &["operation=\"put\"", "result=\"done\""],
            )
        };
        assert!(puts(&now) > puts(&before));
        before = now;
    }
    assert_sound(&before);
    assert!(
        !before.samples.contains_key("horseshoe_disk_free_bytes"),
        "there is no disk"
    );
}

/// After a node is killed, first the links show it, and then the membership. After the loss of the
/// quorum the remaining nodes are not ready, for the reason in their logs, and they stay healthy.
#[test]
fn killed_nodes_are_seen() {
    let mut cluster = page::cluster(4, Keep::Memory);
    let killed = cluster.status(3).unwrap().node;
    assert_eq!(
        page::get(cluster.address(0), "/readyz"),
        (200, "ready\n".to_owned())
    );
    cluster.kill([3]);
    let link = format!("horseshoe_link_up{{node=\"{killed}\"}}");
    let reachable = format!("horseshoe_node_reachable{{node=\"{killed}\"}}");
    wait_for(&cluster, 0, "the link is down", |m| {
        m.one(&link) == 0.0 && m.one(&reachable) == 0.0
    });
    wait_for(&cluster, 0, "it is removed", |m| {
        m.one("horseshoe_members") == 3.0 && m.one("horseshoe_nodes_without_vote") == 1.0
    });
    assert_eq!(Metrics::of(&cluster, 0).one("horseshoe_ready"), 1.0);

    cluster.kill([1, 2]);
    cluster.wait_until_dark([0]);
    wait_for(&cluster, 0, "it is not ready", |m| {
        (m.one("horseshoe_ready"), m.one("horseshoe_has_quorum")) == (0.0, 0.0)
    });
    let (status, said) = page::get(cluster.address(0), "/readyz");
    assert_eq!(status, 503);
    assert!(
        said.starts_with("not ready: no quorum; unreachable: "),
        "{said}"
    );
    wait_until(SOON, "the log says so too", || {
        cluster.log(0).contains(said.trim_end())
    });
    assert_eq!(
        page::get(cluster.address(0), "/healthz"),
        (200, "ok\n".to_owned())
    );
}

/// Starts a node that must end at once; returns its log.
fn refused(http: &str, node: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_horseshoe"));
    command.args(["serve", "0", node, "--http", http]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut child = child.expect("the binary runs");
    wait_until(SOON, "the end of the node", || {
        child.try_wait().unwrap().is_some()
    });
    let output = child.wait_with_output().unwrap();
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn an_address_that_can_not_be_used_ends_the_node_with_the_remedy() {
    let node = &Cluster::addresses(1)[0];
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let said = refused(&taken.local_addr().unwrap().to_string(), node);
    assert!(
        said.contains("because another program listens there"),
        "{said}"
    );
    assert!(said.contains("give --http another port"), "{said}");
    for wrong in ["127.0.0.1:0", "localhost:9100", "9100"] {
        let said = refused(wrong, node);
        assert!(
            said.contains(&format!("{wrong:?} is not an address for HTTP")),
            "{said}"
        );
    }
}

#[test]
fn ipv6_is_served_too() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return;
    }
    let free = std::net::TcpListener::bind("[::1]:0").unwrap();
    let http = free.local_addr().unwrap().to_string();
    drop(free);
    let option = format!("--http={http}");
    let cluster = Cluster::start_at(Cluster::addresses(1), Keep::Memory, &[&option]);
    assert_eq!(page::get(&http, "/readyz").0, 200);
    assert!(
        cluster
            .log(0)
            .contains(&format!("metrics at http://{http}/metrics"))
    );
}

/// Silent connections, a header of 10 MB and a flood of requests, while a client works.
#[test]
fn nothing_that_arrives_over_http_stops_the_node() {
    let cluster = page::cluster(3, Keep::Memory);
    let address = cluster.address(0).to_owned();
    let silent: Vec<TcpStream> = (0..200)
        .map(|_| TcpStream::connect(&address).unwrap())
        .collect();
    let client = client(cluster.address(0));
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    // Further connections may end it.
                    let _ = page::try_get(&address, "/metrics");
                }
            });
        }
        scope.spawn(|| {
            let mut large = TcpStream::connect(&address).unwrap();
            // The node ends the connection before it has received all of that.
            let _ = large.write_all(b"GET /metrics HTTP/1.1\r\nX: ");
            let _ = large.write_all(&vec![b'x'; 10 << 20]);
        });
        for number in 0..200 {
            put(&client, &format!("key-{number}"), "value");
        }
        over.store(true, Ordering::Relaxed);
    });
    drop(silent);
    let metrics = Metrics::of(&cluster, 0);
    assert_sound(&metrics);
    assert_eq!(metrics.one("horseshoe_ready"), 1.0);
    assert!(metrics.one("process_open_fds") < 200.0);
}

#[test]
fn without_the_option_nothing_listens() {
    let cluster = Cluster::start(1, Keep::Memory);
    let refused = TcpStream::connect(cluster.address(0)).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    let tasks = format!("/proc/{}/task", cluster.process_id(0));
    let names = std::fs::read_dir(tasks)
        .unwrap()
        .map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap_or_default());
    assert!(names.into_iter().all(|name| name.trim() != "http"));
}
