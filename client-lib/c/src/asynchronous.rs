//! Calls that do not wait: submit, the descriptor, completions.

use std::ffi::c_int;
use std::os::fd::AsRawFd;

use kvclient_core::Completion;

use crate::handle::{Handle, with_client};
use crate::operation::Operation;
use crate::outcome::{CallResult, outcome};
use crate::prefixed;
use crate::status::Status;

#[derive(Debug)]
#[repr(C)]
pub struct CompletionOut {
    pub tag: u64,
    pub status: c_int,
    pub result: *mut CallResult,
}

impl From<Completion> for CompletionOut {
    fn from(completion: Completion) -> Self {
        let (status, result) = outcome(completion.result);
        CompletionOut {
            tag: completion.tag,
            status: status.code(),
            result: result.map_or(std::ptr::null_mut(), Box::into_raw),
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvc_submit(
    client: *mut Handle,
    operation: *const Operation,
    tag: u64,
) -> c_int {
    let submit = |handle: &Handle| {
        // SAFETY: kvclient.h requires valid pointers. NULL is read as an operation without a kind.
        let call = unsafe { prefixed::read(operation)?.to_call()? };
        handle.client.submit(call, tag)?;
        Ok(Status::Ok.code())
    };
    // SAFETY: this is the interface of kvclient.h.
    unsafe { with_client(client, submit) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvc_poll_fd(client: *mut Handle) -> c_int {
    let descriptor = |handle: &Handle| match handle.client.is_lost() {
        true => Err(Status::Closed),
        false => Ok(handle.client.poll_fd().as_raw_fd()),
    };
    // SAFETY: this is the interface of kvclient.h.
    unsafe { with_client(client, descriptor) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvc_completions(
    client: *mut Handle,
    completions: *mut CompletionOut,
    max: usize,
) -> c_int {
    let take = |handle: &Handle| {
        if completions.is_null() || max == 0 {
            return Err(Status::InvalidArgument);
        }
        // The state is read before the completions are taken: if another thread closes the client
        // in between, this call still returns the completions that exist.
        let is_closed = handle.is_closed();
        let mut taken = Vec::new();
        handle
            .client
            .completions(&mut taken, max.min(c_int::MAX as usize));
        if taken.is_empty() && is_closed {
            return Err(Status::Closed);
        }
        let count = taken.len();
        for (place, completion) in taken.into_iter().enumerate() {
            // SAFETY: there is space for `max` completions, and no more than that were taken.
            unsafe { completions.add(place).write(completion.into()) };
        }
        Ok(count as c_int)
    };
    // SAFETY: this is the interface of kvclient.h.
    unsafe { with_client(client, take) }
}
