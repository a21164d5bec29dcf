//! E6: how the first configuration is formed. Only the first listed node forms it, once every
//! listed node has given it its commitment; a node commits to one incarnation of the first listed
//! node. If the operator allows it (`--bootstrap`), the nodes that are reachable are enough,
//! provided that they are more than half of the list; the others are added later.

use crate::protocol::types::digest::Spread;
use crate::protocol::types::limits::BOOTSTRAP_WAIT_MS;
use crate::protocol::types::message::{
    Configuration, Incarnation, Member, Meta, Now, Survey, SurveyAnswer,
};
use crate::protocol::types::rules::rule;

/// What the first listed node knows of another listed node.
#[derive(Debug, Clone, Default)]
struct Surveyed {
    /// The nonce that the node reported last; a query counts only if it carries this nonce.
    nonce: u64,
    /// Its incarnation, once it has committed.
    word: Option<Incarnation>,
    /// Why it refuses to commit.
    refusal: Option<String>,
    heard: bool,
}

/// A node's part in formation, while it has no configuration.
#[derive(Debug)]
pub struct Bootstrap {
    list: Vec<String>,
    /// The name of the cluster, if the operator gave one.
    name: String,
    /// Identifies the list, so that nodes started with different lists do not form a cluster.
    fingerprint: u64,
    index: u8,
    incarnation: Incarnation,
    /// Identifies this boot: a query made for an earlier boot does not carry it, and binds no node.
    nonce: u64,
    /// One entry per listed node; only the first listed node uses it.
    surveyed: Vec<Surveyed>,
    /// Why this node waits, if it is not the first listed one.
    trouble: Option<String>,
    /// Whether more than half of the list is enough.
    partial: bool,
    /// When the latest of the nodes that responded did so for the first time.
    heard_us: u64,
    /// A cluster of which a node sends messages to this node, as if this node belonged to it, and
    /// when the last one arrived.
    cluster: Option<(u64, u64)>,
}

impl Bootstrap {
    pub fn new(
        list: Vec<String>,
        name: String,
        index: u8,
        incarnation: Incarnation,
        nonce: u64,
        partial: bool,
    ) -> Self {
        let fingerprint = xxhash_rust::xxh3::xxh3_64(list.join("\n").as_bytes());
        let surveyed = vec![Surveyed::default(); list.len()];
        Bootstrap {
            list,
            name,
            fingerprint,
            index,
            incarnation,
            nonce,
            surveyed,
            trouble: None,
            partial,
            heard_us: 0,
            cluster: None,
        }
    }

    pub fn is_first(&self) -> bool {
        self.index == 0
    }

    /// The open queries, by list index. The first listed node requests no commitment before all
    /// nodes have reported that they have no configuration: a node that has one says so, and no
    /// node commits in vain.
    pub fn questions(&self, now: Now) -> Vec<(u8, Survey)> {
        if !self.is_first() {
            return Vec::new();
        }
        let open = (1..self.list.len() as u8)
            .filter(|index| self.surveyed[usize::from(*index)].word.is_none());
        let asks_for_words = self.asks_for_words(now);
        open.map(|index| {
            let nonce = match asks_for_words {
                true => self.surveyed[usize::from(index)].nonce,
                false => 0,
            };
            (
                index,
                Survey {
                    list: self.fingerprint,
                    index: 0,
                    asker: self.incarnation,
                    nonce,
                    name: self.name.clone(),
                },
            )
        })
        .collect()
    }

    fn asks_for_words(&self, now: Now) -> bool {
        let others = || self.surveyed.iter().skip(1);
        let heard = others().filter(|entry| entry.heard).count();
        let waited = now.mono_us >= self.heard_us + BOOTSTRAP_WAIT_MS * 1_000;
        others().all(|entry| entry.heard) || self.partial && self.is_majority(heard) && waited
    }

    /// Whether this many others and the first listed node are more than half of the list.
    fn is_majority(&self, others: usize) -> bool {
        2 * (others + 1) > self.list.len()
    }

    /// A node that has a configuration sends messages to this node. It sends the configuration
    /// within a second if that names this node.
    pub fn heard_cluster(&mut self, now: Now, cluster: u64) {
        self.cluster = Some((cluster, now.mono_us));
    }

    pub fn is_ready(&self, now: Now) -> bool {
        let heard_us = self.cluster.map(|(_, heard_us)| heard_us);
        if heard_us.is_some_and(|at_us| now.mono_us < at_us + BOOTSTRAP_WAIT_MS * 1_000) {
            return false;
        }
        let others = || self.surveyed.iter().skip(1);
        let words = others().filter(|entry| entry.word.is_some()).count();
        if !self.is_first() || words + 1 == self.list.len() {
            return self.is_first();
        }
        // A node that responded and does not commit may have stopped since, or may never commit.
        let open =
            |entry: &Surveyed| entry.heard && entry.word.is_none() && entry.refusal.is_none();
        let waited = now.mono_us >= self.heard_us + 2 * BOOTSTRAP_WAIT_MS * 1_000;
        self.partial
            && self.is_majority(words)
            && self.asks_for_words(now)
            && (waited || !others().any(open))
    }

    /// Answers a query of the first listed node to this node, which has no state. Committing sets
    /// `meta.bound_to`; the caller persists it before the answer leaves.
    pub fn asked(&mut self, survey: &Survey, meta: &mut Meta) -> Option<SurveyAnswer> {
        if self.is_first() || survey.index != 0 {
            return None;
        }
        let is_named = self.name.is_empty() || self.name == survey.name;
        if survey.list != self.fingerprint {
            self.trouble = Some(format!(
                "the first listed node, {}, was started with a different node list",
                self.list[0]
            ));
        } else if !is_named {
            self.trouble = Some(format!(
                "the first listed node, {}, was started with {}, and this one with {}: start all \
                 nodes with the same name",
                self.list[0],
                name_in_words(&survey.name),
                name_in_words(&self.name)
            ));
        } else {
            let right_life = survey.nonce == self.nonce || !rule!(E6_nonce);
            if right_life && (meta.bound_to.is_none() || !rule!(E6_bound)) {
                meta.bound_to = Some(survey.asker);
            }
            self.trouble = meta.bound_to.filter(|b| *b != survey.asker).map(|_| {
                format!(
                    "this node is committed to an earlier incarnation of the first listed node, \
                     {}, which has lost its state since; stop all nodes and start them with empty \
                     data directories",
                    self.list[0]
                )
            });
        }
        let bound_to = meta.bound_to;
        let word = bound_to == Some(survey.asker)
            && (survey.nonce == self.nonce || !rule!(E6_nonce))
            && survey.list == self.fingerprint
            && is_named;
        Some(SurveyAnswer {
            list: self.fingerprint,
            index: self.index,
            incarnation: self.incarnation,
            nonce: self.nonce,
            word,
            bound_to,
            name: self.name.clone(),
        })
    }

    /// Handles an answer to a query of the first listed node.
    pub fn answered(&mut self, now: Now, answer: &SurveyAnswer) {
        let place = usize::from(answer.index);
        if !self.is_first() || place == 0 || place >= self.list.len() {
            return;
        }
        let asker = self.incarnation;
        let entry = &mut self.surveyed[place];
        if !entry.heard {
            entry.heard = true;
            self.heard_us = now.mono_us;
        }
        // A commitment given in an earlier boot of that node is void: the nonce has changed.
        if entry.nonce != answer.nonce {
            entry.word = None;
        }
        entry.nonce = answer.nonce;
        entry.refusal = if answer.list != self.fingerprint {
            Some("was started with a different node list".into())
        } else if !answer.name.is_empty() && answer.name != self.name {
            Some(format!(
                "was started with {}, and this node with {}",
                name_in_words(&answer.name),
                name_in_words(&self.name)
            ))
        } else {
            let other = answer.bound_to.filter(|bound| *bound != asker);
            other.map(|_| "is committed to an earlier incarnation of this node".into())
        };
        if answer.word && entry.refusal.is_none() {
            entry.word = Some(answer.incarnation);
        }
    }

    /// The first configuration, made of the nodes that committed; the others are added later.
    pub fn form(&self, now: Now, cluster: u64, spread: Spread) -> Option<Configuration> {
        if !self.is_ready(now) {
            return None;
        }
        let (mut members, mut away) = (Vec::new(), Vec::new());
        for (index, address) in self.list.iter().enumerate() {
            let word = match index {
                0 => Some(self.incarnation),
                _ => self.surveyed[index].word,
            };
            let member = Member {
                node: index as u8 + 1,
                incarnation: word.unwrap_or(0),
                address: address.clone(),
                ..Member::default()
            };
            match word {
                Some(_) => members.push(member),
                None => away.push(member),
            }
        }
        Some(Configuration {
            cluster,
            epoch: 1,
            members,
            joint: None,
            base: Default::default(),
            formed_by: self.incarnation,
            away,
            ids: self.list.len() as u8,
            forced: false,
            spread,
            forces: Vec::new(),
            name: self.name.clone(),
            admissions: Vec::new(),
        })
    }

    /// Another node has a configuration that this node must not install.
    pub fn note_other_name(&mut self, told: &Configuration) {
        self.trouble = Some(format!(
            "a node of cluster {:016x}, which was formed with {}, sends messages to this node, \
             which was started with {}: to join that cluster, start this node with that name; \
             otherwise stop the remaining nodes of the other cluster",
            told.cluster,
            name_in_words(&told.name),
            name_in_words(&self.name)
        ));
    }

    /// What formation is waiting for, in words for the operator.
    pub fn waits_for(&self) -> String {
        if let Some(trouble) = &self.trouble {
            return trouble.clone();
        }
        if let Some((cluster, _)) = self.cluster {
            return format!(
                "a node of an existing cluster, {cluster:016x}, sends messages to this node: it \
                 waits for the configuration of that cluster, and forms no other one meanwhile"
            );
        }
        if !self.is_first() {
            return format!(
                "there is no configuration yet: the first listed node, {}, forms it when it can \
                 reach every listed node (or, if it was started with --bootstrap, more than half \
                 of them)",
                self.list[0]
            );
        }
        let missing = self.surveyed.iter().zip(&self.list).skip(1).filter_map(
            |(entry, address)| match &entry.refusal {
                Some(refusal) => Some(format!("{address} ({refusal})")),
                None => entry.word.is_none().then(|| address.clone()),
            },
        );
        let missing: Vec<String> = missing.collect();
        let needs = match self.partial {
            true => "more than half of the listed nodes, and a few seconds for the others",
            false => "every listed node",
        };
        format!(
            "the first configuration needs {needs}; missing: {}",
            missing.join(", ")
        )
    }
}

fn name_in_words(name: &str) -> String {
    match name {
        "" => "no --cluster-name".to_owned(),
        name => format!("--cluster-name {}", name.escape_debug()),
    }
}

/// What a node without a configuration does with a configuration that names its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum First {
    Install,
    /// It has committed to another incarnation.
    Refuse,
    /// Its disk is an older copy (E1): it continues as a learner in a new incarnation.
    InstallAsNew,
}

/// E6: a node that has committed installs the configuration that follows from its commitment. E1: a
/// commitment is on disk before it is sent, so a disk that has none, although the configuration
/// names its incarnation, is an older copy. The node that formed the configuration gave no
/// commitment.
pub fn first(
    configuration: &Configuration,
    incarnation: Incarnation,
    bound_to: Option<Incarnation>,
) -> First {
    let is_named = configuration.voters().any(|m| m.incarnation == incarnation);
    let is_own = incarnation == configuration.formed_by;
    match bound_to {
        Some(bound) if bound != configuration.formed_by && rule!(E6_bound) => First::Refuse,
        None if is_named && !is_own => First::InstallAsNew,
        _ => First::Install,
    }
}
