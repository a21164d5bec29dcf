//! What was measured, as it is kept between the measurement and the report.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::large::LargeStore;
use crate::load::Figures;
use crate::systems::{Keep, System};

/// One load on one system in one round.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row {
    pub system: System,
    pub workload: String,
    pub keep: Keep,
    pub clients: usize,
    pub figures: Figures,
    /// Processor time of all nodes for an operation.
    pub cpu_us: f64,
    /// Datagrams and TCP segments for an operation, of all nodes and clients.
    pub packets: f64,
    /// System calls of all nodes for an operation.
    pub system_calls: Option<f64>,
}

/// The longest writes while a node was killed, in the order of the kills.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Kills {
    pub system: Option<System>,
    /// Each with the node.
    pub longest_ms: Vec<(usize, f64)>,
    /// The same without a kill.
    pub undisturbed_ms: Vec<f64>,
    pub failed: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InChain {
    pub system: System,
    pub whole: Figures,
    pub chain: Figures,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Results {
    /// When, on which machine, of which versions.
    pub date: String,
    pub machine: String,
    pub versions: Vec<(System, Option<String>)>,
    pub rounds: usize,
    pub seconds: f64,
    pub rows: Vec<Row>,
    pub kills: Vec<Kills>,
    pub large: Vec<(System, LargeStore)>,
    pub chains: Vec<InChain>,
}

/// What identifies a load.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LoadKey {
    pub workload: String,
    pub keep: Keep,
    pub clients: usize,
    pub system: System,
}

/// The medians of all rounds.
#[derive(Debug, Clone, Copy)]
pub struct Medians {
    pub per_second: f64,
    pub p50_us: f64,
    pub cpu_us: f64,
    pub packets: f64,
    pub system_calls: Option<f64>,
    pub errors: u64,
}

impl Results {
    pub fn medians(&self) -> BTreeMap<LoadKey, Medians> {
        let mut rounds: BTreeMap<LoadKey, Vec<&Row>> = BTreeMap::new();
        for row in &self.rows {
            let key = LoadKey {
                workload: row.workload.clone(),
                keep: row.keep,
                clients: row.clients,
                system: row.system,
            };
            rounds.entry(key).or_default().push(row);
        }
        let all = rounds.into_iter();
        all.map(|(key, rows)| (key, Medians::of(&rows))).collect()
    }
}

impl Medians {
    fn of(rows: &[&Row]) -> Self {
        let middle = |of: &dyn Fn(&Row) -> f64| median(rows.iter().map(|row| of(row)));
        let calls: Option<Vec<f64>> = rows.iter().map(|row| row.system_calls).collect();
        Medians {
            per_second: middle(&|row| row.figures.per_second),
            p50_us: middle(&|row| row.figures.p50_us),
            cpu_us: middle(&|row| row.cpu_us),
            packets: middle(&|row| row.packets),
            system_calls: calls.map(|calls| median(calls.into_iter())),
            errors: rows.iter().map(|row| row.figures.errors).sum(),
        }
    }
}

/// The middle one; of two in the middle the lower one. 0 of none.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len().saturating_sub(1) / 2;
    values.get(middle).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_one_of_the_values() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.0);
        assert_eq!(median([].into_iter()), 0.0);
    }
}
