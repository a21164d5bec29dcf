//! As many writes as the cluster accepts, on many keys, and a check that no acknowledged write is
//! missing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use bytes::Bytes;
use kvclient::{Call, CallError, Client, ClientOptions, Completion};
use wire::{Action, Outcome};

use crate::clients::Clock;
use crate::random::Random;
use crate::record::Latency;

const KEYS: usize = 1_000_000;
const VALUE_SIZE: usize = 100;
/// Concurrent operations: while all keys are written or read once, and for the flood itself.
const BULK_MAX: usize = 1_024;
const LOOPS: usize = 64;
const COMPLETIONS_MAX: usize = 4_096;
const TOLD_MAX: usize = 3;

#[derive(Debug)]
pub struct Flood {
    client: Client,
    /// For each key, the number in the last acknowledged write, and in the last attempted one.
    acknowledged: Vec<u32>,
    tried: Vec<u32>,
}

fn key(number: usize) -> Bytes {
    Bytes::from(format!("flood/{number:08}"))
}

fn value(count: u32) -> Bytes {
    let mut value = vec![b'.'; VALUE_SIZE];
    value[..4].copy_from_slice(&count.to_le_bytes());
    value.into()
}

fn count_in(value: &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(value.get(..4)?.try_into().ok()?))
}

impl Flood {
    /// Writes each key once.
    pub fn fill(list: &str) -> Result<Flood> {
        let client = Client::open(list, ClientOptions::default())?;
        let mut flood = Flood {
            client,
            acknowledged: vec![0; KEYS],
            tried: vec![1; KEYS],
        };
        let put = |_| Action::Put { value: value(1) };
        flood.each_once(put, |flood, at, result| {
            let done = matches!(result, Ok(Outcome::Written { .. }));
            flood.acknowledged[at] = u32::from(done);
            Ok(done)
        })?;
        Ok(flood)
    }

    /// Deletes each key.
    pub fn empty(&mut self) -> Result<()> {
        let done = |outcome| matches!(outcome, Outcome::Written { .. } | Outcome::NothingToDelete);
        self.each_once(
            |_| Action::Delete,
            |_, _, result| Ok(result.is_ok_and(done)),
        )
    }

    pub fn check_gone(&mut self) -> Result<()> {
        self.each_once(
            |_| Action::Get,
            |_, at, result| match result {
                Ok(Outcome::Absent) => Ok(true),
                Ok(Outcome::Value { .. }) => bail!("key {at} is back"),
                Ok(_) | Err(_) => Ok(false),
            },
        )
    }

    /// One operation for each key, retried until `learn` accepts its outcome.
    fn each_once(
        &mut self,
        action: impl Fn(usize) -> Action,
        mut learn: impl FnMut(&mut Flood, usize, Result<Outcome, CallError>) -> Result<bool>,
    ) -> Result<()> {
        let mut waiting: Vec<usize> = (0..KEYS).collect();
        let (mut under_way, mut failures) = (0, 0);
        let mut completions: Vec<Completion> = Vec::new();
        while under_way > 0 || !waiting.is_empty() {
            while under_way < BULK_MAX
                && let Some(at) = waiting.pop()
            {
                let call = Call::new(key(at), action(at));
                match self.client.submit(call, at as u64) {
                    Ok(()) => under_way += 1,
                    Err(CallError::Busy) if under_way > 0 => {
                        waiting.push(at);
                        break;
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            if self.client.completions(&mut completions, COMPLETIONS_MAX) == 0 {
                self.client.wait(Duration::from_millis(100));
            }
            for Completion { tag, result } in completions.drain(..) {
                under_way -= 1;
                let at = tag as usize;
                if !learn(self, at, result)? {
                    failures += 1;
                    ensure!(failures < KEYS / 10, "most operations on all keys fail");
                    waiting.push(at);
                }
            }
        }
        Ok(())
    }

    /// Writes until `stop` is set; each loop has its own keys, so that no key has two writes in
    /// progress.
    pub fn run(
        &mut self,
        clock: &Clock,
        seed: u64,
        stop: &AtomicBool,
    ) -> (Vec<Latency>, Vec<String>) {
        let mut random = Random::stream(seed, 0);
        let (mut writes, mut errors) = (Vec::new(), Vec::new());
        let mut under_way = vec![(0, 0); LOOPS];
        let mut idle: Vec<usize> = (0..LOOPS).collect();
        let mut completions: Vec<Completion> = Vec::new();
        while !stop.load(Ordering::Relaxed) || idle.len() < LOOPS {
            while !stop.load(Ordering::Relaxed)
                && let Some(turn) = idle.pop()
            {
                let at = random.below((KEYS / LOOPS) as u64) as usize * LOOPS + turn;
                self.tried[at] += 1;
                under_way[turn] = (at, clock.now_us());
                let value = value(self.tried[at]);
                let call = Call::new(key(at), Action::Put { value });
                let submitted = self.client.submit(call, turn as u64);
                submitted.expect("there is room for so few");
            }
            if self.client.completions(&mut completions, COMPLETIONS_MAX) == 0 {
                self.client.wait(Duration::from_millis(100));
            }
            let ended_us = clock.now_us();
            for Completion { tag, result } in completions.drain(..) {
                let turn = tag as usize;
                let (at, began_us) = under_way[turn];
                idle.push(turn);
                match result {
                    Ok(Outcome::Written { .. }) => {
                        self.acknowledged[at] = self.tried[at];
                        let us = u32::try_from(ended_us - began_us).unwrap_or(u32::MAX);
                        writes.push(Latency { ended_us, us });
                    }
                    other => errors.push(format!("a write of the flood: {other:?}")),
                }
            }
        }
        (writes, told(errors))
    }

    /// Reads all keys: none may lack an acknowledged write, or contain a value that was never
    /// written.
    pub fn check(&mut self) -> Result<Vec<String>> {
        let mut wrong = Vec::new();
        self.each_once(
            |_| Action::Get,
            |flood, at, result| {
                let found = match result {
                    Ok(Outcome::Value { value, .. }) => count_in(&value),
                    Ok(Outcome::Absent) => None,
                    Ok(_) | Err(_) => return Ok(false),
                };
                let (low, high) = (flood.acknowledged[at], flood.tried[at]);
                if !found.is_some_and(|count| (low..=high).contains(&count)) {
                    wrong.push(format!(
                        "key {at} holds write {found:?}, of {high}; {low} was acknowledged"
                    ));
                }
                Ok(true)
            },
        )?;
        Ok(told(wrong))
    }
}

/// The first lines, and the number of the others.
fn told(mut lines: Vec<String>) -> Vec<String> {
    let more = lines.len().saturating_sub(TOLD_MAX);
    lines.truncate(TOLD_MAX);
    if more > 0 {
        lines.push(format!("... and {more} more"));
    }
    lines
}
