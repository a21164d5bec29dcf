//! One simulated node: a replica, its disk, its clocks, and the inputs that it has not handled yet.

use std::collections::VecDeque;

use horseshoe::protocol::types::message::{ClientMessage, Input, Now, Output};
use horseshoe::protocol::{Options, Replica};

use super::disk::Disk;
use super::random::Random;

/// The wall clock of time zero: some day of 2027.
pub const EPOCH_MS: u64 = 1_800_000_000_000;

/// How a node's disk behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSpeed {
    pub sync_min_us: u64,
    pub sync_max_us: u64,
    pub load_max_us: u64,
}

impl DiskSpeed {
    pub const FAST: DiskSpeed = DiskSpeed {
        sync_min_us: 20,
        sync_max_us: 60,
        load_max_us: 20,
    };
}

/// The wall clock, relative to the simulation's time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WallClock {
    pub offset_ms: i64,
    /// Microseconds gained per second.
    pub drift_ppm: i64,
}

impl WallClock {
    pub fn shows_ms(&self, now_us: u64) -> u64 {
        let drifted_us = now_us as i64 + now_us as i64 / 1_000_000 * self.drift_ppm;
        EPOCH_MS.saturating_add_signed(drifted_us / 1_000 + self.offset_ms)
    }
}

pub struct Node {
    pub index: usize,
    pub replica: Option<Replica>,
    pub disk: Disk,
    pub speed: DiskSpeed,
    pub wall: WallClock,
    /// Counts starts and crashes, so that events from before the last one are recognized.
    pub life: u64,
    /// The process is stalled until then.
    pub stalled_until_us: u64,
    inbox: VecDeque<Input>,
    /// The earliest scheduled wake-up.
    pub wake_us: Option<u64>,
    started_us: u64,
    mono_base_us: u64,
}

impl Node {
    pub fn new(index: usize, incarnation: u64) -> Self {
        Node {
            index,
            replica: None,
            disk: Disk::new(incarnation),
            speed: DiskSpeed::FAST,
            wall: WallClock::default(),
            life: 0,
            stalled_until_us: 0,
            inbox: VecDeque::new(),
            wake_us: None,
            started_us: 0,
            mono_base_us: 0,
        }
    }

    /// Loses the text requests that it has not handled.
    pub fn lose_text(&mut self) {
        let is_text = |input: &Input| {
            let Input::Client { message, .. } = input else {
                return false;
            };
            matches!(message, ClientMessage::Sessionless { .. })
        };
        self.inbox.retain(|input| !is_text(input));
    }

    pub fn is_up(&self) -> bool {
        self.replica.is_some()
    }

    pub fn now(&self, now_us: u64) -> Now {
        Now {
            mono_us: self.mono_base_us + now_us - self.started_us,
            wall_ms: self.wall.shows_ms(now_us),
        }
    }

    /// Converts a reading of the monotonic clock since this start to the simulation's time.
    fn at_us(&self, mono_us: u64) -> u64 {
        self.started_us + mono_us.saturating_sub(self.mono_base_us)
    }

    /// Starts the node from what its disk holds.
    pub fn start(&mut self, now_us: u64, options: Options, random: &mut Random) {
        assert!(self.replica.is_none(), "node {} runs", self.index);
        self.life += 1;
        self.started_us = now_us;
        // Some machines have just booted.
        self.mono_base_us = if random.chance(250) {
            0
        } else {
            random.below(1 << 40)
        };
        self.stalled_until_us = 0;
        let replica = Replica::new(options, self.disk.recovered(), self.now(now_us));
        self.replica = Some(replica);
    }

    /// The process ends, and everything that was not written is lost.
    pub fn crash(&mut self, kept_groups: usize) {
        self.life += 1;
        self.replica = None;
        self.inbox.clear();
        self.wake_us = None;
        self.disk.crash(kept_groups);
    }

    pub fn receive(&mut self, input: Input) {
        if self.replica.is_some() {
            self.inbox.push_back(input);
        }
    }

    /// Handles the inbox and the timers; returns the replica's outputs. With `one_by_one` they are
    /// drained after each input, otherwise after all.
    pub fn run(&mut self, now_us: u64, one_by_one: bool) -> Vec<Output> {
        let now = self.now(now_us);
        let Some(replica) = &mut self.replica else {
            return Vec::new();
        };
        let mut outputs = Vec::new();
        while let Some(input) = self.inbox.pop_front() {
            replica.handle_input(now, input);
            if one_by_one {
                outputs.extend(std::iter::from_fn(|| replica.poll_output()));
            }
        }
        if replica.next_timeout().is_some_and(|due| due <= now.mono_us) {
            replica.handle_input(now, Input::Timeout);
        }
        outputs.extend(std::iter::from_fn(|| replica.poll_output()));
        outputs
    }

    /// When the replica's next timer is due, in the simulation's time.
    pub fn timer_us(&self) -> Option<u64> {
        let due = self.replica.as_ref()?.next_timeout()?;
        Some(self.at_us(due))
    }
}
