//! Operations of clients that have no session: Firecloud's text datagrams.

use std::sync::Arc;

use bytes::Bytes;
use wire::{Action, Operation, OperationId};

use crate::protocol::clients::pending::{Pending, ReplyTo};
use crate::protocol::clients::text_operation::text_client;
use crate::protocol::replica::Replica;
use crate::protocol::types::message::{Endpoint, Now};

impl Replica {
    pub(super) fn handle_sessionless(
        &mut self,
        now: Now,
        from: Endpoint,
        id: u64,
        key: Bytes,
        action: Action,
    ) {
        // As for requests: the client tries another node.
        if self.requests.stopping {
            return;
        }
        let value: &[u8] = match &action {
            Action::PutOver { value, .. } => value,
            _ => &[],
        };
        let operation = Operation {
            id: OperationId {
                client: text_client(from, value),
                sequence: id,
            },
            birth: self.clock.tick(now),
            low_mark: 0,
            key,
            want_old: !action.is_read(),
            action,
        };
        let pending = Pending {
            operation: Arc::new(operation),
            step: None,
            reply: ReplyTo::Sessionless { to: from, id },
            also: Vec::new(),
            // Nothing distinguishes a retry from a first attempt.
            tried: true,
            sent: false,
            arrived_us: now.mono_us,
            deadline_us: Pending::deadline_us(now, u32::MAX),
            received_us: Some(now.mono_us),
        };
        self.begin_operation(&pending.operation);
        self.take(now, pending);
    }
}
