//! A text client that behaves as Firecloud's client does: numeric IPv4; a request goes to one
//! server and, after 8, 13 and 50 ms without an answer, to the next, from the same port and with
//! the same id. `FL` received three times ends it at once.

use std::net::{SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant, SystemTime};

const WAITS: [Duration; 3] = [
    Duration::from_millis(8),
    Duration::from_millis(13),
    Duration::from_millis(50),
];
const FAILURES_MAX: usize = 3;
const SERVERS_MAX: usize = 4;
const DATAGRAM_SIZE_MAX: usize = 65_507;

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The value of a get, or the old value of a put; empty if there was none.
    Ok(Vec<u8>),
    Failed,
    /// No answer in time.
    Silent,
}

pub struct TextClient {
    socket: UdpSocket,
    servers: Vec<SocketAddrV4>,
    first: usize,
    next_id: u64,
    /// Requests that went to more than one server.
    pub retried: usize,
}

impl TextClient {
    /// Begins at the server with that index. Clients that start in the same second share their ids.
    pub fn new(servers: &[String], first: usize) -> Self {
        let numeric = |server: &String| server.parse().expect("an IPv4 address in numbers");
        let started = SystemTime::UNIX_EPOCH.elapsed().expect("after 1970");
        TextClient {
            socket: UdpSocket::bind("0.0.0.0:0").expect("a socket"),
            servers: servers.iter().take(SERVERS_MAX).map(numeric).collect(),
            first,
            next_id: started.as_secs(),
            retried: 0,
        }
    }

    pub fn get(&mut self, key: &str) -> Ending {
        self.request(&format!("GET [{key}]"))
    }

    pub fn put(&mut self, key: &str, value: &str) -> Ending {
        self.request(&format!("PUT [{key}] [{value}]"))
    }

    fn request(&mut self, words: &str) -> Ending {
        let id = self.next_id;
        self.next_id += 1;
        let datagram = format!("{words} [{id}]");
        let mut failures = 0;
        for (sent, wait) in WAITS.iter().enumerate() {
            let server = self.servers[(self.first + sent) % self.servers.len()];
            self.retried += usize::from(sent == 1);
            // A request that cannot be sent is lost, like any datagram.
            let _ = self.socket.send_to(datagram.as_bytes(), server);
            let until = Instant::now() + *wait;
            while let Some(answer) = self.receive(until) {
                if let Some(value) = value_in(&answer, id) {
                    return Ending::Ok(value.to_vec());
                }
                failures += usize::from(answer == format!("FL [{id}]").as_bytes());
                if failures == FAILURES_MAX {
                    return Ending::Failed;
                }
            }
        }
        Ending::Silent
    }

    fn receive(&self, until: Instant) -> Option<Vec<u8>> {
        let left = until.checked_duration_since(Instant::now())?;
        let left = left.max(Duration::from_micros(1));
        self.socket.set_read_timeout(Some(left)).expect("not zero");
        let mut bytes = vec![0; DATAGRAM_SIZE_MAX];
        let size = self.socket.recv(&mut bytes).ok()?;
        bytes.truncate(size);
        Some(bytes)
    }
}

/// The value, if this is `OK [id] [value]`.
fn value_in(answer: &[u8], id: u64) -> Option<&[u8]> {
    let value = answer.strip_prefix(format!("OK [{id}] [").as_bytes())?;
    value.strip_suffix(b"]")
}
