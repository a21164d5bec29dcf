//! The course of one call: when it is sent, to which node, and when again.

use super::attempts::Target;
use super::call::{Call, CallError};
use super::probe::Probe;
use super::table::CallHandle;
use super::{IN_FLIGHT_MAX, Session, place_bit};
use wire::latency::allowance_us;
use wire::{Action, Operation, OperationId, Outcome, RETRY_WINDOW_MS, Request, kind};

/// The wait before a refused call is tried again, unless the node said when; it is doubled each
/// time.
const REFUSED_WAIT_US_INITIAL: u64 = 10_000;
const REFUSED_DOUBLINGS_MAX: u32 = 4;
const RETRY_WAIT_US_MAX: u64 = 1_000_000;
/// Without an answer, each further attempt with a value of many datagrams waits at least twice as
/// long as the one before, whichever node it is sent to, but at most this long, and a quarter more
/// that spreads them. A second attempt makes another node run a round with the whole value, and
/// where the links are slow or lossy this delays the first one further.
const LARGE_WAIT_US_MAX: u64 = 2_000_000;
/// A transaction is sent to its node again so long before it is sent to another one.
const SAME_NODE_US: u64 = 200_000;
/// Retries use up an allowance: each answered operation adds one to it, and each retry takes ten.
/// So a busy cluster does not receive everything again, and yet up to ten per cent of lost
/// datagrams are repaired immediately.
pub(super) const ALLOWANCE_MAX: u32 = 320;
const ALLOWANCE_RETRY: u32 = 10;
/// With this few calls in flight the load does not matter: these calls back off, and need no
/// allowance.
const FEW_CALLS: usize = 4;
/// Without allowance a retry is delayed, at most until this long after the previous attempt.
const PUT_OFF_US_MAX: u64 = 400_000;
/// This many calls are sent to the first node that becomes usable, ...
const PARKED_SENT_AT_ONCE: usize = 8;
/// ... and the other calls this much later, to the nodes that are usable by then.
const PARKED_WAIT_US: u64 = 2_000;

pub(super) const NEVER: u64 = u64::MAX;

/// The identity of an operation, from its first sending on.
#[derive(Debug, Clone, Copy)]
pub(super) struct OperationIdentity {
    pub sequence: u64,
    birth: u64,
    born_us: u64,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct LastAttempt {
    place: usize,
    number: u64,
    sent_us: u64,
    /// Whether an answer is still awaited.
    open: bool,
}

#[derive(Debug)]
pub(super) struct InFlight {
    pub call: Call,
    pub tag: u64,
    /// Random for a poll of a watch: which node it goes to first.
    pub spread: u64,
    deadline_us: u64,
    pub identity: Option<OperationIdentity>,
    /// The number of sendings of this identity.
    pub sent: u32,
    /// The number of those without an answer.
    pub open: u32,
    last: Option<LastAttempt>,
    /// Nodes that were tried since the set was last reset.
    pub tried: u64,
    /// How often the wait was doubled.
    doublings: u32,
    refusals: u32,
    pub remakes: u32,
    /// The answer of an attempt that changed nothing, or was not executed (X2).
    pub refusal: Option<Outcome>,
    /// Nodes whose last answer was `no quorum`.
    pub dark: u64,
    /// Since when every node has answered `no quorum` or been silent.
    pub dark_since_us: Option<u64>,
    /// When the next attempt is due.
    pub retry_us: u64,
    /// Of the last attempt.
    pub probe: Probe,
    /// The earliest timer set.
    timer_us: u64,
    /// Whether the call waits for a usable node.
    parked: bool,
    /// Whether the call is in the queue of a node.
    pub is_queued: bool,
    /// Whether the call was in a queue, or was refused.
    pub has_waited: bool,
}

impl InFlight {
    fn new(now_us: u64, call: Call, tag: u64, deadline_us: u64) -> Self {
        InFlight {
            call,
            tag,
            spread: 0,
            deadline_us,
            identity: None,
            sent: 0,
            open: 0,
            last: None,
            tried: 0,
            doublings: 0,
            refusals: 0,
            remakes: 0,
            refusal: None,
            dark: 0,
            dark_since_us: None,
            retry_us: now_us,
            probe: Probe::NONE,
            timer_us: NEVER,
            parked: false,
            is_queued: false,
            has_waited: false,
        }
    }

    /// The time until the deadline.
    pub fn left_us(&self, now_us: u64) -> u64 {
        self.deadline_us.saturating_sub(now_us)
    }

    fn left_ms(&self, now_us: u64) -> u32 {
        u32::try_from(self.left_us(now_us).div_ceil(1_000)).unwrap_or(u32::MAX)
    }

    pub fn is_read(&self) -> bool {
        self.call.action.is_read()
    }

    /// Whether the operation may be applied, now or later, without an answer to this client.
    pub fn may_be_done(&self) -> bool {
        self.open > 0 && !self.is_read()
    }

    pub fn is_transaction(&self) -> bool {
        matches!(self.call.action, Action::Transact { .. })
    }

    /// Whether the next attempt goes to the same node: the datagram may have been lost, and the
    /// node may be at work on the transaction. Through another node it would compete with itself
    /// for its keys.
    fn stays(&self) -> bool {
        let is_first = self.doublings == 0 && self.sent == 1;
        is_first && self.is_transaction() && !self.is_large() && !self.probe.has_failed()
    }

    fn is_large(&self) -> bool {
        allowance_us(self.call.action.value_size()) > 0
    }

    /// How long the next attempt waits at least, because of the attempts without an answer.
    fn least_wait_us(&self, now_us: u64) -> u64 {
        match &self.last {
            Some(last) if self.is_large() && self.open > 0 => {
                let waited_us = now_us.saturating_sub(last.sent_us);
                (2 * waited_us).min(LARGE_WAIT_US_MAX)
            }
            _ => 0,
        }
    }

    fn was_sent(&mut self, last: LastAttempt, around: bool, wait_us: u64, jitter: u64) {
        if around {
            self.tried = 0;
            self.doublings += 1;
        }
        let least_us = self.least_wait_us(last.sent_us);
        self.tried |= place_bit(last.place);
        self.sent += 1;
        self.open += 1;
        self.last = Some(last);
        let wait_us = backed_off(wait_us, self.doublings).max(least_us);
        let spread_us = if self.doublings > 0 {
            jitter % (wait_us / 4).max(1)
        } else {
            0
        };
        self.retry_us = last.sent_us + wait_us + spread_us;
    }

    /// The index of the node whose send window counts the last attempt.
    #[cfg(test)]
    pub fn open_place(&self) -> Option<usize> {
        self.last.filter(|last| last.open).map(|last| last.place)
    }

    /// The node and the time of the last attempt, if its answer is awaited.
    pub fn awaited(&self) -> Option<(usize, u64)> {
        let last = self.last.filter(|last| last.open)?;
        Some((last.place, last.sent_us))
    }

    /// Whether this attempt is the last one sent.
    pub fn is_last(&self, place: usize, number: u64) -> bool {
        self.last
            .is_some_and(|last| (last.place, last.number) == (place, number))
    }

    /// The call no longer waits for its last attempt. Returns the index of the node that the
    /// attempt was sent to, or `None` if the call had already stopped waiting for it.
    pub fn end_last(&mut self) -> Option<usize> {
        let last = self.last.as_mut()?;
        std::mem::replace(&mut last.open, false).then_some(last.place)
    }
}

impl Session {
    /// Accepts a call. An error means that nothing was or will be sent.
    pub fn submit(&mut self, now_us: u64, call: Call, tag: u64) -> Result<(), CallError> {
        let now_us = self.advance(now_us);
        if self.closed {
            return Err(CallError::Closed);
        }
        call.check()?;
        if self.table.len() >= IN_FLIGHT_MAX {
            return Err(CallError::Busy);
        }
        let wait_us = call.deadline_us.unwrap_or(self.options.deadline_us);
        self.check_wait(now_us, wait_us)?;
        self.greet_anew(now_us);
        let deadline_us = now_us.saturating_add(wait_us);
        let mut operation = InFlight::new(now_us, call, tag, deadline_us);
        if operation.call.action.is_watch() {
            operation.spread = self.random();
        }
        let handle = self.table.insert(operation);
        self.send(now_us, handle);
        Ok(())
    }

    /// Sends an attempt to the best node.
    pub(super) fn send(&mut self, now_us: u64, handle: CallHandle) {
        if !self.is_in_window(now_us, handle) {
            self.arm(handle);
            return;
        }
        // Asks nodes that cannot be used for their clusters again.
        let chosen = self.choose(now_us, handle);
        match chosen {
            _ if self.end_between_clusters(handle) => {}
            Some((place, _)) if self.is_too_late(now_us, handle, place) => self.give_up(handle),
            Some((place, _)) if self.is_to_queue(now_us, handle, place) => {
                self.queue(handle, place);
            }
            Some((place, around)) => self.send_to(now_us, handle, place, around),
            None => self.park(now_us, handle),
        }
    }

    /// X1: retries stop well within the nodes' horizon. After that, an operation that was surely
    /// not done, and a read, is re-issued; for every other one only a late answer can be final.
    fn is_in_window(&mut self, now_us: u64, handle: CallHandle) -> bool {
        let Some(operation) = self.table.get_mut(handle) else {
            return false;
        };
        let window_us = RETRY_WINDOW_MS * 1_000;
        let identity = operation.identity;
        if identity.is_none_or(|identity| now_us < identity.born_us + window_us) {
            return true;
        }
        if operation.may_be_done() {
            operation.retry_us = NEVER;
            return false;
        }
        self.forget_identity(handle);
        true
    }

    /// The next sending is a new operation for the same call.
    pub(super) fn forget_identity(&mut self, handle: CallHandle) {
        self.table.unlink(handle);
        self.end_last(handle);
        if let Some(operation) = self.table.get_mut(handle) {
            operation.identity = None;
            operation.sent = 0;
            operation.open = 0;
            operation.tried = 0;
            operation.last = None;
        }
    }

    fn send_to(&mut self, now_us: u64, handle: CallHandle, place: usize, around: bool) {
        self.give_identity(now_us, handle);
        self.end_last(handle);
        let jitter = self.random();
        let low_mark = self.low_mark();
        let table = &self.table;
        let operation = table.get(handle).expect("the caller looked");
        let retry = operation.sent > 0;
        let node = &mut self.nodes[place];
        node.window.begin(operation.call.action.value_size());
        let number = node.attempts.push(
            now_us,
            Target::Operation(handle),
            retry,
            |target| matches!(target, Target::Operation(handle) if !table.contains(handle)),
        );
        let identity = operation.identity.expect("just given");
        let request = Request {
            token: node.live.as_ref().expect("usable").token,
            attempt: number,
            // X4: every sending after the first is a retry, whatever the answer was.
            retry,
            left_ms: operation.left_ms(now_us),
            operation: Operation {
                id: OperationId {
                    client: self.options.client,
                    sequence: identity.sequence,
                },
                birth: identity.birth,
                low_mark,
                key: operation.call.key.clone(),
                want_old: operation.call.want_old,
                action: operation.call.action.clone(),
            },
        };
        let wait_us = node.wait_us(&operation.call.action);
        self.counters.retries += u64::from(retry);
        self.transmit(place, kind::REQUEST, &request);

        let operation = self.table.get_mut(handle).expect("the caller looked");
        // Only a transaction is sent to its node again before it goes to another one.
        let before = operation
            .last
            .filter(|before| before.place == place && operation.stays());
        let last = LastAttempt {
            place,
            number,
            sent_us: before.map_or(now_us, |before| before.sent_us),
            open: true,
        };
        operation.was_sent(last, around, wait_us, jitter);
        // A poll waits, and a large value is under way for long.
        let is_probed = !operation.call.action.is_watch() && !operation.is_large();
        if !is_probed {
            operation.probe = Probe::NONE;
        } else if before.is_none() {
            operation.probe = Probe::new(&self.nodes[place], now_us, operation.retry_us - now_us);
        }
        if operation.stays() {
            operation.retry_us -= SAME_NODE_US;
        }
        self.arm(handle);
    }

    /// X1: sequence, birth and being in flight, in one step.
    fn give_identity(&mut self, now_us: u64, handle: CallHandle) {
        let reported_ms = self.reported_ms(now_us);
        let operation = self.table.get_mut(handle).expect("the caller looked");
        if operation.identity.is_some() {
            return;
        }
        operation.identity = Some(OperationIdentity {
            sequence: self.next_sequence,
            birth: self.clock.tick(reported_ms),
            born_us: now_us,
        });
        self.next_sequence += 1;
        self.table.link(handle);
    }

    /// The lowest sequence in flight.
    fn low_mark(&self) -> u64 {
        let lowest = self.table.first().and_then(|lowest| lowest.identity);
        lowest.map_or(self.next_sequence, |identity| identity.sequence)
    }

    /// No node can be sent anything.
    fn park(&mut self, now_us: u64, handle: CallHandle) {
        let operation = self.table.get_mut(handle).expect("the caller looked");
        operation.retry_us = NEVER;
        if !operation.parked {
            operation.parked = true;
            if self.parked.len() > 2 * self.table.len() + PARKED_SENT_AT_ONCE {
                // Most of them are completed calls.
                self.parked.retain(|parked| self.table.contains(*parked));
            }
            self.parked.push_back(handle);
        }
        self.check_no_quorum(now_us, handle);
    }

    /// A node has become usable. If many calls wait, most of them are sent only after the other
    /// nodes have had their time to answer too, so that one node does not receive all of them.
    pub(super) fn find_parked(&mut self, now_us: u64) {
        let mut nodes = self.nodes.iter().filter(|node| !node.spared);
        let all_there = nodes.all(|node| node.is_usable(now_us));
        if self.parked.len() <= PARKED_SENT_AT_ONCE || all_there {
            self.send_parked(now_us);
        } else {
            self.parked_due_us.get_or_insert(now_us + PARKED_WAIT_US);
        }
    }

    pub(super) fn send_parked(&mut self, now_us: u64) {
        self.parked_due_us = None;
        for handle in std::mem::take(&mut self.parked) {
            let Some(operation) = self.table.get_mut(handle) else {
                continue;
            };
            operation.parked = false;
            if operation.last.is_some_and(|last| last.open) {
                self.retry(now_us, handle);
            } else {
                self.send(now_us, handle);
            }
        }
    }

    /// An attempt was refused, or had no session: the next attempt goes to a node that was not
    /// tried since the set was reset, or after a wait to any node.
    pub(super) fn turn_elsewhere(&mut self, now_us: u64, handle: CallHandle) {
        match self.choose(now_us, handle) {
            Some((_, true)) => self.back_off(now_us, handle, 0),
            _ => self.send(now_us, handle),
        }
    }

    /// `after_us`: when the node that refused the call expects to accept it; 0 if it did not say.
    /// The refused calls of many clients are spread around that time. A retry that would come after
    /// the deadline is not made, so the call ends as refused then.
    pub(super) fn back_off(&mut self, now_us: u64, handle: CallHandle, after_us: u64) {
        let jitter = self.random();
        if let Some(operation) = self.table.get_mut(handle) {
            let doublings = operation.refusals.min(REFUSED_DOUBLINGS_MAX);
            let wait_us = match after_us {
                0 => {
                    let wait_us = REFUSED_WAIT_US_INITIAL << doublings;
                    wait_us + jitter % (wait_us / 4)
                }
                _ => {
                    let wait_us = (after_us << doublings).min(RETRY_WAIT_US_MAX);
                    wait_us / 2 + jitter % wait_us
                }
            };
            operation.refusals += 1;
            operation.has_waited = true;
            operation.retry_us = now_us + wait_us;
        }
        self.arm(handle);
    }

    /// Sets the timer to the earliest time that the call waits for.
    pub(super) fn arm(&mut self, handle: CallHandle) {
        let no_quorum_after_us = self.no_quorum_after_us();
        let Some(operation) = self.table.get_mut(handle) else {
            return;
        };
        let mut at_us = operation.retry_us.min(operation.deadline_us);
        at_us = at_us.min(operation.probe.due_us);
        if let Some(since_us) = operation.dark_since_us
            && !operation.may_be_done()
        {
            at_us = at_us.min(since_us.saturating_add(no_quorum_after_us));
        }
        if at_us < operation.timer_us {
            operation.timer_us = at_us;
            self.timers.push(std::cmp::Reverse((at_us, handle)));
        }
    }

    pub(super) fn call_timeout(&mut self, now_us: u64, handle: CallHandle, at_us: u64) {
        let Some(operation) = self.table.get_mut(handle) else {
            return;
        };
        if operation.timer_us != at_us {
            return;
        }
        operation.timer_us = NEVER;
        if now_us >= operation.deadline_us {
            self.expire(now_us, handle);
            return;
        }
        if operation.dark_since_us.is_some() && self.check_no_quorum(now_us, handle) {
            return;
        }
        self.probe(now_us, handle);
        let operation = self.table.get(handle).expect("not over yet");
        if now_us >= operation.retry_us {
            self.retry(now_us, handle);
        } else {
            self.arm(handle);
        }
    }

    /// The wait for the last attempt, as computed when it was sent, is over.
    fn retry(&mut self, now_us: u64, handle: CallHandle) {
        let are_few = self.table.len() <= FEW_CALLS;
        let operation = self.table.get_mut(handle).expect("the caller looked");
        if let Some(last) = operation.last.filter(|last| last.open) {
            let node = &mut self.nodes[last.place];
            let wait_us = backed_off(node.wait_us(&operation.call.action), operation.doublings);
            let stays = operation.stays() && node.is_usable(now_us);
            if now_us < last.sent_us + wait_us && !operation.probe.has_failed() && !stays {
                // The node turned out to be slower.
                operation.retry_us = last.sent_us + wait_us;
                self.arm(handle);
                return;
            }
            // The calls of a dead node are sent to the other nodes at once: that is no more than
            // their usual load.
            let answers = node.answered_us > last.sent_us;
            let others_answer = self.answered_us > last.sent_us;
            let put_off_us = last.sent_us + PUT_OFF_US_MAX;
            let is_free = are_few || !answers && others_answer || now_us >= put_off_us;
            if !is_free && self.allowance < ALLOWANCE_RETRY {
                let again_us = now_us + (now_us - last.sent_us);
                operation.retry_us = again_us.min(put_off_us);
                self.arm(handle);
                return;
            }
            if !is_free {
                self.allowance -= ALLOWANCE_RETRY;
            }
            if stays {
                self.send_to(now_us, handle, last.place, false);
                return;
            }
            operation.doublings += u32::from(answers);
            let is_gone = operation.probe.is_gone(node);
            if node.kept_silent(now_us, last.sent_us, is_gone) {
                self.greet(now_us, last.place);
            }
        }
        self.send(now_us, handle);
    }
}

fn backed_off(wait_us: u64, round: u32) -> u64 {
    (wait_us << round.min(10)).min(RETRY_WAIT_US_MAX.max(wait_us))
}
