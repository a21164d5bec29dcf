//! The file descriptors that threads wait on: one for an application's own loop, readable when
//! there is something to do; and one that wakes a thread that waits on the socket (a nudge).
//!
//! The program may close descriptors that are not its own, and open its own files under their
//! numbers. The descriptors are in `Arc`s so that those numbers can be left open.

use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
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

const SOCKET_EVENT: EpollEvent = EpollEvent::new(EpollFlags::EPOLLIN, 0);
const TIMER_EVENT: EpollEvent = EpollEvent::new(EpollFlags::EPOLLIN, 1);
const FLAG_EVENT: EpollEvent = EpollEvent::new(EpollFlags::EPOLLIN, 2);
/// This event wakes no thread through the epoll fd. The nudge is registered so that `is_added` can
/// find it.
const NUDGE_EVENT: EpollEvent = EpollEvent::new(EpollFlags::empty(), 3);

#[derive(Debug)]
pub(super) struct Wake {
    /// Readable when the socket is, when the timer expired, or while the flag is set.
    epoll: Arc<Epoll>,
    timer: Arc<TimerFd>,
    /// A flag, because a timer that expires immediately costs many times as much.
    flag: Arc<EventFd>,
    nudge: Arc<EventFd>,
    /// The device and inode of the socket, which distinguish it from another file under its number.
    /// The port would not do, because it changes.
    socket: (u64, u64),
}

/// The state of flag and timer, which avoids system calls without effect.
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
        let flag = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        epoll.add(socket.as_fd(), SOCKET_EVENT)?;
        epoll.add(timer.as_fd(), TIMER_EVENT)?;
        epoll.add(flag.as_fd(), FLAG_EVENT)?;
        epoll.add(nudge.as_fd(), NUDGE_EVENT)?;
        Ok(Wake {
            epoll: Arc::new(epoll),
            timer: Arc::new(timer),
            flag: Arc::new(flag),
            nudge: Arc::new(nudge),
            socket: place(socket)?,
        })
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }

    /// Waits until the epoll fd is readable; a signal may end the wait early.
    pub fn wait(&self, timeout: Duration) {
        let mut fds = [PollFd::new(self.fd(), PollFlags::POLLIN)];
        let _ = ppoll(&mut fds, Some(time_spec(timeout)), None);
    }

    /// Whether this is still the client's socket: a program that closes all descriptors, as daemons
    /// do when they start, closes the client's too, and the system reuses their numbers.
    pub fn is_own(&self, socket: &UdpSocket) -> bool {
        place(socket).is_ok_and(|place| place == self.socket)
    }

    /// Must be called before the descriptors are dropped. It closes the descriptors that are surely
    /// the client's, and leaves all others open, because they may be files of the program. It needs
    /// no further descriptor, as the program may be at its limit. `is_lost`: the program is known
    /// to have closed the descriptors.
    pub fn keep_foreign_open(&self, socket: &Arc<UdpSocket>, is_lost: bool) {
        let is_own = !is_lost && self.is_own(socket);
        let has_epoll = is_own && self.is_added(&**socket, SOCKET_EVENT);
        if !is_own {
            leak(socket);
        }
        if !has_epoll {
            leak(&self.epoll);
        }
        if !has_epoll || !self.is_added(&*self.timer, TIMER_EVENT) {
            leak(&self.timer);
        }
        if !has_epoll || !self.is_added(&*self.flag, FLAG_EVENT) {
            leak(&self.flag);
        }
        if !has_epoll || !self.is_added(&*self.nudge, NUDGE_EVENT) {
            leak(&self.nudge);
        }
    }

    /// Whether the epoll fd contains this file under this number. An epoll fd identifies files
    /// themselves, whereas all timers and event fds of the system have one inode. The check changes
    /// nothing, because a child of the program may share the epoll fd.
    fn is_added(&self, file: impl AsFd, mut event: EpollEvent) -> bool {
        self.epoll.modify(file.as_fd(), &mut event).is_ok()
    }

    /// Waits until the socket is readable or a nudge arrives; a signal may end the wait early.
    /// Returns false if the descriptors are closed.
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
        // Otherwise it could be a file of the program.
        let is_own = self.is_own(socket);
        if is_own {
            let _ = self.nudge.read();
        }
        is_own
    }

    /// Ends the current or the next `wait_for_socket`.
    pub fn nudge(&self) {
        // The write fails only if the counter of nudges is full.
        let _ = self.nudge.write(1);
    }

    /// Makes the epoll fd readable now, or at `at_us` at the latest. A timer that expires early
    /// does no harm, so an earlier one stays as it is. None of these system calls can fail on the
    /// client's own descriptors with valid values.
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

/// Prevents the descriptor from ever being closed.
fn leak<T>(descriptor: &Arc<T>) {
    std::mem::forget(Arc::clone(descriptor));
}

/// The device and inode of an open file.
fn place(socket: &UdpSocket) -> io::Result<(u64, u64)> {
    let file = fstat(socket)?;
    Ok((file.st_dev, file.st_ino))
}

/// Whether an error means that the number is not a descriptor any more, or not a socket.
pub(super) fn is_closed(error: &io::Error) -> bool {
    let closed = [Errno::EBADF, Errno::ENOTSOCK];
    let number = error.raw_os_error();
    closed.iter().any(|errno| number == Some(*errno as i32))
}

/// Never zero: that would disarm a timer.
fn time_spec(wait: Duration) -> TimeSpec {
    TimeSpec::from_duration(wait.clamp(Duration::from_nanos(1), WAIT_MAX))
}
