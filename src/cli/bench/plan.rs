//! The flags of `horseshoe bench`, and their check.

use std::fmt;
use std::time::Duration;

use clap::{Args, ValueEnum};
use kvclient::session::IN_FLIGHT_MAX;
use wire::VALUE_SIZE_MAX;

use super::record::{RECORDED_MAX, UNIQUE_SIZE_MIN};
use crate::cli::words;

/// The limit for all handles together.
pub const CLIENTS_MAX: u32 = 65_536;
const CLIENTS_DEFAULT: u32 = 64;
const KEYS_MAX: u32 = 10_000_000;
/// With `--check`: the record must have room for two operations on each key beside the load.
const CHECKED_KEYS_MAX: u32 = (RECORDED_MAX / 4) as u32;
const RATE_MAX: u32 = 1_000_000;
const DURATION_MAX: Duration = Duration::from_secs(24 * 3_600);

/// Measure the cluster with gets, puts and adds on keys under bench/.
///
/// Without --rate the load is closed loops: each client starts an operation when its last one has
/// ended. With --rate it is an open loop: operations start at fixed intervals, whether earlier ones
/// have ended or not, and latency counts from the intended start. The keys are written once before
/// the measurement, and are not deleted after it. Ctrl-C ends the measurement early, and the result
/// is still printed.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Number of closed loops; with --rate the limit of operations in flight [default: 64; with
    /// --rate 32768 for each handle, 65536 in all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(CLIENTS_MAX)))]
    clients: Option<u32>,

    /// Start N operations per second, in an open loop
    #[arg(long, value_name = "N", value_parser = rate, allow_negative_numbers = true)]
    rate: Option<u32>,

    /// Number of keys; adds have as many of their own
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=i64::from(KEYS_MAX)))]
    keys: u32,

    /// How often each key is chosen: each as often as any other, or the first ones most often
    /// (Zipf's law, exponent 0.99)
    #[arg(long, value_name = "DISTRIBUTION", default_value = "uniform")]
    dist: KeyDistribution,

    /// Size of each value in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=VALUE_SIZE_MAX as i64))]
    value_size: u32,

    /// Ratio of gets to puts, and to adds; 0:1 is puts only, 0:0:1 adds only
    #[arg(long, value_name = "GET:PUT[:ADD]", default_value = "1:1", value_parser = mix)]
    mix: Mix,

    /// How long to measure, at most 24h
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    duration: Duration,

    /// Run the load for this long before the measurement, at most 24h
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = warmup)]
    warmup: Duration,

    /// Client handles, each with a thread; the clients, or the rate, are divided among them
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    handles: u32,

    /// The seed of the random order of keys and kinds of operation
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    /// Record all operations, at most 2000000, read all keys at the end, and check that the history
    /// of each key is linearizable; exit status 7 if not
    #[arg(long)]
    check: bool,
}

/// Shares of gets, puts and adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mix {
    pub gets: u32,
    pub puts: u32,
    pub adds: u32,
}

impl Mix {
    pub fn all(self) -> u32 {
        self.gets + self.puts + self.adds
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.gets, self.puts)?;
        match self.adds {
            0 => Ok(()),
            adds => write!(f, ":{adds}"),
        }
    }
}

fn mix(word: &str) -> Result<Mix, String> {
    let number = |word: &str| word.parse().ok().filter(|&n: &u32| n <= 1_000);
    let shares: Option<Vec<u32>> = word.split(':').map(number).collect();
    let mix = match shares.as_deref() {
        Some(&[gets, puts]) => Some(Mix {
            gets,
            puts,
            adds: 0,
        }),
        Some(&[gets, puts, adds]) => Some(Mix { gets, puts, adds }),
        _ => None,
    };
    mix.filter(|mix| mix.all() > 0).ok_or_else(|| {
        "a mix is two or three whole numbers up to 1000, GET:PUT or GET:PUT:ADD, not all 0"
            .to_owned()
    })
}

/// How often each key is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KeyDistribution {
    Uniform,
    Zipf,
}

impl KeyDistribution {
    pub fn name(self) -> &'static str {
        match self {
            KeyDistribution::Uniform => "uniform",
            KeyDistribution::Zipf => "zipf",
        }
    }
}

fn rate(word: &str) -> Result<u32, String> {
    let number = word.parse().ok();
    number
        .filter(|rate| (1..=RATE_MAX).contains(rate))
        .ok_or_else(|| {
            format!(
                "a rate is a whole number of operations per second from 1 to {RATE_MAX}; leave \
                 --rate out for closed loops"
            )
        })
}

fn duration(word: &str) -> Result<Duration, String> {
    match words::duration(word)? {
        duration if duration > DURATION_MAX => Err("a measurement takes at most 24h".to_owned()),
        duration => Ok(duration),
    }
}

fn warmup(word: &str) -> Result<Duration, String> {
    match words::duration_or_zero(word)? {
        warmup if warmup > DURATION_MAX => Err("a warm-up takes at most 24h".to_owned()),
        warmup => Ok(warmup),
    }
}

/// The flags with their defaults.
#[derive(Debug, Clone)]
pub struct BenchPlan {
    /// Closed loops, or in an open loop the limit of operations in flight; of all handles.
    pub clients: u32,
    /// Operations per second of all handles; `None` for closed loops.
    pub rate: Option<u32>,
    pub keys: u32,
    pub value_size: u32,
    pub dist: KeyDistribution,
    pub mix: Mix,
    pub warmup: Duration,
    pub duration: Duration,
    pub handles: u32,
    pub seed: u64,
    pub check: bool,
}

impl BenchPlan {
    /// The error says which flags do not fit together, and what would.
    pub fn new(arguments: &BenchArgs) -> Result<BenchPlan, String> {
        let per_handle = IN_FLIGHT_MAX as u32;
        let room = (arguments.handles * per_handle).min(CLIENTS_MAX);
        let clients = match (arguments.clients, arguments.rate) {
            (Some(clients), _) => clients,
            (None, Some(_)) => room,
            (None, None) => CLIENTS_DEFAULT,
        };
        if clients > room {
            return Err(format!(
                "{clients} clients are too many for --handles {}: a handle has at most \
                 {per_handle} operations in flight; give --handles {} or --clients {room}",
                arguments.handles,
                clients.div_ceil(per_handle)
            ));
        }
        if arguments.check {
            check_fits(arguments)?;
        }
        Ok(BenchPlan {
            clients,
            rate: arguments.rate,
            keys: arguments.keys,
            value_size: arguments.value_size,
            dist: arguments.dist,
            mix: arguments.mix,
            warmup: arguments.warmup,
            duration: arguments.duration,
            handles: arguments.handles.min(clients),
            seed: arguments.seed,
            check: arguments.check,
        })
    }

    /// Operations of the load that the record has room for, beside two for each key.
    pub fn recorded_load_max(&self) -> u64 {
        RECORDED_MAX - 2 * u64::from(self.keys)
    }

    /// The clients of a handle. The first handles get one more if the division has a remainder.
    pub fn clients_of(&self, handle: u32) -> u32 {
        self.clients / self.handles + u32::from(handle < self.clients % self.handles)
    }
}

/// Checks the other flags against the needs of `--check`.
fn check_fits(arguments: &BenchArgs) -> Result<(), String> {
    if (arguments.value_size as usize) < UNIQUE_SIZE_MIN {
        return Err(format!(
            "--check with --value-size {}: each value must be another one, which takes \
             {UNIQUE_SIZE_MIN} bytes or more; give --value-size {UNIQUE_SIZE_MIN}",
            arguments.value_size
        ));
    }
    if arguments.mix.adds > 0 {
        return Err(format!(
            "--check with --mix {}: it checks gets and puts; leave the adds out",
            arguments.mix
        ));
    }
    if arguments.keys > CHECKED_KEYS_MAX {
        return Err(format!(
            "--check with --keys {}: it records {RECORDED_MAX} operations at most, so it takes at \
             most {CHECKED_KEYS_MAX} keys",
            arguments.keys
        ));
    }
    let room = RECORDED_MAX - 2 * u64::from(arguments.keys);
    let seconds = (arguments.warmup + arguments.duration).as_secs_f64();
    let Some(rate) = arguments.rate else {
        return Ok(());
    };
    if f64::from(rate) * seconds > room as f64 {
        let left =
            (room / u64::from(rate)).saturating_sub(arguments.warmup.as_secs_f64().ceil() as u64);
        let remedy = match left {
            0 => "a shorter --warmup".to_owned(),
            left => format!("--duration {left}"),
        };
        return Err(format!(
            "--check with --rate {rate} for {seconds} s: it records {room} operations on {} keys \
             at most; give {remedy} or a lower --rate",
            arguments.keys
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct BenchCommand {
        #[command(flatten)]
        arguments: BenchArgs,
    }

    fn plan(words: &str) -> Result<BenchPlan, String> {
        let words = std::iter::once("bench").chain(words.split_whitespace());
        let command = BenchCommand::try_parse_from(words).map_err(|error| error.to_string())?;
        BenchPlan::new(&command.arguments)
    }

    #[test]
    fn a_mix_is_two_or_three_numbers() {
        for (word, gets, puts, adds) in [("1:1", 1, 1, 0), ("0:1", 0, 1, 0), ("0:0:7", 0, 0, 7)] {
            assert_eq!(mix(word), Ok(Mix { gets, puts, adds }));
            assert_eq!(mix(word).unwrap().to_string(), word);
        }
        for word in [
            "",
            "1",
            "0:0",
            "a:1",
            "1:-1",
            "0:0:0",
            "1:1:",
            "1:1:1:1",
            "1:1001",
            "4294967295:1",
        ] {
            assert!(mix(word).is_err(), "{word}");
        }
    }

    #[test]
    fn the_clients_fit_the_handles() {
        for (words, clients, handles) in [
            ("", 64, 1),
            ("--handles 7", 64, 7),
            ("--clients 3 --handles 7", 3, 3),
            ("--rate 5", 32_768, 1),
            ("--rate 5 --handles 2", 65_536, 2),
            ("--rate 5 --handles 256", 65_536, 256),
            ("--rate 5 --clients 10", 10, 1),
            ("--clients 65536 --handles 2", 65_536, 2),
        ] {
            let plan = plan(words).unwrap();
            assert_eq!((plan.clients, plan.handles), (clients, handles), "{words}");
            let shares = (0..handles).map(|handle| plan.clients_of(handle));
            assert_eq!(shares.clone().sum::<u32>(), clients, "{words}");
            assert!(shares.clone().all(|share| share as usize <= IN_FLIGHT_MAX));
            assert!(shares.max().unwrap() - plan.clients_of(handles - 1) <= 1);
        }
    }

    #[test]
    fn what_is_checked_fits_the_record() {
        for words in [
            "--check --mix 0:1",
            "--check --mix 1:0 --value-size 16",
            "--check --rate 100000 --duration 19",
            "--check --duration 24h",
            "--check --keys 500000",
        ] {
            assert!(plan(words).unwrap().recorded_load_max() > 0, "{words}");
        }
    }

    #[test]
    fn what_cannot_be_measured_is_refused_with_what_can() {
        for (words, remedy) in [
            ("--rate 0", "from 1 to 1000000; leave --rate out"),
            ("--rate -5", "from 1 to 1000000"),
            ("--rate 1000001", "from 1 to 1000000"),
            ("--rate 99999999999999999999", "from 1 to 1000000"),
            ("--rate 0.5", "a whole number of operations per second"),
            ("--rate fast", "a whole number of operations per second"),
            ("--duration 0", "a time has to be above zero"),
            ("--duration 25h", "at most 24h"),
            ("--duration 999999999999h", "at most 24h"),
            ("--warmup 25h", "at most 24h"),
            ("--warmup soon", "a time is a number of seconds"),
            ("--dist normal", "possible values: uniform, zipf"),
            ("--check --mix 1:1:1", "leave the adds out"),
            (
                "--check --rate 100000 --duration 10 --warmup 10",
                "give --duration 9 or a lower --rate",
            ),
            (
                "--check --rate 100000 --duration 10 --warmup 10.5",
                "give --duration 8 or a lower --rate",
            ),
            (
                "--check --rate 100000 --warmup 30",
                "give a shorter --warmup or a lower --rate",
            ),
            ("--clients 0", "1..=65536"),
            ("--clients 65537", "1..=65536"),
            ("--clients 32769", "give --handles 2 or --clients 32768"),
            ("--seed -1", "unexpected argument '-1'"),
            ("--check --value-size 0", "give --value-size 16"),
            ("--check --value-size 15", "give --value-size 16"),
            ("--check --keys 500001", "at most 500000 keys"),
            (
                "--check --rate 100000 --duration 1m",
                "give --duration 19 or a lower --rate",
            ),
        ] {
            let refused = plan(words).unwrap_err();
            assert!(refused.contains(remedy), "{words}: {refused}");
        }
    }
}
