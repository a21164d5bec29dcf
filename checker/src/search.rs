//! The search for an order of operations that a register explains.
//!
//! Depth first over the operations that may come next (those called before any operation that is
//! still to be placed had ended); it never enters the same set of placed operations and state
//! twice. It is quick because of three rules:
//! - versions rise, so what wrote or saw a version is placed in the order of versions;
//! - an operation that fits and changes nothing is placed at once: it could only be placed here, or
//!   later with the same effect;
//! - a write whose outcome nobody saw is not placed right before a write that does not depend on
//!   it: without it the rest would fit as well.

use std::collections::HashSet;

use wire::{Action, Old, Outcome};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128_with_seed};

use super::items::CheckItem;
use super::model::{KnownVersion, ModelState};
use super::random::Random;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SearchEnd {
    Order,
    Nothing,
    GaveUp,
}

/// One search: its limits, and how it differs from the others.
#[derive(Debug, Clone, Copy)]
struct SearchWay {
    /// How many writes whose outcome no client saw may be placed in a row.
    chain_max: u32,
    /// Whether to try all of those writes whose value no client saw either.
    hidden: bool,
    /// Shuffles the order in which options are tried, unless 0.
    shuffle: u64,
}

const fn way(chain_max: u32, hidden: bool, shuffle: u64) -> SearchWay {
    SearchWay {
        chain_max,
        hidden,
        shuffle,
    }
}

/// The searches that are made, one after the other. An order that is found under limits is as good
/// as any; only the last search, which has no limits, may conclude that there is none.
const WAYS: [SearchWay; 9] = [
    way(1, false, 0),
    way(1, true, 0),
    way(1, false, 1),
    way(1, true, 2),
    way(3, false, 3),
    way(3, false, 4),
    way(3, true, 5),
    way(3, true, 6),
    way(u32::MAX, true, 0),
];

/// Searches for an order, through at most `effort_max` states in total.
pub fn search(items: &[CheckItem], effort_max: u64) -> SearchEnd {
    let share = effort_max / WAYS.len() as u64;
    let mut spare = effort_max - share * WAYS.len() as u64;
    for (number, way) in (1..).zip(WAYS) {
        let mut search = OrderSearch::new(items, way);
        let is_last = number == WAYS.len();
        search.effort_left = share + if is_last { spare } else { 0 };
        match search.run() {
            SearchEnd::Order => return SearchEnd::Order,
            found if is_last => return found,
            _ => spare += search.effort_left,
        }
    }
    unreachable!("the last search ends it")
}

/// One branch in progress: how to undo it, and which options remain.
struct Branch {
    placed: Vec<usize>,
    state: ModelState,
    chain: u32,
    options: std::vec::IntoIter<(usize, ModelState)>,
}

struct OrderSearch<'a> {
    items: &'a [CheckItem<'a>],
    line: Timeline,
    /// The items that wrote or saw a version, in order of versions, writers first.
    by_version: Vec<usize>,
    /// The index of each item in that order.
    turns: Vec<Option<usize>>,
    /// All items before this index in that order are placed.
    turn: usize,
    placed: Vec<bool>,
    must_left: usize,
    /// A random word for each item; those of the placed ones are combined in `set`.
    words: Vec<u128>,
    set: u128,
    state: ModelState,
    /// How many writes whose outcome no client saw were placed last.
    chain: u32,
    way: SearchWay,
    shuffle: Random,
    effort_left: u64,
    seen: HashSet<u128>,
}

impl<'a> OrderSearch<'a> {
    fn new(items: &'a [CheckItem<'a>], way: SearchWay) -> Self {
        let mut by_version: Vec<usize> = (0..items.len())
            .filter(|i| items[*i].version.is_some())
            .collect();
        by_version.sort_by_key(|i| (items[*i].version, !items[*i].writes));
        let mut turns = vec![None; items.len()];
        for (turn, index) in by_version.iter().enumerate() {
            turns[*index] = Some(turn);
        }
        let mut words = Random::new(1);
        OrderSearch {
            items,
            line: Timeline::new(items),
            by_version,
            turns,
            turn: 0,
            placed: vec![false; items.len()],
            must_left: items.iter().filter(|i| i.ended.is_some()).count(),
            words: items.iter().map(|_| wide(&mut words)).collect(),
            set: 0,
            state: ModelState::empty(),
            chain: 0,
            way,
            shuffle: Random::new(way.shuffle),
            effort_left: 0,
            seen: HashSet::new(),
        }
    }

    fn run(&mut self) -> SearchEnd {
        let mut stack: Vec<Branch> = Vec::new();
        let mut frame = self.enter(Vec::new());
        loop {
            if self.must_left == 0 {
                return SearchEnd::Order;
            }
            match frame.options.next() {
                Some((index, state)) => {
                    if self.effort_left == 0 {
                        return SearchEnd::GaveUp;
                    }
                    self.effort_left -= 1;
                    self.state = state;
                    let unseen = self.items[index].outcome.is_none();
                    self.chain = if unseen { self.chain + 1 } else { 0 };
                    self.place(index);
                    let next = self.enter(vec![index]);
                    stack.push(std::mem::replace(&mut frame, next));
                }
                None => {
                    for index in frame.placed.drain(..).rev() {
                        self.take_back(index);
                    }
                    let Some(back) = stack.pop() else {
                        return SearchEnd::Nothing;
                    };
                    frame = back;
                    self.state = frame.state.clone();
                    self.chain = frame.chain;
                }
            }
        }
    }

    /// Places the items that change nothing, and lists the items that may come next.
    fn enter(&mut self, mut placed: Vec<usize>) -> Branch {
        while let Some(index) = self.quiet_one() {
            self.chain = 0;
            self.place(index);
            placed.push(index);
        }
        let key = self.set ^ self.state_word();
        let options = if self.seen.insert(key) {
            self.options()
        } else {
            Vec::new()
        };
        Branch {
            placed,
            state: self.state.clone(),
            chain: self.chain,
            options: options.into_iter(),
        }
    }

    /// A candidate that fits and leaves the state as it is. A change of a time to live may have
    /// another effect later.
    fn quiet_one(&self) -> Option<usize> {
        let next = self.next_version();
        self.line.candidates().find(|index| {
            let item = &self.items[*index];
            let Some(outcome) = item.outcome.as_ref().filter(|_| !item.writes) else {
                return false;
            };
            let renews = matches!(outcome, Outcome::Written { .. });
            !renews
                && in_turn(item, next)
                && is_there(&self.state, item)
                && after(&self.state, item, outcome).as_ref() == Some(&self.state)
        })
    }

    fn options(&mut self) -> Vec<(usize, ModelState)> {
        let next = self.next_version();
        let mut known = Vec::new();
        let mut unseen: Vec<(bool, usize, ModelState)> = Vec::new();
        // Before each operation the key may have expired.
        let expired = self.state.expired();
        let states = [Some(&self.state), expired.as_ref()].into_iter().flatten();
        for (is_expired, before) in [false, true].into_iter().zip(states) {
            let fits_time = |item: &CheckItem| match is_expired {
                true => may_be_gone(&self.state, item),
                false => is_there(&self.state, item),
            };
            let mut tried: Vec<&Action> = Vec::new();
            for index in self.line.candidates() {
                let item = &self.items[index];
                if self.chain > 0 && is_blind(item) || !fits_time(item) {
                    continue;
                }
                let call = item.call;
                if let Some(outcome) = &item.outcome {
                    if in_turn(item, next)
                        && let Some(state) = after(before, item, outcome)
                        && item.may_leave(&state)
                    {
                        known.push((index, state));
                    }
                } else if self.chain < self.way.chain_max
                    && (item.shows || self.may_hide(next, &unseen))
                    && let Some(state) = before.after_unseen(&call.action, item.gone)
                    && item.may_leave(&state)
                    && self.leads_on(&state, next)
                    && !tried.contains(&&call.action)
                {
                    tried.push(&call.action);
                    unseen.push((!item.shows, index, state));
                }
            }
        }
        unseen.sort_by_key(|(hidden, ..)| *hidden);
        known.extend(unseen.into_iter().map(|(_, index, state)| (index, state)));
        if self.way.shuffle > 0 && known.len() > 1 && self.shuffle.chance(150) {
            let first = self.shuffle.below(known.len() as u64) as usize;
            known[..=first].rotate_right(1);
        }
        known
    }

    /// Whether it is worthwhile to try a write whose value no client saw: it only makes a key
    /// exist, or a comparison fail, and any other such write nearly always has the same effect.
    fn may_hide(&self, next: Option<&CheckItem>, listed: &[(bool, usize, ModelState)]) -> bool {
        let conflict = next.is_some_and(|n| matches!(n.outcome, Some(Outcome::Conflict { .. })));
        let first = !listed.iter().any(|(hidden, ..)| *hidden);
        self.way.hidden || first && (conflict || self.state.value.is_none())
    }

    /// The item with the lowest version that is still to be placed.
    fn next_version(&self) -> Option<&CheckItem<'a>> {
        let index = *self.by_version.get(self.turn)?;
        Some(&self.items[index])
    }

    /// Whether the next version can still come after this state.
    fn leads_on(&self, state: &ModelState, next: Option<&CheckItem>) -> bool {
        let Some(next) = next else {
            return true;
        };
        let lowest = state.version.lowest() + u64::from(next.writes);
        next.version.is_none_or(|version| lowest <= version)
    }

    fn place(&mut self, index: usize) {
        self.line.lift(index);
        self.placed[index] = true;
        self.set ^= self.words[index];
        self.must_left -= usize::from(self.items[index].ended.is_some());
        while self
            .by_version
            .get(self.turn)
            .is_some_and(|i| self.placed[*i])
        {
            self.turn += 1;
        }
    }

    fn take_back(&mut self, index: usize) {
        self.line.put_back(index);
        self.placed[index] = false;
        self.set ^= self.words[index];
        self.must_left += usize::from(self.items[index].ended.is_some());
        if let Some(turn) = self.turns[index] {
            self.turn = self.turn.min(turn);
        }
    }

    fn state_word(&self) -> u128 {
        let (version, exact) = match self.state.version {
            KnownVersion::Exactly(version) => (version, 1),
            KnownVersion::AtLeast(version) => (version, 0),
        };
        let present = u64::from(self.state.value.is_some());
        let gone = self.state.gone.map(|gone| [gone.from_us, gone.by_us]);
        let [from_us, by_us] = gone.unwrap_or([u64::MAX, 0]);
        let chain = u64::from(self.chain);
        let seed = xxh3_64(
            &[version, exact, present, chain, from_us, by_us]
                .map(u64::to_le_bytes)
                .concat(),
        );
        xxh3_128_with_seed(self.state.value.as_deref().unwrap_or_default(), seed)
    }
}

fn after(state: &ModelState, item: &CheckItem, outcome: &Outcome) -> Option<ModelState> {
    let call = item.call;
    state.after(&call.action, call.want_old, outcome, item.gone)
}

/// Whether the operation may have found what the state has: a key that has certainly expired before
/// it was called is not there.
fn is_there(state: &ModelState, item: &CheckItem) -> bool {
    let gone = state.gone.filter(|_| state.value.is_some());
    gone.is_none_or(|gone| item.call.called_us <= gone.by_us)
}

/// Whether the key may have expired before the operation ended.
fn may_be_gone(state: &ModelState, item: &CheckItem) -> bool {
    let ended_us = item.call.ended_us.filter(|_| item.ended.is_some());
    let gone = state.gone;
    gone.is_some_and(|gone| ended_us.is_none_or(|ended_us| ended_us >= gone.from_us))
}

fn in_turn(item: &CheckItem, next: Option<&CheckItem>) -> bool {
    let rank = |i: &CheckItem| i.version.map(|version| (version, !i.writes));
    match (rank(item), next.and_then(rank)) {
        (Some(own), Some(next)) => own <= next,
        _ => true,
    }
}

/// A write whose effect does not depend on the state before it.
fn is_blind(item: &CheckItem) -> bool {
    let looked = match &item.outcome {
        Some(Outcome::Written { old, .. }) => matches!(old, Old::Absent | Old::Value(_)),
        Some(_) => true,
        None => false,
    };
    matches!(item.call.action, Action::Put { .. }) && !looked
}

fn wide(random: &mut Random) -> u128 {
    u128::from(random.word()) << 64 | u128::from(random.word())
}

/// Calls and ends in order of time, as a doubly linked list from which placed items are removed.
struct Timeline {
    /// For each item, the positions of its call and of its end.
    places: Vec<(usize, Option<usize>)>,
    /// For each position, the item, and whether it is the end. Position 0 is the head.
    entries: Vec<(usize, bool)>,
    next: Vec<usize>,
    previous: Vec<usize>,
}

impl Timeline {
    fn new(items: &[CheckItem]) -> Self {
        let mut times: Vec<(u64, usize, bool)> = Vec::new();
        for (index, item) in items.iter().enumerate() {
            times.push((item.called, index, false));
            times.extend(item.ended.map(|ended| (ended, index, true)));
        }
        times.sort_unstable();
        let count = times.len() + 1;
        let mut line = Timeline {
            places: vec![(0, None); items.len()],
            entries: vec![(usize::MAX, false)],
            next: (1..=count)
                .map(|n| if n == count { 0 } else { n })
                .collect(),
            previous: (0..count)
                .map(|n| n.checked_sub(1).unwrap_or(count - 1))
                .collect(),
        };
        for (place, (_, index, is_end)) in times.into_iter().enumerate() {
            line.entries.push((index, is_end));
            let places = &mut line.places[index];
            if is_end {
                places.1 = Some(place + 1);
            } else {
                places.0 = place + 1;
            }
        }
        line
    }

    /// The items that may come next: called before any remaining item has ended.
    fn candidates(&self) -> impl Iterator<Item = usize> + '_ {
        let mut place = self.next[0];
        std::iter::from_fn(move || {
            let (index, is_end) = self.entries[place];
            if place == 0 || is_end {
                return None;
            }
            place = self.next[place];
            Some(index)
        })
    }

    fn lift(&mut self, index: usize) {
        let (call, end) = self.places[index];
        self.unlink(call);
        if let Some(end) = end {
            self.unlink(end);
        }
    }

    /// Undoes `lift`; the item lifted last is put back first.
    fn put_back(&mut self, index: usize) {
        let (call, end) = self.places[index];
        if let Some(end) = end {
            self.link(end);
        }
        self.link(call);
    }

    fn unlink(&mut self, place: usize) {
        let (previous, next) = (self.previous[place], self.next[place]);
        self.next[previous] = next;
        self.previous[next] = previous;
    }

    fn link(&mut self, place: usize) {
        self.next[self.previous[place]] = place;
        self.previous[self.next[place]] = place;
    }
}
