//! Watches that wait on the caller's thread.

use super::Client;
use crate::session::{CallError, Watch, WatchEvent};

/// The events of a watch, one after the other. It never ends by itself: while no node serves it, it
/// says so and goes on.
#[derive(Debug)]
pub struct WatchEvents<'a> {
    client: &'a Client,
    watch: Watch,
    failed: bool,
}

impl WatchEvents<'_> {
    /// States in between that were left out, as far as the nodes know.
    pub fn skipped(&self) -> u64 {
        self.watch.skipped()
    }
}

impl Client {
    /// The states of a key, or of the keys of a range: those that are present now, and from then on
    /// each change. The last state of each key is always told; per key versions only rise. While
    /// nothing changes, `WatchEvent::Current` comes about twice a second; while no node serves,
    /// `Apart` comes after each call that failed, within the client's deadline. After an error,
    /// which no node can mend, the iterator ends.
    pub fn watch(&self, watch: Watch) -> WatchEvents<'_> {
        WatchEvents {
            client: self,
            watch,
            failed: false,
        }
    }
}

impl Iterator for WatchEvents<'_> {
    type Item = Result<WatchEvent, CallError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.failed {
            if let Some(event) = self.watch.poll_event() {
                return Some(Ok(event));
            }
            let result = self.client.call(self.watch.next_call());
            if let Err(error) = self.watch.take(result) {
                self.failed = true;
                return Some(Err(error));
            }
        }
        None
    }
}
