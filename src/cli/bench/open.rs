//! An open loop: operations start by a schedule, whether earlier ones have ended or not.
//!
//! Latency counts from the intended start, so it includes the time in the queue, as it would for a
//! user (a closed loop omits that time: coordinated omission). At the limit of operations in flight
//! the next operations queue. Operations that are still queued when the time is up are not
//! submitted; they count as `behind`. The loop then waits for the operations in flight, until their
//! deadlines.

use std::time::{Duration, Instant};

use kvclient::Completion;
use rand::rngs::StdRng;

use super::load::{COMPLETIONS_MAX, Load, LoadResult, WAIT_MAX};
use super::record::Flight;
use super::schedule::RateSchedule;

/// The number of operations that are submitted in a row. Completions are timed when they are taken,
/// so more of them would delay these times.
const SUBMITTED_MAX: usize = 256;

/// With more operations in flight than this, those that become due wait for up to `PAUSE`, and are
/// submitted together. Else the loop would sleep and wake for each one, many thousand times per
/// second, and beyond the peak it would take the processors from nodes on the same machine.
const CROWD: usize = 64;
const PAUSE: Duration = Duration::from_millis(1);

/// The state of one handle.
struct OpenLoop {
    schedule: RateSchedule,
    random: StdRng,
    /// The number of the next operation in the schedule.
    next: u64,
    /// The operations in flight, by tag.
    flights: Vec<Option<Flight>>,
    /// Tags that are free.
    free: Vec<usize>,
}

impl OpenLoop {
    fn in_flight(&self) -> usize {
        self.flights.len() - self.free.len()
    }
}

impl Load {
    pub fn open_loop(&self, schedule: RateSchedule, into: &mut LoadResult) {
        let mut state = OpenLoop {
            schedule,
            random: self.random(),
            next: 0,
            flights: vec![None; self.clients],
            free: (0..self.clients).rev().collect(),
        };
        let mut completions: Vec<Completion> = Vec::with_capacity(COMPLETIONS_MAX);
        loop {
            let is_over = self.is_over(self.started.elapsed());
            if !is_over {
                self.submit_due(&mut state, into);
            }
            if self.client.completions(&mut completions, COMPLETIONS_MAX) > 0 {
                self.take(&mut state, completions.drain(..), into);
            } else if !is_over {
                self.client.wait(self.until_next(&state));
            } else if state.in_flight() > 0 {
                self.client.wait(WAIT_MAX);
            } else {
                break;
            }
        }
        let tally = &mut into.tally;
        let before = schedule.due_before(self.warmup);
        let next = state.next.max(before);
        let end = self.warmup + self.measured();
        let due = schedule.due_before(end).max(next);
        tally.intended = due - before;
        tally.behind = due - next;
        if tally.behind > 0 {
            tally.behind_longest = end.saturating_sub(schedule.start_of(next));
        }
    }

    /// The beginning of the load.
    fn begun(&self) -> Instant {
        self.started - self.warmup
    }

    /// Submits the operations that are due, up to the limit of operations in flight.
    fn submit_due(&self, state: &mut OpenLoop, into: &mut LoadResult) {
        let elapsed = self.begun().elapsed().min(self.warmup + self.duration);
        let due = state.schedule.due_before(elapsed);
        for _ in 0..SUBMITTED_MAX {
            if state.next >= due {
                return;
            }
            let Some(tag) = state.free.pop() else {
                return;
            };
            if !self.take_room() {
                return;
            }
            let intended = self.begun() + state.schedule.start_of(state.next);
            state.next += 1;
            let picked = self.workload.pick(&mut state.random);
            let called = Instant::now();
            let late = called.saturating_duration_since(intended);
            if intended >= self.started {
                into.tally.submitted_late = into.tally.submitted_late.max(late);
            }
            let flight = picked.flight(intended, called);
            match self.client.submit(picked.call, tag as u64) {
                Ok(()) => state.flights[tag] = Some(flight),
                Err(error) => {
                    self.refused(into, &flight, tag, error);
                    state.free.push(tag);
                }
            }
        }
    }

    fn take(
        &self,
        state: &mut OpenLoop,
        completions: impl Iterator<Item = Completion>,
        into: &mut LoadResult,
    ) {
        // Before the operations that have ended are removed.
        let in_flight = state.in_flight() as u64;
        let ended = Instant::now();
        if ended >= self.started {
            into.tally.in_flight_max = into.tally.in_flight_max.max(in_flight);
        }
        let is_late = self.is_over(ended - self.started);
        for Completion { tag, result } in completions {
            let tag = tag as usize;
            let flight = state.flights[tag].take().expect("it was started");
            self.record(&mut into.log, &flight, tag, ended, &result);
            if self.count(&mut into.tally, &flight, ended, result) && is_late {
                into.tally.late[flight.kind as usize] += 1;
            }
            state.free.push(tag);
        }
    }

    /// The time until the next operation is due or the measurement ends.
    fn until_next(&self, state: &OpenLoop) -> Duration {
        let elapsed = self.begun().elapsed();
        let left = (self.warmup + self.duration).saturating_sub(elapsed);
        let next = match state.free.is_empty() {
            true => left,
            false => state.schedule.start_of(state.next).saturating_sub(elapsed),
        };
        let pause = match state.in_flight() > CROWD {
            true => PAUSE,
            false => Duration::ZERO,
        };
        next.max(pause).min(left).min(WAIT_MAX)
    }
}
