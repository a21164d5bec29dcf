//! The one file descriptor that an application's own loop waits on: readable when the socket is, or
//! when it is time.

use std::net::UdpSocket;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Mutex;
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

/// What the timer is set to, so that it is not set again to no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Set {
    Off,
    Now,
    At(u64),
}

#[derive(Debug)]
pub(crate) struct Wake {
    epoll: Epoll,
    timer: TimerFd,
    set: Mutex<Set>,
}

impl Wake {
    pub fn new(socket: &UdpSocket) -> std::io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        epoll.add(socket.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
        epoll.add(timer.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, 1))?;
        Ok(Wake {
            epoll,
            timer,
            set: Mutex::new(Set::Off),
        })
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }

    pub fn set_now(&self) {
        self.change(Set::Now, 0);
    }

    /// Readable at `at_us` at the latest, by the clock that shows `now_us`; `None`: by the socket only.
    pub fn set(&self, at_us: Option<u64>, now_us: u64) {
        let set = match at_us {
            Some(at_us) if at_us <= now_us => Set::Now,
            Some(at_us) => Set::At(at_us),
            None => Set::Off,
        };
        self.change(set, now_us);
    }

    fn change(&self, to: Set, now_us: u64) {
        let mut set = self
            .set
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if *set == to {
            return;
        }
        *set = to;
        let after = |wait: Duration| {
            let expiration = Expiration::OneShot(TimeSpec::from_duration(wait));
            self.timer.set(expiration, TimerSetTimeFlags::empty())
        };
        // None of these can fail on a timer of our own with a valid time.
        let _ = match to {
            Set::Off => self.timer.unset(),
            Set::Now => after(Duration::from_nanos(1)),
            Set::At(at_us) => after(Duration::from_micros(at_us - now_us)),
        };
    }
}
