//! What the application passes by pointer: bytes, and structs that begin with their size.

use std::ffi::c_void;

use crate::status::Status;

/// No struct will ever be larger; a size above is no size, and what it spans is not read.
const PREFIXED_SIZE_MAX: usize = 4_096;

/// A C struct whose first field is its size, as the application knows it.
///
/// # Safety
/// `repr(C)`, the first field a `usize`, any bytes a valid value.
pub unsafe trait Prefixed: Default {}

/// The struct that `from` points to; the default for NULL. Fields that the application does not know are
/// zero; what this library does not know has to be.
///
/// # Safety
/// `from` is NULL or points to as many bytes as its size says.
pub unsafe fn read<T: Prefixed>(from: *const T) -> Result<T, Status> {
    let mut value = T::default();
    if from.is_null() {
        return Ok(value);
    }
    // SAFETY: there is at least the size.
    let size = unsafe { from.cast::<usize>().read_unaligned() };
    if !(size_of::<usize>()..=PREFIXED_SIZE_MAX).contains(&size) {
        return Err(Status::InvalidArgument);
    }
    let known = size.min(size_of::<T>());
    // SAFETY: `size` bytes are there, of which those behind `known` were set by the application;
    // `value` has room for `known` bytes, and any bytes are a valid one.
    unsafe {
        let unknown = std::slice::from_raw_parts(from.cast::<u8>().add(known), size - known);
        if unknown.iter().any(|byte| *byte != 0) {
            return Err(Status::InvalidArgument);
        }
        std::ptr::copy_nonoverlapping(from.cast::<u8>(), (&raw mut value).cast(), known);
    }
    Ok(value)
}

/// The bytes at `data`, if there can be so many.
///
/// # Safety
/// If `size` is neither 0 nor above `size_max`, and `data` not NULL, it points to so many bytes, which
/// outlive the slice.
pub unsafe fn bytes<'a>(
    data: *const c_void,
    size: usize,
    size_max: usize,
) -> Result<&'a [u8], Status> {
    if size > size_max {
        return Err(Status::TooLarge);
    }
    if size == 0 {
        return Ok(&[]);
    }
    if data.is_null() {
        return Err(Status::InvalidArgument);
    }
    // SAFETY: as the caller promises.
    Ok(unsafe { std::slice::from_raw_parts(data.cast(), size) })
}
