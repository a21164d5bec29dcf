//! X4: clients' sessions. With them, a datagram that the network duplicates is not a second
//! attempt, and a forged source gets a short hello, not work. This module owns tokens and windows
//! and knows no operations.

use std::collections::{BTreeMap, HashMap, VecDeque};

use wire::ClientId;

use crate::protocol::types::limits::{
    FORWARDER_BOOTS_MAX, SESSION_WINDOW, SESSION_WORDS_MAX, SESSIONS_MAX,
};
use crate::protocol::types::message::{Endpoint, NodeId};
use crate::protocol::types::rules::rule;

/// Words of 64 numbers in a window.
const WORDS_MAX: u64 = SESSION_WINDOW / 64;
/// Words that a window keeps while all windows together are over their bound: 4,096 attempts.
const WORDS_KEPT: usize = 64;
/// Sessions whose windows are trimmed when one window grows. With more than one, the total falls.
const SESSIONS_TRIMMED: usize = 2;

/// The attempt numbers received recently. Each is admitted once, and no number below the window is.
/// A client may begin with any number; the window begins there and extends further down only when
/// needed.
#[derive(Debug, Clone, Default)]
pub struct Window {
    /// In words of 64 numbers. All numbers below it were received or are too old.
    base: u64,
    /// The position of the first of `words`. No number between `base` and it was received.
    first: u64,
    words: VecDeque<u64>,
}

impl Window {
    /// Whether `number` is new. It counts as received from now on.
    pub fn admit(&mut self, number: u64) -> bool {
        if !rule!(X4_window) {
            return true;
        }
        let word = number / 64;
        if word < self.base {
            return false;
        }
        self.raise(word.saturating_sub(WORDS_MAX - 1));
        self.reach(word);
        let held = &mut self.words[(word - self.first) as usize];
        let bit = 1 << (number % 64);
        let fresh = *held & bit == 0;
        *held |= bit;
        while self.first == self.base && self.words.front() == Some(&u64::MAX) {
            self.words.pop_front();
            self.base += 1;
            self.first += 1;
        }
        fresh
    }

    /// Extends `words` to contain that word, which is in the window.
    fn reach(&mut self, word: u64) {
        if self.words.is_empty() {
            self.first = word;
        }
        while word < self.first {
            self.words.push_front(0);
            self.first -= 1;
        }
        let count = (word - self.first) as usize + 1;
        if count > self.words.len() {
            self.words.resize(count, 0);
        }
    }

    /// From now on, refuses all numbers below that word.
    fn raise(&mut self, base: u64) {
        if base <= self.base {
            return;
        }
        let gone = base.saturating_sub(self.first);
        let gone = gone.min(self.words.len() as u64);
        self.words.drain(..gone as usize);
        self.first = self.first.max(base);
        self.base = base;
    }

    /// Keeps at most the last `words` words. Lower numbers are refused: for their client those
    /// attempts are lost.
    fn trim(&mut self, words: usize) {
        let excess = self.words.len().saturating_sub(words);
        if excess > 0 {
            self.raise(self.first + excess as u64);
            self.words.shrink_to_fit();
        }
    }
}

/// The windows of nodes that forward, one for each boot of a node: a copy that the network delayed
/// may arrive after its sender has restarted.
#[derive(Debug, Default)]
pub struct Forwarders {
    /// For each node its boots, the one most recently received from at the end.
    windows: BTreeMap<NodeId, VecDeque<(u64, Window)>>,
}

impl Forwarders {
    /// Whether this attempt of that boot of the node is new. It counts as received from now on.
    pub fn admit(&mut self, node: NodeId, boot: u64, attempt: u64) -> bool {
        let boots = self.windows.entry(node).or_default();
        let known = boots.iter().position(|(b, _)| *b == boot);
        let (_, mut window) = known
            .and_then(|place| boots.remove(place))
            .unwrap_or_default();
        let fresh = window.admit(attempt);
        // Attempts of an earlier boot that have not arrived yet may be refused: no client waits for
        // their answers.
        if known.is_none()
            && let Some((_, before)) = boots.back_mut()
        {
            before.trim(1);
        }
        boots.push_back((boot, window));
        if boots.len() > FORWARDER_BOOTS_MAX {
            boots.pop_front();
        }
        fresh
    }
}

#[derive(Debug)]
struct ServerSession {
    token: u64,
    client: ClientId,
    nonce: u64,
    window: Window,
    used: bool,
}

/// One session per endpoint. Over the limit the least recently used one is evicted.
#[derive(Debug, Default)]
pub struct Sessions {
    by_endpoint: HashMap<Endpoint, ServerSession>,
    /// The eviction order. A session that was used since it was last considered gets a second
    /// chance.
    order: VecDeque<Endpoint>,
    /// Words in all windows together.
    words: usize,
}

/// How a session decides about an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Not received before: execute it.
    Fresh,
    /// Received before, or below the window.
    Repeated,
    /// This node has no such token for that address.
    NoSession,
}

impl Sessions {
    pub fn count(&self) -> usize {
        self.by_endpoint.len()
    }

    /// Handles a hello and returns the session's token: `fresh_token`, unless this very hello was
    /// received before.
    pub fn greet(&mut self, from: Endpoint, client: ClientId, nonce: u64, fresh_token: u64) -> u64 {
        if let Some(session) = self.by_endpoint.get_mut(&from) {
            if (session.client, session.nonce) != (client, nonce) {
                session.token = fresh_token;
                session.client = client;
                session.nonce = nonce;
                self.words -= session.window.words.len();
                session.window = Window::default();
            }
            session.used = true;
            return session.token;
        }
        if self.by_endpoint.len() >= SESSIONS_MAX {
            self.evict();
        }
        let window = Window::default();
        let session = ServerSession {
            token: fresh_token,
            client,
            nonce,
            window,
            used: true,
        };
        self.by_endpoint.insert(from, session);
        self.order.push_back(from);
        fresh_token
    }

    /// `client` is the id in the operation, `None` if the request has none.
    pub fn admit(
        &mut self,
        from: Endpoint,
        token: u64,
        client: Option<ClientId>,
        attempt: u64,
    ) -> Admission {
        let session = self.by_endpoint.get_mut(&from).filter(|s| s.token == token);
        match session {
            Some(session) if client.is_none_or(|client| client == session.client) => {
                session.used = true;
                let before = session.window.words.len();
                let is_fresh = session.window.admit(attempt);
                let after = session.window.words.len();
                self.words = self.words + after - before;
                if after > before {
                    self.trim();
                }
                match is_fresh {
                    true => Admission::Fresh,
                    false => Admission::Repeated,
                }
            }
            _ => Admission::NoSession,
        }
    }

    /// Keeps all windows together within their bound. Each session that it considers keeps the
    /// numbers that its client may still have in flight.
    fn trim(&mut self) {
        for _ in 0..SESSIONS_TRIMMED {
            if self.words <= SESSION_WORDS_MAX {
                return;
            }
            let Some(next) = self.order.pop_front() else {
                return;
            };
            if let Some(session) = self.by_endpoint.get_mut(&next) {
                self.words -= session.window.words.len();
                session.window.trim(WORDS_KEPT);
                self.words += session.window.words.len();
            }
            self.order.push_back(next);
        }
    }

    fn evict(&mut self) {
        while let Some(oldest) = self.order.pop_front() {
            match self.by_endpoint.get_mut(&oldest) {
                Some(session) if session.used => {
                    session.used = false;
                    self.order.push_back(oldest);
                }
                _ => {
                    if let Some(session) = self.by_endpoint.remove(&oldest) {
                        self.words -= session.window.words.len();
                    }
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn endpoint(port: u16) -> Endpoint {
        Endpoint::new(1, port)
    }

    #[test]
    fn a_forward_is_admitted_once_though_its_sender_restarts() {
        let mut forwarders = Forwarders::default();
        assert!(forwarders.admit(1, 70, 47));
        assert!(
            forwarders.admit(1, 71, 47),
            "another boot counts for itself"
        );
        assert!(forwarders.admit(2, 70, 47), "and another node");
        assert!(!forwarders.admit(1, 70, 47), "late, of the earlier boot");
        assert!(!forwarders.admit(1, 71, 47) && forwarders.admit(1, 71, 48));
        for boot in 100..100 + FORWARDER_BOOTS_MAX as u64 {
            forwarders.admit(1, boot, 1);
        }
        assert_eq!(forwarders.windows[&1].len(), FORWARDER_BOOTS_MAX);
    }

    #[test]
    fn numbers_near_the_end_are_let_through_once() {
        let mut window = Window::default();
        for number in (u64::MAX - 200..=u64::MAX).rev() {
            assert!(window.admit(number) && !window.admit(number), "{number}");
        }
        assert!(!window.admit(1), "far below the window");
    }

    #[test]
    fn an_attempt_is_let_through_once() {
        let mut sessions = Sessions::default();
        assert_eq!(
            sessions.admit(endpoint(1), 9, Some(7), 1),
            Admission::NoSession
        );
        let token = sessions.greet(endpoint(1), 7, 1, 9);
        assert_eq!(
            sessions.admit(endpoint(1), token, Some(7), 1),
            Admission::Fresh
        );
        assert_eq!(
            sessions.admit(endpoint(1), token, Some(7), 1),
            Admission::Repeated
        );
        assert_eq!(
            sessions.admit(endpoint(1), token, Some(8), 2),
            Admission::NoSession
        );
        assert_eq!(
            sessions.admit(endpoint(2), token, Some(7), 2),
            Admission::NoSession
        );
    }

    #[test]
    fn a_repeated_hello_keeps_the_session_and_a_new_one_replaces_it() {
        let mut sessions = Sessions::default();
        let token = sessions.greet(endpoint(1), 7, 1, 100);
        sessions.admit(endpoint(1), token, Some(7), 1);
        assert_eq!(sessions.greet(endpoint(1), 7, 1, 200), token);
        assert_eq!(
            sessions.admit(endpoint(1), token, Some(7), 1),
            Admission::Repeated
        );
        assert_eq!(sessions.greet(endpoint(1), 7, 2, 300), 300);
        assert_eq!(
            sessions.admit(endpoint(1), token, Some(7), 2),
            Admission::NoSession
        );
        assert_eq!(
            sessions.admit(endpoint(1), 300, Some(7), 1),
            Admission::Fresh
        );
    }

    #[test]
    fn sessions_are_bounded_and_the_unused_go_first() {
        let mut sessions = Sessions::default();
        for port in 0..SESSIONS_MAX as u64 + 10 {
            let from = Endpoint::new(u128::from(port), 1);
            sessions.greet(from, 7, 1, port + 1);
        }
        assert_eq!(sessions.by_endpoint.len(), SESSIONS_MAX);
        assert_eq!(sessions.order.len(), SESSIONS_MAX);
    }

    /// Clients begin with any number. One that sent a single request costs one word, whatever its
    /// number was.
    #[test]
    fn a_window_holds_no_more_than_what_was_seen() {
        let mut window = Window::default();
        assert!(window.admit(1 << 40) && !window.admit(1 << 40));
        assert_eq!(window.words.len(), 1);
        // An attempt sent before the first one that arrived is still new.
        assert!(window.admit((1 << 40) - 100) && !window.admit((1 << 40) - 100));
        assert_eq!(window.words.len(), 3);
        assert!(!window.admit((1 << 40) - SESSION_WINDOW));
        let mut forwarders = Forwarders::default();
        for boot in 0..4 {
            assert!(forwarders.admit(1, boot, 1) && forwarders.admit(1, boot, 60_000));
        }
        let words = forwarders.windows[&1].iter().map(|(_, w)| w.words.len());
        assert_eq!(words.collect::<Vec<_>>(), [1, 1, 1, 938]);
        assert!(!forwarders.admit(1, 2, 1) && !forwarders.admit(1, 2, 60_000));
    }

    /// The bound holds however many numbers clients skip.
    #[test]
    fn all_windows_together_are_bounded() {
        let mut sessions = Sessions::default();
        let mut words_max = 0;
        for port in 0..1_000 {
            sessions.greet(endpoint(port), 7, 1, 1);
            for attempt in (0..SESSION_WINDOW).step_by(64) {
                let admission = sessions.admit(endpoint(port), 1, Some(7), attempt);
                assert_eq!(admission, Admission::Fresh);
                words_max = words_max.max(sessions.words);
            }
        }
        assert!(words_max <= SESSION_WORDS_MAX + WORDS_KEPT, "{words_max}");
        let words = sessions.by_endpoint.values().map(|s| s.window.words.len());
        assert_eq!(words.sum::<usize>(), sessions.words);
        let admission = sessions.admit(endpoint(0), 1, Some(7), SESSION_WINDOW - 64);
        assert_eq!(admission, Admission::Repeated);
    }

    proptest! {
        #[test]
        fn the_window_agrees_with_a_set(
            jumps in prop::collection::vec((0..SESSION_WINDOW * 2, 0..4u64), 1..200),
        ) {
            let mut window = Window::default();
            let mut seen = HashSet::new();
            let mut highest = 0;
            for (back, forward) in jumps {
                let number = (highest + forward * 20_000).saturating_sub(back);
                highest = highest.max(number);
                let fresh = window.admit(number);
                // The window begins at a multiple of 64.
                let below = number + SESSION_WINDOW - 64 <= highest;
                prop_assert!(!fresh || seen.insert(number), "{number} twice");
                prop_assert!(fresh || below || seen.contains(&number), "{number} refused");
            }
            prop_assert!(window.words.len() as u64 <= SESSION_WINDOW / 64);
        }
    }
}
