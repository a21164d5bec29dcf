//! How long the client waits for the answer to a hello before it repeats it: the longer the node
//! last took, and twice as long each time. Otherwise thousands of clients of busy nodes would send
//! little but hellos, which keep the nodes busy.

const WAIT_US_INITIAL: u64 = 20_000;
const WAIT_US_MAX: u64 = 1_000_000;
/// The same for a node that answers hellos, though no operations.
const WAIT_US_MAX_ANSWERED: u64 = 250_000;
/// The longest first wait after a hello that was repeated.
const WAIT_US_MAX_DOUBTFUL: u64 = 100_000;
/// In the first second of a node's silence no wait is longer than this: a few lost datagrams must
/// not make a node seem gone.
const WAIT_US_OFTEN: u64 = 250_000;
const OFTEN_US: u64 = 1_000_000;

#[derive(Debug)]
pub(super) struct HelloPace {
    /// The wait after the first hello.
    base_us: u64,
    /// The wait after the next one.
    wait_us: u64,
    /// When the first hello was sent that is not answered, and how many were.
    first_us: Option<u64>,
    sent: u32,
}

impl Default for HelloPace {
    fn default() -> Self {
        HelloPace {
            base_us: WAIT_US_INITIAL,
            wait_us: WAIT_US_INITIAL,
            first_us: None,
            sent: 0,
        }
    }
}

impl HelloPace {
    /// A hello is sent. Returns the time until the next one. `alone_us`: the longest wait in the
    /// first second, while no node responds.
    pub fn sent(&mut self, now_us: u64, alone_us: Option<u64>) -> u64 {
        let first_us = *self.first_us.get_or_insert(now_us);
        self.sent = self.sent.saturating_add(1);
        let wait_us = self.wait_us;
        self.wait_us = (2 * wait_us).min(WAIT_US_MAX);
        let silence_us = now_us.saturating_sub(first_us);
        let often_us = alone_us.unwrap_or(WAIT_US_OFTEN);
        let later_us = silence_us.saturating_sub(OFTEN_US);
        wait_us.min(often_us.max(later_us).max(self.base_us))
    }

    /// The answer to a hello. The time of a hello that was repeated may be that of lost ones, so it
    /// counts in part.
    pub fn answered(&mut self, now_us: u64) {
        if let Some(first_us) = self.first_us.take() {
            let took_us = now_us.saturating_sub(first_us);
            let (base_us, base_us_max) = match self.sent {
                1 => (2 * took_us, WAIT_US_MAX),
                _ => (took_us, WAIT_US_MAX_DOUBTFUL),
            };
            self.base_us = base_us.clamp(WAIT_US_INITIAL, base_us_max);
            self.wait_us = self.wait_us.min(WAIT_US_MAX_ANSWERED).max(self.base_us);
        }
        self.sent = 0;
    }

    /// The time from a hello until another one may be sent, if that is the first of its kind.
    pub fn first_wait_us(&self) -> u64 {
        self.base_us
    }

    /// The node has answered an operation, or is asked for another reason: the waits begin anew.
    pub fn begin_anew(&mut self) {
        self.wait_us = self.base_us;
        self.first_us = None;
        self.sent = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000;

    /// The times of the hellos until the node is heard from.
    fn times(pace: &mut HelloPace, alone_us: Option<u64>, until_ms: u64) -> Vec<u64> {
        let mut times = Vec::new();
        let mut at_us = 0;
        while at_us < until_ms * MS {
            times.push(at_us / MS);
            at_us += pace.sent(at_us, alone_us);
        }
        times
    }

    #[test]
    fn hellos_are_repeated_ever_more_slowly() {
        let mut pace = HelloPace::default();
        let waited = times(&mut pace, None, 3_000);
        let expected = [0, 20, 60, 140, 300, 550, 800, 1_050, 1_300, 1_600, 2_200];
        assert_eq!(waited, expected);
        pace.begin_anew();
        assert_eq!(times(&mut pace, None, 50), [0, 20]);
    }

    /// So a few lost datagrams do not keep all nodes silent.
    #[test]
    fn while_no_node_responds_hellos_are_frequent_at_first() {
        let waited = times(&mut HelloPace::default(), Some(300 * MS), 4_000);
        let expected = [0, 20, 60, 140, 300, 600, 900, 1_200, 1_500, 2_000, 3_000];
        assert_eq!(waited, expected);
    }

    #[test]
    fn a_node_that_took_long_is_given_that_time() {
        let mut pace = HelloPace::default();
        let next = |pace: &mut HelloPace, at_ms: u64, alone_us| {
            pace.begin_anew();
            pace.sent(at_ms * MS, alone_us) / MS
        };
        assert_eq!(next(&mut pace, 0, None), 20);
        pace.answered(100 * MS);
        assert_eq!(next(&mut pace, 500, None), 200);
        pace.sent(700 * MS, None);
        pace.answered(750 * MS);
        assert_eq!(next(&mut pace, 800, Some(0)), 100, "it was repeated");
        pace.answered(801 * MS);
        assert_eq!(next(&mut pace, 900, None), 20);
        pace.answered(9_000_000 * MS);
        assert_eq!(next(&mut pace, 0, None), WAIT_US_MAX / MS);
        pace.begin_anew();
        pace.answered(0);
        assert_eq!(next(&mut pace, 0, None), WAIT_US_MAX / MS, "to no hello");
    }

    /// A node may answer hellos and nothing else.
    #[test]
    fn answers_to_hellos_alone_do_not_make_them_frequent() {
        let mut pace = HelloPace::default();
        let waits = (0..7).map(|_| {
            let wait_us = pace.sent(0, None);
            pace.answered(0);
            wait_us / MS
        });
        let expected = [20, 40, 80, 160, 250, 250, 250];
        assert_eq!(waits.collect::<Vec<_>>(), expected);
    }
}
