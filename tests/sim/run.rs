//! One run: a safety phase full of faults, a liveness phase without faults, and the verdict.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use horseshoe::protocol::types::ballot::Ballot;
use horseshoe::protocol::types::record::{Key, Record, SPACE_TRANSACTION};
use horseshoe::protocol::types::transaction::{Intent, Register};
use kvclient::session::Watch;
use wire::{Action, Outcome};

use super::checker::{self, CheckVerdict, several};
use super::cluster::Cluster;
use super::faults::{FaultKind, Faults};
use super::history::{Ending, RecordedCall, show};
use super::hostile::Hostile;
use super::network::{Place, between};
use super::plan::{Config, Plan};
use super::random::Random;
use super::transactions::wrong_sum;
use super::workload::{Workload, key_name};
use super::{scans, script, watchers};

/// The most states that the checker visits for one key.
const CHECK_EFFORT_MAX: u64 = 400_000;
/// A run that takes more events than this never becomes quiet.
const EVENTS_MAX: u64 = 3_000_000;
/// Within this time after the faults have ended every node serves.
const LIVENESS_US: u64 = 10_000_000;

/// Restarts, which begin at the ceiling, and small jumps bring clocks at most this far ahead in
/// total.
const RESTARTS_AHEAD_MS: u64 = 90_000;
/// Within this time every node is a member again: a node that was removed often must be stable for
/// a minute.
const ADMISSION_US: u64 = 90_000_000;

/// By then nothing is in progress any more that operators requested during the faults.
const ASKED_LATE_US: u64 = 10_000_000;

/// The most states that the checker visits for the keys that transactions combine.
const SEVERAL_EFFORT_MAX: u64 = 60_000;
/// T8: registers leave after the longest horizon, and two sweeps, ...
const SWEPT_US: u64 = 40_000_000;
/// ... of what is found when a node lists its buckets after a start, some at each heartbeat.
const HEARTBEATS_LISTED: u64 = 1_100;

/// What a member has accepted for a key, if anything.
type Held = Option<(Ballot, Option<Arc<Record>>)>;

/// The result of a run without a failure.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    pub hash: u64,
    pub operations: u64,
    pub outcomes: BTreeMap<&'static str, u64>,
    pub faults: BTreeMap<FaultKind, u64>,
    /// Runs in which no configuration was formed, because state was lost before.
    pub unformed: u64,
    /// Runs that ended only by a second force, as the status advised.
    pub forced_again: u64,
    /// Keys whose history was too hard to check.
    pub undecided: u64,
    /// Messages that hostile members and clients sent.
    pub hostile: u64,
    /// Keys that lost writes, as a forced configuration announced.
    pub lost: u64,
    pub simulated_us: u64,
    pub events: u64,
}

impl Report {
    pub fn add(&mut self, other: &Report) {
        self.hash ^= other.hash;
        self.operations += other.operations;
        self.unformed += other.unformed;
        self.forced_again += other.forced_again;
        self.undecided += other.undecided;
        self.hostile += other.hostile;
        self.lost += other.lost;
        self.simulated_us += other.simulated_us;
        self.events += other.events;
        for (name, count) in &other.outcomes {
            *self.outcomes.entry(name).or_default() += count;
        }
        for (kind, count) in &other.faults {
            *self.faults.entry(*kind).or_default() += count;
        }
    }
}

/// The description of a failure, for human readers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure(pub String);

pub fn run_seed(seed: u64, config: &Config) -> Result<Report, Failure> {
    let plan = Plan::of(seed, config);
    let mut run = Run::new(seed, plan);
    run.tell_plan();
    run.safety()?;
    run.liveness()?;
    run.verdict()
}

/// Runs one seed with hostile members and clients. The only check is that no node panics.
pub fn run_hostile(seed: u64, config: &Config) -> Result<Report, Failure> {
    let mut plan = Plan::of(seed, config);
    plan.duration_us = HOSTILE_US;
    plan.operations /= 2;
    let mut run = Run::new(seed, plan);
    run.hostile = Some(Hostile::new(Random::stream(seed, 22), &mut run.cluster));
    run.cluster.plan(0, HOSTILE);
    run.safety()?;
    let hostile = run.hostile.as_ref().map_or(0, |hostile| hostile.sent);
    Ok(Report {
        hash: run.cluster.trace.hash(),
        operations: run.cluster.calls.len() as u64,
        simulated_us: run.cluster.now_us,
        events: run.cluster.events,
        hostile,
        ..Report::default()
    })
}

/// The plans of a run, by the range of their number in the cluster.
const FAULT: u64 = 1 << 32;
const END_OF_FAULT: u64 = 2 << 32;
const CLIENT: u64 = 3 << 32;
const HOSTILE: u64 = 4 << 32;
/// How often a hostile member or client sends something.
const HOSTILE_GAP_US: u64 = 4_000;
/// How long a run with these lasts.
const HOSTILE_US: u64 = 3_000_000;

struct Run {
    plan: Plan,
    cluster: Cluster,
    faults: Faults,
    workload: Workload,
    random: Random,
    /// No more operations, no more faults.
    winding_up: bool,
    unformed: bool,
    forced_again: u64,
    hostile: Option<Hostile>,
}

impl Run {
    fn new(seed: u64, plan: Plan) -> Self {
        let mut random = Random::stream(seed, 11);
        let mut cluster = Cluster::new(plan.settings.clone());
        for node in &mut cluster.nodes {
            let offset = random.below(2 * plan.offset_max_ms + 1) as i64;
            node.wall.offset_ms = offset - plan.offset_max_ms as i64;
            node.wall.drift_ppm = random.below(400) as i64 - 200;
        }
        if let Some((node, hours)) = plan.bad_clock {
            cluster.jump(node, hours * 3_600_000);
        }
        // Operators may reduce the cluster to the one node whose clock is wrong.
        let mut faults = plan.faults.iter();
        let may_rule =
            |f: &FaultKind| *f == FaultKind::LargeJump || FaultKind::OPERATORS.contains(f);
        if !faults.any(may_rule) && plan.settings.nodes >= 3 {
            let skew_ms = plan.settings.skew_max_ms + plan.offset_max_ms;
            cluster.watch.ahead_max_ms = Some(skew_ms + RESTARTS_AHEAD_MS);
        }
        Run {
            cluster,
            faults: Faults::new(Random::stream(seed, 12), END_OF_FAULT),
            workload: Workload::new(Random::stream(seed, 13), seed),
            random,
            plan,
            winding_up: false,
            unformed: false,
            forced_again: 0,
            hostile: None,
        }
    }

    fn tell_plan(&mut self) {
        let plan = format!("{:#?}", self.plan);
        self.cluster.trace.story(0, || plan);
    }

    fn safety(&mut self) -> Result<(), Failure> {
        for node in 0..self.cluster.nodes.len() {
            if self.random.chance(800) {
                self.cluster.start(node);
            } else {
                let late = self.random.below(1_000_000);
                // A node that starts late is like a crash that ends.
                self.faults.starts_late(node, late, &mut self.cluster);
            }
        }
        for _ in 0..self.plan.clients {
            let client = self.cluster.add_client();
            self.let_think(client);
        }
        for _ in 0..self.plan.text_clients {
            let client = self.cluster.add_text_client();
            self.let_think(client);
        }
        for _ in 0..self.plan.watchers {
            self.cluster.add_watcher(Watch::prefix(b""));
        }
        let first = if self.plan.early_trouble {
            0
        } else {
            1_200_000
        };
        self.cluster.plan(first, FAULT);
        let minimum = self.plan.operations;
        self.run_until(60_000_000, |run| {
            run.cluster.now_us >= run.plan.duration_us
                && run.workload.begun >= minimum
                && run.faults.total() >= 5
        })?;
        Ok(())
    }

    fn let_think(&mut self, client: usize) {
        let think_us = self.workload.think_us(&self.plan);
        self.cluster
            .plan(self.cluster.now_us + think_us, CLIENT | client as u64);
    }

    /// Continues until `done`; fails if that does not hold by `until_us`.
    fn run_until(&mut self, until_us: u64, done: impl Fn(&Run) -> bool) -> Result<bool, Failure> {
        while !done(self) {
            if !self.cluster.step(until_us) {
                return Ok(false);
            }
            for number in std::mem::take(&mut self.cluster.due) {
                self.comes_due(number);
            }
            if self.hostile.is_some() {
                if self.cluster.now_us >= HOSTILE_US || self.cluster.events > EVENTS_MAX {
                    return Ok(true);
                }
                continue;
            }
            if let Some(violation) = self.cluster.watch.violation() {
                return Err(Failure(violation.to_string()));
            }
            if self.cluster.events > EVENTS_MAX {
                return Err(Failure(format!("more than {EVENTS_MAX} events: no rest")));
            }
        }
        Ok(true)
    }

    fn comes_due(&mut self, number: u64) {
        let detail = number & 0xffff_ffff;
        match number - detail {
            FAULT if !self.winding_up => {
                let kind = self.next_fault();
                self.faults.strike(kind, &mut self.cluster);
                let there = self.cluster.clients.iter().filter(|c| c.is_there()).count();
                if there < self.plan.clients + self.plan.text_clients {
                    let client = self.cluster.add_client();
                    self.let_think(client);
                }
                let gap_us = if self.is_early() {
                    60_000
                } else {
                    self.plan.fault_gap_us
                };
                let at_us = self.cluster.now_us + self.random.below(2 * gap_us);
                self.cluster.plan(at_us, FAULT);
            }
            HOSTILE => {
                if let Some(hostile) = &mut self.hostile {
                    hostile.strike(&mut self.cluster);
                    let gap_us = self.random.below(2 * HOSTILE_GAP_US);
                    self.cluster.plan(self.cluster.now_us + gap_us, HOSTILE);
                }
            }
            END_OF_FAULT => self.faults.comes_due(detail, &mut self.cluster),
            CLIENT if !self.winding_up => {
                let client = detail as usize;
                if self.cluster.clients[client].is_there() {
                    self.workload
                        .begin_one(client, &self.plan, &mut self.cluster);
                    let think_us = self.workload.think_us(&self.plan);
                    self.cluster.plan(self.cluster.now_us + think_us, number);
                }
            }
            _ => {}
        }
    }

    /// Faults before there is a configuration come at short intervals.
    fn is_early(&self) -> bool {
        self.plan.early_trouble && self.cluster.now_us < 1_000_000
    }

    fn next_fault(&mut self) -> FaultKind {
        if self.is_early() && self.random.chance(600) {
            *self.random.pick(&FaultKind::EARLY)
        } else {
            *self.random.pick(&self.plan.faults)
        }
    }

    fn liveness(&mut self) -> Result<(), Failure> {
        self.winding_up = true;
        let cluster = &mut self.cluster;
        cluster
            .trace
            .story(cluster.now_us, || "all trouble ends".into());
        self.faults.end_all(cluster);
        cluster.network.heal();
        cluster.start_all();
        for node in &mut cluster.nodes {
            node.speed = super::node::DiskSpeed::FAST;
        }
        let healed_us = self.cluster.now_us;
        if !self.run_until(healed_us + LIVENESS_US, |run| {
            run.cluster.clients.iter().all(|c| c.is_idle())
        })? {
            return Err(Failure("an operation has not ended by its deadline".into()));
        }
        let formed = self.run_until(healed_us + LIVENESS_US, |run| run.cluster.is_formed())?;
        let may_stay_down = self.faults.may_not_form || self.cluster.lost_what_a_change_needs();
        let mut is_up = formed && self.cluster.can_lose(&[]);
        let is_force_incomplete = self
            .cluster
            .watch
            .configuration()
            .is_some_and(|newest| newest.forced && newest.joint.is_some());
        if formed && is_force_incomplete && self.faults.has_forced() && !is_up && !may_stay_down {
            is_up = self.is_forced_again()?;
        }
        if !is_up {
            // E6: only an operator's force helps.
            self.unformed = may_stay_down;
            let lost = "no configuration, or no quorum of it, though no state was lost before";
            return if self.unformed {
                Ok(())
            } else {
                Err(Failure(lost.into()))
            };
        }
        let all = self.all_are_admitted(healed_us + 2 * ADMISSION_US)?;
        if !all && !self.faults.may_not_form {
            return Err(Failure("not all nodes are members again".into()));
        }
        for node in 0..self.cluster.nodes.len() {
            if self.cluster.vote_of(node).is_some() {
                self.serves(node, self.cluster.now_us + LIVENESS_US)?;
            }
        }
        if self.plan.transact_per_mille > 0 {
            let listed_us = HEARTBEATS_LISTED * self.plan.settings.heartbeat_ms * 1_000;
            let until_us = self.cluster.now_us + SWEPT_US + listed_us;
            if !self.run_until(until_us, Run::nothing_remains)? {
                let remains: Vec<String> = self.remains_of_transactions().collect();
                let text = "T8: intents or registers of transactions remain:";
                return Err(Failure(format!("{text}\n  {}", remains.join("\n  "))));
            }
        }
        self.leave_one_behind()?;
        let end_us = self.cluster.now_us + LIVENESS_US;
        if !self.run_until(end_us, Run::members_are_equal)? {
            return Err(Failure(format!("C1: {}", self.differences())));
        }
        let end_us = self.cluster.now_us + LIVENESS_US;
        match self.run_until(end_us, |run| run.missed().is_empty())? {
            true => Ok(()),
            false => Err(Failure(format!("W1: {}", self.missed().join("\n  ")))),
        }
    }

    /// E8_named: nodes that an operator forced together may have begun a new incarnation meanwhile,
    /// and then have no vote in the forced configuration. The way out is the command that the
    /// status of a remaining node names.
    fn is_forced_again(&mut self) -> Result<bool, Failure> {
        let is_advised = |run: &Run| run.cluster.force_advised().is_some();
        if !self.run_until(self.cluster.now_us + LIVENESS_US, is_advised)? {
            return Ok(false);
        }
        if let Some((node, nodes)) = self.cluster.force_advised() {
            self.faults.force_as_advised(&mut self.cluster, node, nodes);
            self.forced_again = 1;
        }
        let until_us = self.cluster.now_us + LIVENESS_US;
        self.run_until(until_us, |run| {
            run.cluster.is_formed() && run.cluster.can_lose(&[])
        })
    }

    /// Whether all nodes are members by then. A change that operators requested earlier may come
    /// late and remove a node again: so this waits for it, and checks until the end whether there
    /// is a node to add.
    fn all_are_admitted(&mut self, until_us: u64) -> Result<bool, Failure> {
        if self.faults.has_operator() {
            self.run_until(self.cluster.now_us + ASKED_LATE_US, |_| false)?;
        }
        loop {
            self.faults.take_in(&mut self.cluster);
            let next_us = until_us.min(self.cluster.now_us + 500_000);
            if self.run_until(next_us, |run| run.cluster.are_all_members())? {
                return Ok(true);
            }
            if self.cluster.now_us >= until_us {
                return Ok(false);
            }
        }
    }

    /// Cuts off a member that the others do not need while all keys are written.
    fn leave_one_behind(&mut self) -> Result<(), Failure> {
        let nodes = 0..self.cluster.nodes.len();
        let mut members = nodes.filter(|node| self.cluster.vote_of(*node).is_some());
        let Some(away) = members
            .clone()
            .rfind(|node| self.cluster.can_lose(&[*node]))
        else {
            return Ok(());
        };
        let writer = members
            .find(|node| *node != away)
            .expect("a quorum without it");
        let others = (0..self.cluster.nodes.len()).filter(|node| *node != away);
        let others: Vec<Place> = others.map(Place::Node).collect();
        self.cluster
            .network
            .cut(&between(&[Place::Node(away)], &others));
        self.serves(writer, self.cluster.now_us + LIVENESS_US)?;
        self.cluster.network.heal_nodes();
        Ok(())
    }

    /// C1: each member that missed a write has received it. This holds for keys whose last writes
    /// were coordinated by nodes that have not stopped since, as those of the liveness phase.
    fn members_are_equal(&self) -> bool {
        (0..self.plan.keys.len())
            .all(|key| self.held(&self.key(key)).windows(2).all(|w| w[0] == w[1]))
    }

    fn key(&self, index: usize) -> Bytes {
        key_name(index, self.plan.key_size)
    }

    /// Each member's state of a key on its disk: ballot and record.
    fn held(&self, key: &Bytes) -> Vec<Held> {
        let nodes = 0..self.cluster.nodes.len();
        let members = nodes.filter(|node| self.cluster.vote_of(*node).is_some());
        let of_node = |node: usize| {
            let state = self.cluster.nodes[node]
                .disk
                .synced()
                .registers
                .get(&Key::user(key))?;
            Some((state.accepted, state.record.clone()))
        };
        members.map(of_node).collect()
    }

    fn differences(&self) -> String {
        let keys = (0..self.plan.keys.len()).map(|key| self.key(key));
        let told = keys.map(|key| {
            let ballots = self.held(&key).into_iter();
            let ballots: Vec<Ballot> = ballots.map(|h| h.map_or(Ballot::ZERO, |h| h.0)).collect();
            format!("\n  {}: {ballots:?}", show(&key))
        });
        let waited_s = LIVENESS_US / 1_000_000;
        format!(
            "members differ {waited_s} s after the last write:{}",
            told.collect::<String>()
        )
    }

    /// What watchers do not know of the keys that a member holds.
    fn missed(&self) -> Vec<String> {
        let keys = (0..self.plan.keys.len()).map(|key| self.key(key));
        let missed = keys.flat_map(|key| {
            let held = self.held(&key).into_iter().flatten().next();
            let record = held.and_then(|(_, record)| record);
            let holds = record.and_then(|r| Some((r.version, r.value.clone()?)));
            watchers::missed(&self.cluster.watchers, &key, holds.as_ref())
        });
        missed.collect()
    }

    /// The node alone serves a write and a read of every key.
    fn serves(&mut self, node: usize, until_us: u64) -> Result<(), Failure> {
        let until_us = until_us.max(self.cluster.now_us + LIVENESS_US / 2);
        let client = self.cluster.add_client();
        let others: Vec<Place> = (0..self.cluster.nodes.len())
            .filter(|n| *n != node)
            .map(Place::Node)
            .collect();
        self.cluster
            .network
            .cut(&between(&[Place::Client(client)], &others));
        let keys = (0..self.plan.keys.len()).map(|key| self.key(key));
        for key in keys.collect::<Vec<_>>() {
            let value = Bytes::from(format!("last of node {node} for {}", show(&key)));
            self.insists(client, node, &key, Action::Put { value }, until_us)?;
            // A write with an unknown outcome may still happen in between: the checker judges the
            // value that is read, with everything before it.
            self.insists(client, node, &key, Action::Get, until_us)?;
        }
        let first = Bytes::from_static(b"key");
        self.insists(client, node, &first, script::scan(), until_us)?;
        self.cluster.crash_client(client);
        Ok(())
    }

    /// Retries until there is a definite answer.
    fn insists(
        &mut self,
        client: usize,
        node: usize,
        key: &Bytes,
        action: Action,
        until_us: u64,
    ) -> Result<(), Failure> {
        loop {
            let left_us = until_us.saturating_sub(self.cluster.now_us);
            let call =
                self.cluster
                    .begin(client, key, action.clone(), false, left_us.min(2_000_000));
            self.run_until(until_us, |run| run.cluster.calls[call].ended.is_some())?;
            match &self.cluster.calls[call].ending {
                Ending::Answered(
                    Outcome::Written { .. }
                    | Outcome::Value { .. }
                    | Outcome::Absent
                    | Outcome::Page(_),
                ) => return Ok(()),
                ending if self.cluster.now_us >= until_us => {
                    let waited = LIVENESS_US / 1_000_000;
                    return Err(Failure(format!(
                        "node {node} does not serve {key:?} {waited} s after all trouble has \
                         ended: {ending:?}"
                    )));
                }
                _ => {
                    let pause_us = self.cluster.now_us + 20_000;
                    self.run_until(pause_us, |_| false)?;
                }
            }
        }
    }

    fn verdict(mut self) -> Result<Report, Failure> {
        let mut report = Report {
            hash: self.cluster.trace.hash(),
            operations: self.cluster.calls.len() as u64,
            faults: self.faults.struck.clone(),
            unformed: u64::from(self.unformed),
            forced_again: self.forced_again,
            simulated_us: self.cluster.now_us,
            events: self.cluster.events,
            ..Report::default()
        };
        if let Some(fault) = self.cluster.fault_of_watchers() {
            return Err(Failure(format!("W1: {fault}")));
        }
        let calls = std::mem::take(&mut self.cluster.calls);
        for call in &calls {
            *report.outcomes.entry(name_of(&call.ending)).or_default() += 1;
        }
        let mut calls = scans::as_reads(&calls).map_err(Failure)?;
        self.check_transactions(&mut calls, &mut report)?;
        let mut by_key: BTreeMap<Bytes, Vec<RecordedCall>> = BTreeMap::new();
        for call in calls {
            by_key.entry(call.key.clone()).or_default().push(call);
        }
        let clock_error_us = self.plan.clock_error_us();
        for (key, calls) in by_key {
            match checker::check_within(&calls, CHECK_EFFORT_MAX, clock_error_us) {
                CheckVerdict::Linearizable => {}
                CheckVerdict::Undecided => {
                    report.undecided += 1;
                    let (trace, now_us) = (&mut self.cluster.trace, self.cluster.now_us);
                    trace.story(now_us, || {
                        format!("key {} is too hard to check", show(&key))
                    });
                }
                CheckVerdict::Violation(_) if self.cluster.watch.may_have_lost() => {
                    report.lost += 1
                }
                CheckVerdict::Violation(calls) => return Err(not_linearizable(&key, &calls)),
            }
        }
        Ok(report)
    }
}

impl Run {
    /// Takes out the operations on all keys that transactions combine, and checks these together.
    fn check_transactions(
        &mut self,
        calls: &mut Vec<RecordedCall>,
        report: &mut Report,
    ) -> Result<(), Failure> {
        let may_have_lost = self.cluster.watch.may_have_lost();
        if let Some(call) = wrong_sum(calls).filter(|_| !may_have_lost) {
            return Err(Failure(format!("the accounts have another sum:\n  {call}")));
        }
        for part in several::components(calls) {
            match several::check(&part, SEVERAL_EFFORT_MAX) {
                CheckVerdict::Linearizable => {}
                CheckVerdict::Undecided => {
                    report.undecided += 1;
                    let (trace, now_us) = (&mut self.cluster.trace, self.cluster.now_us);
                    trace.story(now_us, || "a group of keys is too hard to check".into());
                }
                CheckVerdict::Violation(_) if may_have_lost => report.lost += 1,
                CheckVerdict::Violation(calls) => {
                    return Err(not_linearizable(
                        &Bytes::from_static(b"transactions"),
                        &calls,
                    ));
                }
            }
        }
        Ok(())
    }

    /// T8, T9: no intent and no decision register stays.
    fn nothing_remains(&self) -> bool {
        self.remains_of_transactions().next().is_none()
    }

    /// Intents and registers on the disks of members, as text.
    fn remains_of_transactions(&self) -> impl Iterator<Item = String> {
        let nodes = 0..self.cluster.nodes.len();
        let members = nodes.filter(|node| self.cluster.vote_of(*node).is_some());
        members.flat_map(|node| {
            let registers = &self.cluster.nodes[node].disk.synced().registers;
            registers.iter().filter_map(move |(key, state)| {
                let record = state.record.as_ref()?;
                let what = if let Some(intent) = &record.intent {
                    format!("{:?}", Intent::decode(intent))
                } else if key.space() == SPACE_TRANSACTION && record.value.is_some() {
                    format!("{:?}", Register::of(record))
                } else {
                    return None;
                };
                Some(format!("node {node}, {key:?}: {what}"))
            })
        })
    }
}

fn not_linearizable(key: &Bytes, calls: &[RecordedCall]) -> Failure {
    let mut text = format!("key {} is not linearizable:", show(key));
    let left_out = calls.len().saturating_sub(60);
    if left_out > 0 {
        text += &format!("\n  ({left_out} earlier operations)");
    }
    for call in &calls[left_out..] {
        text += &format!("\n  {call}");
    }
    Failure(text)
}

fn name_of(ending: &Ending) -> &'static str {
    match ending {
        Ending::Open => "never answered",
        Ending::TimedOut => "timed out",
        Ending::Answered(outcome) => match outcome {
            Outcome::Value { .. } | Outcome::Lives { .. } => "value",
            Outcome::Stale { .. } => "stale",
            Outcome::NotKnown => "not known",
            Outcome::Absent => "absent",
            Outcome::Page(_) => "page",
            Outcome::Watched(_) => "watched",
            Outcome::Written { .. } => "written",
            Outcome::NothingToDelete => "nothing to delete",
            Outcome::Conflict { .. } => "conflict",
            Outcome::NotANumber => "not a number",
            Outcome::Overflow => "overflow",
            Outcome::TooLarge { .. } => "too large",
            Outcome::NoQuorum { .. } => "no quorum",
            Outcome::Busy { .. } => "busy",
            Outcome::Full { .. } => "full",
            Outcome::Unknown => "unknown",
            Outcome::Remake { .. } => "remake",
            Outcome::Ahead { .. } => "ahead",
            Outcome::Committed { .. } => "committed",
            Outcome::Failed { .. } => "failed",
            Outcome::Placed { .. } => "placed",
        },
    }
}
