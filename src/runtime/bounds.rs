//! What a node's memory may take beside its keys and values, whatever arrives: all bounds in one
//! place. docs/operations.md has the same table, for operators.
//!
//! Each part of a node refuses, drops or evicts at its own bound. Here their sum is checked, when
//! the program is built.

use super::arrived::{RECEIVE_BATCH_MAX, RECEIVE_SIZE_MAX, WAITING_SIZE_MAX};
use super::asked::REMOTES_MAX;
use super::driver::TURN_SIZE_MAX;
use super::frame_sender::TRANSFERS_SIZE_MAX;
use super::http::CONNECTIONS_MAX;
use super::joiners::{NODES_SIZE_MAX, OTHERS_SIZE_MAX};
use super::log::LINES_WAITING_MAX;
use super::packer::{QUEUE_SIZE_MAX, SPARE_SIZE_MAX, SPARES_MAX};
use crate::protocol::types::limits::{
    CHANGES_SIZE_MAX, COPIES_WAITING_MAX, DISK_BACKLOG_SIZE_MAX, HELD_BUCKETS_SIZE_MAX,
    HINTS_SIZE_MAX, LOAD_WAITERS_SIZE_MAX, LOW_MARKS_MAX, OPERATIONS_SIZE_MAX, PARTS_ASKED_MAX,
    PULLS_WAITING_MAX, RANGES_ASKED_MAX, RANGES_WATCHED_MAX, ROUNDS_LINGERING_MAX, SCANS_MAX,
    SESSION_WORDS_MAX, SESSIONS_MAX, SHARES_CLIENTS_MAX, UNSETTLED_MAX,
};
use wire::KEY_SIZE_MAX;
use wire::parts::INCOMPLETE_SIZE_MAX;

/// The most that all of them may take.
pub const MEMORY_BOUND: usize = 268_000_000;

/// One use of memory: the constant that bounds it, and the bytes that this allows.
#[derive(Debug, Clone, Copy)]
pub struct MemoryUse {
    pub constant: &'static str,
    pub size_max: usize,
}

/// So many times so many bytes.
macro_rules! uses {
    ($($constant:ident $(* $each:expr)?,)*) => {
        &[$(MemoryUse {
            constant: stringify!($constant),
            size_max: $constant as usize $(* $each)?,
        },)*]
    };
}

/// Names of keys that are held beside those of the tables.
const NAMED: usize = KEY_SIZE_MAX + 64;

/// With values of up to 1 MiB. Larger ones add `extra_size` to each pool of large frames, each scan
/// may hold one of them, and one value of the largest size may exceed each bound of bytes.
pub const MEMORY_USES: &[MemoryUse] = uses![
    OPERATIONS_SIZE_MAX,
    LOAD_WAITERS_SIZE_MAX,
    DISK_BACKLOG_SIZE_MAX,
    HELD_BUCKETS_SIZE_MAX,
    HINTS_SIZE_MAX,
    // The round, its place in the order, and the gaps of a hash table. The key's name is shared.
    ROUNDS_LINGERING_MAX * 192,
    COPIES_WAITING_MAX * NAMED,
    PULLS_WAITING_MAX * NAMED,
    // The lists of the members of both halves of a joint configuration; once these are judged, the
    // values of one page, of which a single one may be larger than a page.
    SCANS_MAX * (1 << 20),
    // Their ranges have two ends.
    RANGES_ASKED_MAX * 2 * NAMED,
    CHANGES_SIZE_MAX,
    UNSETTLED_MAX * NAMED,
    RANGES_WATCHED_MAX * 2 * NAMED,
    PARTS_ASKED_MAX * NAMED,
    // The session, its place in the order, and the gaps of a hash table.
    SESSIONS_MAX * 256,
    SESSION_WORDS_MAX * size_of::<u64>(),
    SHARES_CLIENTS_MAX * 64,
    // With the gaps of a hash table.
    LOW_MARKS_MAX * 64,
    NODES_SIZE_MAX,
    OTHERS_SIZE_MAX,
    // Those of nodes, and of all others.
    INCOMPLETE_SIZE_MAX * 2,
    TRANSFERS_SIZE_MAX,
    QUEUE_SIZE_MAX,
    SPARES_MAX * SPARE_SIZE_MAX,
    TURN_SIZE_MAX,
    RECEIVE_BATCH_MAX * RECEIVE_SIZE_MAX,
    WAITING_SIZE_MAX,
    // In two generations.
    REMOTES_MAX * 2 * 96,
    LINES_WAITING_MAX * 256,
    // A request's header and a page of metrics.
    CONNECTIONS_MAX * (64 << 10),
];

pub const fn sum() -> usize {
    let (mut at, mut sum) = (0, 0);
    while at < MEMORY_USES.len() {
        sum += MEMORY_USES[at].size_max;
        at += 1;
    }
    sum
}

const _: () = assert!(sum() <= MEMORY_BOUND);
