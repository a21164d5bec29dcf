//! Asking one node something about itself or its configuration, with retries.

use super::Session;
use super::attempts::Target;
use crate::wire::{
    Change, ChangeAnswer, ChangeOutcome, ChangeRequest, NodeStatus, StatusAnswer, StatusRequest,
    kind,
};

const RETRY_US: u64 = 50_000;

/// What a node is asked. Asking the same again does no harm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    Status,
    Change(Change),
}

/// What it told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    Status(Box<NodeStatus>),
    Change(ChangeOutcome),
}

#[derive(Debug)]
pub(super) struct Asked {
    tag: u64,
    place: usize,
    question: Question,
    deadline_us: u64,
    /// When the next request is due.
    retry_us: u64,
}

/// `None` if the node did not answer in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuestionCompletion {
    pub tag: u64,
    pub node: usize,
    pub told: Option<Told>,
}

impl Session {
    /// Asks the node at that place among those given; waits for up to `wait_us`.
    pub fn ask(&mut self, now_us: u64, place: usize, question: Question, wait_us: u64, tag: u64) {
        let asked = Asked {
            tag,
            place,
            question,
            deadline_us: now_us.saturating_add(wait_us),
            retry_us: now_us,
        };
        let id = self.next_question;
        self.next_question += 1;
        self.questions.insert(id, asked);
        self.ask_due(now_us);
    }

    /// Sends the requests that are due, and gives up those whose time is over.
    pub(super) fn ask_due(&mut self, now_us: u64) {
        let closed = self.closed;
        let due = |asked: &Asked| closed || now_us >= asked.retry_us.min(asked.deadline_us);
        let ids = self.questions.iter().filter(|(_, asked)| due(asked));
        let ids: Vec<u64> = ids.map(|(id, _)| *id).collect();
        for id in ids {
            let asked = &self.questions[&id];
            if closed || now_us >= asked.deadline_us || asked.place >= self.nodes.len() {
                self.complete_question(id, None);
            } else {
                self.send_question(now_us, id);
            }
        }
    }

    /// A node can be sent requests again: those that wait for it are.
    pub(super) fn ask_again(&mut self, now_us: u64, place: usize) {
        for asked in self.questions.values_mut().filter(|a| a.place == place) {
            asked.retry_us = now_us;
        }
        self.ask_due(now_us);
    }

    fn send_question(&mut self, now_us: u64, id: u64) {
        let asked = self.questions.get_mut(&id).expect("the caller looked");
        asked.retry_us = now_us + RETRY_US;
        let (place, question) = (asked.place, asked.question.clone());
        let node = &mut self.nodes[place];
        if !node.answers_questions(now_us) {
            node.unanswered_since_us.get_or_insert(now_us);
            self.greet(now_us, place);
            return;
        }
        let token = node.live.as_ref().expect("usable").token;
        let attempt = node
            .attempts
            .push(now_us, Target::Question(id), false, |_| false);
        match question {
            Question::Status => {
                let request = StatusRequest { token, attempt };
                self.transmit(place, kind::STATUS_REQUEST, &request);
            }
            Question::Change(change) => {
                let request = ChangeRequest {
                    token,
                    attempt,
                    change,
                };
                self.transmit(place, kind::CHANGE_REQUEST, &request);
            }
        }
    }

    pub(super) fn handle_status(&mut self, place: usize, answer: StatusAnswer) {
        let told = Told::Status(Box::new(answer.status));
        self.handle_told(place, answer.attempt, told);
    }

    pub(super) fn handle_change(&mut self, place: usize, answer: ChangeAnswer) {
        self.handle_told(place, answer.attempt, Told::Change(answer.outcome));
    }

    fn handle_told(&mut self, place: usize, attempt: u64, told: Told) {
        let attempts = &mut self.nodes[place].attempts;
        let id = match attempts.peek(attempt).map(|sent| sent.target) {
            Some(Target::Question(id)) => id,
            _ => {
                self.counters.late += 1;
                return;
            }
        };
        // A node that answers something else than it was asked is one that this client does not know.
        let fits = self.questions.get(&id).is_none_or(|asked| {
            matches!(
                (&asked.question, &told),
                (Question::Status, Told::Status(_)) | (Question::Change(_), Told::Change(_))
            )
        });
        if !fits {
            self.counters.malformed += 1;
            return;
        }
        self.nodes[place].attempts.take(attempt);
        self.complete_question(id, Some(told));
    }

    fn complete_question(&mut self, id: u64, told: Option<Told>) {
        if let Some(asked) = self.questions.remove(&id) {
            self.question_completions.push_back(QuestionCompletion {
                tag: asked.tag,
                node: asked.place,
                told,
            });
        }
    }

    /// When the next of them is due.
    pub(super) fn next_question_us(&self) -> Option<u64> {
        let due = self.questions.values();
        due.map(|asked| asked.retry_us.min(asked.deadline_us)).min()
    }
}
