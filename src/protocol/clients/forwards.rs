//! Operations that this node forwarded and that are not answered yet: when each is sent again, and
//! when it is reclaimed and run locally.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use wire::Action;
use wire::latency::{LatencyEstimate, WaitBounds};

use crate::protocol::clients::pending::Pending;
use crate::protocol::types::limits::{RETRANSMIT_INITIAL_US, RETRANSMIT_MAX_US, RETRANSMIT_MIN_US};
use crate::protocol::types::message::NodeId;

/// Reclaimed operations that are remembered: their answers, if they still arrive, show how long
/// such answers take.
const RECLAIMED_MAX: usize = 64;

/// Over slow links the caller waits longer.
const WAIT_BOUNDS: WaitBounds = WaitBounds {
    initial_us: RETRANSMIT_INITIAL_US,
    least_us: RETRANSMIT_MIN_US,
    most_us: RETRANSMIT_MAX_US,
};

/// An operation that this node forwarded to another one.
#[derive(Debug)]
pub struct Forwarded {
    pub pending: Pending,
    pub to: NodeId,
    pub to_boot: u64,
    at_us: u64,
    again_us: Option<u64>,
}

/// How long to wait for an answer.
#[derive(Debug, Clone, Copy)]
pub struct AnswerWait {
    /// The wait before the operation is sent again.
    pub again_us: u64,
    /// The wait before the operation is reclaimed.
    pub reclaim_us: u64,
}

/// What to do about an operation whose answer is overdue.
#[derive(Debug)]
pub enum Overdue {
    SendAgain,
    Run(Pending),
}

#[derive(Debug, Clone, Copy)]
struct Reclaimed {
    attempt: u64,
    /// When it was forwarded.
    at_us: u64,
    again_us: Option<u64>,
    value_size: usize,
    kind: ForwardKind,
}

/// What was forwarded: each kind takes another time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardKind {
    Single,
    Transaction,
    Step,
}

impl From<&Pending> for ForwardKind {
    fn from(pending: &Pending) -> Self {
        match pending.operation.action {
            _ if pending.step.is_some() => ForwardKind::Step,
            Action::Transact { .. } => ForwardKind::Transaction,
            _ => ForwardKind::Single,
        }
    }
}

#[derive(Debug, Default)]
pub struct Forwards {
    by_attempt: BTreeMap<u64, Forwarded>,
    /// When each operation is checked next: a time and the attempt.
    due: BTreeSet<(u64, u64)>,
    /// The number of attempts so far. It is the number of the last one.
    attempts: u64,
    /// The estimated duration until an answer arrives.
    latency: LatencyEstimate,
    /// The same for transactions, which last several rounds.
    transactions: LatencyEstimate,
    /// The same for steps of transactions, which wait for other transactions.
    steps: LatencyEstimate,
    /// The time for which a timer is set.
    timer_us: Option<u64>,
    /// The last operations that were reclaimed.
    reclaimed: VecDeque<Reclaimed>,
}

impl Forwards {
    /// Records a forwarded operation and returns its attempt number.
    pub fn begin(&mut self, now_us: u64, to: NodeId, to_boot: u64, mut pending: Pending) -> u64 {
        pending.tried = true;
        self.attempts += 1;
        let forwarded = Forwarded {
            pending,
            to,
            to_boot,
            at_us: now_us,
            again_us: None,
        };
        self.by_attempt.insert(self.attempts, forwarded);
        self.attempts
    }

    /// Operations that are not answered yet.
    pub fn count(&self) -> usize {
        self.by_attempt.len()
    }

    pub fn get(&self, attempt: u64) -> Option<&Forwarded> {
        self.by_attempt.get(&attempt)
    }

    /// The usual wait for an answer.
    pub fn usual_wait_us(&self, kind: ForwardKind) -> u64 {
        let latency = match kind {
            ForwardKind::Single => &self.latency,
            ForwardKind::Transaction => &self.transactions,
            ForwardKind::Step => &self.steps,
        };
        latency.wait_us(WAIT_BOUNDS)
    }

    /// Whether a step was forwarded in that attempt, also if it was reclaimed.
    pub fn is_step(&self, attempt: u64) -> bool {
        let open = self.by_attempt.get(&attempt);
        let kind = open.map(|forwarded| ForwardKind::from(&forwarded.pending));
        let kind = kind.or_else(|| self.reclaimed(attempt).map(|late| late.kind));
        kind == Some(ForwardKind::Step)
    }

    /// Takes back the transactions and steps that were forwarded to such nodes, in those boots.
    pub fn take_back(&mut self, is_lost: impl Fn(NodeId, u64) -> bool) -> Vec<Pending> {
        let is_long = |f: &Forwarded| ForwardKind::from(&f.pending) != ForwardKind::Single;
        let is_taken = |f: &Forwarded| is_long(f) && is_lost(f.to, f.to_boot);
        let taken = self.by_attempt.extract_if(.., |_, f| is_taken(f));
        taken.map(|(_, forwarded)| forwarded.pending).collect()
    }

    pub fn check_again_at(&mut self, attempt: u64, at_us: u64) {
        self.due.insert((at_us, attempt));
    }

    /// Whether to set a timer for that time. One timer is enough, because its handler sets the next
    /// one.
    pub fn needs_timer(&mut self, at_us: u64) -> bool {
        let needs = self.timer_us.is_none_or(|timer_us| at_us < timer_us);
        if needs {
            self.timer_us = Some(at_us);
        }
        needs
    }

    /// Whether the timer that fires now is the current one: a timer for an earlier time may have
    /// been set after it.
    pub fn takes_timer(&mut self, now_us: u64) -> bool {
        let is_early = self.timer_us.is_some_and(|timer_us| now_us < timer_us);
        if !is_early {
            self.timer_us = None;
        }
        !is_early
    }

    /// The attempt that is to be checked first, and when. Most attempts are answered before that.
    pub fn first_due(&mut self) -> Option<(u64, u64)> {
        while let Some((due_us, attempt)) = self.due.first().copied() {
            if self.by_attempt.contains_key(&attempt) {
                return Some((due_us, attempt));
            }
            self.due.pop_first();
        }
        None
    }

    /// What to do now about that attempt, which is due at `due_us`.
    pub fn overdue(
        &mut self,
        now_us: u64,
        (due_us, attempt): (u64, u64),
        wait: AnswerWait,
    ) -> Option<Overdue> {
        self.due.remove(&(due_us, attempt));
        let forwarded = self.by_attempt.get_mut(&attempt)?;
        let at_us = forwarded.at_us;
        let (again_at_us, reclaim_at_us) = (at_us + wait.again_us, at_us + wait.reclaim_us);
        if now_us >= reclaim_at_us {
            let forwarded = self.by_attempt.remove(&attempt)?;
            self.reclaimed.push_back(Reclaimed {
                attempt,
                at_us,
                again_us: forwarded.again_us,
                value_size: forwarded.pending.operation.action.value_size(),
                kind: (&forwarded.pending).into(),
            });
            if self.reclaimed.len() > RECLAIMED_MAX {
                self.reclaimed.pop_front();
            }
            return Some(Overdue::Run(forwarded.pending));
        }
        if forwarded.again_us.is_none() && now_us < again_at_us {
            self.due.insert((again_at_us, attempt));
            return None;
        }
        self.due.insert((reclaim_at_us, attempt));
        if forwarded.again_us.is_some() {
            return None;
        }
        forwarded.again_us = Some(now_us);
        Some(Overdue::SendAgain)
    }

    /// Handles an answer. `None` if the operation was reclaimed: then the answer only shows that
    /// the waits should be longer.
    pub fn answered(&mut self, now_us: u64, attempt: u64) -> Option<Pending> {
        let Some(forwarded) = self.by_attempt.remove(&attempt) else {
            if let Some(late) = self.reclaimed(attempt) {
                self.sample(now_us, late.at_us, late.again_us, late.kind);
            }
            return None;
        };
        let kind = (&forwarded.pending).into();
        self.sample(now_us, forwarded.at_us, forwarded.again_us, kind);
        Some(forwarded.pending)
    }

    fn reclaimed(&self, attempt: u64) -> Option<Reclaimed> {
        let mut reclaimed = self.reclaimed.iter();
        reclaimed.find(|late| late.attempt == attempt).copied()
    }

    /// When that attempt was forwarded, and the size of its value, also if it was reclaimed.
    pub fn sent(&self, attempt: u64) -> Option<(u64, usize)> {
        let late = || self.reclaimed(attempt).map(|l| (l.at_us, l.value_size));
        let forwarded = self.by_attempt.get(&attempt);
        let open = forwarded.map(|f| (f.at_us, f.pending.operation.action.value_size()));
        open.or_else(late)
    }

    fn sample(&mut self, now_us: u64, at_us: u64, again_us: Option<u64>, kind: ForwardKind) {
        let took_us = now_us.saturating_sub(at_us);
        let since_again_us = again_us.map(|again_us| now_us.saturating_sub(again_us));
        let latency = match kind {
            ForwardKind::Single => &mut self.latency,
            ForwardKind::Transaction => &mut self.transactions,
            ForwardKind::Step => &mut self.steps,
        };
        latency.sample(took_us, since_again_us, WAIT_BOUNDS);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use wire::Transaction;

    use super::*;
    use crate::protocol::clients::pending::tests::pending;
    use crate::protocol::types::transaction::TransactionStep;

    const WAIT: AnswerWait = AnswerWait {
        again_us: 1_000,
        reclaim_us: 5_000,
    };

    /// Forwards an operation whose answer is checked when it is due to be sent again.
    fn begin(forwards: &mut Forwards, now_us: u64) -> u64 {
        let attempt = forwards.begin(now_us, 2, 1, pending(1));
        forwards.check_again_at(attempt, now_us + WAIT.again_us);
        attempt
    }

    #[test]
    fn an_operation_is_sent_again_once_and_reclaimed_at_its_time() {
        let mut forwards = Forwards::default();
        let attempt = begin(&mut forwards, 100);
        assert!(forwards.get(attempt).is_some_and(|f| f.pending.tried));
        assert_eq!(forwards.first_due(), Some((1_100, attempt)));
        let again = forwards.overdue(1_100, (1_100, attempt), WAIT);
        assert!(matches!(again, Some(Overdue::SendAgain)), "{again:?}");
        assert_eq!(forwards.first_due(), Some((5_100, attempt)));
        // The wait may have become longer since.
        let longer = AnswerWait {
            reclaim_us: 6_000,
            ..WAIT
        };
        assert!(forwards.overdue(5_100, (5_100, attempt), longer).is_none());
        assert_eq!(forwards.first_due(), Some((6_100, attempt)));
        let run = forwards.overdue(6_100, (6_100, attempt), longer);
        assert!(matches!(run, Some(Overdue::Run(_))), "{run:?}");
        assert!(forwards.get(attempt).is_none());
        assert_eq!(forwards.first_due(), None);
    }

    #[test]
    fn an_operation_that_is_not_the_first_due_leaves_the_first_one_due() {
        let mut forwards = Forwards::default();
        let first = begin(&mut forwards, 100);
        let second = begin(&mut forwards, 200);
        let again = forwards.overdue(1_200, (1_200, second), WAIT);
        assert!(matches!(again, Some(Overdue::SendAgain)), "{again:?}");
        assert_eq!(forwards.first_due(), Some((1_100, first)));
        assert!(forwards.overdue(1_000, (1_100, first), WAIT).is_none());
        assert_eq!(forwards.first_due(), Some((1_100, first)), "too early");
        assert!(forwards.answered(1_050, first).is_some());
        assert_eq!(forwards.first_due(), Some((5_200, second)));
    }

    #[test]
    fn a_late_answer_of_a_reclaimed_operation_only_lengthens_the_wait() {
        let mut forwards = Forwards::default();
        let attempt = begin(&mut forwards, 0);
        assert!(forwards.answered(300, attempt).is_some());
        assert!(forwards.answered(300, attempt).is_none(), "answered twice");
        let usual_us = forwards.usual_wait_us(ForwardKind::Single);
        let mut attempt = 0;
        // A few late answers hardly count.
        for _ in 0..30 {
            attempt = begin(&mut forwards, 0);
            let before_us = forwards.usual_wait_us(ForwardKind::Single);
            let run = forwards.overdue(5_000, (1_000, attempt), WAIT);
            assert!(matches!(run, Some(Overdue::Run(_))), "{run:?}");
            assert_eq!(forwards.usual_wait_us(ForwardKind::Single), before_us);
            assert!(forwards.answered(900_000, attempt).is_none());
        }
        assert!(forwards.usual_wait_us(ForwardKind::Single) > usual_us);
        let late_us = forwards.usual_wait_us(ForwardKind::Single);
        assert!(forwards.answered(900_000, attempt + 1).is_none());
        assert_eq!(
            forwards.usual_wait_us(ForwardKind::Single),
            late_us,
            "of no operation"
        );
    }

    #[test]
    fn what_was_forwarded_to_a_lost_node_is_taken_back() {
        let mut forwards = Forwards::default();
        let step = Pending {
            step: Some(Arc::new(TransactionStep::Resolve { decided: None })),
            ..pending(1)
        };
        let single = forwards.begin(0, 2, 1, pending(1));
        let lost = forwards.begin(0, 2, 1, step.clone());
        let restarted = forwards.begin(0, 3, 1, step.clone());
        let kept = forwards.begin(0, 3, 2, step);
        assert!(forwards.is_step(lost) && !forwards.is_step(single));
        let taken = forwards.take_back(|to, boot| (to, boot) != (3, 2));
        assert_eq!(taken.len(), 2);
        let all = [single, lost, restarted, kept];
        let are_there = all.map(|attempt| forwards.get(attempt).is_some());
        assert_eq!(are_there, [true, false, false, true]);
    }

    #[test]
    fn what_transactions_take_says_nothing_of_other_operations() {
        let mut forwards = Forwards::default();
        let transact = || {
            let mut pending = pending(1);
            let operation = Arc::make_mut(&mut pending.operation);
            let transaction = Transaction { parts: Vec::new() };
            operation.action = Action::Transact { transaction };
            pending
        };
        for _ in 0..100 {
            let attempt = begin(&mut forwards, 0);
            assert!(forwards.answered(5_000, attempt).is_some());
            let attempt = forwards.begin(0, 2, 1, transact());
            assert!(forwards.answered(100_000, attempt).is_some());
        }
        let waits_us =
            [ForwardKind::Single, ForwardKind::Transaction].map(|of| forwards.usual_wait_us(of));
        assert!(
            waits_us[0] < 10_000 && waits_us[1] >= 100_000,
            "{waits_us:?}"
        );
        // Also if the answer is late.
        for _ in 0..100 {
            let attempt = forwards.begin(0, 2, 1, transact());
            assert!(forwards.overdue(5_000, (1_000, attempt), WAIT).is_some());
            assert!(forwards.answered(200_000, attempt).is_none());
        }
        assert_eq!(forwards.usual_wait_us(ForwardKind::Single), waits_us[0]);
    }

    #[test]
    fn one_timer_is_set_unless_an_earlier_one_is_needed() {
        let mut forwards = Forwards::default();
        assert!(forwards.needs_timer(500));
        assert!(!forwards.needs_timer(500) && !forwards.needs_timer(700));
        assert!(forwards.needs_timer(300));
        assert!(!forwards.takes_timer(299));
        assert!(forwards.takes_timer(300));
        assert!(forwards.needs_timer(500));
    }
}
