//! A virtual address: all datagrams from one port go to one node, those from the first port to the
//! first node, those from every other port to the last node.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

pub struct Balancer {
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Balancer {
    pub fn start(nodes: Vec<SocketAddr>) -> Balancer {
        let front = open();
        let address = front.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            // A client's port, and the socket towards its node.
            let mut ways: Vec<(SocketAddr, UdpSocket)> = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                forward(&front, &mut ways, &nodes);
            }
        });
        Balancer {
            address,
            stop,
            thread: Some(thread),
        }
    }
}

fn open() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let wait = Duration::from_millis(1);
    socket.set_read_timeout(Some(wait)).unwrap();
    socket
}

fn forward(front: &UdpSocket, ways: &mut Vec<(SocketAddr, UdpSocket)>, nodes: &[SocketAddr]) {
    let mut buffer = [0; 65_536];
    if let Ok((size, from)) = front.recv_from(&mut buffer) {
        if ways.iter().all(|(client, _)| *client != from) {
            let node = if ways.is_empty() {
                nodes[0]
            } else {
                nodes[nodes.len() - 1]
            };
            let back = open();
            back.connect(node).unwrap();
            ways.push((from, back));
        }
        let way = ways.iter().find(|(client, _)| *client == from);
        let _ = way.unwrap().1.send(&buffer[..size]);
    }
    for (client, back) in ways {
        if let Ok(size) = back.recv(&mut buffer) {
            let _ = front.send_to(&buffer[..size], *client);
        }
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
