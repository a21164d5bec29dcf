//! The file descriptors that threads wait on: for an application's own loop one that is readable when
//! there is something to do; and a nudge for a thread that waits on the socket.

use std::net::UdpSocket;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

/// No wait is longer, so that no duration is too long for the system.
const WAIT_MAX: Duration = Duration::from_secs(3_600);

#[derive(Debug)]
pub(super) struct Wake {
    /// Readable when the socket is, or when the timer expired.
    epoll: Epoll,
    timer: TimerFd,
    nudge: EventFd,
}

/// What the timer is set to, so that it is not set again to no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alarm {
    Off,
    Now,
    At(u64),
}

impl Wake {
    pub fn new(socket: &UdpSocket) -> std::io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        let nudge = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        epoll.add(socket.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
        epoll.add(timer.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, 1))?;
        Ok(Wake {
            epoll,
            timer,
            nudge,
        })
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }

    /// Waits until the epoll fd is readable; a signal may end it earlier.
    pub fn wait(&self, timeout: Duration) {
        let mut fds = [PollFd::new(self.fd(), PollFlags::POLLIN)];
        let _ = ppoll(&mut fds, Some(time_spec(timeout)), None);
    }

    /// Waits until the socket is readable or a nudge comes; a signal may end it earlier.
    pub fn wait_for_socket(&self, socket: &UdpSocket, timeout: Duration) {
        let mut fds = [
            PollFd::new(socket.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.nudge.as_fd(), PollFlags::POLLIN),
        ];
        let ready = ppoll(&mut fds, Some(time_spec(timeout)), None);
        if ready.is_ok() && fds[1].any().unwrap_or(false) {
            let _ = self.nudge.read();
        }
    }

    /// Ends `wait_for_socket`, of now or the next one.
    pub fn nudge(&self) {
        // It can fail only when it is full of nudges already.
        let _ = self.nudge.write(1);
    }

    /// Changes the timer from `alarm` to `to`. A timer that expires early does no harm, so one is
    /// not moved to a later time before it did.
    pub fn set(&self, alarm: &mut Alarm, to: Alarm, now_us: u64) {
        let keeps = match (*alarm, to) {
            (Alarm::At(set_us), Alarm::At(at_us)) => now_us < set_us && set_us <= at_us,
            (Alarm::At(set_us), Alarm::Off) => now_us < set_us,
            (set, to) => set == to,
        };
        if keeps {
            return;
        }
        let after = |wait: Duration| {
            let expiration = Expiration::OneShot(time_spec(wait));
            self.timer.set(expiration, TimerSetTimeFlags::empty())
        };
        // None of these can fail on a timer of our own with a valid time.
        let _ = match to {
            Alarm::Off => self.timer.unset(),
            Alarm::Now => after(Duration::ZERO),
            Alarm::At(at_us) => after(Duration::from_micros(at_us.saturating_sub(now_us))),
        };
        *alarm = to;
    }
}

/// Never zero: that would switch a timer off.
fn time_spec(wait: Duration) -> TimeSpec {
    TimeSpec::from_duration(wait.clamp(Duration::from_nanos(1), WAIT_MAX))
}
