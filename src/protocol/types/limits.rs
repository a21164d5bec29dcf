//! All bounds of the protocol. Relations between them are asserted at compile time. The waits that
//! depend on settings are in `timings`; this module has their minimum values.

use wire::clock::{self, READING_LAST, Reading};
use wire::datagram::DATAGRAM_SIZE_MAX;
use wire::transfer::FRAME_BODY_SIZE_MAX;
use wire::{KEY_SIZE_MAX, RETRY_WINDOW_MS, VALUE_SIZE_MAX};

/// Attempts of transactions whose fates a node remembers.
pub const DECISIONS_KNOWN_MAX: usize = 16_384;
/// A coordinator has this long for a transaction. Then others abort it.
pub const TRANSACTION_MS: u64 = 5_000;
/// T6: the first and the longest wait of an operation that met an intent, before it looks again.
pub const INTENT_WAIT_US: u64 = 2_000;
pub const INTENT_WAIT_MAX_US: u64 = 20_000;
/// T6: a single write waits so long for a transaction's first attempt; twice as long for the next
/// one, and so on, so that a transaction on slow links ends, too.
pub const INTENT_PATIENCE_US: u64 = 120_000;
/// The patience doubles at most this often.
pub const INTENT_PATIENCE_DOUBLINGS_MAX: u32 = 6;
/// Operations on one node that wait for intents. Further ones are answered busy.
pub const INTENT_WAITERS_MAX: usize = 16_384;
/// A transaction is tried again at most this often after it was aborted.
pub const TRANSACTION_ATTEMPTS_MAX: u32 = 64;
/// T6: an attempt that was aborted waits so long before the next one. The transaction that aborted
/// it needs a round or two to place its intent.
pub const ABORTED_REST_US: u64 = 10_000;
/// T11: after this many double reads that differed, a snapshot runs as an ordinary transaction.
pub const SNAPSHOT_TRIES_MAX: u32 = 4;
/// T11: the same after one double read between whose halves more keys than this were written.
pub const SNAPSHOT_CHANGED_MAX: usize = 2;
/// T8: how long an intent or a pending register is left alone before a sweep looks at it.
pub const SWEEP_AFTER_MS: u64 = 1_000;
/// T8: how much later nodes sweep that are not the preferred coordinator.
pub const SWEEP_LATER_MS: u64 = 4_000;
/// Registers and keys that one node sweeps at the same time.
pub const SWEEPS_MAX: usize = 256;

pub const MEMBERS_MAX: usize = 9;
/// Non-members that a configuration names. Each id is given out only once.
pub const NODES_AWAY_MAX: usize = 32;
/// Nodes that a configuration names, including the members of both halves of a joint one.
pub const NODES_MAX: usize = 2 * MEMBERS_MAX + NODES_AWAY_MAX;

/// B1: the ceiling is raised when the clock is this close to it.
pub const CEILING_LOW_WATER_MS: u64 = 1_000;
/// B1: how far above the clock a raised ceiling is.
pub const CEILING_STEP_MS: u64 = 2_000;
/// B1: with a slow disk the ceiling is raised earlier, by at most this much, and twice as much
/// higher.
pub const CEILING_EARLY_MAX_MS: u64 = 4_000;
/// A member whose oldest group is this old is given more time for its answers.
pub const DISK_BEHIND_MS: u64 = 100;
/// A member that reported a group this old is avoided as a coordinator and for reads, ...
pub const DISK_SLOW_MS: u64 = 500;
/// ... until this long after it last did.
pub const DISK_SLOW_KEPT_MS: u64 = 3_000;
/// B2: how far above the lower median of the voters' wall clocks a wall clock counts.
pub const SKEW_MAX_MS_DEFAULT: u64 = 60_000;
/// B5: how far above the latest wall clock that counts a birth is accepted. The slack is needed
/// because nodes compute different medians.
pub const BIRTH_SLACK_MS: u64 = 1_000;
/// B5: how far above that wall clock a reading received from another node is followed. It is larger
/// than the slack for births, so that all nodes follow a clock that a client's birth moved.
pub const RECEIVED_SLACK_MS: u64 = 60_000;
/// B5: a member whose clock stays above that bound is followed after this time.
pub const FOLLOW_AFTER_MS: u64 = 2_000;
/// B5: how far above the latest wall clock that counts such a member is followed.
pub const FOLLOW_AHEAD_MAX_MS: u64 = 366 * 24 * 3_600_000;
/// B5: no wall clock, and no reading that a quorum reports, moves a clock above this reading. It is
/// in the year 2237, ten years before `READING_LAST`.
pub const FOLLOWED_LAST: Reading =
    clock::from_ms(clock::to_ms(READING_LAST) - 10 * 366 * 24 * 3_600_000);

pub const HEARTBEAT_MS_DEFAULT: u64 = 50;
/// A link is down after this much silence.
pub const LINK_DOWN_MS_DEFAULT: u64 = 200;
/// If a link goes down after it was up for less than this, its next probation is doubled.
pub const LINK_QUIET_MS: u64 = 10_000;
/// The longest probation of a link.
pub const LINK_HOLD_MAX_MS: u64 = 5_000;
/// A row expires after this time.
pub const ROW_STALE_MS: u64 = 1_000;
/// Of the heartbeats that arrive at one instant, this many are followed by a check of the links
/// each. Further ones are checked together at the end.
pub const HEARTBEATS_LOOKED_AT: u32 = 64;
/// Interval between the probes on each link. A probe is a large datagram that shows whether large
/// datagrams get through.
pub const PROBE_MS: u64 = 10_000;
/// Padding of a probe, in bytes. On nearly all networks IP fragments a datagram of this size.
pub const PROBE_SIZE: usize = 1_600;
/// If heartbeats arrive over a link and this many probes in a row did not, the link drops large
/// datagrams.
pub const PROBES_MISSED: u64 = 4;
/// Link changes are announced at once, but with at least this interval between announcements.
pub const NEWS_INTERVAL_MS: u64 = 5;
/// X5: a node that had no paths to and from a quorum for this long starts no round. With the
/// default settings that is at most 500 ms after the quorum was last reachable (`timings` has a
/// test).
pub const QUORUM_LOST_MS: u64 = 150;
/// A forwarded operation that is not answered within this time runs on the node that forwarded it.
pub const FORWARD_WAIT_MS: u64 = 20;
/// Automatic removal never leaves fewer members than this.
pub const MEMBERS_KEPT: usize = 3;
/// A removed node must be continuously reachable for this long before it is admitted again.
pub const READMISSION_DELAY_MS: u64 = 1_000;
/// That delay doubles at each further removal, up to this value.
pub const STEADY_MAX_MS: u64 = 60_000;
/// The delay is reset after this much time without a removal.
pub const REMOVALS_FORGOTTEN_MS: u64 = 600_000;
/// A learner's request for admission expires this long after it was last received.
pub const ADMISSION_ASKED_MS: u64 = 500;
/// How long each member waits for the members before it in order to make a change.
pub const CHANGE_STAGGER_MS: u64 = 300;
/// The digests are compared this many times before the entries of single buckets are: most
/// differences are writes in progress.
pub const SEAL_PASSES_MAX: u32 = 3;
/// Buckets whose entries are compared at the same time.
pub const SEAL_BUCKETS_MAX: usize = 64;
/// A key whose repair round has not completed after this time is checked again.
pub const EVIDENCE_RETRY_MS: u64 = 1_000;
/// How far the base of a forced configuration is above the clock, to cover messages in flight.
pub const FORCED_BASE_MS: u64 = 1_000;
/// Forces that a configuration records. With this many, no further force is possible.
pub const FORCES_MAX: usize = 100;
/// E7: how often a node checks for a configuration that was chosen but not installed, and sends its
/// own configuration to unreachable nodes.
pub const CONFIGURATION_LOOK_MS: u64 = 1_000;
/// Before the first configuration: how often the first listed node queries the others.
pub const FORMATION_QUERY_MS: u64 = 100;
/// With `--bootstrap`: the first configuration is formed without all listed nodes only once no
/// further node has appeared for this long.
pub const BOOTSTRAP_WAIT_MS: u64 = 3_000;

/// E1: incarnations of another node whose starts are remembered.
pub const INCARNATIONS_KNOWN_MAX: usize = 4;

/// A peer fault is reported at once, and again after this time, which doubles at each report.
pub const REPORT_WAIT_MS: u64 = 10_000;
/// The longest wait between reports of a peer fault.
pub const REPORT_WAIT_MAX_MS: u64 = 3_600_000;
/// Another cluster is no longer named in the status this long after its last message.
pub const OTHER_CLUSTER_KEPT_MS: u64 = 10_000;

/// X1: the applied table answers for an operation at least this long after its birth.
pub const RETRY_HORIZON_MS: u64 = 10_000;
/// A coordinator abandons an operation this long after it arrived. By then the client no longer
/// waits.
pub const OPERATION_AGE_MAX_MS: u64 = 7_000;
/// X1: the bounds of the applied table.
pub const APPLIED_OPERATIONS_MAX: usize = 1_024;
pub const APPLIED_SIZE_MAX: usize = 12 * 1_024;
/// X1: the clients whose low marks a node remembers, whatever keys they write.
pub const LOW_MARKS_MAX: usize = 4_096;
/// The part of the table that the operations of one combined round may take.
pub const ROUND_APPLIED_SIZE_MAX: usize = APPLIED_SIZE_MAX / 2;
/// X1: the part of the table that text operations may take. The rest is for clients with sessions.
pub const APPLIED_TEXT_SIZE_MAX: usize = APPLIED_SIZE_MAX / 2;
/// X1: the text operations in a record that are known only by their hashes, in bytes.
pub const TEXT_SLICES_SIZE_MAX: usize = 18 * 1_024;
/// An upper bound of a slice's encoded size, without its hashes.
pub const TEXT_SLICE_OVERHEAD_SIZE: usize = 24;
/// A slice takes no more hashes than this ...
pub const TEXT_SLICE_HASHES_MAX: usize = 128;
/// ... and only of operations born within this time.
pub const TEXT_SLICE_MS: u64 = 50;
/// X1: an entry of a text operation may not leave the table for this long after a coordinator saw
/// it chosen.
pub const TEXT_KEPT_MS: u64 = 1_000;
/// X1: a text operation is not applied later than this after a node received it.
pub const TEXT_AGE_MAX_MS: u64 = 500;
/// The longest time between a text client's first and last sending of a request.
pub const TEXT_RETRY_WINDOW_MS: u64 = 100;
/// Minimum time between two samples in a clock history.
pub const CLOCK_SAMPLE_MS: u64 = 50;
/// V1: operations in one combined round. The bound keeps their versions below the next ballot.
pub const COMBINED_MAX: usize = 255;

/// Retransmission of a round's messages: the minimum of the estimated wait, the first wait while
/// there is no estimate, and the longest wait.
pub const RETRANSMIT_MIN_US: u64 = 4_000;
pub const RETRANSMIT_INITIAL_US: u64 = 10_000;
pub const RETRANSMIT_MAX_US: u64 = 200_000;
/// Competing coordinators back off for a random time. This is the base of its bound, which doubles
/// at each loss.
pub const BACKOFF_INITIAL_US: u64 = 2_000;
/// The highest value of that bound.
pub const BACKOFF_MAX_US: u64 = 64_000;

/// C1: a member that did not answer a write this long after it was chosen has missed it.
pub const HINT_AFTER_MS: u64 = 200;
/// Chosen rounds that await further acknowledgments. Over this limit the oldest ones stop waiting.
pub const ROUNDS_LINGERING_MAX: usize = 32_768;
/// Hints for one member. More missed writes are only counted (hint overflow).
pub const HINTS_MAX: usize = 65_536;
/// Memory that the hints for all members together may take, in bytes.
pub const HINTS_SIZE_MAX: usize = 10 << 20;
/// Unacknowledged copies to one member, and their total size in bytes.
pub const COPIES_UNDER_WAY_MAX: usize = 64;
pub const COPIES_SIZE_MAX: usize = 256 << 10;
/// A copy that is not acknowledged is sent again after this time.
pub const COPY_RETRY_MS: u64 = 200;
/// Hinted copies that a node sends per second while it is idle.
pub const COPIES_PER_SECOND_IDLE: u64 = 100_000;
/// Hinted copies that a node sends per second while operations are in progress.
pub const COPIES_PER_SECOND_BUSY: u64 = 5_000;

/// E1: a node that has waited this long for its start to be confirmed names the nodes whose
/// confirmation is missing.
pub const PROOF_OVERDUE_MS: u64 = 3_000;

/// Keys that are being fetched from one node, and the approximate size of their copies in bytes.
pub const PULLS_UNDER_WAY_MAX: usize = 1_024;
pub const PULLS_SIZE_MAX: usize = 128 << 10;
/// Keys that are to be fetched. With this many, the comparison looks for no further ones.
pub const PULLS_WAITING_MAX: usize = 4_096;
/// A fetch that is not answered is sent again after this time.
pub const FETCH_RETRY_MS: u64 = 300;
/// A fetch is tried at least this many times.
pub const FETCH_TRIES_MIN: u32 = 5;
/// Requested copies that wait to be sent. More requests are dropped and counted.
pub const COPIES_WAITING_MAX: usize = 4_096;
/// Fetched keys with an unconfirmed record that are to be checked again.
pub const DOUBTS_MAX: usize = 1_024;
/// Time for unconfirmed records, and for differences between buckets, to resolve automatically.
pub const SETTLE_MS: u64 = 200;
/// Requested copies that a node sends per second while it is idle.
pub const COPIES_ASKED_PER_SECOND_IDLE: u64 = 200_000;
/// Buckets that are compared at the same time.
pub const BUCKETS_COMPARED_MAX: usize = 32;
/// Interval between comparisons of two members while no difference is known.
pub const COMPARE_MS: u64 = 1_000;
/// That interval while operations are in progress: what is being written always differs somewhere.
pub const COMPARE_BUSY_MS: u64 = 5_000;
/// A member that found more missing keys than this compares with the next member at once.
pub const BEHIND_MISSING_MIN: u64 = 64;
/// A member that found more missing keys than this runs a full catch-up: it asks all members at
/// once, with buckets assigned to each.
pub const FAR_BEHIND_MISSING_MIN: u64 = 4_096;
/// A pass is complete only if no more fetches than this failed.
pub const GIVEN_UP_MAX: u64 = 4_096;
/// A learner has caught up once a complete pass found no more missing keys than this.
pub const LEARNED_MISSING_MAX: u64 = 4_096;
/// A learner that receives writes has caught up after this many complete passes in a row. One such
/// pass is not enough, because its source may have been lagging itself.
pub const LEARNED_PASSES: u32 = 2;
/// A member that was unreachable for this long is asked for nothing more in a pass.
pub const SOURCE_GONE_MS: u64 = 1_000;
/// A disk that has not finished a write for this long is hung. Its node counts as unreachable.
pub const DISK_HUNG_MS_DEFAULT: u64 = 2_000;
/// Groups, and bytes in them, that may wait for the disk. Above that a node answers writes busy,
/// and drops what other nodes want written.
pub const DISK_BACKLOG_GROUPS_MAX: usize = 16_384;
pub const DISK_BACKLOG_SIZE_MAX: usize = 24 << 20;
/// Interval at which chosen marks are written that no group has taken along.
pub const MARKS_MS: u64 = 1_000;

/// P1: a bucket in which a tombstone was written is checked this long after the retry horizon. No
/// tombstone is purged before the horizon has passed.
pub const PURGE_AFTER_MS: u64 = 1_000;
/// Interval at which members are asked for what a purge depends on.
pub const PURGE_MS: u64 = 1_000;
/// Buckets that one node purges at a time while it is idle.
pub const BUCKETS_PURGED_IDLE: usize = 128;
/// Buckets that one node purges at a time while operations are in progress.
pub const BUCKETS_PURGED_BUSY: usize = 16;
/// Tombstones with text operations whose age is tracked. Further ones wait until there is space.
pub const TEXT_TOMBSTONES_MAX: usize = 16_384;
/// Nothing is purged while a member differs in more buckets than this at two checks: the keys that
/// it lacks would be below its floor, and each would need a round.
pub const PURGE_DIFFERING_MAX: usize = 512;

/// X7: the longest acceptable wait of a datagram in the receive buffer.
pub const RECEIVE_DELAY_MAX_MS: u64 = 50;
/// X7: once all samples of this time have shown longer waits, the node is overloaded.
pub const OVERLOAD_AFTER_MS: u64 = 100;
/// When a client that is answered busy should come back, if the node has no estimate, ...
pub const BUSY_AFTER_MS: u32 = 20;
/// ... and at the latest.
pub const BUSY_AFTER_MAX_MS: u32 = 1_000;
/// X7: the interval in which an overloaded node divides what it accepts among its clients.
pub const SHARE_OF_MS: u64 = 100;
/// X7: an overloaded node accepts at least this many operations in an interval.
pub const SHARES_LEAST: u32 = 16;
/// X7: clients that an overloaded node distinguishes in an interval. Further ones are refused.
pub const SHARES_CLIENTS_MAX: usize = 65_536;
/// The end of an overload is reported after this time without overload.
pub const OVERLOAD_OVER_MS: u64 = 5_000;
/// Operations that wait for one key. Further ones are answered busy.
pub const KEY_QUEUE_MAX: usize = 2_048;
/// Operations in progress on one node. Further ones are answered busy.
pub const OPERATIONS_MAX: usize = 65_536;
/// Memory that these operations may take, in bytes. Further ones are answered busy.
pub const OPERATIONS_SIZE_MAX: usize = 24 << 20;
/// Approximate memory that one operation takes in addition to its key and values, in bytes.
pub const OPERATION_OVERHEAD_SIZE: usize = 512;
/// P1: a warning is due when tombstones could not be purged for this long.
pub const PURGE_HELD_UP_MS: u64 = 30_000;
/// Inputs that wait for one key to be loaded. Further ones are dropped and counted.
pub const LOAD_WAITERS_MAX: usize = 4_096;
/// Size of the values and records that wait for keys to be loaded, in bytes; a single one may
/// always wait. Further ones are dropped and counted, and operations are answered busy.
pub const LOAD_WAITERS_SIZE_MAX: usize = 8 << 20;
/// Keys whose state is kept in the protocol core.
pub const KEYS_CACHED_MAX: usize = 65_536;
/// Their memory is at most `--memory-max` divided by this, so that they alone never make a node
/// full.
pub const CACHE_PART: u64 = 8;
/// Of the keys in the core, one in so many may be a register of a transaction that is not in use.
/// Otherwise a load of transactions, each with its own register, would put all other keys out.
pub const REGISTERS_PART: usize = 64;
/// Client sessions. Over this limit the least recently used one is evicted, with its token (X4).
pub const SESSIONS_MAX: usize = 16_384;
/// Attempt numbers that the window of one session covers.
pub const SESSION_WINDOW: u64 = 65_536;
/// Words of 64 attempts in the windows of all sessions together.
pub const SESSION_WORDS_MAX: usize = 1 << 18;
/// Boots of one forwarding node whose attempts are tracked.
pub const FORWARDER_BOOTS_MAX: usize = 64;
pub const ADDRESS_SIZE_MAX: usize = 300;
/// The bytes of the parts of one Resolve, unless a single part has more; and what a part takes at
/// most besides its key.
pub const RESOLVE_SIZE_MAX: usize = 1_000;
pub const RESOLVE_PART_SIZE: usize = 32;
/// Items in one message's list of keys, entries or tombstones.
pub const KEYS_PER_MESSAGE_MAX: usize = 4_096;
/// Encoded size of such a list, in bytes.
pub const LIST_SIZE_MAX: usize = 32 << 10;
/// Answers that wait for the same page of a bucket to be listed. Further ones are dropped and
/// counted.
pub const BUCKET_WAITERS_MAX: usize = 64;
/// Requested pages of buckets that are not listed yet. Further requests are dropped and counted.
pub const PARTS_ASKED_MAX: usize = 4_096;
/// Size of the keys in one page of a bucket, in bytes.
pub const KEYS_SIZE_MAX: usize = 32 << 10;
/// Answers with the digests of all buckets that one node gets in one loop iteration: it may need
/// one each for a comparison, a purge and a change's evidence.
pub const DIGESTS_PER_TURN_MAX: usize = 3;
/// Size of the answers about buckets that wait for the disk, in bytes. Further ones are dropped and
/// counted.
pub const HELD_BUCKETS_SIZE_MAX: usize = 4 << 20;
/// L1: keys that one node deletes at the same time because they have expired, while no operation is
/// in progress, and while some are.
pub const EXPIRY_UNDER_WAY_MAX_IDLE: usize = 512;
pub const EXPIRY_UNDER_WAY_MAX_BUSY: usize = 128;
/// Expired keys that one turn looks at.
pub const EXPIRY_LOOKED_AT_MAX: usize = 4_096;
/// The next turn comes this much later, while more is left.
pub const EXPIRY_TURN_MS: u64 = 5;
/// A key whose deletion has not completed after this time is looked at again.
pub const EXPIRY_RETRY_MS: u64 = 1_000;
/// Keys in one page of a range.
pub const RANGE_KEYS_MAX: usize = 2_048;
/// The same while the node works on more than this many other operations: a scan asks for page
/// after page, and would take as much of a busy node as these.
pub const RANGE_KEYS_BUSY_MAX: usize = 256;
pub const SCAN_OPERATIONS_BUSY: usize = 4;
/// Size of the keys and values in one page of a range, in bytes; one key may always be in it.
pub const RANGE_SIZE_MAX: usize = 48 << 10;
/// Keys that the coordinator of a page lists although the client wants fewer. Deleted ones are
/// among them, and a page of these alone tells nothing.
pub const SCAN_KEYS_LISTED_MIN: usize = 256;
/// Scans that a node works on at the same time. Further ones wait.
pub const SCANS_MAX: usize = 8;
/// Scans that wait. Further ones are answered busy.
pub const SCANS_WAITING_MAX: usize = 1_024;
/// Keys of one page that are read by read rounds. A page ends before the next such key.
pub const SCAN_READS_MAX: usize = 64;
/// Those of them that are read at the same time.
pub const SCAN_READS_AT_ONCE_MAX: usize = 8;
/// Polls of watches that wait for changes on one node. Further ones are answered busy.
pub const WATCHES_MAX: usize = 4_096;
/// Different ranges that are watched at one node. Polls for further ones are answered busy.
pub const RANGES_WATCHED_MAX: usize = 256;
/// W3: a range that no client asked about for this long is no longer watched.
pub const WATCH_FORGOTTEN_MS: u64 = 10_000;
/// Changes of watched keys that a node holds, and their size in bytes. A watch that lags further
/// behind begins anew.
pub const CHANGES_MAX: usize = 32_768;
pub const CHANGES_SIZE_MAX: usize = 8 << 20;
/// W2: watched keys whose last state is not known to be chosen. With more of them all watches begin
/// anew.
pub const UNSETTLED_MAX: usize = 2_048;
/// Those that are read at the same time.
pub const SETTLED_AT_ONCE_MAX: usize = 64;
/// W2: a key is read after it was unsettled for one to two of these intervals, in microseconds.
pub const WATCH_TICK_US: u64 = 50_000;
/// A change waits this long for further ones, for each poll that waits.
pub const WATCH_DELAY_US: u64 = 250;
pub const WATCH_DELAY_MAX_US: u64 = 40_000;
/// The keys and values in the answers to polls that are made at once, in bytes; one page may exceed
/// it. The other polls follow after this time, in microseconds.
pub const WATCH_ANSWERS_SIZE_MAX: usize = 1 << 20;
pub const WATCH_ANSWERS_PAUSE_US: u64 = 1_000;
/// Ranges that other nodes requested and that are not listed yet. Further requests are dropped and
/// counted.
pub const RANGES_ASKED_MAX: usize = 256;
/// Chosen marks that wait for a group to take them along. Over this limit they are written in a
/// group of their own.
pub const MARKS_MAX: usize = 16_384;
/// Chosen ballots in one message.
pub const CHOSEN_PER_MESSAGE_MAX: usize = 256;

/// Encoded size of a record. Every message that contains a record of this size and the largest key
/// fits a frame.
pub const RECORD_SIZE_MAX: usize = FRAME_BODY_SIZE_MAX - KEY_SIZE_MAX - 64;
/// Upper bound of a record's encoded size without its value and the entries of its table.
pub const RECORD_OVERHEAD_SIZE: usize = 64;
/// A store packs records of up to this size. It shares larger ones with the core, which otherwise
/// would hold and copy their values twice.
pub const RECORD_PACKED_SIZE_MAX: usize = 1_024;

const _: () = assert!(RETRY_WINDOW_MS < OPERATION_AGE_MAX_MS);
const _: () = assert!(OPERATION_AGE_MAX_MS < RETRY_HORIZON_MS);
/// The table has space for the text operations and one round together, so that no operation leaves
/// the table in its own round.
const _: () = assert!(APPLIED_TEXT_SIZE_MAX + ROUND_APPLIED_SIZE_MAX <= APPLIED_SIZE_MAX);
/// The remaining time is for the network, which may delay a text datagram for that long.
const _: () =
    assert!(TEXT_RETRY_WINDOW_MS + TEXT_AGE_MAX_MS + 2 * CLOCK_SAMPLE_MS + 300 <= TEXT_KEPT_MS);
const _: () = assert!(COMBINED_MAX < 256);
/// What is looked at when a hint is due: by then the disk has kept the write waiting for that long.
const _: () = assert!(2 * DISK_BEHIND_MS <= HINT_AFTER_MS && DISK_BEHIND_MS < DISK_SLOW_MS);
const _: () = assert!(2 * HEARTBEAT_MS_DEFAULT < LINK_DOWN_MS_DEFAULT);
const _: () = assert!(CEILING_LOW_WATER_MS < CEILING_STEP_MS);
/// A message with a full list and the largest key fits a datagram.
const _: () = assert!(LIST_SIZE_MAX + KEY_SIZE_MAX + 1_024 <= DATAGRAM_SIZE_MAX);
/// A list has space for an item of any size.
const _: () = assert!(KEY_SIZE_MAX + 64 <= LIST_SIZE_MAX);
const _: () = assert!(10 * BIRTH_SLACK_MS <= RECEIVED_SLACK_MS);
/// A record has space for the largest value and table.
const _: () = assert!(
    VALUE_SIZE_MAX + APPLIED_SIZE_MAX + TEXT_SLICES_SIZE_MAX + RECORD_OVERHEAD_SIZE
        <= RECORD_SIZE_MAX
);
