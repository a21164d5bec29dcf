//! Locks: a key that is put if it is absent, with a time to live. Its version is the fencing token,
//! which rises with every holder. docs/locks.md says what a lock can and cannot promise.
//!
//! ```no_run
//! use std::time::Duration;
//! use kvclient::lock::{Lock, LockOptions};
//! use kvclient::{Client, ClientOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::open("node1:7001,node2:7001,node3:7001", ClientOptions::default())?;
//! let options = LockOptions { wait: Duration::from_secs(5), ..LockOptions::default() };
//! let Some(mut lock) = Lock::acquire(&client, "locks/report", options)? else {
//!     return Ok(()); // Another one holds it.
//! };
//! while lock.renew(&client)? {
//!     // One step of the work. The resource refuses tokens below the highest that it has seen.
//!     println!("with token {}", lock.token());
//! }
//! lock.release(&client)?;
//! # Ok(())
//! # }
//! ```

use std::time::Duration;

use bytes::Bytes;
use wire::{Action, Old, Outcome, TTL_MS_MAX, Version};

use crate::boot_time::BootTime;
use crate::client::Client;
use crate::session::{Call, CallError};

/// How often a lock that another one holds is tried again.
const AGAIN: Duration = Duration::from_millis(100);
/// Longer waits are shortened to a hundred years.
const WAIT_MAX: Duration = Duration::from_millis(TTL_MS_MAX);

#[derive(Debug, Clone)]
pub struct LockOptions {
    /// How long the lock is held without a renewal.
    pub ttl: Duration,
    /// How long to wait for a lock that another one holds. Zero: one attempt. An attempt itself
    /// waits for its answer at most as long as any call of the client.
    pub wait: Duration,
    /// What others see as the value of the key, before a random number: who holds the lock.
    pub holder: String,
}

impl Default for LockOptions {
    fn default() -> Self {
        LockOptions {
            ttl: Duration::from_secs(10),
            wait: Duration::ZERO,
            holder: String::new(),
        }
    }
}

/// A lock that was acquired. Dropping it does not give it back: it ends with its time to live.
#[derive(Debug)]
pub struct Lock {
    key: Bytes,
    token: Version,
    ttl: Duration,
    /// L3: from here on the lock counts as lost, whatever the store knows. It is counted from when
    /// the call that set the time to live was made, so the store's expiry is never earlier. The
    /// store's clocks go on while this machine is suspended, and so does this one.
    until: BootTime,
}

impl Lock {
    /// Waits for the lock; `None`: another one held it all the time. After an error the lock may be
    /// held by nobody until its time to live has passed.
    pub fn acquire(
        client: &Client,
        key: impl Into<Bytes>,
        options: LockOptions,
    ) -> Result<Option<Lock>, CallError> {
        let key = key.into();
        let owner = owner(&options.holder)?;
        let is_sound = (1..=u128::from(TTL_MS_MAX)).contains(&options.ttl.as_millis());
        if !is_sound {
            let why = "a lock's time to live is from 1 ms to a hundred years";
            return Err(CallError::InvalidArgument(why));
        }
        let end = BootTime::now() + options.wait.min(WAIT_MAX);
        // An attempt without an answer may have been applied: it counts from the first one.
        let mut unanswered = None;
        loop {
            let began = BootTime::now();
            let result = attempt(client, &key, &owner, &options, end);
            let since = unanswered.unwrap_or(began);
            let token = match result {
                Ok(Outcome::Written { version, .. }) => Some(version),
                Ok(Outcome::Conflict {
                    version,
                    old: Old::Value(value),
                }) if value == owner => Some(version),
                Ok(_) => None,
                Err(CallError::UnknownOutcome) if !end.has_passed() => {
                    unanswered = Some(since);
                    continue;
                }
                Err(CallError::Busy | CallError::NoQuorum { .. }) if !end.has_passed() => None,
                Err(error) => return Err(error),
            };
            if let Some(token) = token {
                let lock = Lock {
                    key: key.clone(),
                    token,
                    ttl: options.ttl,
                    until: since + options.ttl,
                };
                if lock.is_held() {
                    return Ok(Some(lock));
                }
                // The answer came too late. If the lock is still this one's, it is given back.
                lock.release(client)?;
                unanswered = None;
            }
            let left = end.left();
            if left.is_zero() {
                return Ok(None);
            }
            std::thread::sleep(AGAIN.min(left));
        }
    }

    /// The fencing token.
    pub fn token(&self) -> Version {
        self.token
    }

    /// How long the lock is still held without a renewal; zero: it is lost.
    pub fn left(&self) -> Duration {
        self.until.left()
    }

    /// Whether the lock is held, by this machine's monotonic clock, which goes on while the machine
    /// is suspended. A program that is stopped after it asked does not notice that the lock is
    /// lost: only the token helps against that.
    pub fn is_held(&self) -> bool {
        !self.left().is_zero()
    }

    /// Begins the time to live anew; false if the lock is lost. Waits at most as long as any call
    /// of the client, and at most as long as the lock is held. After an error the lock is held as
    /// long as before, and may be renewed again.
    pub fn renew(&mut self, client: &Client) -> Result<bool, CallError> {
        let began = BootTime::now();
        let left = self.left();
        if left.is_zero() {
            return Ok(false);
        }
        let action = Action::Expire {
            ttl_ms: millis(self.ttl),
            over: Some(self.token),
        };
        match client.call(within(&self.key, action, left.min(client.deadline()))) {
            Ok(Outcome::Written { .. }) if self.is_held() => {
                self.until = began + self.ttl;
                Ok(true)
            }
            // It was renewed too late: others may have been told already that it is lost.
            Ok(_) => {
                self.until = began;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Gives the lock back; false if it was lost before.
    pub fn release(self, client: &Client) -> Result<bool, CallError> {
        let action = Action::DeleteVersion {
            version: self.token,
        };
        let outcome = client.call(Call::new(self.key, action))?;
        Ok(matches!(outcome, Outcome::Written { .. }))
    }
}

fn attempt(
    client: &Client,
    key: &Bytes,
    owner: &Bytes,
    options: &LockOptions,
    end: BootTime,
) -> Result<Outcome, CallError> {
    let action = Action::PutFor {
        value: owner.clone(),
        ttl_ms: millis(options.ttl),
        over: Some(0),
    };
    // An answer that comes after the time to live is of no use.
    let attempt_max = client.deadline().min(options.ttl);
    let wait = match options.wait.is_zero() {
        true => attempt_max,
        false => end.left().max(AGAIN).min(attempt_max),
    };
    let mut call = within(key, action, wait);
    call.want_old = true;
    client.call(call)
}

fn within(key: &Bytes, action: Action, wait: Duration) -> Call {
    let mut call = Call::new(key.clone(), action);
    call.deadline_us = Some(u64::try_from(wait.as_micros()).unwrap_or(u64::MAX));
    call
}

/// The holder's name, and a random number for this acquisition.
fn owner(holder: &str) -> Result<Bytes, CallError> {
    let random =
        || getrandom::u64().map_err(|_| CallError::InvalidArgument("there are no random numbers"));
    let (high, low) = (random()?, random()?);
    let separator = if holder.is_empty() { "" } else { " " };
    Ok(format!("{holder}{separator}{high:016x}{low:016x}").into())
}

fn millis(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1)
}
