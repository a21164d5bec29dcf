//! Why a node is sent a copy (C1), and how the frame's message id says it.

use crate::protocol::types::message::{Envelope, Message, RoundId};

/// Why a copy is sent. It follows that the receiver answers it, or does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyPurpose {
    /// The receiver missed the record: the sender has a hint for it. The receiver answers with
    /// CopyAck, which ends the hint.
    Hint,
    /// The receiver requested the record in this round. Or it is a learner that has listed the
    /// key's bucket already, and the record was chosen in this round since. The receiver does not
    /// answer: whoever fetches knows what is missing.
    Fetch(RoundId),
}

impl CopyPurpose {
    /// No round has the id 0.
    pub fn of(round: RoundId) -> Self {
        match round {
            0 => CopyPurpose::Hint,
            round => CopyPurpose::Fetch(round),
        }
    }

    /// The message id of the copy's frame.
    pub fn round(self) -> RoundId {
        match self {
            CopyPurpose::Hint => 0,
            CopyPurpose::Fetch(round) => round,
        }
    }
}

impl Envelope {
    /// For what a copy was sent; `None` for all other messages.
    pub fn copy_purpose(&self) -> Option<CopyPurpose> {
        let is_copy = matches!(self.message, Message::Copy(_));
        is_copy.then(|| CopyPurpose::of(self.round))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purpose_survives_the_message_id() {
        for purpose in [CopyPurpose::Hint, CopyPurpose::Fetch(7)] {
            assert_eq!(CopyPurpose::of(purpose.round()), purpose);
        }
    }
}
