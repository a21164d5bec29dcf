//! The file descriptors that threads wait on: for an application's own loop one that is readable when
//! there is something to do; and a nudge for a thread that waits on the socket.

use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::stat::fstat;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

/// No wait is longer, so that no duration is too long for the system.
const WAIT_MAX: Duration = Duration::from_secs(3_600);

#[derive(Debug)]
pub(super) struct Wake {
    /// Readable when the socket is, when the timer expired, or while the flag is up.
    epoll: Epoll,
    timer: TimerFd,
    /// A flag, because a timer that is to expire at once costs many times as much.
    flag: EventFd,
    nudge: EventFd,
    /// The socket's place among files: with this it is told from another file under its number. Its port
    /// would not do: it changes.
    socket: (u64, u64),
}

/// How flag and timer stand, so that they are not set again to no effect.
#[derive(Debug, Default)]
pub(super) struct Alarm {
    flag: bool,
    /// When the timer expires, or expired.
    at_us: Option<u64>,
}

impl Alarm {
    pub fn is_off(&self) -> bool {
        !self.flag && self.at_us.is_none()
    }
}

impl Wake {
    pub fn new(socket: &UdpSocket) -> std::io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        let nudge = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        epoll.add(socket.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
        let flag = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        epoll.add(timer.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, 1))?;
        epoll.add(flag.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, 2))?;
        Ok(Wake {
            epoll,
            timer,
            flag,
            nudge,
            socket: place(socket)?,
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

    /// Whether this is still the client's socket: a program that closes all descriptors, as daemons do when
    /// they start, closes the client's too, and their numbers are given to others.
    pub fn is_own(&self, socket: &UdpSocket) -> bool {
        place(socket).is_ok_and(|place| place == self.socket)
    }

    /// Waits until the socket is readable or a nudge comes; a signal may end it earlier. False if the
    /// descriptors are closed.
    pub fn wait_for_socket(&self, socket: &UdpSocket, timeout: Duration) -> bool {
        let mut fds = [
            PollFd::new(socket.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.nudge.as_fd(), PollFlags::POLLIN),
        ];
        let ready = ppoll(&mut fds, Some(time_spec(timeout)), None);
        if ready.is_err() {
            return true;
        }
        let is_closed = |fd: &PollFd<'_>| {
            let events = fd.revents();
            events.is_some_and(|events| events.contains(PollFlags::POLLNVAL))
        };
        if fds.iter().any(is_closed) {
            return false;
        }
        if !fds[1].any().unwrap_or(false) {
            return true;
        }
        // Else it could be a file of the program's.
        let is_own = self.is_own(socket);
        if is_own {
            let _ = self.nudge.read();
        }
        is_own
    }

    /// Ends `wait_for_socket`, of now or the next one.
    pub fn nudge(&self) {
        // It can fail only when it is full of nudges already.
        let _ = self.nudge.write(1);
    }

    /// Makes the epoll fd readable now, or at `at_us` at the latest. A timer that expires early does no
    /// harm, so one is not moved to a later time before it did. None of what is asked of the system here
    /// can fail on descriptors of our own with valid values.
    pub fn set(&self, alarm: &mut Alarm, now: bool, at_us: Option<u64>, now_us: u64) {
        if alarm.flag != now {
            let _ = match now {
                true => self.flag.write(1).map(drop),
                false => self.flag.read().map(drop),
            };
            alarm.flag = now;
        }
        let expired = alarm.at_us.is_some_and(|set_us| set_us <= now_us);
        match (alarm.at_us, at_us) {
            _ if now => return,
            (Some(set_us), Some(at_us)) if !expired && set_us <= at_us => return,
            (Some(_), None) if !expired => return,
            (None, None) => return,
            (_, Some(at_us)) => {
                let wait = Duration::from_micros(at_us.saturating_sub(now_us));
                let expiration = Expiration::OneShot(time_spec(wait));
                let _ = self.timer.set(expiration, TimerSetTimeFlags::empty());
            }
            (Some(_), None) => {
                let _ = self.timer.unset();
            }
        }
        alarm.at_us = at_us;
    }
}

/// The device and the number of an open file.
fn place(socket: &UdpSocket) -> io::Result<(u64, u64)> {
    let file = fstat(socket)?;
    Ok((file.st_dev, file.st_ino))
}

/// Whether an error says that a descriptor is none any more, or no socket.
pub(super) fn is_closed(error: &io::Error) -> bool {
    let closed = [Errno::EBADF, Errno::ENOTSOCK];
    let number = error.raw_os_error();
    closed.iter().any(|errno| number == Some(*errno as i32))
}

/// Never zero: that would switch a timer off.
fn time_spec(wait: Duration) -> TimeSpec {
    TimeSpec::from_duration(wait.clamp(Duration::from_nanos(1), WAIT_MAX))
}
