use std::io::ErrorKind;
use std::sync::{Arc, Barrier};

use wire::datagram::{DatagramHeader, DatagramWriter, FrameHeader};
use wire::{Hello, kind};

use super::*;
use crate::config::{Settings, TextMode};
use crate::storage::{Durability, Storage, StorageError, memory};

const HUNG_US: u64 = 500_000;
/// More groups than may wait for the disk.
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
    let free = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    ServerConfig::new(Settings {
        index: 0,
        nodes: vec![address],
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

/// While the disk lags far behind, arriving datagrams are left in the kernel. Once the disk hangs,
/// no input waits for it any more, and clients must learn that they should ask other nodes.
#[test]
fn a_node_whose_disk_is_far_behind_takes_nothing_in_until_the_disk_hangs() {
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
        client.set_nonblocking(true).unwrap();
        client.send_to(&hello(), own[0]).unwrap();
        driver.socket.readable().await.unwrap();
        let mut now = driver.clock.now();
        let last_us = now.mono_us + 10 * HUNG_US;
        let mut bytes = [0; 2_000];
        while !driver.replica.has_hung_disk() {
            assert!(now.mono_us < last_us, "it hangs");
            assert!(!driver.takes_in());
            driver.turn(now).unwrap();
            let received = client.recv(&mut bytes).map_err(|error| error.kind());
            assert_eq!(received, Err(ErrorKind::WouldBlock));
            now.mono_us += 50_000;
        }
        assert!(driver.takes_in());
        driver.turn(now).unwrap();
        assert!(client.recv(&mut bytes).unwrap() > 0);
        barrier.wait();
    });
}
