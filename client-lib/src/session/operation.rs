//! One call through its life: attempts, retries through other nodes, and when its outcome is known.

use super::call::{Call, CallError, Completion, settled};
use super::{IN_FLIGHT_MAX, Session, Timer, order};
use crate::wire::{Answer, Operation, OperationId, Outcome, RETRY_WINDOW_MS, Request, kind};

/// Wait between attempts while every node refuses.
const REFUSED_WAIT_US: u64 = 50_000;
const RETRY_WAIT_US_MAX: u64 = 500_000;

#[derive(Debug)]
struct Attempt {
    node: usize,
    number: u64,
    sent_us: u64,
    retry: bool,
}

/// The identity that an operation has once it was first sent.
#[derive(Debug, Clone, Copy)]
struct Identity {
    sequence: u64,
    birth: u64,
    born_us: u64,
}

#[derive(Debug)]
pub(super) struct InFlight {
    call: Call,
    tag: u64,
    deadline_us: u64,
    identity: Option<Identity>,
    /// Not answered yet.
    open: Vec<Attempt>,
    /// Sendings so far, of this identity.
    sent: u32,
    /// Nodes tried since the last time around.
    tried: Vec<usize>,
    /// Of an attempt that changed nothing, or was not executed (X2).
    refusal: Option<Outcome>,
    /// Nodes whose last word was `no quorum`, with whom they reached.
    dark: Vec<(usize, Vec<u8>)>,
    /// Since when every node is dark or has no session.
    dark_since_us: Option<u64>,
    /// The earliest timer set.
    timer_us: u64,
    /// When the next attempt is due.
    next_us: u64,
    waits_for_session: bool,
}

impl InFlight {
    fn is_read(&self) -> bool {
        self.call.action.is_read()
    }
}

impl Session {
    /// Takes a call. An error means that nothing was or will be sent.
    pub fn submit(&mut self, now_us: u64, call: Call, tag: u64) -> Result<(), CallError> {
        call.check()?;
        if self.calls.len() >= IN_FLIGHT_MAX {
            return Err(CallError::Busy);
        }
        let handle = self.next_call;
        self.next_call += 1;
        let wait_us = call.deadline_us.unwrap_or(self.options.deadline_us);
        let deadline_us = now_us.saturating_add(wait_us);
        let call = InFlight {
            call,
            tag,
            deadline_us,
            identity: None,
            open: Vec::new(),
            sent: 0,
            tried: Vec::new(),
            refusal: None,
            dark: Vec::new(),
            dark_since_us: None,
            timer_us: u64::MAX,
            next_us: now_us,
            waits_for_session: false,
        };
        self.calls.insert(handle, call);
        self.greet_all(now_us);
        self.attempt(now_us, handle);
        Ok(())
    }

    /// Ends every call: writes that were sent are unknown outcomes, all else is `closed`.
    pub fn close(&mut self) {
        let mut handles: Vec<u64> = self.calls.keys().copied().collect();
        handles.sort_unstable();
        for handle in handles {
            let call = &self.calls[&handle];
            let unknown = call.sent > 0 && !call.is_read();
            let error = if unknown {
                CallError::UnknownOutcome
            } else {
                CallError::Closed
            };
            self.complete(handle, Err(error));
        }
    }

    /// Sends one attempt to the best node not tried since the last time around.
    fn attempt(&mut self, now_us: u64, handle: u64) {
        let Some(call) = self.calls.get_mut(&handle) else {
            return;
        };
        let window_us = RETRY_WINDOW_MS * 1_000;
        if call
            .identity
            .is_some_and(|i| now_us >= i.born_us + window_us)
        {
            // X1: retries stop well inside the nodes' horizon.
            call.next_us = call.deadline_us;
            self.arm(now_us, handle);
            return;
        }
        let places = order(&self.nodes, &call.call.key);
        let fresh = places.iter().copied().find(|p| !call.tried.contains(p));
        if fresh.is_none() {
            call.tried.clear();
        }
        let Some(place) = fresh.or_else(|| places.first().copied()) else {
            self.wait_for_session(now_us, handle);
            return;
        };
        call.tried.push(place);
        let identity = match call.identity {
            Some(identity) => identity,
            None => self.identify(now_us, handle),
        };
        self.send(now_us, handle, place, identity);
        self.arm(now_us, handle);
    }

    /// X1: sequence, birth and being in flight, in one step.
    fn identify(&mut self, now_us: u64, handle: u64) -> Identity {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.sequences.insert(sequence);
        let birth = self.clock.tick(self.told_ms(now_us));
        let identity = Identity {
            sequence,
            birth,
            born_us: now_us,
        };
        let call = self.calls.get_mut(&handle).expect("the caller looked");
        call.identity = Some(identity);
        call.sent = 0;
        identity
    }

    fn send(&mut self, now_us: u64, handle: u64, place: usize, identity: Identity) {
        let number = self.next_attempt;
        self.next_attempt += 1;
        let low_mark = self.sequences.first().copied().unwrap_or(identity.sequence);
        let node = &mut self.nodes[place];
        let token = node
            .session
            .as_ref()
            .expect("only nodes with a session are tried")
            .token;
        let wait_us = node.wait_us();
        node.attempts.insert(number, handle);
        let call = self.calls.get_mut(&handle).expect("the caller looked");
        let retry = call.sent > 0;
        call.open.push(Attempt {
            node: place,
            number,
            sent_us: now_us,
            retry,
        });
        let backoff = call.sent / self.options.nodes.max(1) as u32;
        call.next_us = now_us
            + (wait_us << backoff.min(10))
                .min(RETRY_WAIT_US_MAX)
                .max(wait_us);
        call.sent += 1;
        let operation = Operation {
            id: OperationId {
                client: self.options.client,
                sequence: identity.sequence,
            },
            birth: identity.birth,
            low_mark,
            key: call.call.key.clone(),
            want_old: call.call.want_old,
            action: call.call.action.clone(),
        };
        let request = Request {
            token,
            attempt: number,
            retry,
            operation,
        };
        self.transmit(place, kind::REQUEST, &request);
    }

    fn wait_for_session(&mut self, now_us: u64, handle: u64) {
        let call = self.calls.get_mut(&handle).expect("the caller looked");
        if !call.waits_for_session {
            call.waits_for_session = true;
            self.waiting.push_back(handle);
        }
        call.next_us = now_us + REFUSED_WAIT_US;
        self.greet_all(now_us);
        self.look_for_dark(now_us, handle);
        self.arm(now_us, handle);
    }

    pub(super) fn send_waiting(&mut self, now_us: u64) {
        for handle in std::mem::take(&mut self.waiting) {
            if let Some(call) = self.calls.get_mut(&handle) {
                call.waits_for_session = false;
                self.attempt(now_us, handle);
            }
        }
    }

    /// Sets the call's timer to the earliest of what it waits for.
    fn arm(&mut self, now_us: u64, handle: u64) {
        let no_quorum_after_us = self.options.no_quorum_after_us;
        let Some(call) = self.calls.get_mut(&handle) else {
            return;
        };
        let dark = call
            .dark_since_us
            .map_or(u64::MAX, |since| since + no_quorum_after_us);
        let at_us = call
            .next_us
            .min(call.deadline_us)
            .min(dark.max(now_us + 1_000));
        if at_us < call.timer_us {
            call.timer_us = at_us;
            self.set_timer(at_us, Timer::Call(handle));
        }
    }

    pub(super) fn call_timeout(&mut self, now_us: u64, handle: u64, at_us: u64) {
        let Some(call) = self.calls.get_mut(&handle) else {
            return;
        };
        if call.timer_us != at_us {
            return;
        }
        call.timer_us = u64::MAX;
        if now_us >= call.deadline_us {
            self.expire(handle);
            return;
        }
        self.look_for_dark(now_us, handle);
        let Some(call) = self.calls.get_mut(&handle) else {
            return;
        };
        if now_us < call.next_us {
            self.arm(now_us, handle);
            return;
        }
        if let Some(last) = call.open.last()
            && now_us.saturating_sub(last.sent_us) >= self.nodes[last.node].wait_us()
        {
            let (place, sent_us) = (last.node, last.sent_us);
            self.nodes[place].kept_silent(now_us, sent_us);
            self.greet_all(now_us);
        }
        self.attempt(now_us, handle);
    }

    pub(super) fn handle_answer(&mut self, now_us: u64, place: usize, answer: Answer) {
        self.observe(now_us, answer.clock);
        let Some(handle) = self.nodes[place].attempts.remove(&answer.attempt) else {
            self.counters.late += 1;
            return;
        };
        let call = self
            .calls
            .get_mut(&handle)
            .expect("an open attempt has a call");
        let at = call.open.iter().position(|a| a.number == answer.attempt);
        let attempt = call
            .open
            .swap_remove(at.expect("an attempt of a call is listed there"));
        self.nodes[place].sample(now_us.saturating_sub(attempt.sent_us));
        self.take_outcome(now_us, handle, place, attempt.retry, answer.outcome);
    }

    fn take_outcome(
        &mut self,
        now_us: u64,
        handle: u64,
        place: usize,
        retry: bool,
        outcome: Outcome,
    ) {
        let call = self.calls.get_mut(&handle).expect("the caller looked");
        let is_read = call.is_read();
        match &outcome {
            Outcome::NoQuorum { reached } => {
                call.dark.retain(|(node, _)| *node != place);
                call.dark.push((place, reached.clone()));
                // A node outside of any configuration may be in one by now: ask it again.
                let session = &mut self.nodes[place].session;
                if session.as_ref().is_some_and(|live| live.node == 0) {
                    *session = None;
                }
                self.refused(now_us, handle, outcome);
            }
            Outcome::Busy | Outcome::Remake { .. } => {
                call.dark.clear();
                self.refused(now_us, handle, outcome);
            }
            // X2: a retry's outcome stands in the record whatever it is; a first attempt's only if it
            // says so, and else settles the call once no other attempt is open.
            _ if is_read || retry || outcome.is_in_record() || call.open.is_empty() => {
                self.complete(handle, settled(outcome, is_read));
            }
            _ => {
                call.dark.clear();
                call.refusal = Some(outcome);
            }
        }
    }

    /// An attempt was surely not executed.
    pub(super) fn attempt_refused(&mut self, now_us: u64, place: usize, number: u64) {
        let Some(handle) = self.nodes[place].attempts.remove(&number) else {
            return;
        };
        let call = self
            .calls
            .get_mut(&handle)
            .expect("an open attempt has a call");
        call.open.retain(|a| a.number != number);
        if call.open.is_empty() {
            // Its session is being renewed, and others may have one.
            self.settle_or_retry(now_us, handle, 0);
        }
    }

    /// Not executed, or not to be: another attempt is made, unless the call is settled by that.
    fn refused(&mut self, now_us: u64, handle: u64, outcome: Outcome) {
        let call = self.calls.get_mut(&handle).expect("the caller looked");
        let before = call.refusal.as_ref();
        // A definite outcome of another attempt says more.
        if before.is_none_or(|b| !is_definite(b)) {
            call.refusal = Some(outcome);
        }
        if call.open.is_empty() {
            let places = self.nodes.iter().filter(|n| n.session.is_some()).count();
            let round = call.tried.len() >= places;
            self.settle_or_retry(now_us, handle, if round { REFUSED_WAIT_US } else { 0 });
        } else {
            self.look_for_dark(now_us, handle);
            self.arm(now_us, handle);
        }
    }

    /// No attempt is open.
    fn settle_or_retry(&mut self, now_us: u64, handle: u64, wait_us: u64) {
        let call = self.calls.get_mut(&handle).expect("the caller looked");
        let is_read = call.is_read();
        match call.refusal.take() {
            Some(outcome) if is_definite(&outcome) => {
                self.complete(handle, settled(outcome, is_read));
                return;
            }
            Some(Outcome::Remake { dropped }) => {
                // X1: made anew, unseen by the caller.
                if let Some(old) = call.identity.take() {
                    self.sequences.remove(&old.sequence);
                }
                self.observe(now_us, dropped);
            }
            other => call.refusal = other,
        }
        self.look_for_dark(now_us, handle);
        let Some(call) = self.calls.get_mut(&handle) else {
            return;
        };
        call.next_us = now_us + wait_us;
        if wait_us == 0 {
            self.attempt(now_us, handle);
        } else {
            self.arm(now_us, handle);
        }
    }

    /// X5: `no quorum` is reported once every given node has said so, or has not answered a hello,
    /// for a while. For a write no attempt may be open.
    fn look_for_dark(&mut self, now_us: u64, handle: u64) {
        let Some(call) = self.calls.get_mut(&handle) else {
            return;
        };
        let dark = self.nodes.iter().enumerate().all(|(place, node)| {
            node.session.is_none() || call.dark.iter().any(|(dark, _)| *dark == place)
        });
        let sure = call.is_read() || call.open.is_empty();
        if !dark || !sure {
            call.dark_since_us = None;
            return;
        }
        let since_us = *call.dark_since_us.get_or_insert(now_us);
        if now_us >= since_us + self.options.no_quorum_after_us {
            let error = self.no_quorum(handle);
            self.complete(handle, Err(error));
        }
    }

    fn no_quorum(&self, handle: u64) -> CallError {
        let call = &self.calls[&handle];
        let mut words = Vec::new();
        for (place, node) in self.nodes.iter().enumerate() {
            match call.dark.iter().find(|(dark, _)| *dark == place) {
                Some((_, reached)) => {
                    let name = node.session.as_ref().map_or(0, |live| live.node);
                    words.push(format!("node {name} reaches only {reached:?}"));
                }
                None => words.push(format!("node at place {place} of the list does not answer")),
            }
        }
        CallError::NoQuorum {
            detail: words.join(", "),
        }
    }

    /// The deadline.
    fn expire(&mut self, handle: u64) {
        let call = self.calls.get_mut(&handle).expect("the caller looked");
        let refusal = call.refusal.take();
        let (is_read, sent, open) = (call.is_read(), call.sent > 0, !call.open.is_empty());
        let error = match refusal {
            _ if open && !is_read => CallError::UnknownOutcome,
            Some(Outcome::NoQuorum { .. }) => self.no_quorum(handle),
            Some(Outcome::Busy) => CallError::Busy,
            _ if !sent => self.no_quorum(handle),
            _ if is_read => CallError::TimedOut,
            // Every attempt was answered: not executed.
            _ => self.no_quorum(handle),
        };
        self.complete(handle, Err(error));
    }

    fn complete(&mut self, handle: u64, result: Result<Outcome, CallError>) {
        let call = self.calls.remove(&handle).expect("a call completes once");
        for attempt in &call.open {
            self.nodes[attempt.node].attempts.remove(&attempt.number);
        }
        if let Some(identity) = call.identity {
            self.sequences.remove(&identity.sequence);
        }
        self.completions.push_back(Completion {
            tag: call.tag,
            result,
        });
    }
}

/// Whether the operation was executed, and changed nothing.
fn is_definite(outcome: &Outcome) -> bool {
    !matches!(
        outcome,
        Outcome::NoQuorum { .. } | Outcome::Busy | Outcome::Remake { .. }
    )
}
