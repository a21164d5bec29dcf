use std::sync::{Arc, Barrier};

use wire::datagram::{DatagramHeader, DatagramWriter, FrameHeader};
use wire::{Hello, kind};

use super::*;
use crate::config::{Settings, TextMode};
use crate::storage::{Durability, Storage, StorageError, memory};

const HUNG_US: u64 = 500_000;
/// More groups than a node lets wait for its disk.
const GROUPS: u64 = 20_000;

/// A store that finishes no commit before the test ends.
struct Hung(Arc<Barrier>);

impl Storage for Hung {
    fn commit(&mut self, _groups: &[Group]) -> Result<(), StorageError> {
        self.0.wait();
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<(), StorageError> {
        Ok(())
    }
}

fn config() -> ServerConfig {
    config_of(&[])
}

/// Of this node, and of others at these addresses.
fn config_of(others: &[String]) -> ServerConfig {
    let free = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    ServerConfig::new(Settings {
        index: 0,
        nodes: [&[address], others].concat(),
        listen: None,
        data_dir: Some("not used".into()),
        durability: Durability::Fsync,
        text: TextMode::Auto,
        insecure_admin: false,
        shrink_after: Duration::ZERO,
        disk_hung_after: Duration::from_micros(HUNG_US),
        disk_reserve: Some(0),
        http: None,
        cluster_name: String::new(),
        bootstrap: false,
        heartbeat_ms: 50,
        link_down_ms: 200,
        memory_max: Some(0),
        memory_share: u64::MAX,
        value_max: 1 << 20,
    })
    .unwrap()
}

fn hello() -> Vec<u8> {
    let mut body = Vec::new();
    let hello = Hello {
        client: 77,
        nonce: 5,
        library_version: "test".to_owned(),
    };
    wire::encode(&mut body, &hello);
    let header = FrameHeader {
        kind: kind::HELLO,
        ..FrameHeader::default()
    };
    let mut writer = DatagramWriter::default();
    writer.push(&header, &body);
    writer.seal(&DatagramHeader::default()).to_vec()
}

/// A node that stopped reading would look dead to its neighbours, and would not answer clients,
/// which could use another node.
#[test]
fn a_node_whose_disk_is_far_behind_keeps_reading() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let config = config();
        let own = [config.own().literal().unwrap()];
        let barrier = Arc::new(Barrier::new(2));
        let opened = Opened {
            storage: Box::new(Hung(barrier.clone())),
            ..memory::open(1)
        };
        let bound = Bound::new(&config, &own).unwrap();
        let mut driver = bound.start(&config, opened).unwrap();
        let disk = driver.disk.as_mut().unwrap();
        for number in 0..GROUPS {
            let number = u64::MAX / 2 + number;
            let group = Group::default();
            disk.commit(Group { number, ..group });
        }
        let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        client
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        client.send_to(&hello(), own[0]).unwrap();
        driver.socket.readable().await.unwrap();
        driver.turn(driver.clock.now()).unwrap();
        assert!(!driver.replica.has_hung_disk(), "not yet");
        let mut bytes = [0; 2_000];
        let received = client.recv(&mut bytes);
        barrier.wait();
        assert!(received.expect("an answer") > 0);
    });
}

/// Else a round's messages would wait behind every request that arrived before them.
#[test]
fn what_a_node_sent_is_handled_before_earlier_requests() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let [node, client] = [(); 2].map(|()| std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
        let config = config_of(&[node.local_addr().unwrap().to_string()]);
        let own = [config.own().literal().unwrap()];
        let bound = Bound::new(&config, &own).unwrap();
        let mut driver = bound.start(&config, memory::open(1)).unwrap();
        for _ in 0..100 {
            client.send_to(&hello(), own[0]).unwrap();
        }
        node.send_to(b"no datagram of ours", own[0]).unwrap();
        driver.socket.readable().await.unwrap();
        let spent = Budget {
            ends: Instant::now(),
            pushed_max: 0,
        };
        driver.receive(driver.clock.now(), spent).unwrap();
        assert_eq!(driver.tally.total(), 1, "of the node");
        assert!(driver.socket.has_received(), "of the client, but for one");
    });
}
