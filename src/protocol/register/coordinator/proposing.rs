//! The record under construction in phase two of a round.

use wire::clock::{self, Reading};

use crate::protocol::register::applied::Proposal;
use crate::protocol::register::coordinator::Context;
use crate::protocol::types::ballot::{Ballot, Moment};
use crate::protocol::types::record::Record;

impl Context<'_> {
    /// `forgotten`: X3's initial `dropped`. `text_kept_above`: see `Moment`.
    pub(super) fn proposal(
        &self,
        found: Option<&Record>,
        ballot: Ballot,
        forgotten: u64,
        text_kept_above: Reading,
    ) -> Proposal {
        let moment = Moment {
            text_kept_above,
            ..self.moment()
        };
        let mut proposal = Proposal::new(found, ballot, moment, forgotten);
        proposal.raise_marks(self.low_marks);
        proposal.limit_values(self.value_size_max);
        if self.is_full {
            proposal.keep_size(found);
        }
        proposal
    }

    /// The times for the records of a round. What it may forget of text operations is open.
    pub fn moment(&self) -> Moment {
        let last = self.clock.last();
        let horizon = clock::from_ms(self.retry_horizon_ms);
        Moment {
            now: last,
            horizon: last.saturating_sub(horizon),
            text_kept_above: 0,
            wall_ms: self.clock.expiry_ms(self.now),
        }
    }
}
