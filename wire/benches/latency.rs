//! Compares estimates of latency by the waits before retransmission that they give: a requester has
//! some requests in flight over links that lose and delay datagrams. The benchmark is
//! deterministic, prints a table and asserts nothing.
//!
//! `cargo bench -p horseshoe-wire --bench latency [-- REQUESTS]`
//!
//! The table has for each estimate the *spurious* retransmissions per 1,000 requests (the reply to
//! an earlier datagram was already on its way), and the time lost by requests whose first datagram,
//! or its reply, was lost.
//!
//! A client numbers its attempts, so it knows which of them was answered. A node's round does not:
//! it has only the time when it began and the time of its last retransmission.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use wire::latency::{LatencyEstimate, WaitBounds};

const IN_FLIGHT: usize = 8;
const REQUESTS_DEFAULT: usize = 50_000;

/// `took_us` counts from the first datagram, `again_us` from the last one if there were several.
trait Estimate {
    fn sample(&mut self, took_us: u64, again_us: Option<u64>, bounds: WaitBounds);
    fn wait_us(&self, bounds: WaitBounds) -> u64;
}

impl Estimate for LatencyEstimate {
    fn sample(&mut self, took_us: u64, again_us: Option<u64>, bounds: WaitBounds) {
        self.sample(took_us, again_us, bounds);
    }

    fn wait_us(&self, bounds: WaitBounds) -> u64 {
        self.wait_us(bounds)
    }
}

/// The same estimate, but all times count from the first datagram.
#[derive(Default)]
struct FromTheFirst(LatencyEstimate);

impl Estimate for FromTheFirst {
    fn sample(&mut self, took_us: u64, _: Option<u64>, bounds: WaitBounds) {
        self.0.sample(took_us, None, bounds);
    }

    fn wait_us(&self, bounds: WaitBounds) -> u64 {
        self.0.wait_us(bounds)
    }
}

/// Smoothed mean and mean deviation, as in TCP. Samples with retransmissions have less weight.
#[derive(Default)]
struct Mean {
    smoothed_us: Option<u64>,
    deviation_us: u64,
}

impl Estimate for Mean {
    fn sample(&mut self, took_us: u64, again_us: Option<u64>, bounds: WaitBounds) {
        if again_us.is_some() {
            let smoothed = self.smoothed_us.unwrap_or(bounds.initial_us);
            self.smoothed_us = Some((15 * smoothed + took_us) / 16);
            return;
        }
        let Some(smoothed) = self.smoothed_us else {
            self.smoothed_us = Some(took_us);
            self.deviation_us = took_us / 2;
            return;
        };
        self.deviation_us = (3 * self.deviation_us + smoothed.abs_diff(took_us)) / 4;
        self.smoothed_us = Some((7 * smoothed + took_us) / 8);
    }

    fn wait_us(&self, bounds: WaitBounds) -> u64 {
        let usual_us = self.smoothed_us.map(|us| us + 4 * self.deviation_us);
        let usual_us = usual_us.unwrap_or(bounds.initial_us);
        usual_us.max(bounds.least_us).min(bounds.most_us)
    }
}

#[derive(Clone, Copy)]
struct Link {
    name: &'static str,
    /// The round-trip time without jitter.
    rtt_us: u64,
    /// The jitter in per cent of the round-trip time, spread evenly around it.
    jitter_percent: u64,
    /// Replies of a node that paused, or whose disk did: they take this many more microseconds, and
    /// this many replies per mille are delayed.
    hiccup: (u64, u64),
    /// The second kind of requests: this many per cent, and this many more microseconds.
    second: (u64, u64),
    /// The requester can tell the second kind from the first, as writes from reads.
    is_kind: bool,
    loss_percent: u64,
    /// In each second the usual path loses everything for this long, and an alternative path
    /// nothing.
    broken_us: u64,
    /// In the second half of the requests the round-trip time is this many times as long.
    slower: u64,
}

const QUIET: Link = Link {
    name: "quiet, 0.3 ms",
    rtt_us: 300,
    jitter_percent: 20,
    hiccup: (0, 0),
    second: (0, 0),
    is_kind: false,
    loss_percent: 0,
    broken_us: 0,
    slower: 1,
};
const DISK: Link = Link {
    name: "disk, 3 ms, 1 % +20 ms",
    rtt_us: 3_000,
    jitter_percent: 40,
    hiccup: (20_000, 10),
    ..QUIET
};
const MIXED: Link = Link {
    name: "reads of 0.3 ms, 20 % writes of 8 ms",
    second: (7_700, 20),
    is_kind: true,
    ..QUIET
};
const TAIL: Link = Link {
    name: "0.3 ms, 10 % with 4 ms more, for a retransmission behind the node",
    second: (4_000, 10),
    ..QUIET
};
const SLOW: Link = Link {
    name: "slow, 200 ms, jitter 50 %",
    rtt_us: 200_000,
    jitter_percent: 50,
    ..QUIET
};

struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) % below.max(1)
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.next(100) < percent
    }

    /// When the reply to a datagram sent now arrives; `None` if one of the two is lost.
    fn answer_us(&mut self, link: &Link, request: &Request, now_us: u64) -> Option<u64> {
        let rtt_us = link.rtt_us * if request.is_late { link.slower } else { 1 };
        let jitter_us = rtt_us * link.jitter_percent / 100;
        let (hiccup_us, per_mille) = link.hiccup;
        let mut took_us = rtt_us - jitter_us + self.next(2 * jitter_us + 1);
        if self.next(1_000) < per_mille {
            took_us += self.next(2 * hiccup_us);
        }
        if request.is_second {
            took_us += link.second.0 * (80 + self.next(41)) / 100;
        }
        let lost = [0; 2].map(|_| self.percent(link.loss_percent));
        let is_usual_path = request.sent_us.len().is_multiple_of(2);
        let is_broken = is_usual_path && now_us % 1_000_000 < link.broken_us;
        (lost == [false; 2] && !is_broken).then_some(now_us + took_us)
    }
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Answered { request: usize, again: u32 },
    Due { request: usize, again: u32 },
}

#[derive(Default)]
struct Request {
    /// The request belongs to the half with the longer round-trip time.
    is_late: bool,
    is_second: bool,
    sent_us: Vec<u64>,
    answers_us: Vec<Option<u64>>,
    is_done: bool,
}

/// A requester: its estimate, and how it uses it.
#[derive(Clone, Copy)]
struct Method {
    name: &'static str,
    estimate: fn() -> Box<dyn Estimate>,
    /// The requester has one estimate for each kind of request.
    by_kind: bool,
    /// The requester knows which datagram was answered.
    is_numbered: bool,
    /// The longest wait: the larger of this time and this multiple of the shortest wait.
    most: (u64, u64),
}

const METHODS: [Method; 6] = [
    Method {
        name: "client: mean",
        estimate: || Box::new(Mean::default()),
        by_kind: true,
        is_numbered: true,
        most: (1_000_000, 3),
    },
    Method {
        name: "client: LatencyEstimate",
        estimate: || Box::new(LatencyEstimate::default()),
        by_kind: true,
        is_numbered: true,
        most: (1_000_000, 3),
    },
    Method {
        name: "node: mean, kinds together",
        estimate: || Box::new(Mean::default()),
        by_kind: false,
        is_numbered: false,
        most: (200_000, 1),
    },
    Method {
        name: "node: mean",
        estimate: || Box::new(Mean::default()),
        by_kind: true,
        is_numbered: false,
        most: (200_000, 2),
    },
    Method {
        name: "node: median from the first",
        estimate: || Box::new(FromTheFirst::default()),
        by_kind: true,
        is_numbered: false,
        most: (200_000, 2),
    },
    Method {
        name: "node: LatencyEstimate",
        estimate: || Box::new(LatencyEstimate::default()),
        by_kind: true,
        is_numbered: false,
        most: (200_000, 2),
    },
];

struct Run {
    link: Link,
    method: Method,
    estimates: [Box<dyn Estimate>; 2],
    bounds: WaitBounds,
    random: Random,
    events: BinaryHeap<Reverse<(u64, Event)>>,
    requests: Vec<Request>,
    count: usize,
    spurious: usize,
    recoveries_us: Vec<u64>,
}

impl Run {
    fn new(link: Link, method: Method, count: usize) -> Self {
        // Twice the range of the jitter, for the estimate that uses the minimum of the last eight
        // samples.
        let range_us = 2 * link.rtt_us * link.jitter_percent / 100;
        let shortest_us = link.rtt_us - range_us / 2 + range_us / 9;
        let least_us = (2 * shortest_us).max(4_000);
        Run {
            link,
            method,
            estimates: [(method.estimate)(), (method.estimate)()],
            bounds: WaitBounds {
                initial_us: 10_000,
                least_us,
                most_us: method.most.0.max(method.most.1 * least_us),
            },
            random: Random(7),
            events: BinaryHeap::new(),
            requests: Vec::new(),
            count,
            spurious: 0,
            recoveries_us: Vec::new(),
        }
    }

    fn kind(&self, request: usize) -> usize {
        let by_kind = self.method.by_kind && self.link.is_kind;
        usize::from(by_kind && self.requests[request].is_second)
    }

    fn send(&mut self, now_us: u64, request: usize) {
        let wait_us = self.estimates[self.kind(request)].wait_us(self.bounds);
        let sent = &mut self.requests[request];
        let again = sent.sent_us.len() as u32;
        let answer_us = self.random.answer_us(&self.link, sent, now_us);
        self.spurious += usize::from(sent.answers_us.iter().any(Option::is_some));
        sent.sent_us.push(now_us);
        sent.answers_us.push(answer_us);
        if let Some(answer_us) = answer_us {
            let event = Event::Answered { request, again };
            self.events.push(Reverse((answer_us, event)));
        }
        let most_us = self.bounds.most_us.max(2 * self.bounds.least_us);
        let due_us = now_us + (wait_us << again.min(16)).min(most_us);
        let event = Event::Due { request, again };
        self.events.push(Reverse((due_us, event)));
    }

    fn begin(&mut self, now_us: u64) {
        let request = self.requests.len();
        if request < self.count {
            self.requests.push(Request {
                is_late: request > self.count / 2,
                is_second: self.random.percent(self.link.second.1),
                ..Request::default()
            });
            self.send(now_us, request);
        }
    }

    fn answered(&mut self, now_us: u64, request: usize, again: usize) {
        let kind = self.kind(request);
        let sent = &mut self.requests[request];
        let estimate = &mut self.estimates[kind];
        if self.method.is_numbered {
            estimate.sample(now_us - sent.sent_us[again], None, self.bounds);
        } else if !sent.is_done {
            let again_us = sent.sent_us[1..].last().map(|at_us| now_us - at_us);
            estimate.sample(now_us - sent.sent_us[0], again_us, self.bounds);
        }
        if !std::mem::replace(&mut sent.is_done, true) {
            if sent.answers_us[0].is_none() {
                let lost_us = sent.sent_us[again] - sent.sent_us[0];
                self.recoveries_us.push(lost_us);
            }
            let pause_us = self.random.next(2 * self.link.rtt_us);
            self.begin(now_us + pause_us);
        }
    }

    fn go(&mut self) {
        for _ in 0..IN_FLIGHT {
            self.begin(0);
        }
        while let Some(Reverse((now_us, event))) = self.events.pop() {
            match event {
                Event::Answered { request, again } => {
                    self.answered(now_us, request, again as usize);
                }
                Event::Due { request, again } => {
                    let sent = &self.requests[request];
                    if !sent.is_done && sent.sent_us.len() == again as usize + 1 {
                        self.send(now_us, request);
                    }
                }
            }
        }
    }
}

fn ms(us: u64) -> String {
    format!("{}.{}", us / 1_000, us % 1_000 / 100)
}

fn print_link(link: Link, count: usize) {
    let mut name = link.name.to_owned();
    name += &format!(", loss {} %", link.loss_percent);
    if link.broken_us > 0 {
        name += &format!(", path broken {} ms of each second", link.broken_us / 1_000);
    }
    if link.slower > 1 {
        name += &format!(", then {} times slower", link.slower);
    }
    println!("{name}");
    for method in METHODS {
        let mut run = Run::new(link, method, count);
        run.go();
        run.recoveries_us.sort_unstable();
        let mut recoveries = String::from("-");
        if let Some(last) = run.recoveries_us.len().checked_sub(1) {
            let [median, p99] = [50, 99].map(|p| ms(run.recoveries_us[last * p / 100]));
            recoveries = format!("{median} / {p99} ms");
        }
        let spurious = run.spurious as f64 * 1_000.0 / count as f64;
        println!("  {:28} {spurious:9.2}   {recoveries}", method.name);
    }
}

fn main() {
    let count = std::env::args().find_map(|word| word.parse().ok());
    let count = count.unwrap_or(REQUESTS_DEFAULT);
    println!("spurious retransmissions per 1,000 requests; recovery, median / p99");
    for link in [QUIET, DISK, MIXED, TAIL, SLOW] {
        for loss_percent in [0, 1, 5] {
            print_link(
                Link {
                    loss_percent,
                    ..link
                },
                count,
            );
        }
    }
    let broken = Link {
        broken_us: 250_000,
        ..QUIET
    };
    print_link(broken, count);
    for slower in [30, 100] {
        let changed = Link { slower, ..QUIET };
        print_link(changed, count);
        print_link(
            Link {
                loss_percent: 5,
                ..changed
            },
            count,
        );
    }
}
