//! X4: clients' sessions, so that a datagram that the network repeats is not a second attempt and a
//! forged source gets a short hello, not work. Owns tokens and windows; knows no operations.

use std::collections::{BTreeMap, HashMap, VecDeque};

use kvclient::wire::ClientId;

use super::limits::{FORWARDER_BOOTS_MAX, SESSION_WINDOW, SESSIONS_MAX};
use super::message::{Endpoint, NodeId};
use super::rules::rule;

/// Attempt numbers seen of late: each is let through once, and none from below the window.
#[derive(Debug, Clone, Default)]
pub struct Window {
    /// Number of the first bit, a multiple of 64; all below were seen or are too old.
    base: u64,
    words: VecDeque<u64>,
}

impl Window {
    /// Whether `number` is new; it is not the next time.
    pub fn admit(&mut self, number: u64) -> bool {
        if !rule!(X4_window) {
            return true;
        }
        if number < self.base {
            return false;
        }
        if number - self.base >= SESSION_WINDOW {
            self.slide(number);
        }
        let word = ((number - self.base) / 64) as usize;
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let bit = 1 << (number % 64);
        let fresh = self.words[word] & bit == 0;
        self.words[word] |= bit;
        while self.words.front() == Some(&u64::MAX)
            && let Some(base) = self.base.checked_add(64)
        {
            self.words.pop_front();
            self.base = base;
        }
        fresh
    }

    /// Moves the base so that `number` falls into the last word of the window.
    fn slide(&mut self, number: u64) {
        let base = number / 64 * 64 - (SESSION_WINDOW - 64);
        let gone = ((base - self.base) / 64).min(self.words.len() as u64);
        self.words.drain(..gone as usize);
        self.base = base;
    }
}

/// The windows of nodes that forward, one for each of their boots: a copy that the network held back may
/// arrive after its sender has restarted.
#[derive(Debug, Default)]
pub struct Forwarders {
    /// By node: boots, the one last heard of at the end.
    windows: BTreeMap<NodeId, VecDeque<(u64, Window)>>,
}

impl Forwarders {
    /// Whether that attempt of a node, in that boot of it, is new; it is not the next time.
    pub fn admit(&mut self, node: NodeId, boot: u64, attempt: u64) -> bool {
        let boots = self.windows.entry(node).or_default();
        let known = boots.iter().position(|(b, _)| *b == boot);
        let (_, mut window) = known
            .and_then(|place| boots.remove(place))
            .unwrap_or_default();
        let fresh = window.admit(attempt);
        boots.push_back((boot, window));
        if boots.len() > FORWARDER_BOOTS_MAX {
            boots.pop_front();
        }
        fresh
    }
}

#[derive(Debug)]
struct Session {
    token: u64,
    client: ClientId,
    nonce: u64,
    window: Window,
    used: bool,
}

/// One session for each endpoint; the one unused longest goes at the bound.
#[derive(Debug, Default)]
pub struct Sessions {
    by_endpoint: HashMap<Endpoint, Session>,
    /// Eviction order: a second chance for what was used since it was last looked at.
    order: VecDeque<Endpoint>,
}

/// What a session says to an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// The first time: execute it.
    Fresh,
    /// Seen before, or below the window.
    Repeated,
    /// Not a token that this node knows for that address.
    NoSession,
}

impl Sessions {
    /// A hello: gives the session's token, `fresh_token` unless this very hello was seen before.
    pub fn greet(&mut self, from: Endpoint, client: ClientId, nonce: u64, fresh_token: u64) -> u64 {
        if let Some(session) = self.by_endpoint.get_mut(&from) {
            if (session.client, session.nonce) != (client, nonce) {
                session.token = fresh_token;
                session.client = client;
                session.nonce = nonce;
                session.window = Window::default();
            }
            session.used = true;
            return session.token;
        }
        if self.by_endpoint.len() >= SESSIONS_MAX {
            self.evict();
        }
        let window = Window::default();
        let session = Session {
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

    /// `client` is the id that the operation names, `None` where the request has none.
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
                if session.window.admit(attempt) {
                    Admission::Fresh
                } else {
                    Admission::Repeated
                }
            }
            _ => Admission::NoSession,
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
                    self.by_endpoint.remove(&oldest);
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
        Endpoint { ip: 1, port }
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
            let from = Endpoint {
                ip: u128::from(port),
                port: 1,
            };
            sessions.greet(from, 7, 1, port + 1);
        }
        assert_eq!(sessions.by_endpoint.len(), SESSIONS_MAX);
        assert_eq!(sessions.order.len(), SESSIONS_MAX);
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
