//! The events of a run: a hash over all of them and, if requested, lines of text for human readers.

use std::io::Write as _;

use xxhash_rust::xxh3::Xxh3Default;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Detail {
    #[default]
    Silent,
    /// Operations and faults.
    Story,
    /// Every message, too.
    Messages,
}

#[derive(Default)]
pub struct Trace {
    hash: Xxh3Default,
    detail: Detail,
    /// Where lines go if they are not printed at once: into the report of a failed scenario.
    pub kept: Option<Vec<String>>,
}

impl Trace {
    pub fn new(detail: Detail) -> Self {
        Trace {
            detail,
            ..Trace::default()
        }
    }

    /// Makes these bytes part of the run's hash.
    pub fn mix(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
    }

    pub fn mix_words(&mut self, words: &[u64]) {
        for word in words {
            self.hash.update(&word.to_le_bytes());
        }
    }

    pub fn hash(&self) -> u64 {
        self.hash.digest()
    }

    pub fn tells(&self, detail: Detail) -> bool {
        self.detail >= detail
    }

    pub fn story(&mut self, now_us: u64, line: impl FnOnce() -> String) {
        self.line(Detail::Story, now_us, line);
    }

    pub fn message(&mut self, now_us: u64, line: impl FnOnce() -> String) {
        self.line(Detail::Messages, now_us, line);
    }

    fn line(&mut self, detail: Detail, now_us: u64, line: impl FnOnce() -> String) {
        if !self.tells(detail) {
            return;
        }
        let text = format!("{:>12} {}", super::history::ms(now_us), line());
        match &mut self.kept {
            Some(kept) => kept.push(text),
            None => {
                // The reader may have closed the pipe.
                let _ = writeln!(std::io::stdout(), "{text}");
            }
        }
    }
}
