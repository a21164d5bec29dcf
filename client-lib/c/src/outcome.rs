//! `kvc_result`: the outcome of a call, and the functions that return its parts.

use std::ffi::{c_int, c_void};

use kvclient_core::CallError;
use kvclient_core::wire::{Failure, FailureReason, KeyResult, Old, Outcome};

use crate::border::border;
use crate::status::Status;

/// Distinguishes a result from other memory, as far as that is possible.
const MAGIC: u64 = 0x6b76_635f_7265_7331;

mod old {
    use std::ffi::c_int;
    pub const NOT_ASKED: c_int = 0;
    pub const ABSENT: c_int = 1;
    pub const VALUE: c_int = 2;
    pub const FORGOTTEN: c_int = 3;
}

/// A value followed by a zero byte, for applications that use it as a string.
#[derive(Debug, Default)]
struct Terminated(Option<Box<[u8]>>);

impl Terminated {
    fn new(value: &[u8]) -> Self {
        Terminated(Some([value, &[0]].concat().into_boxed_slice()))
    }

    /// The value and its size, for C.
    fn parts(&self) -> (*const c_void, usize) {
        match &self.0 {
            Some(bytes) => (bytes.as_ptr().cast(), bytes.len() - 1),
            None => (std::ptr::null(), 0),
        }
    }
}

#[derive(Debug)]
pub struct CallResult {
    magic: u64,
    version: u64,
    number: i64,
    /// -1: it does not expire, or the call did not ask.
    ttl_ms: i64,
    /// 0 also after calls other than a stale read.
    apart_ms: u64,
    value: Terminated,
    old_kind: c_int,
    old: Terminated,
    /// Of a transaction that committed, in the order in which it named the keys.
    keys: Vec<KeyOutcome>,
    /// Of a transaction in conflict: the places of the key and of its condition.
    failed: Option<(usize, usize)>,
    /// Of a watch, which takes it.
    watched: Option<Outcome>,
}

/// What a transaction did with one key.
#[derive(Debug)]
struct KeyOutcome {
    value: Terminated,
    found: u64,
    version: u64,
    number: i64,
}

impl From<KeyResult> for KeyOutcome {
    fn from(result: KeyResult) -> Self {
        KeyOutcome {
            value: result
                .value
                .map_or_else(Terminated::default, |value| Terminated::new(&value)),
            found: result.found,
            version: result.version,
            number: result.number.unwrap_or(0),
        }
    }
}

/// `kvc_txn_key`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct ToldKey {
    pub value: *const c_void,
    pub value_size: usize,
    pub found: u64,
    pub version: u64,
    pub number: i64,
}

const NO_KEY: ToldKey = ToldKey {
    value: std::ptr::null(),
    value_size: 0,
    found: 0,
    version: 0,
    number: 0,
};

impl CallResult {
    fn new(version: u64) -> Self {
        CallResult {
            magic: MAGIC,
            version,
            number: 0,
            ttl_ms: -1,
            apart_ms: 0,
            value: Terminated::default(),
            old_kind: old::NOT_ASKED,
            old: Terminated::default(),
            keys: Vec::new(),
            failed: None,
            watched: None,
        }
    }

    fn with_old(mut self, old: Old) -> Self {
        (self.old_kind, self.old) = match old {
            Old::NotAsked => (old::NOT_ASKED, Terminated::default()),
            Old::Absent => (old::ABSENT, Terminated::default()),
            Old::Value(value) => (old::VALUE, Terminated::new(&value)),
            Old::Forgotten => (old::FORGOTTEN, Terminated::default()),
        };
        self
    }
}

/// Status and result of a completed call.
pub fn outcome(result: Result<Outcome, CallError>) -> (Status, Option<Box<CallResult>>) {
    let (status, result) = match result {
        Err(error) => return (error.into(), None),
        Ok(Outcome::Absent) => return (Status::NotFound, None),
        Ok(Outcome::Value { version, value }) => {
            let mut result = CallResult::new(version);
            result.value = Terminated::new(&value);
            (Status::Ok, result)
        }
        Ok(Outcome::Stale {
            version,
            value,
            apart_ms,
        }) => {
            let mut result = CallResult::new(version);
            result.apart_ms = apart_ms;
            let status = match value {
                Some(value) => {
                    result.value = Terminated::new(&value);
                    Status::Ok
                }
                None => Status::NotFound,
            };
            (status, result)
        }
        Ok(Outcome::Lives { version, left_ms }) => {
            let mut result = CallResult::new(version);
            result.ttl_ms = left_ms.map_or(-1, |ms| i64::try_from(ms).unwrap_or(i64::MAX));
            (Status::Ok, result)
        }
        Ok(Outcome::Written {
            version,
            old,
            number,
        }) => {
            let mut result = CallResult::new(version).with_old(old);
            result.number = number.unwrap_or(0);
            (Status::Ok, result)
        }
        Ok(Outcome::NothingToDelete) => (Status::Ok, CallResult::new(0).with_old(Old::Absent)),
        Ok(Outcome::Conflict { version, old }) => {
            (Status::Conflict, CallResult::new(version).with_old(old))
        }
        Ok(Outcome::Committed { results }) => {
            let mut result = CallResult::new(0);
            result.keys = results.into_iter().map(KeyOutcome::from).collect();
            (Status::Ok, result)
        }
        Ok(Outcome::Failed { failure }) => match conflict(failure) {
            Ok(result) => (Status::Conflict, result),
            Err(status) => return (status, None),
        },
        Ok(page @ (Outcome::Page(_) | Outcome::Watched(_))) => {
            let mut result = CallResult::new(0);
            result.watched = Some(page);
            (Status::Ok, result)
        }
        Ok(other) => unreachable!("the session makes an error of {other:?}"),
    };
    (status, Some(Box::new(result)))
}

/// A transaction that did nothing.
fn conflict(failure: Failure) -> Result<CallResult, Status> {
    Err(match failure.reason {
        FailureReason::Condition { place, version } => {
            let mut result = CallResult::new(version);
            result.failed = Some((failure.part.into(), place.into()));
            return Ok(result);
        }
        FailureReason::NotANumber => Status::NotANumber,
        FailureReason::Overflow => Status::Overflow,
        FailureReason::TooLarge { .. } => Status::TooLarge,
        FailureReason::Contended => Status::Busy,
    })
}

/// # Safety
/// `result` is NULL or points to memory that can be read.
unsafe fn look<'a>(result: *const CallResult) -> Option<&'a CallResult> {
    // SAFETY: as the caller promises.
    unsafe { result.as_ref() }.filter(|result| result.magic == MAGIC)
}

/// What a call of a watch came to.
///
/// # Safety
/// `result` is NULL or points to memory that can be read.
pub unsafe fn watched(result: *const CallResult) -> Option<Outcome> {
    // SAFETY: as the caller promises.
    unsafe { look(result) }?.watched.clone()
}

/// # Safety
/// `into` is NULL or may be written to.
unsafe fn tell<T>(into: *mut T, what: T) {
    if !into.is_null() {
        // SAFETY: as the caller promises.
        unsafe { into.write(what) };
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvc_result_value(
    result: *const CallResult,
    size: *mut usize,
) -> *const c_void {
    // SAFETY: kvclient.h requires valid pointers.
    unsafe {
        let (value, value_size) = look(result).map_or((std::ptr::null(), 0), |r| r.value.parts());
        tell(size, value_size);
        value
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvc_result_version(result: *const CallResult) -> u64 {
    // SAFETY: kvclient.h requires a valid pointer.
    unsafe { look(result) }.map_or(0, |result| result.version)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvc_result_number(result: *const CallResult) -> i64 {
    // SAFETY: kvclient.h requires a valid pointer.
    unsafe { look(result) }.map_or(0, |result| result.number)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvc_result_ttl_ms(result: *const CallResult) -> i64 {
    // SAFETY: kvclient.h requires a valid pointer.
    unsafe { look(result) }.map_or(-1, |result| result.ttl_ms)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvc_result_apart_ms(result: *const CallResult) -> u64 {
    // SAFETY: kvclient.h requires a valid pointer.
    unsafe { look(result) }.map_or(0, |result| result.apart_ms)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvc_result_old(
    result: *const CallResult,
    value: *mut *const c_void,
    size: *mut usize,
) -> c_int {
    // SAFETY: kvclient.h requires valid pointers.
    unsafe {
        let result = look(result);
        let (old, old_size) = result.map_or((std::ptr::null(), 0), |r| r.old.parts());
        tell(value, old);
        tell(size, old_size);
        result.map_or(old::NOT_ASKED, |result| result.old_kind)
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvc_result_txn_count(result: *const CallResult) -> usize {
    // SAFETY: kvclient.h requires a valid pointer.
    unsafe { look(result) }.map_or(0, |result| result.keys.len())
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvc_result_txn_key(
    result: *const CallResult,
    index: usize,
    out: *mut ToldKey,
) -> c_int {
    // SAFETY: kvclient.h requires valid pointers.
    unsafe {
        let key = look(result).and_then(|result| result.keys.get(index));
        let Some(key) = key.filter(|_| !out.is_null()) else {
            tell(out, NO_KEY);
            return Status::InvalidArgument.code();
        };
        let (value, value_size) = key.value.parts();
        tell(
            out,
            ToldKey {
                value,
                value_size,
                found: key.found,
                version: key.version,
                number: key.number,
            },
        );
    }
    Status::Ok.code()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvc_result_txn_conflict(
    result: *const CallResult,
    index: *mut usize,
    condition: *mut usize,
) -> c_int {
    // SAFETY: kvclient.h requires valid pointers.
    unsafe {
        let failed = look(result).and_then(|result| result.failed);
        let (key, place) = failed.unwrap_or((0, 0));
        tell(index, key);
        tell(condition, place);
        match failed {
            Some(_) => Status::Ok.code(),
            None => Status::InvalidArgument.code(),
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvc_result_free(result: *mut CallResult) {
    border(|| {
        // SAFETY: a result came from `Box::into_raw`, and kvclient.h requires that it is freed only
        // once.
        unsafe {
            if look(result).is_some() {
                (*result).magic = 0;
                drop(Box::from_raw(result));
            }
        }
    });
}
