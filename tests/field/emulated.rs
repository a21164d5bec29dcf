//! An emulated network: hosts in separate network namespaces, with one link each to a relay in this
//! process, which delays packets, or drops some of them. Works only in the lab.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::ifaddrs::getifaddrs;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType};

use crate::nodes::{SOON, wait_until};

const FRAME_SIZE_MAX: usize = 66_000;
const ETHERNET_SIZE: usize = 14;
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const UDP: u8 = 17;
/// All hosts have the same one, so that the relay need not change frames.
const HARDWARE_ADDRESS: &str = "02:00:00:00:00:01";

/// How the relay treats packets.
#[derive(Debug, Clone, Copy)]
pub struct Link {
    /// In one direction.
    pub delay_min_ms: u64,
    pub delay_max_ms: u64,
    /// Packets that are larger, with their IP header, and fragments are dropped.
    pub packet_size_max: usize,
    pub drops_fragments: bool,
    pub loss_percent: u64,
    /// Nothing passes from the first host to the second.
    pub cut: Option<(usize, usize)>,
}

impl Link {
    pub const GOOD: Link = Link {
        delay_min_ms: 0,
        delay_max_ms: 0,
        packet_size_max: usize::MAX,
        drops_fragments: false,
        loss_percent: 0,
        cut: None,
    };
}

/// What the relay saw, and what may change while it runs.
#[derive(Debug, Default)]
pub struct Passing {
    /// Larger packets are dropped, and no host is told.
    pub packet_size_max: AtomicUsize,
    /// The largest packet that passed whole.
    pub largest: AtomicUsize,
    /// The largest datagram that came in fragments; 0 if none did.
    pub largest_cut: AtomicUsize,
}

/// Hosts 1 and up, which end when this value is dropped.
pub struct Network {
    hosts: Vec<Child>,
    pub passing: Arc<Passing>,
    stops: Arc<AtomicBool>,
    relay: Option<JoinHandle<()>>,
}

/// Whether this process may create networks.
pub fn is_lab() -> bool {
    std::env::var_os("HORSESHOE_LAB").is_some()
}

/// The names of interfaces: several networks may exist at once.
fn interface(tag: &str, host: usize) -> String {
    format!("{tag}{host}")
}

fn run(command: &mut Command) {
    let told = command.output().expect("util-linux and iproute2 are there");
    let text = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(told.status.success(), "{command:?}: {text}");
}

fn ip(words: &str) {
    run(Command::new("ip").args(words.split_whitespace()));
}

pub fn address(host: usize) -> String {
    format!("10.9.0.{host}:8801")
}

impl Network {
    /// `tag`: some letters, unique to this network.
    pub fn new(tag: &str, hosts: usize, link: Link) -> Network {
        let mut network = Network {
            hosts: (1..=hosts).map(|_| hold_namespace()).collect(),
            passing: Arc::new(Passing {
                packet_size_max: AtomicUsize::new(link.packet_size_max),
                ..Passing::default()
            }),
            stops: Arc::new(AtomicBool::new(false)),
            relay: None,
        };
        (1..=hosts).for_each(|host| network.connect(tag, host));
        let sockets = (1..=hosts).map(|host| listen(&interface(tag, host)));
        let relay = Relay {
            sockets: sockets.collect(),
            link,
            passing: network.passing.clone(),
            random: 1,
            order: 0,
            late: BinaryHeap::new(),
        };
        let stops = network.stops.clone();
        network.relay = Some(std::thread::spawn(move || relay.run(&stops)));
        network
    }

    fn namespace(&self, host: usize) -> String {
        format!("/proc/{}/ns/net", self.hosts[host - 1].id())
    }

    fn connect(&self, tag: &str, host: usize) {
        let (near, far) = (interface(tag, host), format!("{tag}far"));
        let pid = self.hosts[host - 1].id();
        ip(&format!(
            "link add {near} type veth peer name {far} address {HARDWARE_ADDRESS}"
        ));
        ip(&format!("link set {far} netns {pid}"));
        ip(&format!("link set {near} up"));
        let mut script = format!(
            "ip link set lo up && ip address add 10.9.0.{host}/24 dev {far} && ip link set {far} up"
        );
        for other in (1..=self.hosts.len()).filter(|other| *other != host) {
            script += &format!(
                " && ip neighbour add 10.9.0.{other} lladdr {HARDWARE_ADDRESS} dev {far} nud permanent"
            );
        }
        run(self.command(host, "sh").args(["-c", &script]));
    }

    /// A program that is to run on a host.
    pub fn command(&self, host: usize, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.namespace(host)));
        command.arg(program).stdin(Stdio::null());
        command
    }

    /// Runs something on a host in a separate thread.
    pub fn on<T: Send>(&self, host: usize, what: impl FnOnce() -> T + Send) -> T {
        let namespace = std::fs::File::open(self.namespace(host)).expect("the host is there");
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                setns(&namespace, CloneFlags::CLONE_NEWNET).expect("the lab may do that");
                what()
            });
            match thread.join() {
                Ok(told) => told,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.stops.store(true, Ordering::Relaxed);
        if let Some(relay) = self.relay.take() {
            // If it panicked, the test has seen that nothing arrives.
            let _ = relay.join();
        }
        for host in &mut self.hosts {
            // The links of the namespace are removed with it.
            let _ = host.kill();
            let _ = host.wait();
        }
    }
}

/// A process that does nothing but keep a network namespace.
fn hold_namespace() -> Child {
    let own = std::fs::read_link("/proc/self/ns/net").expect("procfs");
    let mut command = Command::new("unshare");
    command
        .args(["--net", "sleep", "3600"])
        .stdin(Stdio::null());
    let holder = command.spawn().expect("util-linux is there");
    let path = format!("/proc/{}/ns/net", holder.id());
    wait_until(SOON, "a network namespace", || {
        std::fs::read_link(&path).is_ok_and(|namespace| namespace != own)
    });
    holder
}

/// A socket that receives and sends the frames of one link.
fn listen(name: &str) -> OwnedFd {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let protocol = SockProtocol::EthAll;
    let socket = socket::socket(AddressFamily::Packet, SockType::Raw, flags, protocol);
    let socket = socket.expect("the lab may open packet sockets");
    let addresses = getifaddrs().expect("interfaces can be listed");
    let mut own = addresses.filter(|address| address.interface_name == name);
    let link = own.find_map(|address| address.address?.as_link_addr().copied());
    socket::bind(socket.as_raw_fd(), &link.expect("just made")).expect("an interface of its own");
    socket
}

/// A packet that is still on its way: its arrival time, a number that keeps the order, the index of
/// the receiver's socket, and the frame.
type LatePacket = Reverse<(Instant, u64, usize, Vec<u8>)>;

/// Packets that wait, in order of their arrival time.
struct Relay {
    /// The hosts' sockets, in order.
    sockets: Vec<OwnedFd>,
    link: Link,
    passing: Arc<Passing>,
    random: u64,
    order: u64,
    late: BinaryHeap<LatePacket>,
}

impl Relay {
    fn run(mut self, stops: &AtomicBool) {
        let mut buffer = vec![0; FRAME_SIZE_MAX];
        while !stops.load(Ordering::Relaxed) {
            self.wait();
            for place in 0..self.sockets.len() {
                while let Ok(size) = socket::recv(
                    self.sockets[place].as_raw_fd(),
                    &mut buffer,
                    MsgFlags::MSG_DONTWAIT,
                ) {
                    self.take(&mut buffer[..size]);
                }
            }
            self.deliver();
        }
    }

    fn wait(&self) {
        let next = self.late.peek().map(|Reverse((at, ..))| *at);
        let left = next.map(|at| at.saturating_duration_since(Instant::now()));
        let ms = left.map_or(50, |left| left.as_micros().div_ceil(1_000).min(50));
        let sockets = self.sockets.iter();
        let mut polled: Vec<PollFd<'_>> = sockets
            .map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN))
            .collect();
        // Interrupted or not, the loop checks again.
        let _ = poll(&mut polled, PollTimeout::from(ms as u8));
    }

    fn take(&mut self, frame: &mut [u8]) {
        if frame.len() < ETHERNET_SIZE + 20 || frame[12..14] != ETHERTYPE_IPV4 {
            return;
        }
        let packet = &mut frame[ETHERNET_SIZE..];
        let header_size = usize::from(packet[0] & 15) * 4;
        let is_fragment = (u16::from_be_bytes([packet[6], packet[7]]) & 0x3fff) != 0;
        let offset = u16::from_be_bytes([packet[6], packet[7]]) & 0x1fff;
        if is_fragment && offset == 0 && packet.len() >= header_size + 8 {
            let at = header_size + 4;
            let size = usize::from(u16::from_be_bytes([packet[at], packet[at + 1]])) - 8;
            self.passing.largest_cut.fetch_max(size, Ordering::Relaxed);
        }
        let is_too_large = packet.len() > self.passing.packet_size_max.load(Ordering::Relaxed);
        if !is_too_large && !is_fragment {
            self.passing
                .largest
                .fetch_max(packet.len(), Ordering::Relaxed);
        }
        if is_too_large || is_fragment && self.link.drops_fragments {
            return;
        }
        let (from, host) = (usize::from(packet[15]), usize::from(packet[19]));
        if host == 0 || host > self.sockets.len() || self.link.cut == Some((from, host)) {
            return;
        }
        if packet[9] == UDP && offset == 0 && packet.len() >= header_size + 8 {
            // No network card has filled in the checksum; 0 stands for none.
            packet[header_size + 6..header_size + 8].fill(0);
        }
        if self.random() % 100 < self.link.loss_percent {
            return;
        }
        let at = Instant::now() + self.delay();
        self.order += 1;
        self.late
            .push(Reverse((at, self.order, host - 1, frame.to_vec())));
    }

    fn delay(&mut self) -> Duration {
        let Link {
            delay_min_ms,
            delay_max_ms,
            ..
        } = self.link;
        let spread_us = (delay_max_ms - delay_min_ms) * 1_000 + 1;
        Duration::from_micros(delay_min_ms * 1_000 + self.random() % spread_us)
    }

    fn random(&mut self) -> u64 {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        self.random >> 33
    }

    fn deliver(&mut self) {
        while let Some(Reverse((at, ..))) = self.late.peek() {
            if *at > Instant::now() {
                return;
            }
            let Reverse((_, _, place, frame)) = self.late.pop().expect("just seen");
            // A host whose buffer is full loses it, as in any network.
            let socket = self.sockets[place].as_raw_fd();
            let _ = socket::send(socket, &frame, MsgFlags::MSG_DONTWAIT);
        }
    }
}
