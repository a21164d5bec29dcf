//! Records in a data directory, while no node uses it, that nodes of its cluster have other
//! addresses.

use std::path::Path;

use super::directory::Directory;
use super::error::StorageError;
use super::identity::{self, Identity};
use super::mark::Mark;
use super::open::owner;
use super::recovery::Found;
use crate::protocol::types::message::{Configuration, Member, NodeId};
use crate::protocol::types::readdress::{Readdressed, address};

/// A node's old and its new address.
pub type Pair = (String, String);

/// The result of one pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    pub node: NodeId,
    pub address: String,
    /// The node had this address before.
    pub was_so: bool,
}

/// Applies all of the pairs or none. Each old address must be a node's, and afterwards no two nodes
/// may have the same address. A pair that was applied before may be given again.
pub fn readdress(path: &Path, pairs: &[Pair]) -> Result<Vec<Done>, StorageError> {
    let refused = |why: String| StorageError::Readdress {
        directory: path.to_path_buf(),
        why,
    };
    let no_node = || refused("it is not the data directory of a node".into());
    if !Directory::is_there(path) {
        return Err(no_node());
    }
    let directory = Directory::open(path)?;
    let identity = Identity::read(&directory.identity())?;
    let mut identity = identity.ok_or_else(no_node)?;
    let configuration = configuration(&directory, &identity)?.ok_or_else(|| {
        refused(
            "it belongs to no cluster yet: start the node with an empty directory and the new list"
                .into(),
        )
    })?;
    let history = AddressHistory {
        held: &identity.readdressed,
        list: &identity.list,
    };
    let (readdressed, done) = plan(&configuration, history, pairs).map_err(refused)?;
    if readdressed != identity.readdressed {
        identity.readdressed = readdressed;
        identity.write(&directory.identity())?;
    }
    Ok(done)
}

/// `None` if there is none, or if the state does not count.
fn configuration(
    directory: &Directory,
    identity: &Identity,
) -> Result<Option<Configuration>, StorageError> {
    let boot_id = identity::kernel_boot_id();
    if !identity.made || !identity.proves_state(boot_id.as_deref()) {
        return Ok(None);
    }
    let (mark, _) = Mark::open(&directory.mark(), identity.incarnation)?;
    let found = Found::read(&directory.store(), owner(identity), &mark)?;
    Ok(found.meta.configuration)
}

fn all(configuration: &Configuration) -> impl Iterator<Item = &Member> {
    let joint = configuration.joint.iter().flatten();
    configuration.nodes().chain(joint)
}

/// What a directory knows of addresses besides the configuration.
#[derive(Clone, Copy)]
struct AddressHistory<'a> {
    held: &'a [Readdressed],
    /// The list that the node was first started with.
    list: &'a [String],
}

impl AddressHistory<'_> {
    /// Whether that node once was at `old`. The first configuration assigned ids in the list's
    /// order.
    fn was_at(&self, node: NodeId, old: &str) -> bool {
        let is_held = |r: &Readdressed| r.node == node && (r.old == old || r.new == old);
        let listed = self.list.get(usize::from(node).wrapping_sub(1));
        self.held.iter().any(is_held) || listed.is_some_and(|listed| listed == old)
    }
}

fn plan(
    configuration: &Configuration,
    history: AddressHistory<'_>,
    pairs: &[Pair],
) -> Result<(Vec<Readdressed>, Vec<Done>), String> {
    // Readdressings that the configuration contains by now are over.
    let is_held = |r: &&Readdressed| all(configuration).any(|member| r.is_of(member));
    let held: Vec<Readdressed> = history.held.iter().filter(is_held).cloned().collect();
    let mut next = held.clone();
    let mut done = Vec::new();
    for (at, (old, new)) in pairs.iter().enumerate() {
        if old == new {
            return Err(format!(
                "{old}={new} changes nothing: both addresses are the same"
            ));
        }
        if pairs[..at].iter().any(|(other, _)| other == old) {
            return Err(format!("{old} is given twice"));
        }
        let present = all(configuration).find(|member| address(&held, member) == old);
        let agreed = all(configuration).find(|member| member.address == *old);
        // The pair was given before, with other pairs or alone.
        let already = all(configuration).find(|member| address(&held, member) == new);
        let (member, was_so) = match (present, agreed, already) {
            (_, Some(agreed), Some(already)) if agreed.node == already.node => (already, true),
            (Some(present), _, _) => (present, false),
            (None, Some(agreed), _) => (agreed, false),
            // The configuration already contains the new address. An unknown OLD may be misspelt.
            (None, None, Some(already)) if history.was_at(already.node, old) => (already, true),
            (None, None, _) => return Err(unknown(configuration, &held, old)),
        };
        done.push(Done {
            node: member.node,
            address: new.clone(),
            was_so,
        });
        if was_so {
            continue;
        }
        next.retain(|r| r.node != member.node);
        if member.address != *new {
            next.push(Readdressed {
                node: member.node,
                old: member.address.clone(),
                new: new.clone(),
            });
        }
    }
    next.sort_by_key(|r| r.node);
    check_apart(configuration, &next)?;
    Ok((next, done))
}

fn unknown(configuration: &Configuration, held: &[Readdressed], old: &str) -> String {
    let mut known: Vec<&str> = all(configuration)
        .map(|member| address(held, member))
        .collect();
    known.sort_unstable();
    known.dedup();
    let known = known.join(", ");
    format!("{old} is not an address of its configuration; the addresses are {known}")
}

/// Two nodes at one address would never receive from each other.
fn check_apart(configuration: &Configuration, next: &[Readdressed]) -> Result<(), String> {
    let mut seen: Vec<(&str, NodeId)> = Vec::new();
    for member in all(configuration) {
        let at = address(next, member);
        if let Some((_, other)) = seen.iter().find(|(a, n)| *a == at && *n != member.node) {
            let (first, second) = (member.node.min(*other), member.node.max(*other));
            return Err(format!(
                "{at} would be the address of node {first} and of node {second}"
            ));
        }
        seen.push((at, member.node));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(node: NodeId, address: &str) -> Member {
        Member {
            node,
            address: address.into(),
            ..Member::default()
        }
    }

    fn configuration() -> Configuration {
        Configuration {
            members: vec![member(1, "a:1"), member(2, "b:1")],
            away: vec![member(3, "c:1")],
            ..Configuration::default()
        }
    }

    fn pairs(words: &str) -> Vec<Pair> {
        let pairs = words.split(' ').map(|pair| pair.split_once('=').unwrap());
        pairs.map(|(old, new)| (old.into(), new.into())).collect()
    }

    fn known(held: &[Readdressed]) -> AddressHistory<'_> {
        AddressHistory { held, list: &[] }
    }

    fn reported(
        held: &[Readdressed],
        words: &str,
    ) -> Result<Vec<(NodeId, String, String)>, String> {
        let (next, _) = plan(&configuration(), known(held), &pairs(words))?;
        Ok(next.into_iter().map(|r| (r.node, r.old, r.new)).collect())
    }

    fn held(words: &str) -> Vec<Readdressed> {
        plan(&configuration(), known(&[]), &pairs(words)).unwrap().0
    }

    fn one(node: NodeId, old: &str, new: &str) -> (NodeId, String, String) {
        (node, old.into(), new.into())
    }

    #[test]
    fn nodes_with_a_vote_and_without_get_addresses_of_their_own() {
        let all = reported(&[], "a:1=x:1 c:1=z:1").unwrap();
        assert_eq!(all, [one(1, "a:1", "x:1"), one(3, "c:1", "z:1")]);
        let swapped = reported(&[], "a:1=b:1 b:1=a:1").unwrap();
        assert_eq!(swapped, [one(1, "a:1", "b:1"), one(2, "b:1", "a:1")]);
    }

    #[test]
    fn what_is_wrong_is_named_and_nothing_is_done() {
        for (words, why) in [
            ("a:1=a:1", "changes nothing"),
            (
                "d:1=x:1",
                "d:1 is not an address of its configuration; the addresses are a:1, b:1, c:1",
            ),
            (
                "a:1=b:1",
                "b:1 would be the address of node 1 and of node 2",
            ),
            ("a:1=c:1", "node 1 and of node 3"),
            ("a:1=x:1 b:1=x:1", "x:1 would be"),
            ("misspelt:1=b:1", "misspelt:1 is not an address"),
            ("a:1=x:1 a:1=y:1", "given twice"),
        ] {
            let error = reported(&[], words).unwrap_err();
            assert!(error.contains(why), "{words}: {error}");
        }
    }

    #[test]
    fn it_can_be_told_again_corrected_and_taken_back() {
        let before = held("a:1=x:1");
        assert_eq!(
            reported(&before, "a:1=x:1").unwrap(),
            [one(1, "a:1", "x:1")]
        );
        let (_, done) = plan(&configuration(), known(&before), &pairs("a:1=x:1")).unwrap();
        assert!(done[0].was_so);
        for corrected in ["a:1=y:1", "x:1=y:1"] {
            assert_eq!(
                reported(&before, corrected).unwrap(),
                [one(1, "a:1", "y:1")]
            );
        }
        assert_eq!(reported(&before, "x:1=a:1").unwrap(), []);
        let more = reported(&before, "a:1=x:1 b:1=y:1").unwrap();
        assert_eq!(more, [one(1, "a:1", "x:1"), one(2, "b:1", "y:1")]);
        // Repeating a swap does not undo it.
        let swapped = held("a:1=b:1 b:1=a:1");
        assert_eq!(
            held("a:1=b:1 b:1=a:1"),
            plan(&configuration(), known(&swapped), &pairs("a:1=b:1 b:1=a:1"))
                .unwrap()
                .0
        );
    }

    #[test]
    fn what_the_configuration_has_taken_in_is_over() {
        let before = held("a:1=x:1 b:1=y:1");
        let mut later = configuration();
        later.members[0].address = "x:1".into();
        let (next, done) = plan(&later, known(&before), &pairs("a:1=x:1 b:1=y:1")).unwrap();
        assert!(done.iter().all(|done| done.was_so), "{done:?}");
        assert_eq!(next, [before[1].clone()]);
    }
    #[test]
    fn a_repetition_is_known_by_the_first_list_once_the_directory_has_forgotten() {
        let list = ["a:1".to_owned(), "b:1".to_owned()];
        let known = AddressHistory {
            held: &[],
            list: &list,
        };
        let mut later = configuration();
        later.members[0].address = "x:1".into();
        let (next, done) = plan(&later, known, &pairs("a:1=x:1")).unwrap();
        assert!(done[0].was_so && next.is_empty(), "{done:?}");
        for misspelt in ["aa:1=x:1", "a:1=b:1"] {
            let error = plan(&later, known, &pairs(misspelt)).unwrap_err();
            assert!(error.contains("is not an address"), "{misspelt}: {error}");
        }
    }
}
