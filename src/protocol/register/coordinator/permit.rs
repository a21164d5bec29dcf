//! R3: the right to use the next ballot without a Prepare.

use std::sync::Arc;

use super::Context;
use crate::protocol::types::ballot::Ballot;
use crate::protocol::types::message::Epoch;
use crate::protocol::types::record::Record;
use crate::protocol::types::rules::rule;

#[derive(Debug, Clone)]
pub(super) struct ShortRoundPermit {
    pub(super) ballot: Ballot,
    pub(super) record: Arc<Record>,
    pub(super) epoch: Epoch,
}

impl ShortRoundPermit {
    /// Whether nobody else was promised the key since this coordinator's last round.
    pub(super) fn is_valid(&self, context: &Context<'_>) -> bool {
        let is_promised = context
            .state
            .is_some_and(|state| state.promised == self.ballot.next());
        self.epoch == context.configuration.epoch && (is_promised || !rule!(R3_doubt))
    }
}
