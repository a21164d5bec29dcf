//! The node's one UDP socket: all datagrams are received and sent on it, in batches.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::SystemTime;

use nix::errno::Errno;
use nix::libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, RecvMsg, SockaddrStorage,
    getsockopt, recvmmsg, sendmsg, setsockopt, sockopt,
};
use nix::sys::time::TimeSpec;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny, sendmmsg};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::arrived::{Arrived, RECEIVE_BATCH_MAX};
use super::asked::AnsweringAddresses;
use super::decode::Source;
use super::fragments;
use super::observation::Traffic;
use super::own_machine::is_own_machine;
use super::packer::{Outgoing, SendError};
use super::tally::{Cause, Tally};
use crate::protocol::types::receive_wait::ReceiveWait;

/// The kernel buffer for datagrams that arrive while the loop is busy, if the system grants it.
pub const KERNEL_BUFFER_SIZE: usize = 8 << 20;
/// Datagrams requested per system call: the more arrived in the last call, the more.
const RECEIVE_BATCH_MIN: usize = 8;
/// How often the node asks the kernel how long a datagram waited in the receive buffer, and how
/// many datagrams found it full.
const CONTROL_INTERVAL_US: u64 = 10_000;

pub struct Socket {
    udp: UdpSocket,
    receive_headers: MultiHeaders<SockaddrStorage>,
    receive_batch: usize,
    arrived: Arrived,
    kernel: KernelReports,
    traffic: Traffic,
    granted: Granted,
    /// The address that the socket is bound to.
    local: IpAddr,
    /// Only for a socket that is bound to all addresses of this machine.
    asked: Option<AnsweringAddresses>,
}

/// The kernel's reports that accompany a datagram on request.
#[derive(Debug, Default)]
struct KernelReports {
    asked_again_us: u64,
    asking: bool,
    /// The number of datagrams that found the receive buffer full.
    overflow: u32,
    /// How long the last datagram with a report waited, until the caller takes this.
    waited_us: Option<u64>,
    /// Of `overflow`, those that the caller has not taken yet.
    lost: u64,
}

/// What the kernel granted, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Granted {
    pub receive_size: usize,
    pub send_size: usize,
}

impl Granted {
    /// A warning with its remedy, if the buffers are too small.
    pub fn warning(self) -> Option<String> {
        let least = self.receive_size.min(self.send_size);
        (least < KERNEL_BUFFER_SIZE).then(|| {
            format!(
                "the kernel grants smaller socket buffers (receive {}, send {} bytes) than this \
                 node asks for: datagrams may be lost under load. Set net.core.rmem_max and \
                 net.core.wmem_max to {KERNEL_BUFFER_SIZE} and restart it",
                self.receive_size, self.send_size
            )
        })
    }
}

impl Socket {
    /// Call from within the tokio runtime.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let udp = std::net::UdpSocket::bind(address)?;
        udp.set_nonblocking(true)?;
        // Without this option datagrams that are too large for a path arrive in fragments, or not.
        let _ = fragments::forbid(&udp);
        // Without this option only the count of what the kernel lost is missing.
        let _ = setsockopt(&udp, sockopt::RxqOvfl, &1);
        // Without this option the node does not notice overload.
        let _ = setsockopt(&udp, sockopt::ReceiveTimestampns, &true);
        let asked = match address.ip() {
            ip if !ip.is_unspecified() => None,
            IpAddr::V4(_) => {
                setsockopt(&udp, sockopt::Ipv4PacketInfo, &true)?;
                Some(AnsweringAddresses::default())
            }
            IpAddr::V6(_) => {
                setsockopt(&udp, sockopt::Ipv6RecvPacketInfo, &true)?;
                Some(AnsweringAddresses::default())
            }
        };
        Ok(Socket {
            local: address.ip(),
            asked,
            udp: UdpSocket::from_std(udp)?,
            receive_headers: MultiHeaders::preallocate(RECEIVE_BATCH_MAX, None),
            receive_batch: RECEIVE_BATCH_MIN,
            arrived: Arrived::default(),
            kernel: KernelReports::default(),
            traffic: Traffic::default(),
            granted: Granted::default(),
        })
    }

    /// Sets the address that other nodes expect this node's datagrams from. It counts only if the
    /// socket is bound to all addresses and this machine has that one: behind an address translator
    /// it has not.
    pub fn announce(&mut self, address: IpAddr) {
        if let Some(asked) = &mut self.asked {
            asked.set_usual(is_own(address).then_some(address));
        }
    }

    /// Asks for larger buffers, beyond the system's limits where the process may.
    pub fn raise_buffers(&mut self) -> io::Result<()> {
        let wanted = KERNEL_BUFFER_SIZE;
        if setsockopt(&self.udp, sockopt::RcvBufForce, &wanted).is_err() {
            setsockopt(&self.udp, sockopt::RcvBuf, &wanted)?;
        }
        if setsockopt(&self.udp, sockopt::SndBufForce, &wanted).is_err() {
            setsockopt(&self.udp, sockopt::SndBuf, &wanted)?;
        }
        // The kernel doubles the requested size, to have space for its own records.
        self.granted = Granted {
            receive_size: getsockopt(&self.udp, sockopt::RcvBuf)? / 2,
            send_size: getsockopt(&self.udp, sockopt::SndBuf)? / 2,
        };
        Ok(())
    }

    /// The sizes that the kernel granted in `raise_buffers`.
    pub fn granted(&self) -> Granted {
        self.granted
    }

    pub async fn readable(&self) -> io::Result<()> {
        self.udp.readable().await
    }

    pub async fn writable(&self) -> io::Result<()> {
        self.udp.writable().await
    }

    /// What was received and is not handled yet.
    pub fn arrived(&mut self) -> &mut Arrived {
        &mut self.arrived
    }

    /// How long the oldest datagram has waited, in the receive buffer and after that, and how many
    /// were lost in either place, if the kernel has reported that since the last call.
    pub fn take_waited(&mut self, mono_us: u64) -> Option<ReceiveWait> {
        let buffered_us = self.kernel.waited_us.take()?;
        Some(ReceiveWait {
            buffered_us,
            waited_us: buffered_us + self.arrived.waited_us(mono_us),
            lost: std::mem::take(&mut self.kernel.lost) + self.arrived.take_lost(),
        })
    }

    /// Whether something is not handled yet.
    pub fn has_received(&self) -> bool {
        !self.arrived.is_empty()
    }

    /// Receives one batch, once all datagrams of nodes in the last one were popped; returns whether
    /// more may wait.
    pub fn receive(&mut self, mono_us: u64, tally: &mut Tally) -> io::Result<bool> {
        self.arrived.make_room(mono_us, tally);
        self.prepare_headers(mono_us);
        let asked = self.receive_batch;
        let fd = self.udp.as_raw_fd();
        let (headers, kernel) = (&mut self.receive_headers, &mut self.kernel);
        let traffic = &mut self.traffic;
        let (asked_at, local) = (&mut self.asked, self.local);
        let buffers = self.arrived.buffers().take(asked);
        let mut buffers: Vec<[IoSliceMut<'_>; 1]> =
            buffers.map(|buffer| [IoSliceMut::new(buffer)]).collect();
        let mut filled = Vec::with_capacity(asked);
        let mut received = 0;
        let result = self.udp.try_io(Interest::READABLE, || {
            let flags = MsgFlags::MSG_DONTWAIT;
            for message in recvmmsg(fd, headers, buffers.iter_mut(), flags, None)? {
                kernel.note(&message, tally);
                if let Some((size, address)) = read(&message, tally) {
                    traffic.received += 1;
                    traffic.received_bytes += size as u64;
                    let mut at = local;
                    if let (Some(asked), Some(to)) = (asked_at.as_mut(), local_address(&message)) {
                        asked.note(address, to);
                        at = to;
                    }
                    let is_own_machine = is_own_machine(address.ip(), at);
                    let from = Source {
                        address,
                        is_own_machine,
                    };
                    filled.push((received, size, from));
                }
                received += 1;
            }
            if received < asked {
                // The queue was seen empty: the next datagram wakes the loop. This saves a system
                // call that finds nothing.
                return Err(ErrorKind::WouldBlock.into());
            }
            Ok(())
        });
        for (place, size, from) in filled {
            self.arrived.add(place, size, from);
        }
        self.receive_batch = match received {
            many if many == asked => (asked * 2).min(RECEIVE_BATCH_MAX),
            many if many < asked / 4 => (asked / 2).max(RECEIVE_BATCH_MIN),
            _ => asked,
        };
        match result {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(true),
            Err(error) if is_fatal(&error) => Err(error),
            Err(_) => {
                tally.count(Cause::ReceiveError);
                Ok(true)
            }
        }
    }

    /// Headers with space for control messages from the kernel are good for one use each: the
    /// kernel leaves in them the length that it used. So they are recreated before each receive
    /// that needs control messages.
    fn prepare_headers(&mut self, mono_us: u64) {
        let is_due = mono_us >= self.kernel.asked_again_us;
        if is_due {
            self.kernel.asked_again_us = mono_us + CONTROL_INTERVAL_US;
            self.kernel.asking = true;
        }
        if self.asked.is_some() {
            let room = Some(nix::cmsg_space!(u32, TimeSpec, in_pktinfo, in6_pktinfo));
            self.receive_headers = MultiHeaders::preallocate(self.receive_batch, room);
        } else if is_due {
            let room = Some(nix::cmsg_space!(u32, TimeSpec));
            self.receive_headers = MultiHeaders::preallocate(RECEIVE_BATCH_MAX, room);
        }
    }

    pub fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// Sends as many of the batch as the socket takes, from the first on.
    pub fn send(&mut self, batch: &[Outgoing<'_>]) -> Result<usize, SendError> {
        let sent = self.send_batch(batch)?;
        let sizes = batch[..sent].iter().map(|one| one.bytes.len() as u64);
        self.traffic.sent += sent as u64;
        self.traffic.sent_bytes += sizes.sum::<u64>();
        Ok(sent)
    }

    fn send_batch(&mut self, batch: &[Outgoing<'_>]) -> Result<usize, SendError> {
        match batch.iter().position(|one| one.may_be_cut) {
            Some(0) => {
                let _ = fragments::allow(&self.udp);
                let sent = self.send_uncut(&batch[..1]);
                let _ = fragments::forbid(&self.udp);
                sent
            }
            Some(at) => self.send_uncut(&batch[..at]),
            None => self.send_uncut(batch),
        }
    }

    fn send_uncut(&mut self, batch: &[Outgoing<'_>]) -> Result<usize, SendError> {
        if self.asked.is_some() {
            return self.send_from(batch);
        }
        let addresses: Vec<SocketAddrAny> = batch.iter().map(|one| one.to.into()).collect();
        let slices: Vec<[IoSlice<'_>; 1]> =
            batch.iter().map(|one| [IoSlice::new(one.bytes)]).collect();
        let mut no_control: Vec<SendAncillaryBuffer<'_, '_, '_>> = Vec::new();
        no_control.resize_with(batch.len(), SendAncillaryBuffer::default);
        let mut headers: Vec<MMsgHdr<'_>> = addresses
            .iter()
            .zip(&slices)
            .zip(&mut no_control)
            .map(|((address, slice), control)| MMsgHdr::new_with_addr(address, slice, control))
            .collect();
        loop {
            let result = self.udp.try_io(Interest::WRITABLE, || {
                let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                Ok(sendmmsg(&self.udp, &mut headers, flags)?)
            });
            return match result {
                Ok(sent) => Ok(sent),
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => continue,
                    ErrorKind::WouldBlock => Err(SendError::Full),
                    _ => Err(SendError::Refused(refusal(&error))),
                },
            };
        }
    }

    /// Sends them one by one, each from the address to which its receiver has sent.
    fn send_from(&mut self, batch: &[Outgoing<'_>]) -> Result<usize, SendError> {
        let asked = self.asked.as_mut().expect("the caller looked");
        let mut sent = 0;
        while let Some(one) = batch.get(sent) {
            let source = asked.source(one.to);
            let Err(error) = send_one(&self.udp, one, source) else {
                sent += 1;
                continue;
            };
            match (error.kind(), source) {
                (ErrorKind::Interrupted, _) => {}
                // The next call reports this error for its first datagram.
                _ if sent > 0 => break,
                (ErrorKind::WouldBlock, _) => return Err(SendError::Full),
                (_, Some(source)) if is_no_way(&error) && !is_own(source) => asked.forget(source),
                _ => return Err(SendError::Refused(refusal(&error))),
            }
        }
        Ok(sent)
    }
}

/// The address of this machine that a datagram was sent to.
fn local_address(message: &RecvMsg<'_, '_, SockaddrStorage>) -> Option<IpAddr> {
    let mut told = message.cmsgs().into_iter().flatten();
    told.find_map(|told| match told {
        ControlMessageOwned::Ipv4PacketInfo(info) => {
            Some(Ipv4Addr::from(u32::from_be(info.ipi_spec_dst.s_addr)).into())
        }
        ControlMessageOwned::Ipv6PacketInfo(info) => {
            Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into())
        }
        _ => None,
    })
}

/// Sends one datagram, from that address if one is given.
fn send_one(udp: &UdpSocket, one: &Outgoing<'_>, source: Option<IpAddr>) -> io::Result<usize> {
    let to = SockaddrStorage::from(one.to);
    let slices = [IoSlice::new(one.bytes)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    let fd = udp.as_raw_fd();
    let send = |control: &[ControlMessage<'_>]| {
        udp.try_io(Interest::WRITABLE, || {
            Ok(sendmsg(fd, &slices, control, flags, Some(&to))?)
        })
    };
    match source {
        None => send(&[]),
        Some(IpAddr::V4(ip)) => {
            let nothing = in_addr { s_addr: 0 };
            let info = in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: in_addr {
                    s_addr: u32::from(ip).to_be(),
                },
                ipi_addr: nothing,
            };
            send(&[ControlMessage::Ipv4PacketInfo(&info)])
        }
        Some(IpAddr::V6(ip)) => {
            let info = in6_pktinfo {
                ipi6_addr: in6_addr {
                    s6_addr: ip.octets(),
                },
                ipi6_ifindex: 0,
            };
            send(&[ControlMessage::Ipv6PacketInfo(&info)])
        }
    }
}

/// Whether this machine has that address.
fn is_own(address: IpAddr) -> bool {
    std::net::UdpSocket::bind((address, 0)).is_ok()
}

/// Whether there is no route from the source to the receiver, perhaps because the machine no longer
/// has the source's address.
fn is_no_way(error: &io::Error) -> bool {
    let errors = [Errno::EINVAL, Errno::EADDRNOTAVAIL, Errno::ENETUNREACH];
    let number = error.raw_os_error();
    errors.iter().any(|&errno| number == Some(errno as i32))
}

/// An error of one address or one datagram: a missing route, a firewall, or an ICMP message that no
/// process listens there.
fn refusal(error: &io::Error) -> Cause {
    if error.raw_os_error() == Some(Errno::EMSGSIZE as i32) {
        Cause::SendTooBig
    } else {
        Cause::SendError
    }
}

/// Whether the socket itself is unusable, rather than one datagram's path.
fn is_fatal(error: &io::Error) -> bool {
    let fatal = [
        Errno::EBADF,
        Errno::ENOTSOCK,
        Errno::EFAULT,
        Errno::EINVAL,
        Errno::EOPNOTSUPP,
    ];
    fatal
        .iter()
        .any(|&errno| error.raw_os_error() == Some(errno as i32))
}

/// The size of a datagram, and where it came from.
fn read(
    message: &RecvMsg<'_, '_, SockaddrStorage>,
    tally: &mut Tally,
) -> Option<(usize, SocketAddr)> {
    if message.flags.contains(MsgFlags::MSG_TRUNC) {
        tally.count(Cause::Truncated);
        return None;
    }
    let Some(from) = message.address.as_ref().and_then(socket_address) else {
        tally.count(Cause::ReceiveError);
        return None;
    };
    Some((message.bytes, from))
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(ipv4) = address.as_sockaddr_in() {
        return Some(SocketAddr::from(*ipv4));
    }
    address
        .as_sockaddr_in6()
        .map(|ipv6| SocketAddr::from(*ipv6))
}

impl KernelReports {
    /// The kernel adds its count to a datagram once it is not zero.
    fn note(&mut self, message: &RecvMsg<'_, '_, SockaddrStorage>, tally: &mut Tally) {
        if !self.asking {
            return;
        }
        self.asking = false;
        let reports = message.cmsgs().into_iter().flatten();
        for report in reports {
            match report {
                ControlMessageOwned::RxqOvfl(total) => {
                    let new = total.wrapping_sub(self.overflow);
                    self.overflow = total;
                    self.lost += u64::from(new);
                    tally.add(Cause::ReceiveOverflow, u64::from(new));
                }
                ControlMessageOwned::ScmTimestampns(arrived) => {
                    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
                    // 0 if the wall clock was set back meanwhile.
                    let waited = now.saturating_sub(arrived.into());
                    self.waited_us = u64::try_from(waited.as_micros()).ok();
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket as StdSocket;
    use std::time::Duration;

    fn whole(to: SocketAddr, bytes: &[u8]) -> Outgoing<'_> {
        Outgoing {
            to,
            bytes,
            may_be_cut: false,
        }
    }

    fn bound() -> (Socket, SocketAddr) {
        let socket = Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.udp.local_addr().unwrap();
        (socket, address)
    }

    fn receive_all(socket: &mut Socket, mono_us: u64, tally: &mut Tally) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        loop {
            let more = socket.receive(mono_us, tally).unwrap();
            while let Some((bytes, _)) = socket.arrived().pop(mono_us, tally) {
                all.push(bytes.to_vec());
            }
            if !more {
                return all;
            }
        }
    }

    #[tokio::test]
    async fn batches_arrive_whole_and_in_order() {
        let (mut receiver, to) = bound();
        let (mut sender, _) = bound();
        sender.writable().await.unwrap();
        let bodies: Vec<Vec<u8>> = (0..100u8).map(|at| vec![at; usize::from(at) % 7]).collect();
        let outgoing: Vec<Outgoing<'_>> = bodies.iter().map(|bytes| whole(to, bytes)).collect();
        let mut sent = 0;
        while sent < outgoing.len() {
            sent += sender.send(&outgoing[sent..]).unwrap();
        }
        receiver.readable().await.unwrap();
        let mut tally = Tally::default();
        assert_eq!(receive_all(&mut receiver, 0, &mut tally), bodies);
        assert_eq!(receiver.receive_batch, RECEIVE_BATCH_MAX, "it has grown");
        assert_eq!(tally.total(), 0);
    }

    #[tokio::test]
    async fn the_largest_datagram_passes_and_a_larger_one_is_refused() {
        let (mut receiver, to) = bound();
        let (mut sender, _) = bound();
        sender.writable().await.unwrap();
        let bytes = vec![7; wire::datagram::DATAGRAM_SIZE_MAX + 1];
        let refused = sender.send(&[whole(to, &bytes)]);
        assert_eq!(refused, Err(SendError::Refused(Cause::SendTooBig)));
        let bytes = &bytes[1..];
        assert_eq!(sender.send(&[whole(to, bytes)]), Ok(1));
        receiver.readable().await.unwrap();
        let received = receive_all(&mut receiver, 0, &mut Tally::default());
        assert_eq!(received, [bytes]);
    }

    #[tokio::test]
    async fn a_datagram_that_has_no_way_is_refused() {
        let (mut sender, _) = bound();
        sender.writable().await.unwrap();
        let to = "[::1]:7".parse().unwrap();
        let refused = sender.send(&[whole(to, &[1])]);
        assert_eq!(refused, Err(SendError::Refused(Cause::SendError)));
    }

    /// A connected socket receives only what comes from the address that it sends to.
    #[tokio::test]
    async fn a_socket_on_all_addresses_answers_from_the_one_that_was_asked() {
        for (all, ones) in [
            ("0.0.0.0:0", &["127.0.0.1", "127.0.0.9"][..]),
            ("[::]:0", &["::1", "::ffff:127.0.0.9"][..]),
        ] {
            let Ok(mut socket) = Socket::bind(all.parse().unwrap()) else {
                continue; // no IPv6 on this machine
            };
            let port = socket.udp.local_addr().unwrap().port();
            for ip in ones {
                let ip: IpAddr = ip.parse().unwrap();
                let client = StdSocket::bind(all).unwrap();
                client.connect((ip, port)).unwrap();
                client
                    .set_read_timeout(Some(Duration::from_secs(20)))
                    .unwrap();
                client.send(&[1]).unwrap();
                let mut tally = Tally::default();
                let (bytes, to) = loop {
                    socket.readable().await.unwrap();
                    socket.receive(0, &mut tally).unwrap();
                    if let Some((bytes, from)) = socket.arrived().pop(0, &mut tally) {
                        break (bytes.to_vec(), from.address);
                    }
                };
                socket.writable().await.unwrap();
                let answer = whole(to, &bytes);
                assert_eq!(socket.send(&[answer]), Ok(1));
                let mut buffer = [0; 9];
                assert_eq!(client.recv(&mut buffer).expect("an answer"), 1, "{ip}");
            }
        }
    }

    #[test]
    fn a_small_buffer_is_reported_with_its_remedy() {
        let mut granted = Granted {
            receive_size: KERNEL_BUFFER_SIZE,
            send_size: KERNEL_BUFFER_SIZE,
        };
        assert_eq!(granted.warning(), None);
        granted.receive_size = 212_992;
        let warning = granted.warning().expect("one is too small");
        assert!(warning.contains("receive 212992"), "{warning}");
        assert!(warning.contains("net.core.rmem_max"), "{warning}");
    }

    #[tokio::test]
    async fn an_address_that_is_gone_is_not_sent_from() {
        let (mut receiver, to) = bound();
        let mut sender = Socket::bind("0.0.0.0:0".parse().unwrap()).unwrap();
        sender.writable().await.unwrap();
        let asked = sender.asked.as_mut().unwrap();
        asked.set_usual("192.0.2.77".parse().ok());
        let bytes = &[1];
        assert_eq!(sender.send(&[whole(to, bytes)]), Ok(1));
        receiver.readable().await.unwrap();
        let received = receive_all(&mut receiver, 0, &mut Tally::default());
        assert_eq!(received, [bytes]);
        // An announced address of this machine counts, and no other does.
        let mine = "127.0.0.8".parse().unwrap();
        sender.announce("192.0.2.77".parse().unwrap());
        assert_eq!(sender.asked.as_ref().unwrap().source(to), None);
        sender.announce(mine);
        assert_eq!(sender.send(&[whole(to, bytes)]), Ok(1));
        receiver.readable().await.unwrap();
        receiver.receive(0, &mut Tally::default()).unwrap();
        let got = receiver.arrived().pop(0, &mut Tally::default());
        assert_eq!(got.unwrap().1.address.ip(), mine);
    }

    /// The kernel begins to note times of arrival a moment after the first socket asked for it.
    /// Until then it reports the time of reading.
    #[tokio::test]
    async fn how_long_the_oldest_datagram_waited_is_known() {
        let (mut receiver, to) = bound();
        let sender = StdSocket::bind("127.0.0.1:0").unwrap();
        let wait = Duration::from_millis(30);
        let mut now_us = 0;
        for attempt in 1.. {
            assert!(attempt < 100, "no time of arrival is noted");
            now_us += CONTROL_INTERVAL_US;
            sender.send_to(&[1], to).unwrap();
            std::thread::sleep(wait);
            sender.send_to(&[2], to).unwrap();
            receiver.readable().await.unwrap();
            receive_all(&mut receiver, now_us, &mut Tally::default());
            let waited = receiver.take_waited(now_us).expect("it is asked again");
            if waited.buffered_us >= wait.as_micros() as u64 {
                break;
            }
        }
        assert_eq!(receiver.take_waited(now_us), None);
        sender.send_to(&[3], to).unwrap();
        receiver.readable().await.unwrap();
        let soon_us = now_us + CONTROL_INTERVAL_US - 1;
        receive_all(&mut receiver, soon_us, &mut Tally::default());
        assert_eq!(
            receiver.take_waited(now_us),
            None,
            "not asked again so soon"
        );
    }

    #[tokio::test]
    async fn what_the_kernel_lost_is_counted() {
        let (mut receiver, to) = bound();
        setsockopt(&receiver.udp, sockopt::RcvBuf, &65_536).unwrap();
        let sender = StdSocket::bind("127.0.0.1:0").unwrap();
        let mut tally = Tally::default();
        let mut received = 0;
        const SENT: usize = 5_000;
        for _ in 0..SENT {
            sender.send_to(&[1; 1_000], to).unwrap();
        }
        receiver.readable().await.unwrap();
        received += receive_all(&mut receiver, 0, &mut tally).len();
        assert!(received < SENT, "the buffer holds less than that");
        // The next datagram, some time later, brings the count.
        sender.send_to(&[2], to).unwrap();
        receiver.readable().await.unwrap();
        received += receive_all(&mut receiver, CONTROL_INTERVAL_US, &mut tally).len();
        let lost = (SENT + 1 - received) as u64;
        assert_eq!(tally.of(Cause::ReceiveOverflow), lost);
        assert_eq!(tally.total(), lost);
        assert_eq!(receiver.kernel.lost, lost);
    }
}
