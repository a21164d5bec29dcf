//! Starts a node: the first log lines, the store, the loop, and the signals that end it.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::bind::own_addresses;
use super::log::WARNING_WAITS;
use super::{Bound, Notice, http, process_limits};
use crate::config::ServerConfig;
use crate::protocol::types::backoff::Backoff;
use crate::storage::{self, DiskOptions, Opened, StorageError};

/// How often a node whose own address is not available yet tries to bind it.
const BIND_RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Why a node could not start, or could not continue.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error("this node's own address {name} can't be found")]
    Resolve { name: String, source: io::Error },
    #[error("this node's own address {name} ({own}) can't be bound")]
    Bind {
        name: String,
        own: SocketAddr,
        source: io::Error,
    },
    #[error("the listen address {listen} can't be bound")]
    Listen {
        listen: SocketAddr,
        source: io::Error,
    },
    #[error(
        "this node's own address {name} is {own}, a loopback address, but {other} is on another \
         machine, which cannot reach it: list this node with an address of its network, or correct \
         the line of {name} in /etc/hosts (Debian maps a machine's own name to 127.0.1.1)"
    )]
    Loopback {
        name: String,
        own: SocketAddr,
        other: String,
    },
    #[error("the HTTP address {address} can't be bound, {}", http_remedy(.source))]
    Http {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("the socket failed")]
    Socket(#[source] io::Error),
    #[error("the system gives no random numbers")]
    Random(#[source] getrandom::Error),
    #[error("a thread can't be started")]
    Thread(#[source] io::Error),
    #[error("the limits of this process can't be read or set")]
    Limits(#[source] io::Error),
    #[error(
        "this process may have {allowed} files open, and a node with a data directory needs {needed}: \
         raise the limit (`ulimit -n`, LimitNOFILE of systemd)"
    )]
    OpenFiles { allowed: u64, needed: u64 },
    #[error("the asynchronous runtime can't be started")]
    Start(#[source] io::Error),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(
        "this machine's clock shows the year {year} ({ms} ms since 1970), later than the store can \
         represent: correct the clock and start the node again; nothing was written with that time"
    )]
    WallClockAtEnd { ms: u64, year: u64 },
    #[error(
        "the clock in this node's state has reached the year {year} ({ms} ms since 1970), the \
         last that the store can represent: correct the clocks of all machines, then start this node with an empty data directory"
    )]
    ClockAtEnd { ms: u64, year: u64 },
    #[error(
        "this node was started with --cluster-name {given}, and its cluster, {cluster:016x}, {}: \
         correct or omit the name; or the address or the data directory is that of another \
         cluster: correct that",
        name_in_words(.name)
    )]
    OtherName {
        given: String,
        cluster: u64,
        name: String,
    },
    #[error("the storage thread panicked on a broken invariant: the node stops")]
    StoragePanicked,
    #[error("the store did not close in time")]
    StorageStuck,
}

fn name_in_words(name: &str) -> String {
    match name {
        "" => "has no name: it was formed without one".to_owned(),
        name => format!("is named {name}"),
    }
}

fn http_remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "because another program listens there (or another node: on one machine each needs a \
             port of its own): stop it, or give --http another port"
        }
        io::ErrorKind::AddrNotAvailable => {
            "because this machine does not have that address: give --http one that it has, or \
             0.0.0.0 or [::] for all"
        }
        io::ErrorKind::PermissionDenied => {
            "because this process may not use that port: give --http a port from 1024 on"
        }
        _ => "so metrics can't be served: correct --http, or omit it",
    }
}

impl RuntimeError {
    /// Whether a retry may succeed soon: the network may be coming up.
    fn may_pass(&self) -> bool {
        match self {
            RuntimeError::Resolve { .. } => true,
            RuntimeError::Bind { source, .. }
            | RuntimeError::Listen { source, .. }
            | RuntimeError::Http { source, .. } => source.kind() == io::ErrorKind::AddrNotAvailable,
            _ => false,
        }
    }
}

/// Runs a node until SIGTERM or SIGINT.
pub fn serve(config: &ServerConfig) -> Result<(), RuntimeError> {
    announce(config);
    take_limits(config)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(RuntimeError::Start)?;
    let result = runtime.block_on(async {
        let mut stops = listen_to_signals().map_err(RuntimeError::Start)?;
        // The address comes first: a store that is opened and then not used would not be stopped
        // cleanly.
        let Some((bound, http)) = bind_when_possible(config, &mut stops).await? else {
            return Ok(());
        };
        let notifier = bound.notifier();
        // Before the store is opened, which may take long.
        let pulse = http.map(|listener| http::start(listener, notifier.clone()));
        let pulse = pulse.transpose().map_err(RuntimeError::Thread)?;
        tokio::spawn(async move {
            while stops.recv().await.is_some() && notifier.send(Notice::Stop).is_ok() {}
        });
        let opened = open(config)?;
        let mut driver = bound.start(config, opened)?;
        if let Some(pulse) = pulse {
            driver.report_turns(pulse);
        }
        let result = driver.run().await;
        // The process ends: freeing the memory of a million keys one by one would take seconds.
        std::mem::forget(driver);
        result
    });
    runtime.shutdown_background();
    if result.is_ok() {
        tracing::info!("stopped");
    }
    result
}

/// Sets the process limits that a node needs, before it promises anything.
fn take_limits(config: &ServerConfig) -> Result<(), RuntimeError> {
    let allowed = process_limits::raise_open_files().map_err(RuntimeError::Limits)?;
    let http = config.http.map_or(0, |_| http::FILES_MAX);
    let needed = process_limits::FILES_MIN + http;
    if config.data_dir.is_some() && allowed < needed {
        return Err(RuntimeError::OpenFiles { allowed, needed });
    }
    Ok(())
}

/// Yields a message for each SIGTERM and SIGINT, which end the node. SIGHUP, SIGUSR1 and SIGUSR2,
/// which by default end a process, have no effect: there is nothing to reopen yet.
fn listen_to_signals() -> io::Result<UnboundedReceiver<()>> {
    let (stop, stops) = unbounded_channel();
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut signals = signal(kind)?;
        let stop = stop.clone();
        tokio::spawn(
            async move { while signals.recv().await.is_some() && stop.send(()).is_ok() {} },
        );
    }
    let ignored = [
        (SignalKind::hangup(), "SIGHUP"),
        (SignalKind::user_defined1(), "SIGUSR1"),
        (SignalKind::user_defined2(), "SIGUSR2"),
    ];
    for (kind, name) in ignored {
        let mut signals = signal(kind)?;
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                tracing::info!("{name} ignored: there is nothing to reopen");
            }
        });
    }
    Ok(stops)
}

/// Binds the node's address. At boot the network or the name server may not be up yet, so a name
/// that does not resolve and an address that this machine does not have are retried. `None` if the
/// node was told to stop meanwhile.
async fn bind_when_possible(
    config: &ServerConfig,
    stops: &mut UnboundedReceiver<()>,
) -> Result<Option<(Bound, Option<TcpListener>)>, RuntimeError> {
    let (mut warnings, began) = (Backoff::default(), Instant::now());
    loop {
        // A lookup may block for long, and a stop must not wait for it.
        let own = config.clone();
        let found = tokio::task::spawn_blocking(move || own_addresses(&own));
        let found = tokio::select! {
            ended = found => ended.expect("a look-up does not panic"),
            _ = stops.recv() => return Ok(None),
        };
        let bound = found.and_then(|all| {
            let http = config.http.map(http::bind).transpose()?;
            Ok((Bound::new(config, &all)?, http))
        });
        let error = match bound {
            Ok(bound) => return Ok(Some(bound)),
            Err(error) if error.may_pass() => error,
            Err(error) => return Err(error),
        };
        let now_us = began.elapsed().as_micros() as u64;
        if warnings.is_due(now_us, WARNING_WAITS) {
            tracing::warn!("{:#}; trying again", anyhow::Error::from(error));
        }
        let stop = tokio::time::timeout(BIND_RETRY_INTERVAL, stops.recv()).await;
        if stop.is_ok() {
            return Ok(None);
        }
    }
}

fn open(config: &ServerConfig) -> Result<Opened, RuntimeError> {
    let incarnation = getrandom::u64().map_err(RuntimeError::Random)?;
    let opened = match &config.data_dir {
        None => storage::memory::open(incarnation),
        Some(directory) => {
            let (list, index) = (config.list(), config.index);
            let options = DiskOptions {
                reserve: config.disk_reserve,
                ..DiskOptions::new(directory, list, index, config.durability)
            };
            storage::disk::open(options, incarnation)?
        }
    };
    for note in &opened.notes {
        tracing::warn!("{note}");
    }
    Ok(opened)
}

fn announce(config: &ServerConfig) {
    let (index, count) = (config.index, config.nodes.len());
    let votes = config.votes();
    tracing::info!(
        "horseshoe {}, pid {}: node {index} of {count} at {}; quorum {} of {} votes; durability {}",
        env!("CARGO_PKG_VERSION"),
        std::process::id(),
        config.own(),
        votes.needed,
        votes.total,
        config.durability_name(),
    );
    match count {
        1 => tracing::warn!("a single node is for trials only: nothing survives its loss"),
        2 => tracing::warn!(
            "two nodes: the master ({}) alone is a quorum, and without it there is none",
            config.nodes[0]
        ),
        _ => {}
    }
    if let Some(bytes) = config.memory_short {
        tracing::warn!(
            "60 % of the memory available to this node is {} KiB, too little to run: \
             --memory-max is {} MiB, and the system may kill the node before it is full; give it more memory, or \
             set --memory-max",
            bytes >> 10,
            config.memory_max >> 20,
        );
    }
    if config.data_dir.is_none() {
        tracing::warn!(
            "MEMORY ONLY: no data directory is set, so this node loses all its data when it stops; \
             --data-dir makes it durable"
        );
    }
}
