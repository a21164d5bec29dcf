//! The right to use a ballot without a Prepare: the next one after a round (R3), and the first one
//! of a decision register (T1_first).

use std::sync::Arc;

use wire::Birth;

use super::Context;
use crate::protocol::clients::pending::Pending;
use crate::protocol::types::ballot::Ballot;
use crate::protocol::types::message::Epoch;
use crate::protocol::types::record::{Record, SPACE_TRANSACTION};
use crate::protocol::types::rules::rule;
use crate::protocol::types::transaction::TransactionStep;

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

    /// Whether the next ballot is above that birth.
    pub(super) fn is_after(&self, born: Birth) -> bool {
        self.ballot.next().reading() > born
    }
}

impl Context<'_> {
    /// T1_above: the latest birth of a transaction whose register a round may create. The clock
    /// moves to it, so that the round's ballot is above the first one.
    pub(super) fn observe_births(&mut self, operations: &[Pending]) -> Birth {
        if self.key.space() != SPACE_TRANSACTION || !rule!(T1_above) {
            return 0;
        }
        let creates = |pending: &&Pending| {
            let step = pending.step.as_deref();
            matches!(
                step,
                Some(TransactionStep::Create(_) | TransactionStep::Abandon(_))
            )
        };
        let creating = operations.iter().filter(creates);
        let births = creating.map(|pending| pending.operation.birth);
        let born = births.max().unwrap_or(0);
        self.clock.observe(born);
        born
    }
}

/// T1: the ballot for creating a register without a Prepare. It consists of the transaction's birth
/// and this node's id, and is lower than that of every other round that creates it. Only the node
/// that executes the client's first attempt uses it, and only if it knows nothing of the register.
pub(super) fn first_ballot(operations: &[Pending], context: &mut Context<'_>) -> Option<Ballot> {
    let [pending] = operations else { return None };
    let creates = matches!(pending.step.as_deref(), Some(TransactionStep::Create(_)));
    let is_first = creates && !pending.tried && !pending.sent && context.state.is_none();
    if !is_first || context.key.space() != SPACE_TRANSACTION {
        return None;
    }
    let ballot = match rule!(T1_first) {
        true => Ballot::new(pending.operation.birth, context.me),
        false => Ballot::new(context.clock.tick(context.now), context.me),
    };
    (ballot > context.floor).then_some(ballot)
}
