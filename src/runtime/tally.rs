//! Counts what was dropped, by reason. The counts are logged at most once per second, and less and
//! less often while the same reasons continue.

use std::fmt::Write;

use wire::BodyError;
use wire::datagram::DatagramError;

use crate::gateway::text::Silence;

/// The least interval between lines; it doubles with each line of the same reasons.
const REPORT_INTERVAL_MIN_US: u64 = 1_000_000;
/// The greatest interval. After a silence of this length the interval starts at the least again.
const REPORT_INTERVAL_MAX_US: u64 = 64_000_000;

macro_rules! causes {
    ($($(#[$doc:meta])* $cause:ident = $name:literal),* $(,)?) => {
        /// Why a datagram, a frame or a message was dropped.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Cause { $($(#[$doc])* $cause),* }

        impl Cause {
            pub const ALL: &[Cause] = &[$(Cause::$cause),*];

            pub fn name(self) -> &'static str {
                match self { $(Cause::$cause => $name),* }
            }

            /// Its name in lower case, with `_` between words.
            pub fn label(self) -> String {
                let name = match self { $(Cause::$cause => stringify!($cause)),* };
                let mut label = String::new();
                for letter in name.chars() {
                    if letter.is_ascii_uppercase() && !label.is_empty() {
                        label.push('_');
                    }
                    label.push(letter.to_ascii_lowercase());
                }
                label
            }
        }
    };
}

causes! {
    Foreign = "datagrams of another protocol",
    Version = "datagrams of another format version",
    Truncated = "truncated datagrams",
    Checksum = "datagrams with a wrong checksum",
    FrameLength = "datagrams with a frame beyond their end",
    BodyMalformed = "frames that do not decode",
    PartsMissing = "frames with missing parts",
    /// Their senders ask again.
    PiecesRefused = "pieces of large frames refused for lack of memory",
    /// Of large frames: the receiver did not acknowledge them in time.
    NotTaken = "large messages that their receiver did not take",
    BodyTrailing = "frames with bytes after their body",
    BodyBounds = "frames with a field out of bounds",
    /// Possibly of a later version: skipped, not an error.
    KindUnknown = "frames of an unknown kind",
    /// A client's frame from a node, or a node's answer sent to a node.
    KindMisplaced = "frames of a kind that is not sent to nodes",
    /// The socket's receive buffer was full, or the queue of clients' datagrams, or one waited
    /// there for too long.
    ReceiveOverflow = "datagrams lost because the receive buffer, or the queue behind it, was full",
    ReceiveError = "errors while receiving",
    SendError = "datagrams that could not be sent",
    SendTooBig = "messages or datagrams too large to be sent",
    SendOverflow = "messages dropped because the send queue was full",
    /// Counted by the core: of another cluster or epoch, or from a node that is not a member.
    Stray = "messages for another cluster, epoch or member",
    /// Counted by the core.
    Contradiction = "records that conflict with those held at the same ballot",
    /// Counted by the core.
    Overflow = "messages over a limit",
    /// Counted by the core: no path, or none that a message may still take.
    Unroutable = "messages of other nodes that could not be relayed",
    /// Counted by the core (B5).
    Ahead = "messages and operations too far ahead of this node's clock",
    NoAddress = "messages to a node with an unknown address",
    /// Neither the list nor the configuration has a node there.
    Stranger = "node messages from addresses that belong to no known node",
    TextOff = "text datagrams, which this node does not accept",
    TextMalformed = "text datagrams without a readable id",
    /// Text operations whose outcome cannot be expressed to their clients.
    TextBusy = "text operations not answered: busy",
    TextUnknown = "text operations not answered: unknown outcome",
    TextFull = "text puts not answered: a node is full",
    TextForgotten = "text operations not answered: done earlier, old value no longer known",
}

/// Counters of everything that was dropped since the start.
#[derive(Debug)]
pub struct Tally {
    counts: [u64; Cause::ALL.len()],
    reported: [u64; Cause::ALL.len()],
    /// The largest message that was too large since the last report: its name and its size.
    too_large: Option<(&'static str, usize)>,
    changed: bool,
    report_from_us: u64,
    interval_us: u64,
    /// Reasons that were reported since the interval was last at its least.
    known: [bool; Cause::ALL.len()],
}

impl Default for Tally {
    fn default() -> Self {
        Tally {
            counts: [0; Cause::ALL.len()],
            reported: [0; Cause::ALL.len()],
            too_large: None,
            changed: false,
            report_from_us: 0,
            interval_us: 0,
            known: [false; Cause::ALL.len()],
        }
    }
}

impl Tally {
    pub fn count(&mut self, cause: Cause) {
        self.add(cause, 1);
    }

    pub fn add(&mut self, cause: Cause, many: u64) {
        self.counts[cause as usize] += many;
        self.changed |= many > 0;
    }

    /// A message that fits in no datagram: a bug of this node; the log names the message.
    pub fn count_too_large(&mut self, name: &'static str, size: usize) {
        self.count(Cause::SendTooBig);
        if self.too_large.is_none_or(|(_, largest)| largest < size) {
            self.too_large = Some((name, size));
        }
    }

    /// Takes over a count that is kept elsewhere.
    pub fn raise_to(&mut self, cause: Cause, total: u64) {
        let many = total.saturating_sub(self.of(cause));
        self.add(cause, many);
    }

    pub fn of(&self, cause: Cause) -> u64 {
        self.counts[cause as usize]
    }

    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// A line that sums up the drops since the last one. A new reason is reported within a second.
    pub fn report(&mut self, mono_us: u64) -> Option<String> {
        if !self.changed || !self.is_due(mono_us) {
            return None;
        }
        let mut line = String::new();
        for &cause in Cause::ALL {
            let many = self.counts[cause as usize] - self.reported[cause as usize];
            if many > 0 {
                self.known[cause as usize] = true;
                let comma = if line.is_empty() { "" } else { ", " };
                let named = match self.too_large {
                    Some((name, size)) if cause == Cause::SendTooBig => {
                        format!(" ({name}, {size} bytes)")
                    }
                    _ => String::new(),
                };
                write!(line, "{comma}{}{named}: {many}", cause.name()).expect("a string grows");
            }
        }
        self.reported = self.counts;
        self.too_large = None;
        self.changed = false;
        self.report_from_us = mono_us + self.interval_us;
        Some(line)
    }

    /// Whether a line may be written now; sets the interval to the line after it.
    fn is_due(&mut self, mono_us: u64) -> bool {
        let began_us = self.report_from_us.saturating_sub(self.interval_us);
        let was_silent = mono_us >= self.report_from_us + REPORT_INTERVAL_MAX_US;
        let is_new = |cause: &&Cause| {
            let place = **cause as usize;
            self.counts[place] > self.reported[place] && !self.known[place]
        };
        if was_silent || Cause::ALL.iter().any(|cause| is_new(&cause)) {
            if self.interval_us > 0 && mono_us < began_us + REPORT_INTERVAL_MIN_US {
                return false;
            }
            self.known = [false; Cause::ALL.len()];
            self.interval_us = REPORT_INTERVAL_MIN_US;
            return true;
        }
        if mono_us < self.report_from_us {
            return false;
        }
        self.interval_us = (2 * self.interval_us).min(REPORT_INTERVAL_MAX_US);
        true
    }
}

impl From<DatagramError> for Cause {
    fn from(error: DatagramError) -> Cause {
        match error {
            DatagramError::Truncated => Cause::Truncated,
            DatagramError::Foreign => Cause::Foreign,
            DatagramError::Version(_) => Cause::Version,
            DatagramError::Checksum => Cause::Checksum,
            DatagramError::FrameLength => Cause::FrameLength,
        }
    }
}

impl From<Silence> for Cause {
    fn from(silence: Silence) -> Cause {
        match silence {
            Silence::Busy => Cause::TextBusy,
            Silence::Unknown => Cause::TextUnknown,
            Silence::Full => Cause::TextFull,
            Silence::Forgotten => Cause::TextForgotten,
        }
    }
}

impl From<BodyError> for Cause {
    fn from(error: BodyError) -> Cause {
        match error {
            BodyError::Malformed => Cause::BodyMalformed,
            BodyError::Trailing => Cause::BodyTrailing,
            BodyError::Bounds => Cause::BodyBounds,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on_is_reported_ever_less_often_and_what_is_new_within_a_second() {
        let mut tally = Tally::default();
        let mut times = Vec::new();
        for second in 10..200 {
            tally.count(Cause::Foreign);
            if tally.report(second * 1_000_000).is_some() {
                times.push(second - 10);
            }
        }
        assert_eq!(times, [0, 1, 3, 7, 15, 31, 63, 127]);
        tally.count(Cause::SendError);
        let line = tally.report(200_000_000).unwrap();
        assert!(
            line.contains("datagrams that could not be sent: 1"),
            "{line}"
        );
        assert!(line.contains("datagrams of another protocol: 62"), "{line}");
        tally.count(Cause::Foreign);
        assert!(tally.report(300_000_000).is_some(), "after a silence");
        tally.count(Cause::Foreign);
        assert!(tally.report(301_000_000).is_some());
    }

    #[test]
    fn a_second_has_one_line_that_sums_up() {
        let mut tally = Tally::default();
        assert_eq!(tally.report(5_000_000), None);
        tally.count(Cause::Foreign);
        let first = tally.report(5_000_000);
        assert_eq!(first.as_deref(), Some("datagrams of another protocol: 1"));

        tally.add(Cause::Foreign, 2);
        tally.count(Cause::SendError);
        assert_eq!(tally.report(5_999_999), None);
        let second = tally.report(6_000_000);
        let expected = "datagrams of another protocol: 2, datagrams that could not be sent: 1";
        assert_eq!(second.as_deref(), Some(expected));
        assert_eq!(tally.report(9_000_000), None);
        assert_eq!((tally.total(), tally.of(Cause::Foreign)), (4, 3));
    }
}
