//! The errors of a store. Each message names the path, the error and the remedy.

use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// While opening, or creating the directory.
    #[error("{source} {doing} {}", path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// While running. What the disk holds is no longer known.
    #[error("{source} {doing} {}; the node stops", path.display())]
    Write {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(
        "{} was deleted, moved or replaced while the node ran: what it writes there would be lost. \
         The node stops, and has acknowledged nothing that it wrote since. If the data directory \
         was moved, put it back as it was; otherwise move what is left of it away: the node then \
         starts empty, as a new member",
        path.display()
    )]
    Gone { path: PathBuf },
    #[error(
        "an earlier write to {} failed; nothing more is written, and the node stops",
        path.display()
    )]
    Stopped { path: PathBuf },
    #[error(
        "the data directory {} is in use{}: stop that node, or give this one a directory of its own",
        directory.display(),
        pid.map_or(String::new(), |pid| format!(" by process {pid}"))
    )]
    InUse {
        directory: PathBuf,
        pid: Option<u32>,
    },
    #[error(
        "{} holds {found:?} but no identity file, so it is not the data directory of a node (or \
         its identity file was removed): give the node a new or empty directory",
        directory.display()
    )]
    Foreign { directory: PathBuf, found: String },
    #[error(
        "the data directory {} was made for the nodes {made_for}, but this node is started with \
         {given}: start it with the list that it was made for, or give it another directory; if \
         its nodes have new addresses, run `horseshoe data readdress`",
        directory.display()
    )]
    OtherList {
        directory: PathBuf,
        made_for: String,
        given: String,
    },
    #[error(
        "the data directory {} was made for node {made_for} of the list (counted from 0), but this \
         node is started as node {given}: give each node a directory of its own",
        directory.display()
    )]
    OtherIndex {
        directory: PathBuf,
        made_for: u8,
        given: u8,
    },
    #[error(
        "the data directory {} is that of node {node}, whose address is {address}, but this node \
         is started as {given} (of the list {list}): start it with a list and an index that name \
         {address}, or give it another directory; if it has a new address, run `horseshoe data \
         readdress`",
        directory.display()
    )]
    OtherAddress {
        directory: PathBuf,
        node: String,
        address: String,
        given: String,
        list: String,
    },
    #[error(
        "{what} in {} has format version {found}, this build reads version {known}: start the \
         node with the release that wrote it",
        path.display()
    )]
    Version {
        path: PathBuf,
        what: &'static str,
        found: u32,
        known: u32,
    },
    #[error(
        "the data directory {} has format version {found}, of an earlier release; this build reads \
         version {known} only. Nothing was changed. Replace the nodes one at a time: stop a node, \
         move its data directory away, and start it with an empty one; it is admitted as a new \
         member and copies what the others hold. Wait until `horseshoe status` shows that nothing \
         is pending before the next node. Or start the release that wrote it, `horseshoe export` \
         with it, and `horseshoe import` into a new cluster",
        directory.display()
    )]
    OldFormat {
        directory: PathBuf,
        found: u32,
        known: u32,
    },
    /// R2: what was synced may have been reported to others.
    #[error(
        "the store in {} ends at group {store}, but group {mark} was synced: groups that other \
         nodes rely on are missing. {REMEDY}",
        path.display()
    )]
    Behind {
        path: PathBuf,
        store: u64,
        mark: u64,
    },
    #[error("{} was not changed: {why}", directory.display())]
    Readdress { directory: PathBuf, why: String },
    #[error("{} is damaged: {what}. {REMEDY}", path.display())]
    Damaged { path: PathBuf, what: String },
}

const REMEDY: &str = "A node does not start if a promise that it made may be lost. If files of the \
                      data directory were moved or a disk is not mounted, put them back as they \
                      were; never put back an older copy. Otherwise move the whole data directory \
                      away: the node then starts empty, as a new member";

impl StorageError {
    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| StorageError::Io {
            doing,
            path,
            source,
        }
    }

    pub(super) fn damaged(path: &Path, what: impl Into<String>) -> Self {
        StorageError::Damaged {
            path: path.to_path_buf(),
            what: what.into(),
        }
    }

    /// The error alone, without its consequence.
    pub(super) fn cause(&self) -> String {
        match self {
            StorageError::Io { source, .. } | StorageError::Write { source, .. } => {
                source.to_string()
            }
            other => other.to_string(),
        }
    }

    /// An error of a call that changes a running store.
    pub(super) fn into_write(self) -> Self {
        match self {
            StorageError::Io {
                doing,
                path,
                source,
            } => StorageError::Write {
                doing,
                path,
                source,
            },
            other => other,
        }
    }
}
