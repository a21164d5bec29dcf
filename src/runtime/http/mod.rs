//! Serves metrics, `/healthz` and `/readyz` over HTTP, in a separate thread.
//!
//! No request may slow or stop the node. So the thread has the lowest priority; the number of
//! connections, their sizes and their times are bounded; and the thread sends the loop at most one
//! `Notice` at a time, at most ten times a second.

mod exposition;
mod families;
mod pages;
mod process;

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::AbortHandle;

use super::observation::Pulse;
use super::{Notice, RuntimeError};

/// The most connections at any time. A further one ends the oldest: a connection that sends nothing
/// is older than one that is served.
pub const CONNECTIONS_MAX: usize = 64;
/// The files that this thread may have open: connections, the listener, and its runtime's own.
pub const FILES_MAX: u64 = CONNECTIONS_MAX as u64 + 16;
/// How long a client may take to send its request.
const REQUEST_MAX: Duration = Duration::from_secs(5);
/// The longest time of a connection. Each has one request.
const CONNECTION_MAX: Duration = Duration::from_secs(15);
/// The limits of a request's header, in bytes and in fields.
const HEADER_SIZE_MAX: usize = 16 << 10;
const HEADER_FIELDS_MAX: usize = 64;
/// How long the thread waits if the system accepts no connection.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// The lowest priority.
const NICE: i32 = 19;

pub fn bind(address: SocketAddr) -> Result<TcpListener, RuntimeError> {
    let bound = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    bound.map_err(|source| RuntimeError::Http { address, source })
}

/// Starts the thread. The loop reports its turns to the returned `Pulse`.
pub fn start(listener: TcpListener, notices: UnboundedSender<Notice>) -> io::Result<Arc<Pulse>> {
    let pulse = Arc::new(Pulse::new(Instant::now()));
    start_with(listener, notices, Arc::clone(&pulse))?;
    Ok(pulse)
}

fn start_with(
    listener: TcpListener,
    notices: UnboundedSender<Notice>,
    pulse: Arc<Pulse>,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    let router = pages::router(notices, pulse);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let thread = std::thread::Builder::new().name("http".to_owned());
    thread.spawn(move || {
        take_lowest_priority();
        runtime.block_on(async move {
            match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => accept(&listener, &router).await,
                Err(error) => tracing::error!("HTTP can't be served: {error}"),
            }
        });
    })?;
    tracing::info!("metrics at http://{address}/metrics");
    Ok(())
}

/// On Linux each thread has its own priority. If this fails, the thread only competes with the
/// loop.
fn take_lowest_priority() {
    let thread = rustix::thread::gettid();
    if let Err(error) = rustix::process::setpriority_process(Some(thread), NICE) {
        tracing::warn!("the priority of the thread for HTTP can't be lowered: {error}");
    }
}

async fn accept(listener: &tokio::net::TcpListener, router: &Router) {
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // The process has no file descriptor left, or the connection has ended already.
            tokio::time::sleep(ACCEPT_RETRY).await;
            continue;
        };
        open.retain(|connection| !connection.is_finished());
        if open.len() >= CONNECTIONS_MAX {
            let oldest = open.pop_front().expect("there are many");
            oldest.abort();
            // The oldest connection ends before the next one is accepted.
            tokio::task::yield_now().await;
        }
        let connection = tokio::spawn(serve_connection(stream, router.clone()));
        open.push_back(connection.abort_handle());
    }
}

async fn serve_connection(stream: TcpStream, router: Router) {
    let connection = http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_MAX)
        .max_buf_size(HEADER_SIZE_MAX)
        .max_headers(HEADER_FIELDS_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // Only the client needs to see the errors of a connection.
    let _ = tokio::time::timeout(CONNECTION_MAX, connection).await;
}

#[cfg(test)]
mod tests;
