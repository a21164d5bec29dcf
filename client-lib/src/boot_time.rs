//! A monotonic clock that goes on while the machine is suspended, as the clocks of other machines
//! do. `Instant` stands still meanwhile.

use std::ops::Add;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// The time since the machine was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BootTime(Duration);

impl BootTime {
    pub(crate) fn now() -> Self {
        let time = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("every Linux has it");
        BootTime(time.into())
    }

    /// From now on until this time; zero if it has passed.
    pub(crate) fn left(self) -> Duration {
        self.0.saturating_sub(BootTime::now().0)
    }

    pub(crate) fn has_passed(self) -> bool {
        self.left().is_zero()
    }
}

impl Add<Duration> for BootTime {
    type Output = BootTime;

    fn add(self, later: Duration) -> BootTime {
        BootTime(self.0.saturating_add(later))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `/proc/uptime` has the time with suspensions. They differ by more than a suspended machine
    /// shows also in a time namespace of its own:
    /// `unshare -r --time --boottime 100000 TEST-PROGRAM boot_time`.
    #[test]
    fn it_is_the_time_since_the_start_with_suspensions() {
        let uptime = || {
            let text = std::fs::read_to_string("/proc/uptime").expect("Linux has it");
            let seconds = text.split(' ').next().expect("a number");
            Duration::from_secs_f64(seconds.parse().expect("a number"))
        };
        let before = uptime();
        let BootTime(now) = BootTime::now();
        // It shows hundredths of a second.
        let after = uptime() + Duration::from_millis(10);
        assert!(
            (before..=after).contains(&now),
            "{before:?} {now:?} {after:?}"
        );
    }
}
