//! One operation on each key: the first puts, before the load, and with `--check` the last gets.

use std::time::Instant;

use kvclient::{CallError, Client, Completion};

use super::early::EarlyEnd;
use super::load::{COMPLETIONS_MAX, WAIT_MAX, Workload};
use super::record::{Flight, RecordLog};
use super::tally::Kind;

/// Concurrent operations.
const UNDER_WAY_MAX: usize = 256;
/// The number of attempts for a key.
const TRIES_MAX: u32 = 5;

/// Why the pass ended before all keys were done.
#[derive(Debug)]
pub enum KeysLeft {
    Error(CallError),
    Interrupted,
}

/// An operation on each key, by one client.
#[derive(Debug)]
pub struct KeyPass<'a> {
    pub client: &'a Client,
    pub workload: &'a Workload,
    pub kind: Kind,
    /// The client's number in the record.
    pub client_number: u32,
    /// What interrupts the pass.
    pub early: Option<&'a EarlyEnd>,
}

impl KeyPass<'_> {
    /// Ends when all keys are done, or at the first key that fails. Returns the number of keys that
    /// are done.
    pub fn run(&self, log: &mut RecordLog) -> (usize, Result<(), KeysLeft>) {
        let count = self.workload.key_count();
        let mut tries = vec![0; count];
        let mut flights: Vec<Option<Flight>> = vec![None; count];
        let mut waiting: Vec<usize> = (0..count).rev().collect();
        let mut completions: Vec<Completion> = Vec::new();
        let (mut under_way, mut done) = (0, 0);
        let mut end = Ok(());
        while under_way > 0 || end.is_ok() && !waiting.is_empty() {
            if self.early.is_some_and(EarlyEnd::is_set) {
                return (done, Err(KeysLeft::Interrupted));
            }
            while end.is_ok()
                && under_way < UNDER_WAY_MAX
                && let Some(key) = waiting.pop()
            {
                match self.start(key) {
                    Ok(flight) => {
                        flights[key] = Some(flight);
                        under_way += 1;
                    }
                    Err(CallError::Busy) if under_way > 0 => {
                        waiting.push(key);
                        break;
                    }
                    Err(error) => end = Err(KeysLeft::Error(error)),
                }
            }
            if self.client.completions(&mut completions, COMPLETIONS_MAX) == 0 {
                self.client.wait(WAIT_MAX);
            }
            let ended = Instant::now();
            for Completion { tag, result } in completions.drain(..) {
                under_way -= 1;
                let key = tag as usize;
                let flight = flights[key].take().expect("it was started");
                self.workload
                    .record(log, &flight, self.client_number, ended, &result);
                let Err(error) = result else {
                    done += 1;
                    continue;
                };
                tries[key] += 1;
                if tries[key] < TRIES_MAX && !matches!(error, CallError::NoQuorum { .. }) {
                    waiting.push(key);
                } else if end.is_ok() {
                    end = Err(KeysLeft::Error(error));
                }
            }
        }
        (done, end)
    }

    fn start(&self, key: usize) -> Result<Flight, CallError> {
        let picked = self.workload.operation(self.kind, key as u32);
        let called = Instant::now();
        let flight = picked.flight(called, called);
        self.client.submit(picked.call, key as u64)?;
        Ok(flight)
    }
}
