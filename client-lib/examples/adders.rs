//! Many clients add to one key for some seconds; then the sum is compared with the acknowledged
//! adds.
//!
//!     cargo run --example adders -- NODES CLIENTS SECONDS
//!
//! Prints one line. Exits with 1 if an add was not acknowledged, or if the sum is wrong.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use kvclient::wire::{Action, Outcome};
use kvclient::{Call, CallError, Client, ClientOptions};

const KEY: &str = "adders/sum";
/// Nodes that have just started may need this long before they serve.
const SERVING_WAIT: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Count {
    done: i64,
    unknown: i64,
    errors: Vec<CallError>,
    slowest: Duration,
}

fn add_until(client: &Client, end: Instant) -> Count {
    let mut count = Count::default();
    while Instant::now() < end {
        let began = Instant::now();
        match client.call(Call::new(KEY, Action::Add { delta: 1 })) {
            Ok(_) => count.done += 1,
            Err(CallError::UnknownOutcome) => count.unknown += 1,
            Err(error) => count.errors.push(error),
        }
        count.slowest = count.slowest.max(began.elapsed());
    }
    count
}

fn sum(client: &Client) -> Result<i64, String> {
    match client.call(Call::new(KEY, Action::Get)) {
        Ok(Outcome::Absent) => Ok(0),
        Ok(Outcome::Value { value, .. }) => String::from_utf8_lossy(&value)
            .parse()
            .map_err(|_| format!("{KEY} holds {value:?}")),
        Ok(other) => Err(format!("a get came to {other:?}")),
        Err(error) => Err(format!("get {KEY}: {error}")),
    }
}

/// Returns the sum, once the nodes serve.
fn sum_when_serving(client: &Client) -> Result<i64, String> {
    let began = Instant::now();
    loop {
        match sum(client) {
            Err(_) if began.elapsed() < SERVING_WAIT => {}
            result => return result,
        }
    }
}

fn run(nodes: &str, clients: usize, duration: Duration) -> Result<bool, String> {
    let open = || Client::open(nodes, ClientOptions::default()).map_err(|e| e.to_string());
    let before = sum_when_serving(&open()?)?;
    let adders: Vec<Client> = (0..clients).map(|_| open()).collect::<Result<_, _>>()?;
    let end = Instant::now() + duration;
    let mut total = Count::default();
    std::thread::scope(|scope| {
        let run = |client| scope.spawn(move || add_until(client, end));
        let threads: Vec<_> = adders.iter().map(run).collect();
        for thread in threads {
            let count = thread.join().expect("an adder does not panic");
            total.done += count.done;
            total.unknown += count.unknown;
            total.errors.extend(count.errors);
            total.slowest = total.slowest.max(count.slowest);
        }
    });
    let sum = sum(&open()?)? - before;
    println!(
        "adders: {} done, {} unknown, {} errors, sum {sum}, slowest {:.1} ms",
        total.done,
        total.unknown,
        total.errors.len(),
        total.slowest.as_secs_f64() * 1e3,
    );
    for error in total.errors.iter().take(5) {
        println!("adders: an error: {error}");
    }
    let all_done = total.unknown == 0 && total.errors.is_empty();
    Ok(all_done && total.done > 0 && sum == total.done)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [nodes, clients, seconds] = arguments.as_slice() else {
        eprintln!("usage: adders NODES CLIENTS SECONDS");
        return ExitCode::from(2);
    };
    let (Ok(clients), Ok(seconds)) = (clients.parse(), seconds.parse()) else {
        eprintln!("adders: CLIENTS and SECONDS are whole numbers");
        return ExitCode::from(2);
    };
    match run(nodes, clients, Duration::from_secs(seconds)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("adders: {error}");
            ExitCode::FAILURE
        }
    }
}
