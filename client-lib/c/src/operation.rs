//! `kvc_op` and `kvc_write_options`: the conversion of the application's arguments to a call.

use std::ffi::c_void;

use bytes::Bytes;
use kvclient_core::Call;
use kvclient_core::wire::{Action, KEY_SIZE_MAX, TTL_MS_MAX, VALUE_SIZE_MAX};

use crate::prefixed::{Prefixed, bytes};
use crate::status::Status;

pub mod kind {
    pub const GET: u32 = 1;
    pub const PUT: u32 = 2;
    pub const DELETE: u32 = 3;
    pub const CAS: u32 = 4;
    pub const ADD: u32 = 5;
    pub const APPEND: u32 = 6;
    pub const EXPIRE: u32 = 7;
    pub const PERSIST: u32 = 8;
    pub const TTL: u32 = 9;
    pub const GET_STALE: u32 = 10;
}

pub mod flag {
    pub const IF_ABSENT: u32 = 1;
    pub const IF_VERSION: u32 = 2;
    pub const WANT_OLD: u32 = 4;
}

#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct WriteOptions {
    pub size: usize,
    pub flags: u32,
    pub deadline_ms: u32,
    pub version: u64,
    pub ttl_ms: u64,
}

// SAFETY: integers.
unsafe impl Prefixed for WriteOptions {}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Operation {
    pub size: usize,
    pub kind: u32,
    pub flags: u32,
    pub key: *const c_void,
    pub key_size: usize,
    pub value: *const c_void,
    pub value_size: usize,
    pub expected: *const c_void,
    pub expected_size: usize,
    pub version: u64,
    pub delta: i64,
    pub deadline_ms: u32,
    pub reserved: u32,
    pub ttl_ms: u64,
}

// SAFETY: integers and raw pointers.
unsafe impl Prefixed for Operation {}

impl Default for Operation {
    fn default() -> Self {
        Operation {
            size: size_of::<Operation>(),
            kind: 0,
            flags: 0,
            key: std::ptr::null(),
            key_size: 0,
            value: std::ptr::null(),
            value_size: 0,
            expected: std::ptr::null(),
            expected_size: 0,
            version: 0,
            delta: 0,
            deadline_ms: 0,
            reserved: 0,
            ttl_ms: 0,
        }
    }
}

impl Operation {
    pub fn new(kind: u32, key: *const c_void, key_size: usize) -> Self {
        Operation {
            kind,
            key,
            key_size,
            ..Operation::default()
        }
    }

    /// An operation with a time to live of its own takes none from the options.
    pub fn with(self, options: WriteOptions) -> Result<Self, Status> {
        if self.ttl_ms > 0 && options.ttl_ms > 0 {
            return Err(Status::InvalidArgument);
        }
        Ok(Operation {
            flags: options.flags,
            version: options.version,
            deadline_ms: options.deadline_ms,
            ttl_ms: self.ttl_ms.max(options.ttl_ms),
            ..self
        })
    }

    /// Checks all fields and copies the bytes.
    ///
    /// # Safety
    /// Each pointer is NULL or points to as many bytes as its size says, if that size is within
    /// bounds.
    pub unsafe fn to_call(self) -> Result<Call, Status> {
        self.check_flags()?;
        if self.key_size == 0 {
            return Err(Status::InvalidArgument);
        }
        // SAFETY: as the caller promises.
        let (key, value, expected) = unsafe {
            (
                bytes(self.key, self.key_size, KEY_SIZE_MAX)?,
                bytes(self.value, self.value_size, VALUE_SIZE_MAX)?,
                bytes(self.expected, self.expected_size, VALUE_SIZE_MAX)?,
            )
        };
        if value.len() + expected.len() > VALUE_SIZE_MAX {
            return Err(Status::TooLarge);
        }
        let value = Bytes::copy_from_slice(value);
        let mut call = Call::new(Bytes::copy_from_slice(key), self.action(value, expected)?);
        call.want_old = self.flags & flag::WANT_OLD != 0;
        call.deadline_us = (self.deadline_ms > 0).then(|| u64::from(self.deadline_ms) * 1_000);
        Ok(call)
    }

    fn action(&self, value: Bytes, expected: &[u8]) -> Result<Action, Status> {
        let (ttl_ms, over) = (self.ttl_ms, self.over());
        Ok(match self.kind {
            kind::GET => Action::Get,
            kind::TTL => Action::TimeToLive,
            kind::GET_STALE => Action::GetStale,
            kind::PUT if ttl_ms > 0 => Action::PutFor {
                value,
                ttl_ms,
                over,
            },
            kind::EXPIRE => Action::Expire { ttl_ms, over },
            kind::PERSIST => Action::Persist { over },
            kind::DELETE if self.flags & flag::IF_VERSION != 0 => {
                let version = self.version;
                Action::DeleteVersion { version }
            }
            kind::PUT if self.flags & flag::IF_VERSION != 0 && self.version != 0 => {
                let version = self.version;
                Action::CompareVersion { version, value }
            }
            // Version 0 is the version of an absent key.
            kind::PUT if self.flags & (flag::IF_ABSENT | flag::IF_VERSION) != 0 => {
                Action::PutIfAbsent { value }
            }
            kind::PUT => Action::Put { value },
            kind::DELETE => Action::Delete,
            kind::CAS => {
                let expected = Bytes::copy_from_slice(expected);
                Action::CompareValue { expected, value }
            }
            kind::ADD => Action::Add { delta: self.delta },
            kind::APPEND => Action::Append { value },
            _ => return Err(Status::InvalidArgument),
        })
    }

    /// The version that the key must have; that of an absent key is 0.
    fn over(&self) -> Option<u64> {
        let has_condition = self.flags & (flag::IF_ABSENT | flag::IF_VERSION) != 0;
        has_condition.then_some(self.version)
    }

    /// A condition that the operation does not support is an error; it is not ignored.
    fn check_flags(&self) -> Result<(), Status> {
        let conditions = flag::IF_ABSENT | flag::IF_VERSION;
        let allowed = match self.kind {
            kind::GET | kind::TTL | kind::GET_STALE => 0,
            kind::PUT => conditions | flag::WANT_OLD,
            kind::DELETE | kind::EXPIRE | kind::PERSIST => flag::IF_VERSION | flag::WANT_OLD,
            _ => flag::WANT_OLD,
        };
        let has_version = self.flags & flag::IF_VERSION != 0;
        if self.flags & !allowed != 0
            || self.flags & conditions == conditions
            || self.version != 0 && !has_version
            || self.reserved != 0
            || !self.is_ttl_allowed()
        {
            return Err(Status::InvalidArgument);
        }
        Ok(())
    }

    fn is_ttl_allowed(&self) -> bool {
        match self.kind {
            kind::PUT => self.ttl_ms <= TTL_MS_MAX,
            kind::EXPIRE => (1..=TTL_MS_MAX).contains(&self.ttl_ms),
            _ => self.ttl_ms == 0,
        }
    }
}
