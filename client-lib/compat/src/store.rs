//! The one client of the process, and what the calls do with it.
//!
//! A child process after fork has a copy of the client that it must not use. The child shares the
//! client's socket with the parent. A thread that does not exist in the child may have left the
//! client's memory, or the lock in this module, in an arbitrary state. Therefore every call first
//! checks which process owns the client, and in a child it does nothing else; it does not even
//! allocate memory.

use std::mem;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

use kvclient::wire::{Action, Old, Outcome};
use kvclient::{Call, Client, ClientOptions};

pub const KEY_SIZE_MAX: usize = 128;
pub const VALUE_SIZE_MAX: usize = 2_048;

/// A failure without a reason: the interface has only one number for all failures.
#[derive(Debug, PartialEq, Eq)]
pub struct Failed;

static CLIENT: Mutex<Option<Arc<Client>>> = Mutex::new(None);
/// The process that last called init or shutdown and owns `CLIENT`; 0 before the first such call.
static OWNER: AtomicU32 = AtomicU32::new(0);

/// Replaces the former client, if there is one.
pub fn init(servers: &[&str]) -> Result<(), Failed> {
    let is_one = |server: &&str| !server.contains(|c: char| c == ',' || c.is_whitespace());
    if !servers.iter().all(is_one) {
        return Err(Failed);
    }
    let opened = Client::open(&servers.join(","), ClientOptions::default());
    replace(Some(Arc::new(opened.map_err(|_| Failed)?)))
}

pub fn shutdown() -> Result<(), Failed> {
    replace(None)
}

/// Returns `None` if the key is absent.
pub fn get(key: &[u8]) -> Result<Option<Vec<u8>>, Failed> {
    let client = client()?;
    match client.call(Call::new(key.to_vec(), Action::Get)) {
        Ok(Outcome::Value { value, .. }) if is_string(&value) => Ok(Some(value.into())),
        Ok(Outcome::Absent) => Ok(None),
        _ => Err(Failed),
    }
}

/// Returns the old value. Changes nothing if `get` could not return that value.
pub fn put(key: &[u8], value: &[u8]) -> Result<Old, Failed> {
    let client = client()?;
    let action = Action::PutOver {
        value: value.to_vec().into(),
        old_size_max: VALUE_SIZE_MAX as u64,
        old_without: (&[0][..]).into(),
    };
    let call = Call {
        want_old: true,
        ..Call::new(key.to_vec(), action)
    };
    match client.call(call) {
        Ok(Outcome::Written { old, .. }) => match old {
            Old::Value(old) if !is_string(&old) => Err(Failed),
            old => Ok(old),
        },
        _ => Err(Failed),
    }
}

/// Stops sending to a server, or resumes it; ignores a server that was not given to `init`.
pub fn spare(server: &str, spared: bool) -> Result<(), Failed> {
    client()?.spare(server, spared);
    Ok(())
}

/// Whether the interface can return the value.
fn is_string(value: &[u8]) -> bool {
    value.len() <= VALUE_SIZE_MAX && !value.contains(&0)
}

fn client() -> Result<Arc<Client>, Failed> {
    if !is_own() {
        return Err(Failed);
    }
    lock()?.clone().ok_or(Failed)
}

fn replace(next: Option<Arc<Client>>) -> Result<(), Failed> {
    let mut held = lock()?;
    let former = mem::replace(&mut *held, next);
    let is_own = is_own();
    OWNER.store(process::id(), Ordering::Release);
    drop(held);
    match former {
        Some(former) if is_own => former.close(),
        // The client still belongs to the parent.
        former => mem::forget(former),
    }
    Ok(())
}

fn is_own() -> bool {
    OWNER.load(Ordering::Acquire) == process::id()
}

/// The lock is held only to copy a pointer. A child does not wait for it: the thread that holds it
/// may exist in the parent only.
fn lock() -> Result<MutexGuard<'static, Option<Arc<Client>>>, Failed> {
    let is_child = !is_own() && OWNER.load(Ordering::Acquire) != 0;
    let locked = match is_child {
        true => CLIENT.try_lock(),
        false => CLIENT.lock().map_err(TryLockError::Poisoned),
    };
    match locked {
        Ok(held) => Ok(held),
        // No operation under the lock can be left incomplete.
        Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => Err(Failed),
    }
}
