//! The identity file: the node to which this data directory belongs, and how its last run ended.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::StorageError;
use super::{Durability, file};
use crate::protocol::types::message::{Configuration, Incarnation, Member, NodeId};
use crate::protocol::types::readdress::{self, Readdressed};

/// Format of the whole data directory. Earlier versions, which had no log and checkpoint, are not
/// read.
pub const FORMAT: u32 = 4;
const ABOUT: &str =
    "The data directory of a Horseshoe node; see docs/storage.md. Not to be edited.";

/// The fields of the file, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    about: String,
    format: u32,
    /// Known once there is a configuration.
    pub cluster: Option<u64>,
    pub node: Option<NodeId>,
    /// The node's address in the configuration, once the configuration differs from the list; from
    /// then on it counts in place of list and index.
    pub address: Option<String>,
    /// Nodes that are at other addresses than the configuration says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub readdressed: Vec<Readdressed>,
    pub incarnation: Incarnation,
    /// Random, and never sent: the salt of the checksums in the store.
    pub salt: u64,
    pub list: Vec<String>,
    pub index: u8,
    /// The store of this incarnation was created. Before that, the node promised nothing.
    pub made: bool,
    /// The durability of the last run, or of the current one.
    pub durability: Durability,
    pub clean_stop: bool,
    pub boot_id: Option<String>,
}

#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

impl Identity {
    pub fn new(
        list: Vec<String>,
        index: u8,
        incarnation: Incarnation,
        salt: u64,
        run: LastRun,
    ) -> Self {
        Identity {
            about: ABOUT.to_string(),
            format: FORMAT,
            cluster: None,
            node: None,
            address: None,
            readdressed: Vec::new(),
            incarnation,
            salt,
            list,
            index,
            made: false,
            durability: run.durability,
            clean_stop: false,
            boot_id: run.boot_id,
        }
    }

    /// `None` if there is no such file.
    pub fn read(path: &Path) -> Result<Option<Self>, StorageError> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(StorageError::io("reading", path)(e)),
        };
        let damaged = |e: serde_json::Error| StorageError::damaged(path, e.to_string());
        // The version alone first: another one may have other fields.
        let FormatOnly { format } = serde_json::from_slice(&bytes).map_err(damaged)?;
        if format < FORMAT {
            return Err(StorageError::OldFormat {
                directory: path.parent().unwrap_or(path).to_path_buf(),
                found: format,
                known: FORMAT,
            });
        }
        if format != FORMAT {
            return Err(StorageError::Version {
                path: path.to_path_buf(),
                what: "the data directory, by its identity file",
                found: format,
                known: FORMAT,
            });
        }
        serde_json::from_slice(&bytes).map(Some).map_err(damaged)
    }

    pub fn write(&self, path: &Path) -> Result<(), StorageError> {
        let mut text = serde_json::to_vec_pretty(self).expect("an identity is plain data");
        text.push(b'\n');
        file::replace(path, &text)
    }

    /// Refuses a directory that was made for another list or index, or, once the configuration was
    /// changed, for a node at another address.
    pub fn check_made_for(
        &self,
        directory: &Path,
        list: &[String],
        index: u8,
    ) -> Result<(), StorageError> {
        if let Some(address) = &self.address {
            let mut of_own = self
                .readdressed
                .iter()
                .filter(|r| Some(r.node) == self.node);
            let reported = of_own.find(|r| r.old == *address);
            let address = reported.map_or(address, |reported| &reported.new);
            let own = &list[usize::from(index)];
            if own == address {
                return Ok(());
            }
            return Err(StorageError::OtherAddress {
                directory: directory.to_path_buf(),
                node: self.node.map_or("?".into(), |node| node.to_string()),
                address: address.clone(),
                given: own.clone(),
                list: list.join(","),
            });
        }
        // The configuration is exactly the list, so the addresses in it are those of its nodes.
        let present = |address: &String| {
            let reported = self.readdressed.iter().find(|r| r.old == *address);
            reported.map_or_else(|| address.clone(), |reported| reported.new.clone())
        };
        let made_for: Vec<String> = self.list.iter().map(present).collect();
        if made_for != list {
            return Err(StorageError::OtherList {
                directory: directory.to_path_buf(),
                made_for: made_for.join(","),
                given: list.join(","),
            });
        }
        if self.index != index {
            return Err(StorageError::OtherIndex {
                directory: directory.to_path_buf(),
                made_for: self.index,
                given: index,
            });
        }
        Ok(())
    }

    /// E1: whether everything that the last run wrote is certainly there. What was written only to
    /// the operating system is there after a clean stop, or as long as the machine has not booted
    /// since.
    pub fn proves_state(&self, boot_id: Option<&str>) -> bool {
        let same_boot = boot_id.is_some() && self.boot_id.as_deref() == boot_id;
        self.durability == Durability::Fsync || self.clean_stop || same_boot
    }

    /// Discards readdressings that a later configuration replaces. To be called once it is on disk:
    /// until then the node is found by its readdressing.
    pub fn forget_readdressed(&mut self, configuration: &Configuration) {
        if configuration.joint.is_none() {
            let is_of = |r: &Readdressed| configuration.nodes().any(|member| r.is_of(member));
            self.readdressed.retain(is_of);
        }
    }

    /// Assigns the directory of a node that never belonged to a cluster to this list and index.
    pub fn remake(&mut self, list: Vec<String>, index: u8) {
        (self.list, self.index) = (list, index);
    }

    /// Records that a run begins, which counts as not stopped cleanly until it is.
    pub fn begin(&mut self, run: LastRun) {
        self.durability = run.durability;
        self.boot_id = run.boot_id;
        self.clean_stop = false;
    }

    /// Takes from a configuration the cluster, the id of the node at `own` (the address of this
    /// run), and the address of that id; returns whether that changed anything.
    pub fn learn(&mut self, configuration: &Configuration, own: &str) -> bool {
        let joint = configuration.joint.iter().flatten();
        let nodes = configuration.members.iter().chain(joint);
        let mut nodes = nodes.chain(&configuration.away);
        let is_own = |member: &&Member| readdress::address(&self.readdressed, member) == own;
        let at_own = nodes.clone().find(is_own);
        let node = at_own.map(|member| member.node).or(self.node);
        let listed = configuration.members.iter().map(|member| &member.address);
        let is_changed = configuration.epoch > 1 || !listed.eq(&self.list);
        let named = nodes.find(|member| is_changed && Some(member.node) == node);
        let address = named.map(|member| member.address.clone());
        let learned = Identity {
            cluster: Some(configuration.cluster),
            node,
            address: address.or_else(|| self.address.clone()),
            ..self.clone()
        };
        let news = learned != *self;
        *self = learned;
        news
    }
}

/// The record of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastRun {
    pub durability: Durability,
    pub boot_id: Option<String>,
}

/// A text that changes with each boot of the machine; `None` where the kernel provides none.
pub fn kernel_boot_id() -> Option<String> {
    let path = PathBuf::from("/proc/sys/kernel/random/boot_id");
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim().to_string()).filter(|id| !id.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(durability: Durability) -> Identity {
        let run = LastRun {
            durability,
            boot_id: Some("boot".into()),
        };
        Identity::new(vec!["a:1".into(), "b:1".into()], 1, 77, 5, run)
    }

    #[test]
    fn what_proves_state() {
        let mut fsync = identity(Durability::Fsync);
        assert!(fsync.proves_state(Some("other")) && fsync.proves_state(None));
        let mut os = identity(Durability::Os);
        assert!(os.proves_state(Some("boot")));
        assert!(!os.proves_state(Some("other")) && !os.proves_state(None));
        os.boot_id = None;
        assert!(!os.proves_state(None));
        os.clean_stop = true;
        assert!(os.proves_state(Some("other")));
        let run = LastRun {
            durability: Durability::Os,
            boot_id: Some("boot".into()),
        };
        os.begin(run.clone());
        fsync.begin(run);
        assert!(!os.proves_state(Some("other")) && !fsync.proves_state(Some("other")));
    }

    #[test]
    fn the_file_comes_back_and_other_formats_do_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("identity");
        assert_eq!(Identity::read(&path).unwrap(), None);
        let identity = identity(Durability::Fsync);
        identity.write(&path).unwrap();
        assert_eq!(Identity::read(&path).unwrap(), Some(identity));
        fs::write(&path, r#"{"format": 5, "what a later one has": 1}"#).unwrap();
        let error = Identity::read(&path).unwrap_err().to_string();
        assert!(
            error.contains("has format version 5, this build reads version 4"),
            "{error}"
        );
        for broken in ["", "{", r#"{"format": 4}"#] {
            fs::write(&path, broken).unwrap();
            let error = Identity::read(&path).unwrap_err();
            assert!(matches!(error, StorageError::Damaged { .. }), "{error}");
        }
    }

    fn member(node: NodeId, address: &str) -> Member {
        Member {
            node,
            address: address.into(),
            ..Member::default()
        }
    }

    fn first() -> Configuration {
        Configuration {
            cluster: 9,
            epoch: 1,
            members: vec![member(3, "a:1"), member(4, "b:1")],
            ..Configuration::default()
        }
    }

    #[test]
    fn ids_are_learned_from_the_node_with_this_nodes_address() {
        let mut configuration = first();
        let mut identity = identity(Durability::Fsync);
        assert!(identity.learn(&configuration, "b:1"));
        assert_eq!((identity.cluster, identity.node), (Some(9), Some(4)));
        assert_eq!(identity.address, None);
        assert!(!identity.learn(&configuration, "b:1"));
        // The node is removed: first it is a non-member, then unknown; the id that it had stays.
        configuration.away.extend(configuration.members.pop());
        assert!(identity.learn(&configuration, "b:1"));
        assert_eq!(identity.address.as_deref(), Some("b:1"));
        configuration.away.pop();
        assert!(!identity.learn(&configuration, "b:1"));
        assert_eq!(identity.node, Some(4));
        configuration.joint = Some(vec![member(5, "b:1")]);
        assert!(identity.learn(&configuration, "b:1"));
        assert_eq!(identity.node, Some(5));
    }

    #[test]
    fn a_readdressed_node_is_found_by_its_new_address_until_the_configuration_says_it() {
        let list = |text: &str| -> Vec<String> { text.split(',').map(String::from).collect() };
        let check = |identity: &Identity, text: &str, index: u8| {
            identity.check_made_for(Path::new("here"), &list(text), index)
        };
        let mut identity = identity(Durability::Fsync);
        identity.learn(&first(), "b:1");
        identity.readdressed = vec![Readdressed {
            node: 4,
            old: "b:1".into(),
            new: "y:1".into(),
        }];
        check(&identity, "a:1,y:1", 1).unwrap();
        check(&identity, "a:1,b:1", 1).unwrap_err();
        // The entry applies as long as the configuration has the old address, and no longer after
        // that was changed.
        let later = Configuration {
            epoch: 3,
            ..first()
        };
        for configuration in [first(), later] {
            identity.learn(&configuration, "y:1");
            identity.forget_readdressed(&configuration);
            assert_eq!((identity.node, identity.readdressed.len()), (Some(4), 1));
            check(&identity, "a:1,y:1", 1).unwrap();
        }
        let agreed = Configuration {
            epoch: 5,
            members: vec![member(3, "a:1"), member(4, "y:1")],
            ..first()
        };
        identity.learn(&agreed, "y:1");
        check(&identity, "a:1,y:1", 1).unwrap();
        identity.forget_readdressed(&agreed);
        assert!(identity.readdressed.is_empty());
        assert_eq!(identity.address.as_deref(), Some("y:1"));
        check(&identity, "y:1,c:1", 0).unwrap();
        // The other node has taken the former address; that is on disk only with the next start.
        let entry = |node, old: &str, new: &str| Readdressed {
            node,
            old: old.into(),
            new: new.into(),
        };
        identity.readdressed = vec![entry(3, "y:1", "a:1"), entry(4, "a:1", "y:1")];
        check(&identity, "a:1,y:1", 1).unwrap();
        check(&identity, "y:1,a:1", 1).unwrap_err();
    }

    #[test]
    fn once_the_configuration_was_changed_the_address_of_the_id_counts() {
        let list = |text: &str| -> Vec<String> { text.split(',').map(String::from).collect() };
        let check = |identity: &Identity, text: &str, index: u8| {
            let checked = identity.check_made_for(Path::new("here"), &list(text), index);
            checked.map_err(|error| error.to_string())
        };
        let mut identity = identity(Durability::Fsync);
        identity.learn(&first(), "b:1");
        check(&identity, "a:1,b:1", 1).unwrap();
        let error = check(&identity, "b:1,a:1", 0).unwrap_err();
        assert!(
            error.contains("a:1,b:1") && error.contains("b:1,a:1"),
            "{error}"
        );
        check(&identity, "a:1,b:1", 0).unwrap_err();
        let later = Configuration {
            epoch: 3,
            members: vec![member(4, "b:1"), member(5, "c:1")],
            ..first()
        };
        assert!(identity.learn(&later, "b:1"));
        for (text, index) in [("a:1,b:1", 1), ("b:1,c:1", 0), ("c:1,d:1,b:1", 2)] {
            check(&identity, text, index).unwrap();
        }
        let error = check(&identity, "b:1,c:1", 1).unwrap_err();
        for part in ["here", "node 4", "b:1", "started as c:1", "b:1,c:1"] {
            assert!(error.contains(part), "{part} in {error}");
        }
        // The id moves to another address: the state counts there, and no longer here.
        let moved = Configuration {
            epoch: 5,
            members: vec![member(4, "d:1")],
            ..first()
        };
        assert!(identity.learn(&moved, "b:1"));
        check(&identity, "d:1", 0).unwrap();
        check(&identity, "a:1,b:1", 1).unwrap_err();
    }
}
