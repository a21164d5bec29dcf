//! The messages of a write round.

use super::{Context, Coordinator, Effect, Phase, WriteRound};
use crate::protocol::types::message::{Accept, Message, NodeId, Prepare, ResolvePart};

impl Coordinator {
    /// Sends the message of the present phase.
    pub(super) fn send_round(&self, to: &[NodeId], context: &mut Context<'_>) {
        let Some(round) = &self.writing else { return };
        for node in to {
            if let Some(part) = round.resolve_part(context) {
                context.effects.push(Effect::Resolve { to: *node, part });
                continue;
            }
            let key = context.key.clone();
            let message: Message = match &round.phase {
                Phase::Prepare { .. } => Prepare {
                    key,
                    ballot: round.ballot,
                }
                .into(),
                Phase::Accept { record, .. } => Accept {
                    key,
                    ballot: round.ballot,
                    record: record.clone(),
                }
                .into(),
            };
            context.send(*node, round.id, message, round.retransmissions);
        }
    }
}

impl WriteRound {
    /// T5: the Accept without its record. A member that holds another record than the one before it
    /// does not answer, and is sent the record with the next Accept.
    fn resolve_part(&self, context: &Context<'_>) -> Option<ResolvePart> {
        let Phase::Accept { resolves, .. } = &self.phase else {
            return None;
        };
        let (over, committed) = resolves.filter(|_| self.retransmissions == 0)?;
        Some(ResolvePart {
            round: self.id,
            key: context.key.clone(),
            over,
            committed,
        })
    }
}
