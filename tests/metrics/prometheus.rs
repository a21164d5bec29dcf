//! Prometheus itself checks what nodes print: `promtool` checks its form, and a real server scrapes
//! a cluster. `tests/run.sh` installs both. If they are missing these tests print that, and pass.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::clients::{client, put};
use super::nodes::{Keep, SOON, wait_until};
use super::page;

fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file());
    if found.is_none() {
        eprintln!("skipped: {name} is not installed (Debian: prometheus)");
    }
    found
}

fn ops(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("ops").join(file)
}

#[test]
fn promtool_finds_no_fault() {
    let Some(promtool) = program("promtool") else {
        return;
    };
    let cluster = page::cluster(3, Keep::Fsync);
    put(&client(&cluster.list()), "key", "value");
    let (_, text) = page::get(cluster.address(0), "/metrics");
    let mut check = Command::new(&promtool);
    check
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .stdout(Stdio::piped());
    let mut check = check.spawn().expect("promtool runs");
    check
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = check.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success() && said.is_empty(),
        "{}",
        String::from_utf8_lossy(&said)
    );
    let rules = Command::new(&promtool)
        .args(["check", "rules"])
        .arg(ops("alerts.yml"))
        .output();
    let rules = rules.expect("promtool runs");
    assert!(
        rules.status.success(),
        "{}",
        String::from_utf8_lossy(&rules.stderr)
    );
}

/// Each alert is raised by what it is for, and none by a healthy node.
#[test]
fn alerts_are_raised_by_their_causes() {
    let cases = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/metrics/alerts.test.yml");
    let text = fs::read_to_string(cases).unwrap();
    let rules = fs::read_to_string(ops("alerts.yml")).unwrap();
    let alerts = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    for alert in alerts {
        let raised = format!("{{alertname=\"{alert}\"}}");
        assert!(text.contains(&raised), "no case raises {alert}");
    }
    let Some(promtool) = program("promtool") else {
        return;
    };
    let output = Command::new(promtool)
        .args(["test", "rules", cases])
        .output();
    let output = output.expect("promtool runs");
    let said = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&said)
    );
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The present value of an expression, if it has one.
fn query(address: &str, expression: &str) -> Option<f64> {
    let encoded: String = expression
        .bytes()
        .map(|byte| format!("%{byte:02X}"))
        .collect();
    let (status, body) = page::try_get(address, &format!("/api/v1/query?query={encoded}")).ok()?;
    // 503 means that the server is starting.
    assert!(matches!(status, 200 | 503), "{expression}: {body}");
    // The body may come in chunks, with their lengths before and after the line of JSON.
    let line = body.lines().find(|line| line.starts_with('{'))?;
    let answer: serde_json::Value = serde_json::from_str(line).ok()?;
    let value = answer["data"]["result"][0]["value"][1].as_str()?;
    value.parse().ok()
}

/// Prometheus reads the OpenMetrics form, which it asks for, of all nodes; and no rule fails.
#[test]
fn a_real_prometheus_scrapes_all_nodes() {
    let Some(prometheus) = program("prometheus") else {
        return;
    };
    let mut cluster = page::cluster(3, Keep::Fsync);
    let client = client(&cluster.list());
    (0..10).for_each(|number| put(&client, &format!("key-{number}"), "value"));
    let directory = cluster.directory().to_owned();
    let targets: Vec<&str> = (0..3).map(|node| cluster.address(node)).collect();
    let configuration = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{:?}]\n\
         scrape_configs:\n- job_name: horseshoe\n  static_configs:\n  - targets: {targets:?}\n    \
         labels: {{cluster: orders}}\n",
        ops("alerts.yml")
    );
    let file = directory.join("prometheus.yml");
    fs::write(&file, configuration).unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let log = fs::File::create(directory.join("prometheus.log")).unwrap();
    let mut command = Command::new(prometheus);
    command
        .arg(format!("--config.file={}", file.display()))
        .arg(format!(
            "--storage.tsdb.path={}",
            directory.join("prometheus").display()
        ))
        .arg(format!("--web.listen-address={address}"))
        .stdout(Stdio::null())
        .stderr(log);
    let _server = Server(command.spawn().expect("prometheus runs"));
    let is = |expression: &'static str, value: f64| {
        wait_until(SOON, expression, || {
            query(&address, expression) == Some(value)
        });
    };
    is("sum(up{job=\"horseshoe\"})", 3.0);
    is("sum(horseshoe_ready)", 3.0);
    is("max(horseshoe_keys)", 10.0);
    is("count(horseshoe_build_info)", 3.0);
    is(
        "sum(rate(horseshoe_loop_busy_seconds_total[1m])) > bool 0",
        1.0,
    );
    let puts = "sum(horseshoe_operations_total{source=\"client\", operation=\"put\", result=\"done\"}) >= bool 10";
    wait_until(SOON, puts, || query(&address, puts) == Some(1.0));
    is(
        "sum(prometheus_rule_evaluation_failures_total) or vector(0)",
        0.0,
    );
    assert_eq!(
        query(&address, "count(ALERTS{alertname=~\"HorseshoeNo.*\"})"),
        None
    );

    cluster.kill([1, 2]);
    is("sum(up{job=\"horseshoe\"})", 1.0);
    is("max(horseshoe_has_quorum)", 0.0);
    is("count(ALERTS{alertname=\"HorseshoeNoQuorum\"})", 1.0);
}
