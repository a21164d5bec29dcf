//! The arguments that an application passes by pointer: bytes, and structs that begin with their
//! size.

use std::ffi::c_void;

use crate::status::Status;

/// No struct will ever be larger. A larger size is invalid, and the bytes that it spans are not
/// read.
const PREFIXED_SIZE_MAX: usize = 4_096;

/// A C struct whose first field is the size of the struct as the application knows it.
///
/// # Safety
/// The struct is `repr(C)`, its first field is a `usize`, and any bytes are a valid value.
pub unsafe trait Prefixed: Default {}

/// Returns the struct at `from`, or the default for NULL. Fields that the application does not know
/// become zero; bytes that this library does not know must be zero.
///
/// # Safety
/// `from` is NULL or points to as many bytes as its size says.
pub unsafe fn read<T: Prefixed>(from: *const T) -> Result<T, Status> {
    let mut value = T::default();
    if from.is_null() {
        return Ok(value);
    }
    // SAFETY: at least the size field exists.
    let size = unsafe { from.cast::<usize>().read_unaligned() };
    if !(size_of::<usize>()..=PREFIXED_SIZE_MAX).contains(&size) {
        return Err(Status::InvalidArgument);
    }
    let known = size.min(size_of::<T>());
    // SAFETY: `size` bytes exist at `from`; the application set those behind `known`. `value` has
    // space for `known` bytes, and any bytes are a valid value.
    unsafe {
        let unknown = std::slice::from_raw_parts(from.cast::<u8>().add(known), size - known);
        if unknown.iter().any(|byte| *byte != 0) {
            return Err(Status::InvalidArgument);
        }
        std::ptr::copy_nonoverlapping(from.cast::<u8>(), (&raw mut value).cast(), known);
    }
    Ok(value)
}

/// The bytes at `data`, if the size is within bounds.
///
/// # Safety
/// If `size` is neither 0 nor above `size_max`, and `data` is not NULL, then `data` points to
/// `size` bytes that outlive the slice.
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
