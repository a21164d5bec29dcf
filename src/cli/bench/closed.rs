//! Closed loops: each client starts an operation when its last one has ended.
//!
//! Operations that end after the time is up do not count; with `--check` they are waited for and
//! recorded.

use std::time::{Duration, Instant};

use kvclient::Completion;

use super::load::{COMPLETIONS_MAX, Load, LoadResult, WAIT_MAX};
use super::record::Flight;

/// Between attempts to submit what the handle refused.
const PAUSE: Duration = Duration::from_millis(1);

impl Load {
    /// A single client uses the synchronous call.
    pub fn one_at_a_time(&self, into: &mut LoadResult) {
        let mut random = self.random();
        into.tally.per_client = vec![0];
        while self.take_room() {
            let picked = self.workload.pick(&mut random);
            let called = Instant::now();
            let flight = picked.flight(called, called);
            let result = self.client.call(picked.call);
            let ended = Instant::now();
            self.record(&mut into.log, &flight, 0, ended, &result);
            if self.is_over(ended - self.started) {
                return;
            }
            let succeeded = self.count(&mut into.tally, &flight, ended, result);
            into.tally.per_client[0] += u64::from(succeeded);
        }
    }

    pub fn closed_loops(&self, into: &mut LoadResult) {
        let mut random = self.random();
        into.tally.per_client = vec![0; self.clients];
        let mut flights: Vec<Option<Flight>> = vec![None; self.clients];
        let mut idle: Vec<usize> = (0..self.clients).collect();
        let mut completions: Vec<Completion> = Vec::with_capacity(COMPLETIONS_MAX);
        loop {
            while let Some(at) = idle.pop() {
                if !self.take_room() {
                    break;
                }
                let picked = self.workload.pick(&mut random);
                let called = Instant::now();
                let flight = picked.flight(called, called);
                if let Err(error) = self.client.submit(picked.call, at as u64) {
                    self.refused(into, &flight, at, error);
                    idle.push(at);
                    // The call was refused; when calls in progress have ended, the next one may be
                    // accepted.
                    std::thread::sleep(PAUSE);
                    break;
                }
                flights[at] = Some(flight);
            }
            let elapsed = self.started.elapsed();
            if self.is_over(elapsed) {
                break;
            }
            // The call also sends what was submitted, so waiting first would only delay that.
            if self.client.completions(&mut completions, COMPLETIONS_MAX) == 0 {
                self.client.wait(WAIT_MAX.min(self.duration - elapsed));
                continue;
            }
            let ended = Instant::now();
            if self.is_over(ended - self.started) {
                break;
            }
            for Completion { tag, result } in completions.drain(..) {
                let at = tag as usize;
                let flight = flights[at].take().expect("it was started");
                self.record(&mut into.log, &flight, at, ended, &result);
                let succeeded = self.count(&mut into.tally, &flight, ended, result);
                into.tally.per_client[at] += u64::from(succeeded);
                idle.push(at);
            }
        }
        if self.workload.recording.is_some() {
            self.record_the_rest(into, &mut flights, completions);
        }
    }

    /// Records the operations that are in flight when the time is up.
    fn record_the_rest(
        &self,
        into: &mut LoadResult,
        flights: &mut [Option<Flight>],
        mut completions: Vec<Completion>,
    ) {
        let mut left = flights.iter().flatten().count();
        while left > 0 {
            let ended = Instant::now();
            for Completion { tag, result } in completions.drain(..) {
                let at = tag as usize;
                let flight = flights[at].take().expect("it was started");
                self.record(&mut into.log, &flight, at, ended, &result);
                left -= 1;
            }
            if left > 0 && self.client.completions(&mut completions, COMPLETIONS_MAX) == 0 {
                self.client.wait(WAIT_MAX);
            }
        }
    }
}
