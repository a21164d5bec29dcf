//! E6: how the first configuration comes to be. The first listed node, and only it, forms it, when
//! every listed node has given it its word; a node gives its word to one incarnation of the first.
//! Where the operator says so, the nodes that are there will do, if they are more than half of the
//! list; the others are to come.

use crate::protocol::types::digest::Spread;
use crate::protocol::types::limits::BOOTSTRAP_WAIT_MS;
use crate::protocol::types::message::{
    Configuration, Incarnation, Member, Meta, Now, Survey, SurveyAnswer,
};
use crate::protocol::types::rules::rule;

/// What the first listed node knows of another.
#[derive(Debug, Clone, Default)]
struct Surveyed {
    /// As it last gave it; a question must carry it to count.
    nonce: u64,
    /// Its incarnation, once it gave its word.
    word: Option<Incarnation>,
    /// Why it will not.
    refusal: Option<String>,
    heard: bool,
}

/// A node's part while it has no configuration.
#[derive(Debug)]
pub struct Bootstrap {
    list: Vec<String>,
    /// What the cluster is to be called, if the operator said so.
    name: String,
    /// Of the list, so that nodes started with different ones do not form a cluster.
    fingerprint: u64,
    index: u8,
    incarnation: Incarnation,
    /// Of this life: a question from an earlier one does not carry it, and binds nobody.
    nonce: u64,
    /// One entry a listed node; used by the first only.
    surveyed: Vec<Surveyed>,
    /// What this node, not the first, has to say of its wait.
    trouble: Option<String>,
    /// More than half of the list will do.
    partial: bool,
    /// When the last of those that are there was heard for the first time.
    heard_us: u64,
    /// A cluster of which a node sends here, as if this one belonged to it, and when it last did.
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

    /// The questions that are still open, by list index. Nobody is asked for its word before all have
    /// told that they have no configuration: whoever has one says so, and nobody is bound in vain.
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

    /// Whether so many others and the first make more than half of the list.
    fn is_majority(&self, others: usize) -> bool {
        2 * (others + 1) > self.list.len()
    }

    /// A node that has a configuration sends to this one: it tells that configuration within a second,
    /// if that names this node.
    pub fn heard_cluster(&mut self, now: Now, cluster: u64) {
        self.cluster = Some((cluster, now.mono_us));
    }

    /// Whether the first configuration can be formed.
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
        // Who was heard and gives no word may have gone again, or won't give it.
        let open =
            |entry: &Surveyed| entry.heard && entry.word.is_none() && entry.refusal.is_none();
        let waited = now.mono_us >= self.heard_us + 2 * BOOTSTRAP_WAIT_MS * 1_000;
        self.partial
            && self.is_majority(words)
            && self.asks_for_words(now)
            && (waited || !others().any(open))
    }

    /// A question of the first listed node to this one, which has no state. `meta.bound_to` is set
    /// by giving one's word; the caller persists it before the answer leaves.
    pub fn asked(&mut self, survey: &Survey, meta: &mut Meta) -> Option<SurveyAnswer> {
        if self.is_first() || survey.index != 0 {
            return None;
        }
        let is_named = self.name.is_empty() || self.name == survey.name;
        if survey.list != self.fingerprint {
            self.trouble = Some(format!(
                "the first listed node, {}, was started with another list of nodes",
                self.list[0]
            ));
        } else if !is_named {
            self.trouble = Some(format!(
                "the first listed node, {}, was started with {}, and this one with {}: start all with the \
                 same",
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
                    "gave its word to an earlier life of the first listed node, {}, which has \
                     lost its state since; stop all nodes and start them with empty data \
                     directories",
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

    /// An answer to the first listed node.
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
        // A word given in an earlier life of the teller is void with its nonce.
        if entry.nonce != answer.nonce {
            entry.word = None;
        }
        entry.nonce = answer.nonce;
        entry.refusal = if answer.list != self.fingerprint {
            Some("was started with another list of nodes".into())
        } else if !answer.name.is_empty() && answer.name != self.name {
            Some(format!(
                "was started with {}, and this node with {}",
                name_in_words(&answer.name),
                name_in_words(&self.name)
            ))
        } else {
            let other = answer.bound_to.filter(|bound| *bound != asker);
            other.map(|_| "gave its word to an earlier life of this node".into())
        };
        if answer.word && entry.refusal.is_none() {
            entry.word = Some(answer.incarnation);
        }
    }

    /// The first configuration, of those that gave their word; the others come later.
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
        })
    }

    /// Another node has a configuration that this one is not to take.
    pub fn note_other_name(&mut self, told: &Configuration) {
        self.trouble = Some(format!(
            "a node of cluster {:016x} sends here, which was formed with {}, and this node was started with \
             {}: to join that cluster, start it with that name; else stop what is left of the other cluster",
            told.cluster,
            name_in_words(&told.name),
            name_in_words(&self.name)
        ));
    }

    /// What is waited for, in plain words.
    pub fn waits_for(&self) -> String {
        if let Some(trouble) = &self.trouble {
            return trouble.clone();
        }
        if let Some((cluster, _)) = self.cluster {
            return format!(
                "there is a cluster already, {cluster:016x}, of which a node sends here: this one waits \
                 to be told its configuration, and forms no other while that goes on"
            );
        }
        if !self.is_first() {
            return format!(
                "the first configuration, which the first listed node, {}, forms when it has heard \
                 every listed node (or, started with --bootstrap, more than half of them)",
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

/// What a node without a configuration does with one that names its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum First {
    Install,
    /// It gave its word to somebody else.
    Refuse,
    /// Its disk is an older copy (E1): it goes on as somebody new.
    InstallAsNew,
}

/// E6: a node that gave its word installs what comes of that. E1: a word is on disk before it is given, so a
/// disk that knows of none, though the configuration names its incarnation, is an older copy. The node that
/// formed the configuration gave no word.
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
