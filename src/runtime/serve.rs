//! Starting a node: what is said first, the store, the loop, the signals that end it.

use std::io;
use std::net::SocketAddr;

use tokio::signal::unix::{SignalKind, signal};

use super::{Bound, Notice, allocator};
use crate::config::ServerConfig;
use crate::storage::{self, DiskOptions, Opened, StorageError};

/// Why a node could not start, or could not go on.
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
    #[error("the socket failed")]
    Socket(#[source] io::Error),
    #[error("the system gives no random numbers")]
    Random(#[source] getrandom::Error),
    #[error("a thread can't be started")]
    Thread(#[source] io::Error),
    #[error("the asynchronous runtime can't be started")]
    Start(#[source] io::Error),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("the storage thread ended by a broken invariant: the node stops")]
    StoragePanicked,
    #[error("the store did not close in time")]
    StorageStuck,
}

/// Runs a node until SIGTERM or SIGINT.
pub fn serve(config: &ServerConfig) -> Result<(), RuntimeError> {
    announce(config);
    allocator::keep_little();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(RuntimeError::Start)?;
    let result = runtime.block_on(async {
        // First the address: a store that is opened and then not used was not stopped clean.
        let bound = Bound::new(config)?;
        for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
            let mut signals = signal(kind).map_err(RuntimeError::Start)?;
            let notifier = bound.notifier();
            tokio::spawn(async move {
                while signals.recv().await.is_some() && notifier.send(Notice::Stop).is_ok() {}
            });
        }
        let opened = open(config)?;
        let mut driver = bound.start(config, opened)?;
        let result = driver.run().await;
        // The process ends: to give the memory of a million keys back one by one takes seconds.
        std::mem::forget(driver);
        result
    });
    runtime.shutdown_background();
    if result.is_ok() {
        tracing::info!("stopped");
    }
    result
}

fn open(config: &ServerConfig) -> Result<Opened, RuntimeError> {
    let incarnation = getrandom::u64().map_err(RuntimeError::Random)?;
    let opened = match &config.data_dir {
        None => storage::memory::open(incarnation),
        Some(directory) => {
            let (list, index) = (config.list(), config.index);
            let options = DiskOptions::new(directory, list, index, config.durability);
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
        "horseshoe {}, pid {}: node {index} of {count} at {}; R = W = {} of {} votes; durability {}",
        env!("CARGO_PKG_VERSION"),
        std::process::id(),
        config.own(),
        votes.needed,
        votes.total,
        config.durability_name(),
    );
    match count {
        1 => tracing::warn!("one node is a trial: nothing survives its loss"),
        2 => tracing::warn!(
            "two nodes: the master ({}) alone is a quorum, and without it nothing is served",
            config.nodes[0]
        ),
        _ => {}
    }
    if config.data_dir.is_none() {
        tracing::warn!(
            "MEMORY ONLY: no data directory is set, so this node forgets everything when it stops; \
             --data-dir makes it durable"
        );
    }
}
