//! Rounds that no operation requested: repairs, and the deletion of a key that has expired.

use super::{Context, Coordinator};

impl Coordinator {
    /// Starts a repair round: a full round that no operation requested.
    pub fn repair(&mut self, context: &mut Context<'_>) {
        if self.writing.is_none() {
            self.right = None;
            self.must_repair = true;
            self.advance(context);
        }
    }

    /// L1: starts a round, a short one if possible, that deletes the key if it has expired. What
    /// is in progress does so by itself.
    pub fn expire(&mut self, context: &mut Context<'_>) {
        if self.writing.is_none() {
            self.must_repair = true;
            self.advance(context);
        }
    }
}
