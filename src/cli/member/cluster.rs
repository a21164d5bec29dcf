//! The cluster in use as its nodes report it: the given nodes, and those that the configuration
//! names.

use std::time::Duration;

use kvclient::{CallError, Client};
use wire::{LearningStatus, MemberStatus, NodeStatus};

use super::super::connection::ConnectionArgs;
use super::super::exit::Exit;
use super::super::status::{StatusRow, said};
use super::super::words::ClusterWord;

/// A node that is up answers at once; each query waits this long for one that is not.
const LOOK_TIMEOUT: Duration = Duration::from_millis(500);
/// Within this time the nodes that answer have determined their cluster, and nodes without one have
/// had time to do so.
const CLUSTER_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Cluster {
    client: Client,
    /// In the order of the client's nodes; without the status of nodes of another cluster.
    rows: Vec<StatusRow>,
    /// The nodes of other clusters, with their clusters.
    foreign: Vec<(String, u64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Master,
    Member,
    /// Reachable, without a vote.
    Learner,
    Away,
}

impl Role {
    pub fn votes(self) -> bool {
        matches!(self, Role::Master | Role::Member)
    }

    pub fn name(self) -> &'static str {
        match self {
            Role::Master => "master",
            Role::Member => "member",
            Role::Learner => "learner",
            Role::Away => "away",
        }
    }
}

/// A node of the newest configuration.
#[derive(Debug, PartialEq, Eq)]
pub struct Named<'a> {
    pub member: &'a MemberStatus,
    pub role: Role,
    pub learning: Option<&'a LearningStatus>,
}

impl Cluster {
    pub fn open(connection: &ConnectionArgs) -> Result<Cluster, Exit> {
        let mut cluster = Cluster {
            client: connection.open()?,
            rows: Vec::new(),
            foreign: Vec::new(),
        };
        cluster.look(connection)?;
        Ok(cluster)
    }

    /// Asks all nodes again.
    pub fn look(&mut self, connection: &ConnectionArgs) -> Result<(), Exit> {
        self.ask_all(connection)?;
        self.widen(connection)
    }

    fn ask_all(&mut self, connection: &ConnectionArgs) -> Result<(), Exit> {
        self.rows = self.client.status(LOOK_TIMEOUT);
        self.foreign.clear();
        if said(&self.rows).all(|status| status.cluster == 0) {
            return Ok(());
        }
        let own = match self.client.cluster(CLUSTER_TIMEOUT) {
            Ok(own) => own,
            Err(error @ CallError::TwoClusters { .. }) => {
                return Err(connection.refuse_call(&error));
            }
            // The node that reported it has stopped meanwhile.
            Err(_) => 0,
        };
        for (address, status) in &mut self.rows {
            let foreign = status.take_if(|status| status.cluster != own && status.cluster != 0);
            let foreign = foreign.map(|status| (address.clone(), status.cluster));
            self.foreign.extend(foreign);
        }
        Ok(())
    }

    /// Also asks the nodes that the configuration names.
    fn widen(&mut self, connection: &ConnectionArgs) -> Result<(), Exit> {
        let Some(newest) = newest(&self.rows) else {
            return Ok(());
        };
        let mut addresses: Vec<&str> = self.client.nodes().iter().map(String::as_str).collect();
        let known = addresses.len();
        for member in newest.members.iter().chain(&newest.away) {
            let (id, address) = (member.node, member.address.as_str());
            // A node that answers under another name is in the list already.
            let answers = said(&self.rows).any(|status| status.node == id);
            if !answers && !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        if addresses.len() == known {
            return Ok(());
        }
        let wider = ConnectionArgs {
            nodes: Some(addresses.join(",")),
            cluster: Some(ClusterWord::Id(newest.cluster)),
            ..connection.clone()
        };
        self.client = wider.open()?;
        self.ask_all(&wider)
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    pub fn newest(&self) -> Option<&NodeStatus> {
        newest(&self.rows)
    }

    pub fn named(&self) -> Vec<Named<'_>> {
        named(&self.rows)
    }

    /// The index among the client's nodes of the first for which this holds.
    pub fn place(&self, is_it: impl Fn(&NodeStatus) -> bool) -> Option<usize> {
        let rows = self.rows.iter();
        let mut rows = rows.map(|(_, status)| status.as_ref());
        rows.position(|status| status.is_some_and(&is_it))
    }

    /// The nodes that answer and belong to another cluster than the one in use.
    pub fn strangers(&self) -> String {
        let foreign = self.foreign.iter();
        let words =
            foreign.map(|(address, id)| format!("; {address} belongs to cluster {id:016x}"));
        words.collect()
    }

    /// The status of that node itself.
    pub fn of_node(&self, node: u8) -> Option<&NodeStatus> {
        of_node(&self.rows, node)
    }
}

/// The status of the node with the latest configuration; of several, one that serves if possible.
fn newest(rows: &[StatusRow]) -> Option<&NodeStatus> {
    let formed = said(rows).filter(|status| status.epoch > 0);
    formed.max_by_key(|status| (status.epoch, status.votes && status.quorum))
}

fn of_node(rows: &[StatusRow], node: u8) -> Option<&NodeStatus> {
    said(rows).find(|status| status.node == node)
}

fn named(rows: &[StatusRow]) -> Vec<Named<'_>> {
    let Some(newest) = newest(rows) else {
        return Vec::new();
    };
    let of_member = |member| Named {
        member,
        role: match member.node == newest.master {
            true => Role::Master,
            false => Role::Member,
        },
        learning: None,
    };
    let of_other = |member: &'_ MemberStatus| match member.heard {
        true => Role::Learner,
        false => Role::Away,
    };
    let members = newest.members.iter().map(of_member);
    let others = newest.away.iter().map(|member| Named {
        member,
        role: of_other(member),
        learning: of_node(rows, member.node).and_then(|status| status.learning.as_ref()),
    });
    members.chain(others).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(node: u8, heard: bool) -> MemberStatus {
        MemberStatus {
            node,
            address: format!("h{node}:1"),
            heard,
            incarnation: u64::from(node),
        }
    }

    fn row(node: u8, epoch: u64, votes: bool) -> StatusRow {
        let status = NodeStatus {
            node,
            epoch,
            votes,
            quorum: true,
            master: 2,
            members: vec![member(2, true), member(1, true)],
            away: vec![member(3, true), member(4, false)],
            ..NodeStatus::default()
        };
        (format!("h{node}:1"), Some(status))
    }

    #[test]
    fn who_has_the_latest_configuration_and_serves_is_believed() {
        let rows = [row(1, 3, true), row(2, 4, false), row(3, 4, true)];
        assert_eq!(newest(&rows).unwrap().node, 3);
        let unformed = [("h:1".to_owned(), Some(NodeStatus::default()))];
        assert_eq!(newest(&unformed), None);
        assert_eq!(newest(&[("h:1".to_owned(), None)]), None);
    }

    #[test]
    fn roles_are_those_of_the_configuration_and_progress_is_the_learners_own_word() {
        let learning = LearningStatus {
            buckets_done: 1_024,
            buckets: 4_096,
            keys_copied: 7,
        };
        let mut learner = row(3, 4, false);
        learner.1.as_mut().unwrap().learning = Some(learning.clone());
        let rows = [row(2, 4, true), learner];
        let found = named(&rows);
        let roles: Vec<(u8, Role)> = found.iter().map(|n| (n.member.node, n.role)).collect();
        let expected = [
            (2, Role::Master),
            (1, Role::Member),
            (3, Role::Learner),
            (4, Role::Away),
        ];
        assert_eq!(roles, expected);
        assert_eq!(found[2].learning, Some(&learning));
    }
}
