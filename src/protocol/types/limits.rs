//! Every bound of the protocol, with the relations between them asserted at compile time. Waits that
//! depend on the settings are in `timings`; what they are at least is here.

use wire::clock::{self, READING_LAST, Reading};
use wire::datagram::{DATAGRAM_HEADER_SIZE, DATAGRAM_SIZE_MAX, FRAME_HEADER_SIZE};
use wire::{KEY_SIZE_MAX, RETRY_WINDOW_MS, VALUE_SIZE_MAX};

pub const MEMBERS_MAX: usize = 9;
/// Nodes that a configuration names beside its members; ids are given out once.
pub const NODES_AWAY_MAX: usize = 32;
/// Nodes that a configuration names: those of two that are joint have a place among these.
pub const NODES_MAX: usize = 2 * MEMBERS_MAX + NODES_AWAY_MAX;

/// B1: the ceiling is raised when the clock comes this near to it ...
pub const CEILING_LOW_WATER_MS: u64 = 1_000;
/// ... to this far above the clock.
pub const CEILING_STEP_MS: u64 = 2_000;
/// B2: how far above the members' median a wall clock is believed.
pub const SKEW_MAX_MS_DEFAULT: u64 = 60_000;
/// B5: a birth is taken up to this far above the latest that a wall clock is believed: nodes see the
/// median differently.
pub const BIRTH_SLACK_MS: u64 = 1_000;
/// B5: what another node tells is followed up to this far above it. More than for births, so that what
/// a client brought one node to is followed by the others.
pub const RECEIVED_SLACK_MS: u64 = 60_000;
/// B5: a member that stays beyond that is followed after so long ...
pub const FOLLOW_AFTER_MS: u64 = 2_000;
/// ... up to this far above the latest that a wall clock is believed.
pub const FOLLOW_AHEAD_MAX_MS: u64 = 366 * 24 * 3_600_000;
/// B5: neither wall clocks nor what a quorum tells take a clock above this reading, in the year 2237: ten years
/// before the last one.
pub const FOLLOWED_LAST: Reading =
    clock::from_ms(clock::to_ms(READING_LAST) - 10 * 366 * 24 * 3_600_000);

pub const HEARTBEAT_MS_DEFAULT: u64 = 50;
/// A link is down after a silence of this length.
pub const LINK_DOWN_MS_DEFAULT: u64 = 200;
/// A link that was up for less than this when it went down is held down for twice as long ...
pub const LINK_QUIET_MS: u64 = 10_000;
/// ... up to this.
pub const LINK_HOLD_MAX_MS: u64 = 5_000;
/// What a node told counts for this long.
pub const ROW_STALE_MS: u64 = 1_000;
/// Of the heartbeats that come at one instant so many are looked at one by one.
pub const HEARTBEATS_LOOKED_AT: u32 = 64;
/// How often a large datagram is sent over each link, to see whether such ones get through, ...
pub const PROBE_MS: u64 = 10_000;
/// ... with so many bytes of padding: IP cuts it into fragments on nearly all networks.
pub const PROBE_SIZE: usize = 1_600;
/// A link over which the last so many did not come, though heartbeats do, drops them.
pub const PROBES_MISSED: u64 = 4;
/// Others are told of changes at once, but not more often than this.
pub const NEWS_INTERVAL_MS: u64 = 5;
/// X5: without paths to and from a quorum for this long no round starts. With the default settings this
/// is at most 500 ms after the quorum was last heard (`timings` has a test).
pub const QUORUM_LOST_MS: u64 = 150;
/// A forwarded operation that is not answered within this time runs where it came from.
pub const FORWARD_WAIT_MS: u64 = 30;
/// Automatic removal leaves so many members.
pub const MEMBERS_KEPT: usize = 3;
/// A removed node must have been there without a break for so long before it is admitted again, ...
pub const READMISSION_DELAY_MS: u64 = 1_000;
/// ... doubled at each further removal up to this, ...
pub const STEADY_MAX_MS: u64 = 60_000;
/// ... until this much time has passed without one.
pub const REMOVALS_FORGOTTEN_MS: u64 = 600_000;
/// A learner that was not heard to ask for so long asks no more.
pub const ADMISSION_ASKED_MS: u64 = 500;
/// How long each member leaves a change to the ones before it.
pub const CHANGE_STAGGER_MS: u64 = 300;
/// Digests are compared so often before single buckets are looked at: most of what differs was under
/// way at that moment.
pub const SEAL_PASSES: u32 = 3;
/// Buckets whose entries are compared at a time.
pub const SEAL_BUCKETS_MAX: usize = 64;
/// Keys whose rounds are not through after so long are looked at anew.
pub const EVIDENCE_RETRY_MS: u64 = 1_000;
/// A forced configuration's base is above the clock by so much, for what is still under way.
pub const FORCED_BASE_MS: u64 = 1_000;
/// Forces that a configuration remembers; then there can be no more.
pub const FORCES_MAX: usize = 100;
/// E7: how often a node looks for a configuration that nobody installed, and tells its own to nodes that
/// it does not hear.
pub const CONFIGURATION_LOOK_MS: u64 = 1_000;
/// Before the first configuration: how often the listed nodes are asked.
pub const FORMATION_QUERY_MS: u64 = 100;
/// ... and how long one that may form a cluster without all of them waits for another one to be heard.
pub const BOOTSTRAP_WAIT_MS: u64 = 3_000;

/// E1: incarnations of another node whose starts are remembered.
pub const INCARNATIONS_KNOWN_MAX: usize = 4;

/// What other nodes say that cannot be is reported at once, then after this time, doubled ...
pub const REPORT_WAIT_MS: u64 = 10_000;
/// ... up to this.
pub const REPORT_WAIT_MAX_MS: u64 = 3_600_000;
/// Another cluster that was not heard for so long is named in the status no more.
pub const OTHER_CLUSTER_KEPT_MS: u64 = 10_000;

/// X1: an operation is answered from the applied table at least this long after its birth.
pub const RETRY_HORIZON_MS: u64 = 10_000;
/// A coordinator gives an operation up this long after it arrived; the client has long stopped.
pub const OPERATION_AGE_MAX_MS: u64 = 7_000;
/// X1: the applied table's bounds.
pub const APPLIED_OPERATIONS_MAX: usize = 1_024;
pub const APPLIED_SIZE_MAX: usize = 12 * 1_024;
/// What the operations of one combined round may come to take of it.
pub const ROUND_APPLIED_SIZE_MAX: usize = APPLIED_SIZE_MAX / 2;
/// X1: text operations take at most this much of it, so that the rest is for clients with sessions.
pub const APPLIED_TEXT_SIZE_MAX: usize = APPLIED_SIZE_MAX / 2;
/// X1: an entry of a text operation does not leave the table within this time after a coordinator saw it
/// chosen ...
pub const TEXT_KEPT_MS: u64 = 1_000;
/// ... and a text operation is not run any more this long after it reached a node.
pub const TEXT_AGE_MAX_MS: u64 = 500;
/// A text client's first and last sending of a request are no further apart.
pub const TEXT_RETRY_WINDOW_MS: u64 = 100;
/// Samples of what was at a time are this far apart.
pub const CLOCK_SAMPLE_MS: u64 = 50;
/// V1: operations in one combined round, so that versions stay below the next ballot.
pub const COMBINED_MAX: usize = 255;

/// Retransmission of a round's messages: first wait, bounds of the adaptive estimate, last wait.
pub const RETRANSMIT_MIN_US: u64 = 4_000;
pub const RETRANSMIT_INITIAL_US: u64 = 10_000;
pub const RETRANSMIT_MAX_US: u64 = 200_000;
/// Duelling coordinators wait a random time of up to this, doubled at each loss ...
pub const BACKOFF_INITIAL_US: u64 = 2_000;
/// ... up to this.
pub const BACKOFF_MAX_US: u64 = 64_000;

/// C1: a member that has not answered a write this long after it was chosen has missed it.
pub const HINT_AFTER_MS: u64 = 200;
/// Chosen rounds whose last answers are waited for; of more the oldest are waited for no longer.
pub const ROUNDS_LINGERING_MAX: usize = 65_536;
/// Keys noted for one member that missed writes; more are counted only.
pub const HINTS_MAX: usize = 65_536;
/// What these keys may take in memory, for one member.
pub const HINTS_SIZE_MAX: usize = 16 << 20;
/// Copies to one member that are not answered yet, and their size.
pub const COPIES_UNDER_WAY_MAX: usize = 64;
pub const COPIES_SIZE_MAX: usize = 256 << 10;
/// A copy that is not answered is sent again after this time.
pub const COPY_RETRY_MS: u64 = 200;
/// Copies that a node sends in a second while it has nothing else to do, ...
pub const COPIES_PER_SECOND_IDLE: u64 = 100_000;
/// ... and while operations are under way.
pub const COPIES_PER_SECOND_BUSY: u64 = 5_000;

/// E1: a node that has waited so long for its proof names who has not given it.
pub const PROOF_OVERDUE_MS: u64 = 3_000;

/// Keys asked for of one node and not answered yet, and about the size of their copies.
pub const PULLS_UNDER_WAY_MAX: usize = 1_024;
pub const PULLS_SIZE_MAX: usize = 128 << 10;
/// Keys that wait to be asked for; while there are as many no more are looked for.
pub const PULLS_WAITING_MAX: usize = 8_192;
/// A key that was asked for and not answered is asked for again after this time, ...
pub const PULL_RETRY_MS: u64 = 300;
/// ... at least so often.
pub const PULL_TRIES_MIN: u32 = 5;
/// Copies that other nodes asked for and that wait for their turn; more are dropped and counted.
pub const COPIES_WAITING_MAX: usize = 16_384;
/// Keys asked for whose records are not known to be chosen, and which are looked at again.
pub const DOUBTS_MAX: usize = 1_024;
/// Records not known to be chosen, and buckets that differ, have this long to settle by themselves.
pub const SETTLE_MS: u64 = 200;
/// Copies that a node sends in a second to those that ask, while it has nothing else to do.
pub const COPIES_ASKED_PER_SECOND_IDLE: u64 = 200_000;
/// Buckets that are compared at a time.
pub const BUCKETS_COMPARED_MAX: usize = 32;
/// Members compare what they hold this often, while nothing tells that they differ.
pub const COMPARE_MS: u64 = 1_000;
/// ... and this often while operations are under way: what is being written then always differs somewhere.
pub const COMPARE_BUSY_MS: u64 = 5_000;
/// A member that found more keys missing than this goes on with the next member at once.
pub const BEHIND_MISSING_MIN: u64 = 64;
/// ... and one that found more than this asks all members at once, a share each.
pub const FAR_BEHIND_MISSING_MIN: u64 = 4_096;
/// A pass is whole if no more keys than this were asked for in vain.
pub const GIVEN_UP_MAX: u64 = 4_096;
/// A learner has learned enough to be admitted once it found no more keys missing than this in a whole pass, ...
pub const LEARNED_MISSING_MAX: u64 = 4_096;
/// ... or, under writes, once so many whole passes followed one another: in one alone a source may have been
/// behind itself.
pub const LEARNED_PASSES: u32 = 2;
/// A member that was not there for so long is asked for nothing more in a pass.
pub const SOURCE_GONE_MS: u64 = 1_000;
/// A disk that has not finished a write for so long hangs: its node counts as not reached.
pub const DISK_HUNG_MS_DEFAULT: u64 = 2_000;
/// Marks of chosen records that no group took along are written this often.
pub const MARKS_MS: u64 = 1_000;

/// P1: a bucket in which a tombstone was written is looked at so long after the retry horizon: none is
/// purged before.
pub const PURGE_AFTER_MS: u64 = 1_000;
/// Members are asked this often for what purging must know.
pub const PURGE_MS: u64 = 1_000;
/// Buckets that one node purges at a time while it has nothing else to do, ...
pub const BUCKETS_PURGED_IDLE: usize = 128;
/// ... and while operations are under way.
pub const BUCKETS_PURGED_BUSY: usize = 16;
/// Tombstones that hold text operations whose age is kept in mind; more wait for their turn.
pub const TEXT_TOMBSTONES_MAX: usize = 16_384;
/// Nothing is purged while a member differs in more buckets than this at two looks: what it lacks would be
/// below its floor, and would need a round for each key.
pub const PURGE_DIFFERING_MAX: usize = 512;

/// Operations that wait for one key; more are answered busy.
pub const KEY_QUEUE_MAX: usize = 2_048;
/// Operations under way in one node; more are answered busy.
pub const OPERATIONS_MAX: usize = 65_536;
/// What they may take in memory; more are answered busy.
pub const OPERATIONS_SIZE_MAX: usize = 64 << 20;
/// What one takes beside its key and its values, about.
pub const OPERATION_OVERHEAD_SIZE: usize = 512;
/// P1: what could not be purged for so long is worth a warning.
pub const PURGE_HELD_UP_MS: u64 = 30_000;
/// Inputs that wait for one key to be loaded; more are dropped and counted.
pub const LOAD_WAITERS_MAX: usize = 4_096;
/// Keys whose state is held in the protocol core.
pub const KEYS_CACHED_MAX: usize = 65_536;
/// They may take this part of `--memory-max`, so that a node is never full through them alone.
pub const CACHE_PART: u64 = 8;
/// Sessions of clients; the one unused longest is forgotten, with its token (X4).
pub const SESSIONS_MAX: usize = 16_384;
/// Attempts that one session's window tells apart.
pub const SESSION_WINDOW: u64 = 65_536;
/// Words of 64 attempts that the windows of all sessions hold.
pub const SESSION_WORDS_MAX: usize = 1 << 18;
/// Boots of one node whose forwarded attempts are told apart.
pub const FORWARDER_BOOTS_MAX: usize = 64;
pub const ADDRESS_SIZE_MAX: usize = 300;
/// Items of one message's list: keys, entries, tombstones.
pub const KEYS_PER_MESSAGE_MAX: usize = 4_096;
/// What such a list may take when encoded.
pub const LIST_SIZE_MAX: usize = 32 << 10;
/// Answers that wait for one part of a bucket to be listed; more are dropped and counted.
pub const BUCKET_WAITERS_MAX: usize = 64;
/// Parts of buckets that others asked for and that are not listed yet; more are dropped and counted.
pub const PARTS_ASKED_MAX: usize = 4_096;
/// What the keys of one page of a bucket may take.
pub const KEYS_SIZE_MAX: usize = 32 << 10;
/// Answers with the digests of all buckets that one node gets in one turn: it may be comparing, purging and
/// sealing at the same time.
pub const DIGESTS_PER_TURN_MAX: usize = 3;
/// Answers about buckets, and their size, that wait for the disk; more are dropped and counted.
pub const HELD_BUCKETS_SIZE_MAX: usize = 16 << 20;
/// Marks of chosen records that wait for a group to take them along; more are written by themselves.
pub const MARKS_MAX: usize = 16_384;
/// PendingChosen of chosen ballots in one message.
pub const CHOSEN_PER_MESSAGE_MAX: usize = 256;

/// What a record may take on the way: whatever message carries it fits a datagram, with the largest key.
pub const RECORD_SIZE_MAX: usize =
    DATAGRAM_SIZE_MAX - DATAGRAM_HEADER_SIZE - FRAME_HEADER_SIZE - KEY_SIZE_MAX - 64;
/// What it takes beside its value and the entries of its table, at most.
pub const RECORD_OVERHEAD_SIZE: usize = 64;

const _: () = assert!(RETRY_WINDOW_MS < OPERATION_AGE_MAX_MS);
const _: () = assert!(OPERATION_AGE_MAX_MS < RETRY_HORIZON_MS);
/// Text operations and those of one round have room together, so that none leaves in its own round.
const _: () = assert!(APPLIED_TEXT_SIZE_MAX + ROUND_APPLIED_SIZE_MAX <= APPLIED_SIZE_MAX);
/// What is left is for the network, which may hold a text datagram back for so long.
const _: () =
    assert!(TEXT_RETRY_WINDOW_MS + TEXT_AGE_MAX_MS + 2 * CLOCK_SAMPLE_MS + 300 <= TEXT_KEPT_MS);
const _: () = assert!(COMBINED_MAX < 256);
const _: () = assert!(2 * HEARTBEAT_MS_DEFAULT < LINK_DOWN_MS_DEFAULT);
const _: () = assert!(CEILING_LOW_WATER_MS < CEILING_STEP_MS);
/// So does a message with a list, beside the largest key.
const _: () = assert!(LIST_SIZE_MAX + KEY_SIZE_MAX + 1_024 <= DATAGRAM_SIZE_MAX);
/// A list has room for an item of any size.
const _: () = assert!(KEY_SIZE_MAX + 64 <= LIST_SIZE_MAX);
const _: () = assert!(10 * BIRTH_SLACK_MS <= RECEIVED_SLACK_MS);
/// A record has room for the largest value and table.
const _: () = assert!(VALUE_SIZE_MAX + APPLIED_SIZE_MAX + RECORD_OVERHEAD_SIZE <= RECORD_SIZE_MAX);
