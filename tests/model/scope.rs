//! What may happen in a search.

use bytes::Bytes;
use horseshoe::protocol::message::{Configuration, Incarnation, Member, NodeId};
use kvclient::clock;
use kvclient::wire::{self, Action, Operation, OperationId};

pub const CLUSTER: u64 = 9;
pub const WALL_MS: u64 = 1_800_000_000_000;

/// One operation, of a client of its own unless `follows` says otherwise.
#[derive(Debug, Clone)]
pub struct Plan {
    pub action: Action,
    /// The nodes (from 0) that are asked, in the order in which the client asks; all but the first
    /// request are marked as retries. They arrive in any order, or never.
    pub attempts: Vec<usize>,
    /// The operation after whose end this one begins, as the same client's next.
    pub follows: Option<usize>,
}

pub fn ask(action: Action, attempts: &[usize]) -> Plan {
    Plan {
        action,
        attempts: attempts.to_vec(),
        follows: None,
    }
}

impl Plan {
    pub fn after(mut self, operation: usize) -> Plan {
        self.follows = Some(operation);
        self
    }
}

#[derive(Debug, Clone)]
pub struct Scope {
    pub nodes: usize,
    pub plans: Vec<Plan>,
    /// Pairs (node, other): node does not hear of the other, and so does not leave work to it.
    pub unheard: Vec<(usize, usize)>,
    /// A node's next timer fires.
    pub timers: u8,
    /// A message is delivered and stays in flight.
    pub duplicates: u8,
    /// A node loses what is not on its disk, and starts again.
    pub restarts: u8,
    /// A node hears nothing for so long that it knows of no quorum.
    pub silences: u8,
    /// Syncs take their time: a step of their own.
    pub slow_disks: bool,
    pub states_max: usize,
}

impl Scope {
    pub fn new(nodes: usize, plans: Vec<Plan>) -> Self {
        Scope {
            nodes,
            plans,
            unheard: Vec::new(),
            timers: 0,
            duplicates: 0,
            restarts: 0,
            silences: 0,
            slow_disks: false,
            states_max: 20_000_000,
        }
    }

    pub fn incarnation(node: usize) -> Incarnation {
        100 + node as u64
    }

    pub fn list(&self) -> Vec<String> {
        (0..self.nodes).map(|n| format!("node{n}:1")).collect()
    }

    /// All nodes have installed it before the search begins.
    pub fn configuration(&self) -> Configuration {
        let members = self.list().into_iter().enumerate();
        let members = members.map(|(n, address)| Member {
            node: n as NodeId + 1,
            incarnation: Scope::incarnation(n),
            address,
            ..Member::default()
        });
        Configuration {
            cluster: CLUSTER,
            epoch: 1,
            members: members.collect(),
            formed_by: Scope::incarnation(0),
            ids: self.nodes as u8,
            ..Configuration::default()
        }
    }

    /// A key whose preferred coordinators are the nodes in their order.
    pub fn key(&self) -> Bytes {
        let in_order = |name: &String| {
            let weight = |n: usize| wire::rendezvous_weight(name.as_bytes(), n as u8 + 1);
            (1..self.nodes).all(|n| weight(n - 1) > weight(n))
        };
        let name = (0..).map(|n| format!("k{n}")).find(in_order);
        name.expect("one of them").into()
    }

    /// The id of the plan's client, and how many operations it made before.
    fn client(&self, plan: usize) -> (usize, u64) {
        match self.plans[plan].follows {
            None => (plan, 0),
            Some(before) => {
                let (client, count) = self.client(before);
                (client, count + 1)
            }
        }
    }

    pub fn operation(&self, plan: usize) -> Operation {
        let (client, before) = self.client(plan);
        Operation {
            id: OperationId {
                client: 1_000 + client as u128,
                sequence: 1 + before,
            },
            birth: clock::from_ms(WALL_MS) + plan as u64,
            low_mark: 1 + before,
            key: self.key(),
            want_old: false,
            action: self.plans[plan].action.clone(),
        }
    }
}
