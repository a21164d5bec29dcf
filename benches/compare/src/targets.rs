//! What Horseshoe is to reach, each within one run.

use std::collections::BTreeMap;

use crate::plan::{GET, HOT, PUT};
use crate::results::{LoadKey, Medians, Results, median};
use crate::systems::{Keep, System};

pub struct Target {
    pub what: &'static str,
    pub target: f64,
    /// Where less is better, as with times.
    pub is_limit: bool,
    pub unit: &'static str,
    /// `None` if something was not measured.
    pub found: Option<f64>,
}

impl Target {
    pub fn holds(&self) -> Option<bool> {
        let found = self.found?;
        Some(match self.is_limit {
            true => found <= self.target,
            false => found >= self.target,
        })
    }
}

struct Found<'a> {
    medians: BTreeMap<LoadKey, Medians>,
    results: &'a Results,
}

impl Found<'_> {
    fn of(&self, system: System, workload: &str, keep: Keep, clients: usize) -> Option<Medians> {
        let key = LoadKey {
            workload: workload.to_owned(),
            keep,
            clients,
            system,
        };
        self.medians.get(&key).copied()
    }

    fn own(&self, workload: &str, keep: Keep, clients: usize) -> Option<Medians> {
        self.of(System::Horseshoe, workload, keep, clients)
    }

    /// Horseshoe's throughput in those of another system.
    fn times(&self, other: System, workload: &str, keep: Keep) -> Option<f64> {
        let own = self.own(workload, keep, 256)?.per_second;
        Some(own / self.of(other, workload, keep, 256)?.per_second)
    }

    fn p50_ratio(&self, workload: &str) -> Option<f64> {
        let own = self.own(workload, Keep::Memory, 1)?.p50_us;
        let redis = self.of(System::Redis, workload, Keep::Memory, 1)?;
        Some(own / redis.p50_us)
    }
}

pub fn targets(results: &Results) -> Vec<Target> {
    let found = Found {
        medians: results.medians(),
        results,
    };
    [throughput(&found), costs(&found), stores(&found)]
        .into_iter()
        .flatten()
        .collect()
}

fn throughput(found: &Found) -> Vec<Target> {
    let at_least = |what, target, unit, found| Target {
        what,
        target,
        is_limit: false,
        unit,
        found,
    };
    let rate = |workload, keep, clients| {
        let medians = found.own(workload, keep, clients)?;
        Some(medians.per_second)
    };
    let ratio = |a: Option<f64>, b: Option<f64>| Some(a? / b?);
    let (memory, fsync) = (Keep::Memory, Keep::Fsync);
    let puts = |system, keep| found.times(system, PUT, keep);
    let (etcd, zookeeper) = (System::Etcd, System::Zookeeper);
    let many = ratio(rate(PUT, memory, 1_000), rate(PUT, memory, 64));
    let fsync_to_os = ratio(rate(PUT, fsync, 256), rate(PUT, Keep::Os, 256));
    vec![
        at_least(
            "puts, memory, to Redis",
            1.5,
            "times",
            puts(System::Redis, memory),
        ),
        at_least(
            "puts, memory, to etcd on tmpfs",
            10.0,
            "times",
            puts(etcd, memory),
        ),
        at_least(
            "puts, memory, to ZooKeeper on tmpfs",
            10.0,
            "times",
            puts(zookeeper, memory),
        ),
        at_least("puts, fsync, to etcd", 5.0, "times", puts(etcd, fsync)),
        at_least("puts, fsync to `os`", 0.6, "times", fsync_to_os),
        at_least(
            "gets, linearizable, to etcd",
            15.0,
            "times",
            found.times(etcd, GET, memory),
        ),
        at_least(
            "adds to one key",
            100_000.0,
            "a second",
            rate(HOT, memory, 256),
        ),
        at_least("puts of 1,000 clients, to those of 64", 1.0, "times", many),
    ]
}

fn costs(found: &Found) -> Vec<Target> {
    let at_most = |what, target, unit, found| Target {
        what,
        target,
        is_limit: true,
        unit,
        found,
    };
    let cpu = |keep| found.own(PUT, keep, 256).map(|medians| medians.cpu_us);
    vec![
        at_most(
            "p50 of a put of 1 client, to Redis",
            1.0,
            "times",
            found.p50_ratio(PUT),
        ),
        at_most(
            "p50 of a get of 1 client, to Redis",
            1.0,
            "times",
            found.p50_ratio(GET),
        ),
        at_most(
            "processor time of a put, memory",
            14.0,
            "us",
            cpu(Keep::Memory),
        ),
        at_most("processor time of a put, `os`", 22.0, "us", cpu(Keep::Os)),
    ]
}

fn stores(found: &Found) -> Vec<Target> {
    let at_most = |what, target, unit, found| Target {
        what,
        target,
        is_limit: true,
        unit,
        found,
    };
    let results = found.results;
    let mut large = results.large.iter();
    let large = large.find(|(system, _)| *system == System::Horseshoe);
    let large = large.map(|(_, store)| store);
    let a_key = |size: u64, keys: u64| size as f64 / keys as f64;
    let mut kills = results.kills.iter();
    let kills = kills.find(|kills| kills.system == Some(System::Horseshoe));
    let longest = kills.map(|kills| {
        let longest = kills.longest_ms.iter().map(|(_, ms)| *ms);
        longest.fold(0.0, f64::max) - median(kills.undisturbed_ms.iter().copied())
    });
    let [filled, restarted] = [
        large.map(|store| a_key(store.resident, store.keys)),
        large.map(|store| a_key(store.resident_restarted, store.keys)),
    ];
    let one_starts = large.map(|store| store.one_starts_seconds);
    let all_start = large.map(|store| store.all_start_seconds);
    vec![
        at_most(
            "resident memory of a key, just written",
            300.0,
            "bytes",
            filled,
        ),
        at_most(
            "resident memory of a key, restarted",
            300.0,
            "bytes",
            restarted,
        ),
        at_most("one node of 1,000,000 keys starts", 2.0, "s", one_starts),
        at_most("all five start", 5.0, "s", all_start),
        at_most(
            "longest wait at a killed node, more than without",
            50.0,
            "ms",
            longest,
        ),
    ]
}
