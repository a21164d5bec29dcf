//! Snapshots (T11): transactions that only read. They read all keys twice, and where writes are
//! frequent they run in place, as ordinary transactions of this node's own.

use std::sync::Arc;

use wire::{Failure, KeyResult, Operation, OperationId, Outcome, Transaction};

use super::run::{RunPhase, TransactionRun, too_large, transaction_of};
use super::{Due, RunJob, Surroundings, Transactions};
use crate::protocol::clients::pending::Pending;
use crate::protocol::register::applied::check_conditions;
use crate::protocol::types::limits::{SNAPSHOT_CHANGED_MAX, SNAPSHOT_TRIES_MAX};
use crate::protocol::types::message::NodeId;
use crate::protocol::types::record::Key;
use crate::protocol::types::rules::rule;
use crate::protocol::types::transaction::{Seen, TransactionStep};

impl Transactions {
    /// T11: reads all keys; `before`: what they were at the last time.
    pub(super) fn read_all(
        &mut self,
        around: &Surroundings<'_>,
        id: OperationId,
        tries: u32,
        before: Option<Vec<Seen>>,
    ) {
        let keys = self.runs[&id].keys();
        let seen = vec![None; keys.len()];
        self.turn(
            id,
            RunPhase::Snapshot {
                tries,
                before,
                seen,
            },
        );
        let operation = self.runs[&id].operation.clone();
        for (part, key) in keys.into_iter().enumerate() {
            let job = self.job(id, RunJob::Part(part));
            self.step_of(
                around,
                key,
                TransactionStep::Read,
                operation.clone(),
                false,
                job,
            );
        }
    }

    pub(super) fn seen(
        &mut self,
        around: &Surroundings<'_>,
        id: OperationId,
        part: usize,
        read: Seen,
    ) {
        let run = self.runs.get_mut(&id).expect("the caller looked");
        let RunPhase::Snapshot {
            tries,
            before,
            seen,
        } = &mut run.phase
        else {
            // Without T2_read.
            match judge(run.transaction(), part, &read) {
                Ok(result) => self.held(around, id, part, result),
                Err(failure) => self.fail(around, id, failure),
            }
            return;
        };
        seen[part] = Some(read);
        if seen.iter().any(Option::is_none) {
            return;
        }
        let seen: Vec<Seen> = seen.drain(..).flatten().collect();
        let is_enough = seen.len() == 1 || !rule!(T11);
        let changed = before.take().map(|before| changed(&before, &seen));
        let tries = *tries + 1;
        if changed == Some(0) || is_enough {
            self.answer_snapshot(id, &seen);
        } else if tries <= SNAPSHOT_TRIES_MAX
            && changed.is_none_or(|changed| changed <= SNAPSHOT_CHANGED_MAX)
        {
            self.read_all(around, id, tries, Some(seen));
        } else {
            self.run_in_place(around, id);
        }
    }

    fn answer_snapshot(&mut self, id: OperationId, seen: &[Seen]) {
        let transaction = self.runs[&id].transaction();
        let parts = 0..seen.len();
        let results = parts.map(|part| judge(transaction, part, &seen[part]));
        let outcome = match results.collect::<Result<Vec<_>, _>>() {
            Ok(results) if size_of(&results) > wire::VALUE_SIZE_MAX => Outcome::Failed {
                failure: too_large(),
            },
            Ok(results) => Outcome::Committed { results },
            Err(failure) => Outcome::Failed { failure },
        };
        self.finish(id, outcome);
    }

    /// T11: the run in place whose answer is also that of this snapshot: it is asked the same, and
    /// its commit is still to come, so it will have seen all that was done before now. A condition
    /// may have failed already, in a state that has changed since.
    fn shareable(&self, snapshot: &Pending) -> Option<OperationId> {
        if has_conditions(&snapshot.operation) {
            return None;
        }
        let mut runs = self.in_place.values();
        let shares = |id: &&OperationId| {
            let run = self.runs.get(id);
            run.is_some_and(|run| {
                run.is_undecided() && run.pending.operation.action == snapshot.operation.action
            })
        };
        runs.find(shares).copied()
    }

    /// Returns the snapshot if it has to run itself.
    pub(super) fn share(&mut self, snapshot: Pending) -> Option<Pending> {
        if !rule!(T11) {
            return Some(snapshot);
        }
        let Some(id) = self.shareable(&snapshot) else {
            return Some(snapshot);
        };
        self.in_place.insert(snapshot.operation.id, id);
        let run = self.runs.get_mut(&id).expect("just seen");
        run.take_in(snapshot);
        None
    }

    /// Runs the snapshot as an ordinary transaction, under an id of this node's own: a client's
    /// reads have no identity that outlives them. It keeps the age of the snapshot, or the younger
    /// transactions that it meets would all abort it (T6).
    fn run_in_place(&mut self, around: &Surroundings<'_>, id: OperationId) {
        let Some(first) = self.own else {
            return;
        };
        let mut run = self.runs.remove(&id).expect("the caller looked");
        let Some(pending) = self.share(run.pending) else {
            return;
        };
        run.pending = pending;
        let birth = run.pending.operation.birth.min(around.clock);
        let own = self.own_operation(&mut run, birth, first);
        self.gather(&mut run);
        self.run_as(around, own, run);
    }

    fn run_as(&mut self, around: &Surroundings<'_>, own: OperationId, run: TransactionRun) {
        for snapshot in run.sharers.iter().chain([&run.pending]) {
            self.in_place.insert(snapshot.operation.id, own);
        }
        self.due.insert((run.pending.deadline_us, Due::Run(own)));
        self.runs.insert(own, run);
        self.start(around, own);
    }

    /// The other snapshots of the same keys share the run.
    fn gather(&mut self, run: &mut TransactionRun) {
        let is_same = |other: &TransactionRun| {
            let reads = matches!(other.phase, RunPhase::Snapshot { .. });
            reads && other.operation.action == run.operation.action && rule!(T11)
        };
        let ids = self.runs.iter().filter(|(_, other)| is_same(other));
        let ids: Vec<OperationId> = ids.map(|(id, _)| *id).collect();
        for other in ids.iter().filter_map(|id| self.runs.remove(id)) {
            run.take_in(other.pending);
        }
    }

    fn own_operation(
        &mut self,
        run: &mut TransactionRun,
        birth: u64,
        last: OperationId,
    ) -> OperationId {
        let sequence = last.sequence + 1;
        let own = OperationId { sequence, ..last };
        self.own = Some(own);
        // X1: the lowest one that is in progress.
        let first = OperationId { sequence: 0, ..own };
        let mut lower = self.runs.range(first..own);
        let lowest = lower.next().map(|(id, _)| id.sequence);
        let mut operation = (*run.operation).clone();
        operation.id = own;
        operation.birth = birth;
        operation.low_mark = lowest.unwrap_or(sequence);
        run.operation = Arc::new(operation);
        run.begin_anew();
        own
    }

    /// X1: the table of the register no longer answers for the snapshot's birth. Nothing was done
    /// under its id, so it runs as one that was born now. It has another id: the intents of the
    /// earlier one are void, as some nodes know by now. Returns whether it does.
    pub(super) fn renew(&mut self, around: &Surroundings<'_>, id: OperationId) -> bool {
        let is_young = |run: &TransactionRun| run.operation.birth >= around.clock;
        let run = self.runs.get(&id);
        let Some(last) = self.own else { return false };
        if run.is_none_or(|run| !run.is_in_place() || is_young(run)) {
            return false;
        }
        let mut run = self.runs.remove(&id).expect("just seen");
        self.leave(&run);
        let own = self.own_operation(&mut run, around.clock, last);
        self.run_as(around, own, run);
        true
    }

    /// X5: this node has lost its quorum. It refuses its clients' snapshots, so that they ask
    /// another node. A snapshot only reads, so nothing of it can be half done.
    pub fn refuse_snapshots(&mut self, around: &Surroundings<'_>, reached: &[NodeId]) {
        let is_snapshot =
            |(id, run): (&OperationId, &TransactionRun)| run.pending.is_read().then_some(*id);
        let ids: Vec<OperationId> = self.runs.iter().filter_map(is_snapshot).collect();
        for id in ids {
            if self.runs[&id].is_in_place() {
                // T8: its register may be pending. The first sweep with a quorum aborts it.
                self.tracked.track(Key::transaction(id), around.now.mono_us);
            }
            let reached = reached.to_vec();
            self.finish(id, Outcome::NoQuorum { reached });
        }
    }

    /// Under this id the node runs its own transactions.
    pub fn set_own(&mut self, client: u128) {
        self.own.get_or_insert(OperationId {
            client,
            sequence: 0,
        });
    }

    pub fn has_own(&self) -> bool {
        self.own.is_some()
    }
}

fn has_conditions(operation: &Operation) -> bool {
    let mut parts = transaction_of(operation).parts.iter();
    parts.any(|part| !part.conditions.is_empty())
}

fn size_of(results: &[KeyResult]) -> usize {
    let values = results.iter().filter_map(|result| result.value.as_ref());
    values.map(|value| value.len()).sum()
}

/// The result of a part that only reads.
fn judge(transaction: &Transaction, place: usize, seen: &Seen) -> Result<KeyResult, Failure> {
    let part = &transaction.parts[place];
    let found = seen.value.as_ref().map_or(0, |_| seen.version);
    let held = check_conditions(part, seen.value.as_ref(), found);
    held.map_err(|reason| Failure {
        part: place as u16,
        reason,
    })?;
    Ok(KeyResult {
        found,
        value: seen.value.clone().filter(|_| part.get),
        version: found,
        number: None,
    })
}

/// T11: a key without a record was not written and purged in between if one of the members that
/// answered has the same floor in the same epoch: a purge would have raised it.
fn is_unchanged(before: &Seen, now: &Seen) -> bool {
    let is_absent_still = match (&before.floors, &now.floors) {
        (None, None) => true,
        (Some((epoch, before)), Some((now_epoch, now))) => {
            epoch == now_epoch && before.iter().any(|floor| now.contains(floor))
        }
        _ => false,
    };
    before.version == now.version && is_absent_still
}

/// How many keys are not as they were.
fn changed(before: &[Seen], now: &[Seen]) -> usize {
    let pairs = before.iter().zip(now);
    pairs
        .filter(|(before, now)| !is_unchanged(before, now))
        .count()
}
