//! One client's connection to a system, with the three operations that all of them can do.
//!
//! Horseshoe is not here: its load is that of `horseshoe bench`, with the client library.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use etcd_client::{Compare, CompareOp, KvClient, Txn, TxnOp};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use zookeeper_client as zk;

use crate::systems::System;

/// Clients of one program share connections where the protocol multiplexes them.
const SHARED_CONNECTIONS: usize = 16;
/// The node under which ZooKeeper's keys are.
const PARENT: &str = "/bench";
/// How many replicas of Redis confirm a write: with the primary, three of five have it.
const REPLICAS: u32 = 2;
const REPLICAS_WAIT_MS: u32 = 5_000;

pub enum Connection {
    Etcd(KvClient),
    Zookeeper(zk::Client),
    Redis(RedisConnection),
}

/// A connection for each client.
pub async fn connect(
    system: System,
    addresses: &[String],
    clients: usize,
) -> Result<Vec<Connection>> {
    let mut connections = Vec::with_capacity(clients);
    for client in 0..clients {
        let connection = match (system, client.checked_sub(SHARED_CONNECTIONS)) {
            (System::Etcd | System::Zookeeper, Some(shared)) => match &connections[shared] {
                Connection::Etcd(client) => Connection::Etcd(client.clone()),
                Connection::Zookeeper(client) => Connection::Zookeeper(client.clone()),
                Connection::Redis(_) => unreachable!("no client of Redis shares its connection"),
            },
            (System::Etcd, None) => {
                let client = etcd_client::Client::connect(addresses, None).await?;
                Connection::Etcd(client.kv_client())
            }
            (System::Zookeeper, None) => {
                let client = zk::Client::connect(&addresses.join(",")).await?;
                Connection::Zookeeper(client)
            }
            (System::Redis, _) => Connection::Redis(RedisConnection::new(&addresses[0])),
            (System::Horseshoe, _) => bail!("its clients are those of `horseshoe bench`"),
        };
        connections.push(connection);
    }
    Ok(connections)
}

impl Connection {
    /// Makes what the keys need to exist.
    pub async fn prepare(&mut self) -> Result<()> {
        if let Connection::Zookeeper(client) = self {
            create(client, PARENT, b"").await?;
        }
        Ok(())
    }

    pub async fn put(&mut self, key: &str, value: &[u8]) -> Result<()> {
        match self {
            Connection::Etcd(client) => client.put(key, value, None).await.map(drop)?,
            Connection::Zookeeper(client) => {
                let path = path(key);
                match client.set_data(&path, value, None).await {
                    Err(zk::Error::NoNode) => create(client, &path, value).await?,
                    other => other.map(drop)?,
                }
            }
            Connection::Redis(connection) => {
                let set = [b"SET", key.as_bytes(), value];
                connection.write(&set).await?;
            }
        }
        Ok(())
    }

    /// From etcd linearizable; from ZooKeeper what the server knows; from Redis what the primary
    /// has, which need not survive it.
    pub async fn get(&mut self, key: &str) -> Result<()> {
        match self {
            Connection::Etcd(client) => client.get(key, None).await.map(drop)?,
            Connection::Zookeeper(client) => match client.get_data(&path(key)).await {
                Err(zk::Error::NoNode) => {}
                other => other.map(drop)?,
            },
            Connection::Redis(connection) => connection.read(key).await?,
        }
        Ok(())
    }

    /// Adds 1 to a number: one command of Redis; the others read it and write it if it has not
    /// changed, until that succeeds.
    pub async fn add(&mut self, key: &str) -> Result<()> {
        match self {
            Connection::Etcd(client) => while !add_in_etcd(client, key).await? {},
            Connection::Zookeeper(client) => while !add_in_zookeeper(client, key).await? {},
            Connection::Redis(connection) => {
                connection.write(&[b"INCR", key.as_bytes()]).await?;
            }
        }
        Ok(())
    }
}

fn path(key: &str) -> String {
    format!("{PARENT}/{}", key.replace('/', "-"))
}

async fn create(client: &zk::Client, path: &str, value: &[u8]) -> Result<()> {
    let options = zk::CreateMode::Persistent.with_acls(zk::Acls::anyone_all());
    match client.create(path, value, &options).await {
        Err(zk::Error::NodeExists) => Ok(()),
        other => Ok(other.map(drop)?),
    }
}

async fn add_in_etcd(client: &mut KvClient, key: &str) -> Result<bool> {
    let found = client.get(key, None).await?;
    let held = found.kvs().first();
    let revision = held.map_or(0, |kv| kv.mod_revision());
    let number = number(held.map_or(b"", |kv| kv.value()))? + 1;
    let unchanged = Compare::mod_revision(key, CompareOp::Equal, revision);
    let put = TxnOp::put(key, number.to_string(), None);
    let txn = Txn::new().when([unchanged]).and_then([put]);
    Ok(client.txn(txn).await?.succeeded())
}

async fn add_in_zookeeper(client: &zk::Client, key: &str) -> Result<bool> {
    let path = path(key);
    let (held, stat) = match client.get_data(&path).await {
        Err(zk::Error::NoNode) => {
            create(client, &path, b"0").await?;
            return Ok(false);
        }
        other => other?,
    };
    let number = (number(&held)? + 1).to_string();
    let written = client.set_data(&path, number.as_bytes(), Some(stat.version));
    match written.await {
        Err(zk::Error::BadVersion) => Ok(false),
        other => Ok(other.map(|_| true)?),
    }
}

fn number(bytes: &[u8]) -> Result<i64> {
    if bytes.is_empty() {
        return Ok(0);
    }
    Ok(std::str::from_utf8(bytes)?.parse()?)
}

/// A connection to the primary. It is opened again after an error.
pub struct RedisConnection {
    address: String,
    stream: Option<BufReader<TcpStream>>,
    request: Vec<u8>,
    line: Vec<u8>,
}

impl RedisConnection {
    fn new(address: &str) -> Self {
        RedisConnection {
            address: address.to_owned(),
            stream: None,
            request: Vec::new(),
            line: Vec::new(),
        }
    }

    /// Sends a write, and waits for the replicas.
    async fn write(&mut self, command: &[&[u8]]) -> Result<()> {
        self.request.clear();
        encode(&mut self.request, command);
        let (replicas, wait) = (REPLICAS.to_string(), REPLICAS_WAIT_MS.to_string());
        encode(
            &mut self.request,
            &[b"WAIT", replicas.as_bytes(), wait.as_bytes()],
        );
        let [_, confirmed] = self.exchange().await?;
        if confirmed < i64::from(REPLICAS) {
            bail!("{confirmed} replicas confirmed a write");
        }
        Ok(())
    }

    async fn read(&mut self, key: &str) -> Result<()> {
        self.request.clear();
        encode(&mut self.request, &[b"GET", key.as_bytes()]);
        let [_] = self.exchange().await?;
        Ok(())
    }

    async fn exchange<const N: usize>(&mut self) -> Result<[i64; N]> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(&self.address).await?;
                stream.set_nodelay(true)?;
                BufReader::new(stream)
            }
        };
        stream.get_mut().write_all(&self.request).await?;
        let mut answers = [0; N];
        for answer in &mut answers {
            *answer = read_answer(&mut stream, &mut self.line).await?;
        }
        self.stream = Some(stream);
        Ok(answers)
    }
}

fn encode(request: &mut Vec<u8>, words: &[&[u8]]) {
    request.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        request.extend_from_slice(word);
        request.extend_from_slice(b"\r\n");
    }
}

/// The number in an answer, or the length of its text.
async fn read_answer(stream: &mut BufReader<TcpStream>, line: &mut Vec<u8>) -> Result<i64> {
    line.clear();
    stream.read_until(b'\n', line).await?;
    let text = std::str::from_utf8(line)?.trim_end();
    let (kind, rest) = text.split_at_checked(1).context("the connection ended")?;
    match kind {
        "+" => Ok(0),
        ":" => Ok(rest.parse()?),
        "$" => {
            let length: i64 = rest.parse()?;
            if let Ok(length) = usize::try_from(length) {
                line.resize(length + 2, 0);
                stream.read_exact(line).await?;
            }
            Ok(length)
        }
        _ => bail!("Redis answers {text}"),
    }
}

/// Waits until an operation succeeds: the nodes have just been started.
pub async fn ready(system: System, addresses: &[String], wait: Duration) -> Result<()> {
    let attempts = async {
        loop {
            let attempt = async {
                let mut connections = connect(system, addresses, 1).await?;
                connections[0].prepare().await?;
                connections[0].put("bench/ready", b"1").await
            };
            let attempt = tokio::time::timeout(Duration::from_secs(2), attempt);
            if let Ok(Ok(())) = attempt.await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(wait, attempts).await;
    waited.with_context(|| format!("{system} serves nothing after {wait:?}"))
}
