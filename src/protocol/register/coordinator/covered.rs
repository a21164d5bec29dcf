//! T5: operations leave the queue for an intent that this node holds already, so that they start no
//! round only to meet it. Such rounds would compete with those that resolve the intent.

use super::{Context, Coordinator, Effect};
use crate::protocol::clients::pending::Pending;
use crate::protocol::types::encoded_intent::IntentHead;
use crate::protocol::types::rules::rule;
use crate::protocol::types::transaction::{Attempt, TransactionStep};

impl Coordinator {
    /// This node's own record may be an old one. But the fate of its intent is found in any case,
    /// and with that the operations come back.
    pub(super) fn leave_covered(&mut self, context: &mut Context<'_>) {
        let record = context.state.and_then(|state| state.record.as_ref());
        let head = record.and_then(|record| record.intent.as_ref()?.head());
        let (Some(record), Some(IntentHead { of, .. })) = (record, head) else {
            return;
        };
        if context.decisions.of(of).is_some() {
            return;
        }
        for _ in 0..self.queue.len() {
            let pending = self.queue.pop_front().expect("counted");
            match waits_for(&pending, of) {
                true => {
                    let record = record.clone();
                    context.effects.push(Effect::Blocked { pending, record });
                }
                false => self.queue.push_back(pending),
            }
        }
    }
}

/// Whether a round with that intent would leave the operation out.
fn waits_for(pending: &Pending, of: Attempt) -> bool {
    match pending.step.as_deref() {
        Some(TransactionStep::Place { .. }) => pending.operation.id != of.id,
        Some(_) => false,
        None => !pending.is_read() && rule!(T2_under),
    }
}
