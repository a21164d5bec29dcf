//! Text clients put values of up to 256 bytes on a few keys for some seconds; then old values must
//! form a chain for each key.
//!
//!     cargo run --example text_chain -- NODES CLIENTS SECONDS [KEYS RATE]
//!
//! RATE is that of all clients together on one key, per second. Prints one line. Exits with 1 if a
//! put was applied twice, or an answered one not exactly once, or if too few were answered.

#[path = "../tests/text/chain.rs"]
mod chain;
#[path = "../tests/text/client.rs"]
mod client;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use chain::Put;
use client::{Ending, TextClient};

const KEYS: usize = 5;
const PUTS_PER_KEY_S: usize = 20;
const VALUE_SIZE_MAX: usize = 256;
/// Nodes that have just started may need this long before they serve.
const SERVING_WAIT: Duration = Duration::from_secs(10);

fn key_name(key: usize) -> String {
    format!("chain/{key}")
}

/// A value that no other put has, of varying length.
fn value(client: usize, number: usize) -> String {
    let mut value = format!("client {client} put {number} ");
    let size = (client * 31 + number * 57) % VALUE_SIZE_MAX;
    value.push_str(&".".repeat(size.saturating_sub(value.len())));
    value
}

struct Load {
    clients: usize,
    keys: usize,
    puts_per_key_s: usize,
    duration: Duration,
}

/// The puts of one client, by key, and how many of them it retried.
fn put_until(client: usize, load: &Load, nodes: &[String], end: Instant) -> (Vec<Vec<Put>>, usize) {
    let mut text = TextClient::new(nodes, client);
    let keys = load.keys;
    let mut puts = vec![Vec::new(); keys];
    let puts_per_s = (load.puts_per_key_s * keys) as u32;
    let pause = Duration::from_secs(1) * load.clients as u32 / puts_per_s;
    let mut number = 0;
    while Instant::now() < end {
        let value = value(client, number);
        let key = (client + number) % keys;
        let began = Instant::now();
        let told = match text.put(&key_name(key), &value) {
            Ending::Ok(old) => Some((String::from_utf8_lossy(&old).into_owned(), Instant::now())),
            Ending::Failed | Ending::Silent => None,
        };
        puts[key].push(Put { value, began, told });
        number += 1;
        std::thread::sleep(pause.saturating_sub(began.elapsed()));
    }
    (puts, text.retried)
}

/// Retries a get until it is answered; returns the value.
fn insist(nodes: &[String], key: &str) -> Result<String, String> {
    let mut text = TextClient::new(nodes, 0);
    let began = Instant::now();
    while began.elapsed() < SERVING_WAIT {
        if let Ending::Ok(value) = text.get(key) {
            return Ok(String::from_utf8_lossy(&value).into_owned());
        }
    }
    Err(format!(
        "no answer to a get of {key} within {SERVING_WAIT:?}"
    ))
}

fn run(nodes: &[String], load: &Load) -> Result<bool, String> {
    for key in 0..load.keys {
        let before = insist(nodes, &key_name(key))?;
        if !before.is_empty() {
            return Err(format!("{} is there already", key_name(key)));
        }
    }
    let end = Instant::now() + load.duration;
    let mut puts = vec![Vec::new(); load.keys];
    let mut retried = 0;
    std::thread::scope(|scope| {
        let run = |client| scope.spawn(move || put_until(client, load, nodes, end));
        let threads: Vec<_> = (0..load.clients).map(run).collect();
        for thread in threads {
            let (of_client, again) = thread.join().expect("a client does not panic");
            retried += again;
            for (all, new) in puts.iter_mut().zip(of_client) {
                all.extend(new);
            }
        }
    });
    for (key, puts) in puts.iter().enumerate() {
        let last = insist(nodes, &key_name(key))?;
        chain::check(puts, &last).map_err(|wrong| format!("{}: {wrong}", key_name(key)))?;
    }
    let total: usize = puts.iter().map(Vec::len).sum();
    let answered = puts.iter().flatten().filter(|put| put.told.is_some());
    let answered = answered.count();
    let per_key_s = total as f64 / load.keys as f64 / load.duration.as_secs_f64();
    println!(
        "text_chain: {answered} of {total} puts were answered, {retried} tried again, \
         {per_key_s:.0} a second on each key; old values form chains"
    );
    Ok(answered > 0 && answered * 10 >= total * 9)
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let nodes = arguments.next().unwrap_or_default();
    let numbers: Result<Vec<usize>, _> = arguments.map(|number| number.parse()).collect();
    let (clients, seconds, keys, puts_per_key_s) = match numbers.as_deref() {
        Ok([clients, seconds]) => (*clients, *seconds, KEYS, PUTS_PER_KEY_S),
        Ok([clients, seconds, keys, rate]) if *keys > 0 && *rate > 0 => {
            (*clients, *seconds, *keys, *rate)
        }
        _ => {
            eprintln!("usage: text_chain NODES CLIENTS SECONDS [KEYS RATE], in whole numbers");
            return ExitCode::from(2);
        }
    };
    let load = Load {
        clients,
        keys,
        puts_per_key_s,
        duration: Duration::from_secs(seconds as u64),
    };
    let nodes: Vec<String> = nodes.split(',').map(str::to_owned).collect();
    match run(&nodes, &load) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("text_chain: {error}");
            ExitCode::FAILURE
        }
    }
}
