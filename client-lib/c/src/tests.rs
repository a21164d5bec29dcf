//! Properties that C programs cannot test: fixed numbers, structs of other sizes, panics.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_int};

use kvclient_core::wire::{Action, KEY_SIZE_MAX, TTL_MS_MAX, VALUE_SIZE_MAX};

use crate::asynchronous::kvc_submit;
use crate::border::border;
use crate::handle::{OpenOptions, kvc_free, kvc_open, with_client};
use crate::operation::{Operation, WriteOptions, flag, kind};
use crate::prefixed;
use crate::scan::KEYS_ONLY;
use crate::status::{ABI_VERSION, Status, kvc_strerror};
use crate::watch::event;

const HEADER: &str = include_str!("../../include/kvclient.h");
const SONAME: &str = include_str!("../build.rs");

/// The constants of the header: `KVC_NAME = n` of its enums and `#define KVC_NAME n`.
fn constants() -> BTreeMap<&'static str, i64> {
    let words = |line: &'static str| -> Option<(&'static str, i64)> {
        let line = line.trim();
        let line = line.strip_prefix("#define ").unwrap_or(line);
        let (name, rest) = line.split_once(' ')?;
        let rest = rest.trim_start_matches("= ");
        let number = rest.split([',', ' ', '/']).next()?;
        Some((name, number.parse().ok()?))
    };
    let lines = HEADER.lines().filter_map(words);
    lines.filter(|(name, _)| name.starts_with("KVC_")).collect()
}

#[test]
fn numbers_are_those_of_the_header() {
    let header = constants();
    let mut errors: Vec<i64> = header.values().copied().filter(|n| *n < 0).collect();
    errors.sort_unstable_by_key(|n| -n);
    let ours: Vec<i64> = Status::ALL[1..].iter().map(|s| s.code().into()).collect();
    assert_eq!(errors, ours);
    let expected = [
        ("KVC_NOT_FOUND", Status::NotFound.code().into()),
        ("KVC_CONFLICT", Status::Conflict.code().into()),
        ("KVC_UNKNOWN_OUTCOME", Status::UnknownOutcome.code().into()),
        ("KVC_FORKED", Status::Forked.code().into()),
        ("KVC_SYSTEM", Status::System.code().into()),
        ("KVC_FULL", Status::Full.code().into()),
        ("KVC_TWO_CLUSTERS", Status::TwoClusters.code().into()),
        ("KVC_WRONG_ANSWER", Status::WrongAnswer.code().into()),
        ("KVC_ABI_VERSION", ABI_VERSION.into()),
        ("KVC_KEY_SIZE_MAX", KEY_SIZE_MAX as i64),
        ("KVC_VALUE_SIZE_MAX", VALUE_SIZE_MAX as i64),
        (
            "KVC_IN_FLIGHT_MAX",
            kvclient_core::session::IN_FLIGHT_MAX as i64,
        ),
        ("KVC_NODES_MAX", kvclient_core::session::NODES_MAX as i64),
        ("KVC_IF_ABSENT", flag::IF_ABSENT.into()),
        ("KVC_IF_VERSION", flag::IF_VERSION.into()),
        ("KVC_WANT_OLD", flag::WANT_OLD.into()),
        ("KVC_SCAN_KEYS_ONLY", KEYS_ONLY.into()),
        ("KVC_WATCH_PUT", event::PUT.into()),
        ("KVC_WATCH_DELETE", event::DELETE.into()),
        ("KVC_WATCH_CURRENT", event::CURRENT.into()),
        ("KVC_WATCH_APART", event::APART.into()),
        ("KVC_OP_GET", kind::GET.into()),
        ("KVC_OP_PUT", kind::PUT.into()),
        ("KVC_OP_DELETE", kind::DELETE.into()),
        ("KVC_OP_CAS", kind::CAS.into()),
        ("KVC_OP_ADD", kind::ADD.into()),
        ("KVC_OP_APPEND", kind::APPEND.into()),
        ("KVC_OP_EXPIRE", kind::EXPIRE.into()),
        ("KVC_OP_PERSIST", kind::PERSIST.into()),
        ("KVC_OP_TTL", kind::TTL.into()),
        ("KVC_OP_GET_STALE", kind::GET_STALE.into()),
        ("KVC_TTL_MS_MAX", TTL_MS_MAX as i64),
    ];
    for (name, number) in expected {
        assert_eq!(header.get(name), Some(&number), "{name}");
    }
    assert!(SONAME.contains(&format!("libkvclient.so.{ABI_VERSION}\"")));
}

#[test]
fn published_layouts_stay() {
    #[cfg(target_pointer_width = "64")]
    {
        assert_eq!(size_of::<OpenOptions>(), 24);
        assert_eq!(size_of::<WriteOptions>(), 32);
        assert_eq!(size_of::<crate::lock::LockSettings>(), 24);
        assert_eq!(size_of::<crate::outcome::ToldKey>(), 40);
        assert_eq!(size_of::<Operation>(), 96);
        assert_eq!(std::mem::offset_of!(Operation, delta), 72);
    }
}

fn text(error: c_int) -> String {
    // SAFETY: the texts are constant.
    let text = unsafe { CStr::from_ptr(kvc_strerror(error)) };
    text.to_str().unwrap().to_owned()
}

#[test]
fn each_error_has_a_text_of_its_own() {
    let mut texts: Vec<String> = Status::ALL.iter().map(|s| text(s.code())).collect();
    assert!(texts.iter().all(|text| !text.is_empty()));
    texts.sort();
    texts.dedup();
    assert_eq!(texts.len(), Status::ALL.len());
    let lowest = Status::ALL.iter().map(|s| s.code()).min();
    let next = lowest.expect("there are some") - 1;
    for unknown in [1, next, c_int::MIN, c_int::MAX] {
        assert_eq!(text(unknown), "unknown error");
    }
}

/// The `kvc_write_options` of an application that was built for a version with more fields.
#[repr(C)]
struct Larger {
    options: WriteOptions,
    added: u64,
}

fn read(larger: &Larger) -> Result<WriteOptions, Status> {
    // SAFETY: the sizes are within the struct, or refused before anything else is read.
    unsafe { prefixed::read((&raw const *larger).cast()) }
}

#[test]
fn sizes_of_other_versions() {
    let options = WriteOptions {
        size: 0,
        flags: flag::WANT_OLD,
        deadline_ms: 7,
        version: 9,
        ttl_ms: 11,
    };
    let mut larger = Larger { options, added: 0 };
    for size in [0, 1, 7, 4_097, usize::MAX / 2, usize::MAX] {
        larger.options.size = size;
        assert_eq!(
            read(&larger).unwrap_err(),
            Status::InvalidArgument,
            "{size}"
        );
    }
    // Fields that an older application does not know are not read.
    for (size, expected) in [
        (8, (0, 0, 0, 0)),
        (12, (4, 0, 0, 0)),
        (16, (4, 7, 0, 0)),
        (24, (4, 7, 9, 0)),
        (32, (4, 7, 9, 11)),
    ] {
        larger.options.size = size;
        let got = read(&larger).unwrap();
        assert_eq!(
            (got.flags, got.deadline_ms, got.version, got.ttl_ms),
            expected,
            "{size}"
        );
    }
    // Fields that this library does not know must be zero.
    larger.options.size = size_of::<Larger>();
    assert_eq!(read(&larger).unwrap().version, 9);
    larger.added = 1 << 56;
    assert_eq!(read(&larger).unwrap_err(), Status::InvalidArgument);
    // SAFETY: NULL is checked for.
    let none: WriteOptions = unsafe { prefixed::read(std::ptr::null()) }.unwrap();
    assert_eq!((none.flags, none.deadline_ms, none.version), (0, 0, 0));
}

fn operation(kind: u32, flags: u32, version: u64) -> Operation {
    Operation {
        flags,
        version,
        value: c"v".as_ptr().cast(),
        value_size: 1,
        ..Operation::new(kind, c"k".as_ptr().cast(), 1)
    }
}

fn action(kind: u32, flags: u32, version: u64) -> Result<Action, Status> {
    // SAFETY: each size belongs to its pointer.
    unsafe { operation(kind, flags, version).to_call() }.map(|call| call.action)
}

#[test]
fn conditions_are_kept_or_refused() {
    let value = bytes::Bytes::from_static(b"v");
    let absent = Action::PutIfAbsent {
        value: value.clone(),
    };
    assert_eq!(
        action(kind::PUT, 0, 0),
        Ok(Action::Put {
            value: value.clone()
        })
    );
    assert_eq!(action(kind::PUT, flag::IF_ABSENT, 0), Ok(absent.clone()));
    assert_eq!(action(kind::PUT, flag::IF_VERSION, 0), Ok(absent));
    let swap = Action::CompareVersion { version: 5, value };
    assert_eq!(action(kind::PUT, flag::IF_VERSION, 5), Ok(swap));
    let refused = [
        (kind::PUT, flag::IF_ABSENT | flag::IF_VERSION, 5),
        (kind::PUT, flag::IF_ABSENT, 5),
        (kind::PUT, 0, 5),
        (kind::PUT, 8, 0),
        (kind::PUT, 1 << 31, 0),
        (kind::GET, flag::WANT_OLD, 0),
        (kind::DELETE, flag::IF_ABSENT, 0),
        (kind::DELETE, 0, 5),
        (kind::EXPIRE, 0, 0),
        (kind::PERSIST, flag::IF_ABSENT, 0),
        (kind::TTL, flag::WANT_OLD, 0),
        (kind::CAS, flag::IF_VERSION, 5),
        (kind::ADD, flag::IF_ABSENT, 0),
        (kind::APPEND, flag::IF_ABSENT, 0),
        (0, 0, 0),
        (kind::GET_STALE, flag::WANT_OLD, 0),
        (11, 0, 0),
    ];
    for (kind, flags, version) in refused {
        let refusal = Err(Status::InvalidArgument);
        assert_eq!(
            action(kind, flags, version),
            refusal,
            "{kind} {flags} {version}"
        );
    }
}

#[test]
fn times_to_live_are_kept_or_refused() {
    let action = |kind, flags, version, ttl_ms| {
        let operation = Operation {
            ttl_ms,
            ..operation(kind, flags, version)
        };
        // SAFETY: each size belongs to its pointer.
        unsafe { operation.to_call() }.map(|call| call.action)
    };
    let value = bytes::Bytes::from_static(b"v");
    let put = |over| Action::PutFor {
        value: value.clone(),
        ttl_ms: 9,
        over,
    };
    let delete = Action::DeleteVersion { version: 5 };
    let expire = |over| Action::Expire { ttl_ms: 9, over };
    let expected = [
        ((kind::PUT, 0, 0, 9), put(None)),
        ((kind::PUT, flag::IF_ABSENT, 0, 9), put(Some(0))),
        ((kind::PUT, flag::IF_VERSION, 5, 9), put(Some(5))),
        ((kind::EXPIRE, 0, 0, 9), expire(None)),
        ((kind::EXPIRE, flag::IF_VERSION, 5, 9), expire(Some(5))),
        ((kind::PERSIST, 0, 0, 0), Action::Persist { over: None }),
        ((kind::TTL, 0, 0, 0), Action::TimeToLive),
        ((kind::DELETE, flag::IF_VERSION, 5, 0), delete),
    ];
    for ((kind, flags, version, ttl_ms), expected) in expected {
        assert_eq!(action(kind, flags, version, ttl_ms), Ok(expected));
    }
    let refused = [
        (kind::PUT, TTL_MS_MAX + 1),
        (kind::EXPIRE, TTL_MS_MAX + 1),
        (kind::GET, 9),
        (kind::TTL, 9),
        (kind::PERSIST, 9),
        (kind::DELETE, 9),
        (kind::APPEND, 9),
    ];
    for (kind, ttl_ms) in refused {
        assert_eq!(action(kind, 0, 0, ttl_ms), Err(Status::InvalidArgument));
    }
    // Two times for one operation.
    let options = WriteOptions {
        ttl_ms: 9,
        ..WriteOptions::default()
    };
    let twice = Operation {
        ttl_ms: 9,
        ..operation(kind::EXPIRE, 0, 0)
    };
    assert_eq!(twice.with(options).unwrap_err(), Status::InvalidArgument);
}

#[test]
fn sizes_are_checked_before_bytes_are_read() {
    let nowhere = std::ptr::dangling();
    for size in [KEY_SIZE_MAX + 1, usize::MAX / 2, usize::MAX] {
        // SAFETY: the test shows that these sizes are refused before anything is read.
        let refused = unsafe { Operation::new(kind::GET, nowhere, size).to_call() };
        assert_eq!(refused.unwrap_err(), Status::TooLarge);
    }
    let both = Operation {
        expected: nowhere,
        expected_size: VALUE_SIZE_MAX + 1,
        ..operation(kind::CAS, 0, 0)
    };
    // SAFETY: as above.
    assert_eq!(unsafe { both.to_call() }.unwrap_err(), Status::TooLarge);
    let expected = vec![0u8; VALUE_SIZE_MAX];
    let both = Operation {
        expected: expected.as_ptr().cast(),
        expected_size: expected.len(),
        ..operation(kind::CAS, 0, 0)
    };
    // SAFETY: each size belongs to its pointer.
    assert_eq!(unsafe { both.to_call() }.unwrap_err(), Status::TooLarge);
}

#[test]
fn a_panic_stops_at_the_border() {
    assert_eq!(border(|| 5), Some(5));
    assert_eq!(border(|| -> u8 { panic!("not to be seen") }), None);
    assert_eq!(border(|| 6), Some(6));
}

#[test]
fn a_panic_closes_the_client() {
    let mut client = std::ptr::null_mut();
    // SAFETY: the pointers meet the requirements of kvclient.h, and the client is freed last.
    unsafe {
        let opened = kvc_open(c"127.0.0.1:9".as_ptr(), std::ptr::null(), &raw mut client);
        assert_eq!(opened, Status::Ok.code());
        let panicked = with_client(client, |_| panic!("not to be seen"));
        assert_eq!(panicked, Status::Internal.code());
        let call = operation(kind::PUT, 0, 0);
        let closed = kvc_submit(client, &raw const call, 0);
        assert_eq!(closed, Status::Closed.code());
        kvc_free(client);
    }
}
