//! The errors of kvclient.h and their numbers.

use std::ffi::{CStr, c_char, c_int};

use kvclient_core::{CallError, OpenError};

pub const ABI_VERSION: c_int = 0;
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");

/// A published number never changes its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Status {
    Ok = 0,
    NotFound = -1,
    NoQuorum = -2,
    Conflict = -3,
    TooLarge = -4,
    NotANumber = -5,
    Overflow = -6,
    Busy = -7,
    TimedOut = -8,
    UnknownOutcome = -9,
    InvalidArgument = -10,
    Closed = -11,
    Forked = -12,
    Internal = -13,
    NotResolved = -14,
    System = -15,
    Full = -16,
    TwoClusters = -17,
    WrongAnswer = -18,
}

impl Status {
    pub const ALL: [Status; 19] = [
        Status::Ok,
        Status::NotFound,
        Status::NoQuorum,
        Status::Conflict,
        Status::TooLarge,
        Status::NotANumber,
        Status::Overflow,
        Status::Busy,
        Status::TimedOut,
        Status::UnknownOutcome,
        Status::InvalidArgument,
        Status::Closed,
        Status::Forked,
        Status::Internal,
        Status::NotResolved,
        Status::System,
        Status::Full,
        Status::TwoClusters,
        Status::WrongAnswer,
    ];

    pub fn code(self) -> c_int {
        self as c_int
    }

    fn text(self) -> &'static CStr {
        match self {
            Status::Ok => c"success",
            Status::NotFound => c"not found",
            Status::NoQuorum => c"no quorum",
            Status::Conflict => c"conflict: the condition does not hold",
            Status::TooLarge => c"too large",
            Status::NotANumber => c"not a number",
            Status::Overflow => c"overflow: the sum does not fit 64 bits",
            Status::Busy => c"busy: too many operations are in progress",
            Status::TimedOut => c"timed out",
            Status::UnknownOutcome => {
                c"unknown outcome: the write may have been applied, or may still be"
            }
            Status::InvalidArgument => c"invalid argument",
            Status::Closed => c"closed",
            Status::Forked => c"the client belongs to the parent process",
            Status::Internal => c"internal error of the client library",
            Status::NotResolved => c"a host name was not resolved",
            Status::TwoClusters => c"the given nodes belong to two clusters",
            Status::WrongAnswer => c"wrong answer of a node",
            Status::System => c"the system refused a socket or another descriptor",
            Status::Full => c"full: a node is out of memory or disk space for writes that grow",
        }
    }
}

impl From<CallError> for Status {
    fn from(error: CallError) -> Self {
        match error {
            CallError::NoQuorum { .. } => Status::NoQuorum,
            CallError::TwoClusters { .. } => Status::TwoClusters,
            CallError::TimedOut => Status::TimedOut,
            CallError::UnknownOutcome => Status::UnknownOutcome,
            CallError::Busy => Status::Busy,
            CallError::Full(_) => Status::Full,
            CallError::TooLarge { .. } => Status::TooLarge,
            CallError::NotANumber => Status::NotANumber,
            CallError::Overflow => Status::Overflow,
            CallError::WrongAnswer(_) => Status::WrongAnswer,
            CallError::InvalidArgument(_) => Status::InvalidArgument,
            CallError::Closed => Status::Closed,
        }
    }
}

impl From<OpenError> for Status {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::NoNodes | OpenError::TooManyNodes { .. } | OpenError::Address(_) => {
                Status::InvalidArgument
            }
            OpenError::Resolve(..) => Status::NotResolved,
            OpenError::Random(_) | OpenError::Socket(_) => Status::System,
        }
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn kvc_strerror(error: c_int) -> *const c_char {
    let known = |status: &Status| status.code() == error;
    let found = Status::ALL.into_iter().find(known);
    found.map_or(c"unknown error", Status::text).as_ptr()
}

#[unsafe(no_mangle)]
pub extern "C" fn kvc_abi_version() -> c_int {
    ABI_VERSION
}

#[unsafe(no_mangle)]
pub extern "C" fn kvc_version() -> *const c_char {
    VERSION.as_ptr().cast()
}
