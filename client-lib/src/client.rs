//! The client: sessions over one UDP socket, driven by the threads that call it.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use crate::call::{Call, CallError, Completion};
use crate::wire::{NodeStatus, Outcome};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientOptions {
    /// How long a call waits, unless it says otherwise.
    pub deadline: Duration,
    /// How long no node may have a quorum before a call ends in `NoQuorum`.
    pub no_quorum_after: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        ClientOptions {
            deadline: Duration::from_secs(5),
            no_quorum_after: Duration::from_secs(1),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("no nodes given")]
    NoNodes,
    #[error("too many nodes given, the limit is {limit}")]
    TooManyNodes { limit: usize },
    #[error("{node:?} is not an address: host:port is needed")]
    Address { node: String },
    #[error("cannot resolve {node:?}: {source}")]
    Resolve { node: String, source: io::Error },
    #[error("cannot set up the socket: {0}")]
    Socket(#[from] io::Error),
}

#[derive(Debug)]
pub struct Client {}

impl Client {
    /// `nodes`: `host:port`, IPv4 or `[IPv6]:port`, separated by commas or spaces. Resolves names,
    /// binds a socket and returns; it does not wait for nodes.
    pub fn open(_nodes: &str, _options: ClientOptions) -> Result<Client, OpenError> {
        unimplemented!()
    }

    /// Does one call; the calling thread does its own input and output.
    pub fn call(&self, _call: Call) -> Result<Outcome, CallError> {
        unimplemented!()
    }

    /// Starts a call; its `Completion` carries `tag`. Never blocks.
    pub fn submit(&self, _call: Call, _tag: u64) -> Result<(), CallError> {
        unimplemented!()
    }

    /// Readable when `completions` has something to do or to give.
    pub fn poll_fd(&self) -> BorrowedFd<'_> {
        unimplemented!()
    }

    /// Does what is to be done without blocking, and appends up to `max` completions to `out`.
    pub fn completions(&self, _out: &mut Vec<Completion>, _max: usize) -> usize {
        unimplemented!()
    }

    /// Waits until `completions` has something to give; false if that took longer than `timeout`.
    pub fn wait(&self, _timeout: Duration) -> bool {
        unimplemented!()
    }

    /// What each given node says of itself, by the address as given; `None`: it does not answer.
    pub fn status(&self) -> Vec<(String, Option<NodeStatus>)> {
        unimplemented!()
    }

    /// Ends all calls under way; later ones give `Closed`.
    pub fn close(&self) {
        unimplemented!()
    }
}
