//! A closed loop: each client starts an operation when its last one has ended.

use std::cell::RefCell;
use std::process::Command;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Zipf};
use serde::{Deserialize, Serialize};
use tokio::task::LocalSet;

use crate::connection::{Connection, connect};
use crate::systems::{Cluster, System};

/// Longer operations count as this long.
const LATENCY_US_MAX: u64 = 60_000_000;
/// The exponent of Zipf's law, as in `horseshoe bench`.
const ZIPF_EXPONENT: f64 = 0.99;

#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Gets, puts and adds: how often each.
    pub mix: [u32; 3],
    pub clients: usize,
    pub keys: u64,
    pub is_zipf: bool,
    pub value_size: usize,
    pub warmup: Duration,
    pub duration: Duration,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Figures {
    pub per_second: f64,
    pub mean_us: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub max_us: f64,
    pub errors: u64,
}

impl Load {
    pub fn run(&self, cluster: &Cluster) -> Result<Figures> {
        match cluster.system {
            System::Horseshoe => self.run_horseshoe(cluster),
            _ => runtime()?.block_on(self.run_peer(cluster)),
        }
    }

    /// The same, where it may be that nothing is answered.
    pub fn run_for_at_most(&self, cluster: &Cluster, wait: Duration) -> Result<Figures> {
        match cluster.system {
            System::Horseshoe => self.run_horseshoe(cluster),
            system => {
                let load = async {
                    let ran = tokio::time::timeout(wait, self.run_peer(cluster)).await;
                    ran.with_context(|| format!("{system} does not answer for {wait:?}"))?
                };
                runtime()?.block_on(load)
            }
        }
    }

    fn run_horseshoe(&self, cluster: &Cluster) -> Result<Figures> {
        let [gets, puts, adds] = self.mix;
        let mut command = Command::new(&cluster.place.horseshoe);
        command
            .args(["--nodes", &cluster.client_addresses(None).join(",")])
            .args(["--json", "bench", "--mix", &format!("{gets}:{puts}:{adds}")])
            .args(["--clients", &self.clients.to_string()])
            .args(["--keys", &self.keys.to_string()])
            .args(["--dist", if self.is_zipf { "zipf" } else { "uniform" }])
            .args(["--value-size", &self.value_size.to_string()])
            .args(["--warmup", &format!("{}ms", self.warmup.as_millis())])
            .args(["--duration", &format!("{}ms", self.duration.as_millis())]);
        figures_of(command)
    }

    async fn run_peer(&self, cluster: &Cluster) -> Result<Figures> {
        let addresses = cluster.client_addresses(None);
        let connections = connect(cluster.system, &addresses, self.clients).await?;
        let begin = Instant::now() + self.warmup;
        let end = begin + self.duration;
        let tally = Rc::new(RefCell::new(Tally::new()?));
        let clients = LocalSet::new();
        for (client, connection) in connections.into_iter().enumerate() {
            let (load, tally) = (*self, tally.clone());
            clients.spawn_local(async move {
                load.run_client(client as u64, connection, [begin, end], &tally)
                    .await;
            });
        }
        clients.await;
        Ok(tally.borrow().figures(self.duration))
    }

    async fn run_client(
        &self,
        client: u64,
        mut connection: Connection,
        [begin, end]: [Instant; 2],
        tally: &RefCell<Tally>,
    ) {
        let mut random = StdRng::seed_from_u64(client);
        let zipf = Zipf::new(self.keys as f64, ZIPF_EXPONENT).expect("there are keys");
        let value = vec![b'v'; self.value_size];
        while Instant::now() < end {
            let number = match self.is_zipf {
                true => zipf.sample(&mut random) as u64 - 1,
                false => random.random_range(0..self.keys),
            };
            let [gets, puts, adds] = self.mix;
            let kind = random.random_range(0..gets + puts + adds);
            let started = Instant::now();
            let done = match kind {
                kind if kind < gets => connection.get(&key(number)).await,
                kind if kind < gets + puts => connection.put(&key(number), &value).await,
                _ => connection.add(&format!("bench/add/{number:06}")).await,
            };
            let ended = Instant::now();
            if started >= begin && ended <= end {
                tally.borrow_mut().add(ended - started, &done);
            }
            if let Err(error) = done {
                eprintln!("an operation failed: {error:#}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

/// 16 bytes, as the keys of `horseshoe bench`.
pub fn key(number: u64) -> String {
    format!("bench/{number:010}")
}

/// Puts each key once.
pub fn fill(cluster: &Cluster, keys: u64, value_size: usize, clients: usize) -> Result<()> {
    if cluster.system == System::Horseshoe {
        // Its load begins with that.
        return Ok(());
    }
    runtime()?.block_on(async {
        let addresses = cluster.client_addresses(None);
        let connections = connect(cluster.system, &addresses, clients).await?;
        let next = Rc::new(RefCell::new(0..keys));
        let tasks = LocalSet::new();
        let mut filling = Vec::new();
        for mut connection in connections {
            let next = next.clone();
            filling.push(tasks.spawn_local(async move {
                connection.prepare().await?;
                let value = vec![b'v'; value_size];
                loop {
                    let Some(number) = next.borrow_mut().next() else {
                        return anyhow::Ok(());
                    };
                    connection.put(&key(number), &value).await?;
                }
            }));
        }
        tasks.await;
        for filled in filling {
            filled.await??;
        }
        Ok(())
    })
}

/// Waits until a put succeeds.
pub fn wait_for_horseshoe(cluster: &Cluster, wait: Duration) -> Result<()> {
    let seconds = format!("{}s", wait.as_secs());
    let output = Command::new(&cluster.place.horseshoe)
        .args(["--nodes", &cluster.client_addresses(None).join(",")])
        .args(["--timeout", &seconds, "put", "bench/ready", "1"])
        .output()
        .context("cannot run horseshoe")?;
    if !output.status.success() {
        bail!(
            "Horseshoe serves nothing: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

/// What a run of `horseshoe bench` prints.
pub fn figures_of(mut command: Command) -> Result<Figures> {
    let output = command.output().context("cannot run horseshoe")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().unwrap_or_default();
    let printed: serde_json::Value = serde_json::from_str(last).with_context(|| {
        let errors = String::from_utf8_lossy(&output.stderr);
        format!("{command:?} prints no result: {text}{errors}")
    })?;
    let all = &printed["all"];
    let Some(per_second) = all["per_second"].as_f64() else {
        bail!("{command:?} measured nothing: {printed}");
    };
    let field = |name: &str| all[name].as_f64().unwrap_or(0.0);
    let errors = printed["errors"].as_object();
    let errors = errors.map_or(0, |kinds| kinds.values().filter_map(|n| n.as_u64()).sum());
    Ok(Figures {
        per_second,
        mean_us: field("mean_us"),
        p50_us: field("p50_us"),
        p99_us: field("p99_us"),
        max_us: field("max_us"),
        errors,
    })
}

pub fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}

struct Tally {
    latencies_us: Histogram<u64>,
    errors: u64,
}

impl Tally {
    fn new() -> Result<Self> {
        Ok(Tally {
            latencies_us: Histogram::new_with_max(LATENCY_US_MAX, 3)?,
            errors: 0,
        })
    }

    fn add(&mut self, took: Duration, done: &Result<()>) {
        match done {
            Ok(()) => self.latencies_us.saturating_record(took.as_micros() as u64),
            Err(_) => self.errors += 1,
        }
    }

    fn figures(&self, duration: Duration) -> Figures {
        let latencies = &self.latencies_us;
        Figures {
            per_second: latencies.len() as f64 / duration.as_secs_f64(),
            mean_us: latencies.mean(),
            p50_us: latencies.value_at_quantile(0.5) as f64,
            p99_us: latencies.value_at_quantile(0.99) as f64,
            max_us: latencies.max() as f64,
            errors: self.errors,
        }
    }
}
