//! Questions to one node about its status or its configuration, with retries. Any node may be asked
//! for its status; a change goes only to a node of the cluster in use.

use super::Session;
use super::attempts::Target;
use super::call::CallError;
use wire::{
    Change, ChangeAnswer, ChangeOutcome, ChangeRequest, NodeStatus, StatusAnswer, StatusRequest,
    kind,
};

const RETRY_US: u64 = 50_000;

/// A question to a node. Repeating it does no harm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    Status,
    Change(Change),
    /// Which cluster is in use: all nodes are asked, until it is known.
    Cluster,
}

/// The node's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QuestionReply {
    Status(Box<NodeStatus>),
    Change(ChangeOutcome),
    Cluster(u64),
}

#[derive(Debug)]
pub(super) struct Asked {
    tag: u64,
    place: usize,
    question: Question,
    /// Whether the question was sent to the node.
    was_sent: bool,
    deadline_us: u64,
    /// When the next request is due.
    retry_us: u64,
}

/// The result is an error if the node did not answer in time, or must not be asked. For a change
/// every error but `UnknownOutcome` means that it was not begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuestionCompletion {
    pub tag: u64,
    pub node: usize,
    pub reply: Result<QuestionReply, CallError>,
}

impl Asked {
    fn may_have_begun(&self) -> bool {
        self.was_sent && matches!(self.question, Question::Change(_))
    }
}

impl Session {
    /// Asks the node at that index; waits for up to `wait_us`.
    pub fn ask(&mut self, now_us: u64, place: usize, question: Question, wait_us: u64, tag: u64) {
        let asked = Asked {
            tag,
            place,
            question,
            was_sent: false,
            deadline_us: now_us.saturating_add(wait_us),
            retry_us: now_us,
        };
        let id = self.next_question;
        self.next_question += 1;
        self.questions.insert(id, asked);
        self.ask_due(now_us);
    }

    /// Sends the requests that are due, and ends those whose time is over.
    pub(super) fn ask_due(&mut self, now_us: u64) {
        let closed = self.closed;
        let due = |asked: &Asked| closed || now_us >= asked.retry_us.min(asked.deadline_us);
        let ids = self.questions.iter().filter(|(_, asked)| due(asked));
        let ids: Vec<u64> = ids.map(|(id, _)| *id).collect();
        for id in ids {
            let asked = &self.questions[&id];
            if closed || now_us >= asked.deadline_us || asked.place >= self.nodes.len() {
                let error = match &asked.question {
                    _ if asked.may_have_begun() => CallError::UnknownOutcome,
                    _ if closed => CallError::Closed,
                    Question::Status => CallError::TimedOut,
                    Question::Change(_) | Question::Cluster => self.no_quorum(),
                };
                self.complete_question(id, Err(error));
            } else {
                self.send_question(now_us, id);
            }
        }
    }

    /// The node can be sent requests again: sends the pending ones.
    pub(super) fn ask_again(&mut self, now_us: u64, place: usize) {
        for asked in self.questions.values_mut().filter(|a| a.place == place) {
            asked.retry_us = now_us;
        }
        self.ask_due(now_us);
    }

    /// The cluster in use became known, or it became known that there is none.
    pub(super) fn ask_all_again(&mut self, now_us: u64) {
        let asked = self.questions.values_mut();
        asked
            .filter(|asked| asked.question != Question::Status)
            .for_each(|asked| asked.retry_us = now_us);
        self.ask_due(now_us);
    }

    fn send_question(&mut self, now_us: u64, id: u64) {
        let asked = self.questions.get_mut(&id).expect("the caller looked");
        asked.retry_us = now_us + RETRY_US;
        let (place, question) = (asked.place, asked.question.clone());
        let node = &self.nodes[place];
        let may_be_asked = match question {
            Question::Status => node.answers_questions(now_us),
            Question::Change(_) => node.is_usable(now_us) && self.two_clusters().is_none(),
            Question::Cluster => false,
        };
        if may_be_asked {
            self.put_question(now_us, id, place, question);
        } else if let Some(reply) = self.known_without(&self.questions[&id]) {
            self.complete_question(id, reply);
        } else if question == Question::Status {
            self.seek_answer(now_us, place);
        } else {
            // The cluster in use depends on all nodes.
            (0..self.nodes.len()).for_each(|place| self.seek_answer(now_us, place));
        }
    }

    /// The answer, if it is known without the node.
    fn known_without(&self, asked: &Asked) -> Option<Result<QuestionReply, CallError>> {
        let cluster = self.nodes[asked.place].cluster().unwrap_or(0);
        match asked.question {
            Question::Status => None,
            // The answer may still arrive.
            Question::Change(_) if asked.was_sent => None,
            Question::Change(_) if self.choice.excludes(cluster) => Some(Err(self.no_quorum())),
            Question::Cluster if self.choice.own != 0 && self.two_clusters().is_none() => {
                Some(Ok(QuestionReply::Cluster(self.choice.own)))
            }
            Question::Change(_) | Question::Cluster => self.two_clusters().map(Err),
        }
    }

    /// The node has to answer a hello first.
    fn seek_answer(&mut self, now_us: u64, place: usize) {
        let node = &mut self.nodes[place];
        if !node.answers_questions(now_us) {
            node.unanswered_since_us.get_or_insert(now_us);
            self.greet(now_us, place);
        }
    }

    fn put_question(&mut self, now_us: u64, id: u64, place: usize, question: Question) {
        let node = &mut self.nodes[place];
        let token = node.live.as_ref().expect("usable").token;
        let attempt = node
            .attempts
            .push(now_us, Target::Question(id), false, |_| false);
        let asked = self.questions.get_mut(&id).expect("the caller looked");
        asked.was_sent = true;
        match question {
            Question::Cluster => unreachable!("no node is sent it"),
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
        let reply = QuestionReply::Status(Box::new(answer.status));
        self.handle_reply(place, answer.attempt, reply);
    }

    pub(super) fn handle_change(&mut self, place: usize, answer: ChangeAnswer) {
        self.handle_reply(place, answer.attempt, QuestionReply::Change(answer.outcome));
    }

    fn handle_reply(&mut self, place: usize, attempt: u64, reply: QuestionReply) {
        let attempts = &mut self.nodes[place].attempts;
        let id = match attempts.peek(attempt).map(|sent| sent.target) {
            Some(Target::Question(id)) => id,
            _ => {
                self.counters.late += 1;
                return;
            }
        };
        // An answer that does not fit the question comes from a node that this client does not
        // know.
        let fits = self.questions.get(&id).is_none_or(|asked| {
            matches!(
                (&asked.question, &reply),
                (Question::Status, QuestionReply::Status(_))
                    | (Question::Change(_), QuestionReply::Change(_))
            )
        });
        if !fits {
            self.counters.malformed += 1;
            return;
        }
        self.nodes[place].attempts.take(attempt);
        self.complete_question(id, Ok(reply));
    }

    fn complete_question(&mut self, id: u64, reply: Result<QuestionReply, CallError>) {
        if let Some(asked) = self.questions.remove(&id) {
            self.question_completions.push_back(QuestionCompletion {
                tag: asked.tag,
                node: asked.place,
                reply,
            });
        }
    }

    /// When the next question is due.
    pub(super) fn next_question_us(&self) -> Option<u64> {
        let due = self.questions.values();
        due.map(|asked| asked.retry_us.min(asked.deadline_us)).min()
    }
}
