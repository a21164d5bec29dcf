//! What ends the measurement before its time. The first Ctrl-C or SIGTERM does, and what was
//! measured is reported; the second one ends the program.

use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Instant;

use nix::sys::signal::{SigSet, Signal};

/// What a shell reports of a program that Ctrl-C ended.
const EXIT_INTERRUPTED: i32 = 130;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EarlyReason {
    Interrupted,
    /// No further operation can be recorded.
    RecordFull,
}

/// When and why the measurement was ended before its time.
#[derive(Debug, Clone, Default)]
pub struct EarlyEnd(Arc<OnceLock<(Instant, EarlyReason)>>);

impl EarlyEnd {
    /// To be called before any other thread is started: these must not receive the signals.
    pub fn watch() -> EarlyEnd {
        let early = EarlyEnd::default();
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGINT);
        signals.add(Signal::SIGTERM);
        // Without it the signals end the program, as they do by default.
        if signals.thread_block().is_err() {
            return early;
        }
        let ended = early.clone();
        thread::spawn(move || {
            if signals.wait().is_ok() {
                ended.end(EarlyReason::Interrupted);
            }
            if signals.wait().is_ok() {
                std::process::exit(EXIT_INTERRUPTED);
            }
        });
        early
    }

    /// The first reason stays.
    pub fn end(&self, reason: EarlyReason) {
        let _ = self.0.set((Instant::now(), reason));
    }

    pub fn at(&self) -> Option<Instant> {
        self.0.get().map(|(at, _)| *at)
    }

    pub fn reason(&self) -> Option<EarlyReason> {
        self.0.get().map(|(_, reason)| *reason)
    }

    pub fn is_set(&self) -> bool {
        self.0.get().is_some()
    }
}
