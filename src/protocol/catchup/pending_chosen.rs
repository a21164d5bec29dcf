//! Ballots that this node knows to be chosen and has not yet reported to another node.

use crate::protocol::types::ballot::Ballot;
use crate::protocol::types::capacity::MessageCapacity;
use crate::protocol::types::limits::CHOSEN_PER_MESSAGE_MAX;
use crate::protocol::types::message::Chosen;
use crate::protocol::types::record::Key;

/// The ballots to report to one node, at most as many as one message holds.
#[derive(Debug)]
pub struct PendingChosen {
    chosen: Vec<(Key, Ballot)>,
    room: MessageCapacity,
}

impl Default for PendingChosen {
    fn default() -> Self {
        PendingChosen {
            chosen: Vec::new(),
            room: MessageCapacity::new(CHOSEN_PER_MESSAGE_MAX),
        }
    }
}

impl PendingChosen {
    /// Adds a ballot; returns the message that must leave now, if it had no space for this ballot.
    pub fn push(&mut self, key: &Key, ballot: Ballot) -> Option<Chosen> {
        let notice = (key.clone(), ballot);
        let mut full = None;
        if !self.room.take(&notice) {
            full = self.take();
            assert!(self.room.take(&notice), "one always fits");
        }
        self.chosen.push(notice);
        full
    }

    /// The message with the ballots to report, if there are any.
    pub fn take(&mut self) -> Option<Chosen> {
        let PendingChosen { chosen, .. } = std::mem::take(self);
        (!chosen.is_empty()).then_some(Chosen { chosen })
    }
}

#[cfg(test)]
mod tests {
    use wire::KEY_SIZE_MAX;
    use wire::datagram::DATAGRAM_SIZE_MAX;

    use super::*;
    use crate::protocol::types::message::Message;

    #[test]
    fn a_message_leaves_once_the_next_notice_does_not_fit() {
        for (key_size, at_least) in [(8, CHOSEN_PER_MESSAGE_MAX), (KEY_SIZE_MAX, 30)] {
            let mut notices = PendingChosen::default();
            assert_eq!(notices.take(), None);
            let ballot = Ballot::new(1 << 54, 1);
            let key = |n: usize| Key::user(format!("{n:0key_size$}").as_bytes());
            let all: Vec<Key> = (0..1_000).map(key).collect();
            let full = all.iter().filter_map(|key| notices.push(key, ballot));
            let mut messages: Vec<Chosen> = full.collect();
            assert!(messages.iter().all(|m| m.chosen.len() >= at_least));
            messages.extend(notices.take());
            let mut reported = Vec::new();
            for message in messages {
                let mut body = Vec::new();
                reported.extend(message.chosen.iter().map(|(key, _)| key.clone()));
                Message::from(message).encode_body(&mut body);
                assert!(body.len() < DATAGRAM_SIZE_MAX - 80, "{}", body.len());
            }
            assert_eq!(reported, all);
        }
    }
}
