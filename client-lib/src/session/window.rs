//! The send window of one node: how many operations may be in progress there, so that this client
//! neither fills the node's queues nor leaves the node idle. Further operations wait in the client,
//! where they cost the cluster nothing. The values of these operations are bounded together, too: a
//! node has memory for a few large ones of a client at a time, and refuses the others' pieces.
//!
//! Two signals reduce the limit. The node answers `busy`; or its answers take much longer than its
//! fastest ones of the last seconds, so they waited in a queue, and more operations in progress
//! would only make that queue longer. Without such a signal the limit grows while operations wait
//! for it. So it becomes high where round trips are long, and only there.
//!
//! A third signal is for short deadlines: an operation that is not answered by its deadline has an
//! unknown outcome, while one that was not sent is surely not done. So the window is as good as
//! full for an operation that would wait for its answer longer than half of the time that it has
//! left, as the last answers show.

/// Where round trips are short a node answers this many in some milliseconds, and the limit has
/// grown by then. Many clients that start at once must not fill the node's queues.
const LIMIT_INITIAL: u32 = 64;
/// With answers that take a second, this is some thousand operations per second.
const LIMIT_MAX: u32 = 8_192;
/// Slow answers alone do not reduce the limit below this: so few operations fill no queue.
const LIMIT_MIN_SLOW: u32 = 16;
/// Of the time that an operation has left, its answer may take this part (1/2).
const ANSWER_PART: u64 = 2;
/// Without an answer for this long it is not known how long answers take.
const LATENCY_KNOWN_US: u64 = 1_000_000;
/// While the values in progress have this many bytes, no further operation is sent. So with the
/// largest value on top they fit the memory that a node has for one client's incomplete requests.
const SIZE_MAX: usize = 4 << 20;
/// The limit is reduced to 7/10.
const CUT: (u32, u32) = (7, 10);
/// Answers that take this much longer than the fastest one have waited in a queue.
const QUEUED_US: u64 = 100_000;
/// The limit grows only while answers take at most this much longer than the fastest one, or at
/// most half as long again.
const SOON_US: u64 = 5_000;
/// The fastest answer is the fastest one of the last one to two of these intervals.
const FASTEST_OF_US: u64 = 10_000_000;

#[derive(Debug)]
pub(super) struct SendWindow {
    limit: u32,
    in_progress: u32,
    /// Of the values that operations in progress write, in bytes.
    size: usize,
    /// Before the first cut each answer adds one to the limit; later a whole window of answers
    /// does.
    was_cut: bool,
    /// Answers since the limit last grew.
    answers: u32,
    /// The time of the last cut. Operations that were sent before it cause no further cut.
    cut_again_us: u64,
    reads: FastestAnswer,
    writes: FastestAnswer,
    latency: Latency,
}

impl Default for SendWindow {
    fn default() -> Self {
        SendWindow {
            limit: LIMIT_INITIAL,
            in_progress: 0,
            size: 0,
            was_cut: false,
            answers: 0,
            cut_again_us: 0,
            reads: FastestAnswer::default(),
            writes: FastestAnswer::default(),
            latency: Latency::default(),
        }
    }
}

impl SendWindow {
    /// Whether an operation may be sent that has this much time left.
    pub fn has_room(&self, now_us: u64, left_us: u64) -> bool {
        if self.size >= SIZE_MAX {
            return false;
        }
        if self.in_progress < self.limit.min(LIMIT_MIN_SLOW) {
            return true;
        }
        let fastest_us = self.reads.known_us().max(self.writes.known_us());
        let may_take_us = (left_us / ANSWER_PART).max(fastest_us + fastest_us / 2);
        self.in_progress < self.limit && self.expected_us(now_us) <= may_take_us
    }

    fn is_full(&self) -> bool {
        self.in_progress >= self.limit
    }

    /// How long the answer to an operation that is sent now will probably take at most; 0 if that
    /// is not known.
    pub fn expected_us(&self, now_us: u64) -> u64 {
        match now_us.saturating_sub(self.latency.sampled_us) < LATENCY_KNOWN_US {
            true => self.latency.smoothed_us + 2 * self.latency.deviation_us,
            false => 0,
        }
    }

    /// How many operations are in progress, and the size of their values.
    #[cfg(test)]
    pub fn in_progress(&self) -> (u32, usize) {
        (self.in_progress, self.size)
    }

    pub fn begin(&mut self, value_size: usize) {
        self.in_progress += 1;
        self.size += value_size;
    }

    pub fn end(&mut self, value_size: usize) {
        self.in_progress = self.in_progress.checked_sub(1).expect("it was in progress");
        self.size = self.size.checked_sub(value_size).expect("it was counted");
    }

    /// A round answered an operation after this time. Called before `end`.
    pub fn answered(&mut self, now_us: u64, is_read: bool, took_us: u64) {
        let fastest = match is_read {
            true => &mut self.reads,
            false => &mut self.writes,
        };
        let fastest_us = fastest.sample(now_us, took_us);
        let queued_us = took_us - fastest_us;
        if queued_us > QUEUED_US && self.limit > LIMIT_MIN_SLOW {
            self.cut(now_us, took_us, LIMIT_MIN_SLOW);
        } else if queued_us <= SOON_US.max(fastest_us / 2) && self.is_full() {
            self.grow();
        }
    }

    /// So long an answer takes now.
    pub fn took(&mut self, now_us: u64, took_us: u64) {
        self.latency.sample(now_us, took_us);
    }

    /// An operation was not answered by its deadline, this long after it was sent.
    pub fn expired(&mut self, now_us: u64, waited_us: u64) {
        self.latency.sample(now_us, waited_us);
        self.cut(now_us, waited_us, 1);
    }

    /// The node answered `busy` after this time.
    pub fn refused(&mut self, now_us: u64, took_us: u64) {
        self.cut(now_us, took_us, 1);
    }

    fn cut(&mut self, now_us: u64, took_us: u64, least: u32) {
        self.was_cut = true;
        self.answers = 0;
        let sent_us = now_us.saturating_sub(took_us);
        if sent_us <= self.cut_again_us {
            return;
        }
        self.cut_again_us = now_us;
        let (part, whole) = CUT;
        self.limit = (self.limit * part / whole).max(least);
    }

    fn grow(&mut self) {
        self.answers += 1;
        if !self.was_cut || self.answers >= self.limit {
            self.answers = 0;
            self.limit = LIMIT_MAX.min(self.limit + 1);
        }
    }
}

/// How long answers take now (as in RFC 6298).
#[derive(Debug, Default)]
struct Latency {
    smoothed_us: u64,
    deviation_us: u64,
    sampled_us: u64,
}

impl Latency {
    fn sample(&mut self, now_us: u64, took_us: u64) {
        if now_us.saturating_sub(self.sampled_us) >= LATENCY_KNOWN_US {
            (self.smoothed_us, self.deviation_us) = (took_us, 0);
        }
        let off_us = took_us.abs_diff(self.smoothed_us);
        self.deviation_us = (3 * self.deviation_us + off_us) / 4;
        self.smoothed_us = (7 * self.smoothed_us + took_us) / 8;
        self.sampled_us = now_us;
    }
}

/// The shortest time that an answer took in the last seconds.
#[derive(Debug)]
struct FastestAnswer {
    began_us: u64,
    current_us: u64,
    previous_us: u64,
}

impl Default for FastestAnswer {
    fn default() -> Self {
        FastestAnswer {
            began_us: 0,
            current_us: u64::MAX,
            previous_us: u64::MAX,
        }
    }
}

impl FastestAnswer {
    /// 0 while there is no answer.
    fn known_us(&self) -> u64 {
        match self.current_us.min(self.previous_us) {
            u64::MAX => 0,
            fastest_us => fastest_us,
        }
    }

    fn sample(&mut self, now_us: u64, took_us: u64) -> u64 {
        let passed_us = now_us.saturating_sub(self.began_us);
        if passed_us >= FASTEST_OF_US {
            self.previous_us = match passed_us < 2 * FASTEST_OF_US {
                true => self.current_us,
                false => u64::MAX,
            };
            (self.began_us, self.current_us) = (now_us, u64::MAX);
        }
        self.current_us = self.current_us.min(took_us);
        self.current_us.min(self.previous_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000;

    const LONG: u64 = u64::MAX;

    /// Keeps the window full, with answers that take that long.
    fn run(window: &mut SendWindow, now_us: &mut u64, answers: u32, took_us: u64) {
        for _ in 0..answers {
            while window.has_room(*now_us, LONG) {
                window.begin(0);
            }
            *now_us += took_us / u64::from(window.limit);
            window.answered(*now_us, true, took_us);
            window.took(*now_us, took_us);
            window.end(0);
        }
    }

    #[test]
    fn the_limit_grows_while_operations_wait_and_answers_are_not_delayed() {
        let (mut window, mut now_us) = (SendWindow::default(), 0);
        run(&mut window, &mut now_us, 1_000, 600 * MS);
        assert_eq!(window.limit, LIMIT_INITIAL + 1_000);
        run(&mut window, &mut now_us, 10_000, 600 * MS);
        assert_eq!(window.limit, LIMIT_MAX);
    }

    #[test]
    fn a_window_that_is_not_full_does_not_grow() {
        let mut window = SendWindow::default();
        for _ in 0..1_000 {
            window.begin(0);
            window.answered(0, true, MS);
            window.end(0);
        }
        assert_eq!(window.limit, LIMIT_INITIAL);
    }

    #[test]
    fn values_fill_the_window_and_the_limit_does_not_grow_for_them() {
        let mut window = SendWindow::default();
        for _ in 0..4 {
            assert!(window.has_room(0, LONG));
            window.begin(SIZE_MAX / 4);
        }
        assert!(!window.has_room(0, LONG));
        window.answered(0, false, MS);
        assert_eq!(window.limit, LIMIT_INITIAL);
        window.end(SIZE_MAX / 4);
        assert!(window.has_room(0, LONG));
    }

    #[test]
    fn answers_that_waited_in_a_queue_shrink_the_limit_to_a_bound() {
        let (mut window, mut now_us) = (SendWindow::default(), 0);
        run(&mut window, &mut now_us, 1, MS);
        let grown = window.limit;
        run(&mut window, &mut now_us, 100, 50 * MS);
        assert_eq!(window.limit, grown, "they grow it no more");
        run(&mut window, &mut now_us, 2_000, 150 * MS);
        assert_eq!(window.limit, LIMIT_MIN_SLOW);
    }

    #[test]
    fn one_burst_of_refusals_is_one_cut_and_more_of_them_leave_one_operation() {
        let mut window = SendWindow::default();
        for _ in 0..LIMIT_INITIAL {
            window.refused(1_000 * MS, 10 * MS);
        }
        assert_eq!(window.limit, LIMIT_INITIAL * 7 / 10);
        for at in 0..100 {
            window.refused((1_010 + 11 * at) * MS, 10 * MS);
        }
        assert_eq!(window.limit, 1);
        let mut now_us = 3_000 * MS;
        run(&mut window, &mut now_us, 6, MS);
        assert_eq!(window.limit, 4, "by one for each window");
    }

    #[test]
    fn the_fastest_is_forgotten_in_time() {
        let mut fastest = FastestAnswer::default();
        assert_eq!(fastest.sample(0, MS), MS);
        assert_eq!(fastest.sample(9_000 * MS, 50 * MS), MS);
        assert_eq!(fastest.sample(11_000 * MS, 50 * MS), MS);
        assert_eq!(fastest.sample(22_000 * MS, 50 * MS), 50 * MS);
        assert_eq!(fastest.sample(60_000 * MS, 70 * MS), 70 * MS);
    }

    #[test]
    fn what_has_little_time_left_is_held_back_while_answers_are_slow() {
        let (mut window, mut now_us) = (SendWindow::default(), 0);
        run(&mut window, &mut now_us, 100, 2 * MS);
        run(&mut window, &mut now_us, 50, 60 * MS);
        let has_room = |window: &SendWindow, left_ms: u64| window.has_room(now_us, left_ms * MS);
        while window.in_progress > LIMIT_MIN_SLOW {
            window.end(0);
        }
        assert!(has_room(&window, 1_000) && !has_room(&window, 100));
        window.end(0);
        assert!(
            has_room(&window, 1),
            "some always find out whether it is still so"
        );
        window.begin(0);
        now_us += LATENCY_KNOWN_US;
        let has_room = |left_ms: u64| window.has_room(now_us, left_ms * MS);
        assert!(has_room(100), "nothing is known any more");
    }

    #[test]
    fn long_round_trips_alone_hold_nothing_back() {
        let (mut window, mut now_us) = (SendWindow::default(), 0);
        run(&mut window, &mut now_us, 1_000, 600 * MS);
        window.end(0);
        assert!(window.has_room(now_us, 700 * MS));
    }

    #[test]
    fn operations_that_expire_shrink_the_limit() {
        let (mut window, mut now_us) = (SendWindow::default(), 1_000 * MS);
        run(&mut window, &mut now_us, 1, MS);
        for _ in 0..window.in_progress {
            window.expired(now_us + 500 * MS, 500 * MS);
        }
        assert_eq!(window.limit, (LIMIT_INITIAL + 1) * 7 / 10);
        assert!(window.expected_us(now_us + 500 * MS) >= 500 * MS);
    }
}
