//! The moments at which time itself must act, soonest first.
//!
//! Only a window of them is in memory: the soonest few thousand. The rest stand
//! in state, where their keys sort by moment, and are fetched when the window
//! has run empty. So memory does not grow with the number of registrations.

use std::collections::BTreeSet;

use engine::ids::Micros;
use engine::machine::{Change, Machine};

use crate::state::StateReader;

/// Deadlines fetched from state at once.
const WINDOW: usize = 16_384;

pub(crate) struct Deadlines<M: Machine> {
    soonest: BTreeSet<M::Key>,
    /// The last key that belongs to the window; none if it takes in all.
    last: Option<M::Key>,
    /// Deadlines that stand in state and must not be taken up now: those whose
    /// command left them standing.
    aside: BTreeSet<M::Key>,
    /// Taken up by the group in progress.
    taken: BTreeSet<M::Key>,
    window: usize,
}

impl<M: Machine> Deadlines<M> {
    /// The deadlines in `state`.
    pub(crate) fn of(state: &StateReader<M>) -> Self {
        Self::with_window(state, WINDOW)
    }

    fn with_window(state: &StateReader<M>, window: usize) -> Self {
        let mut deadlines = Self {
            soonest: BTreeSet::new(),
            last: None,
            aside: BTreeSet::new(),
            taken: BTreeSet::new(),
            window,
        };
        deadlines.fetch(state);
        deadlines
    }

    /// Fills the window with the soonest deadlines in state.
    fn fetch(&mut self, state: &StateReader<M>) {
        let (from, to) = M::deadline_range();
        let most = self.window + self.aside.len() + self.taken.len();
        let found = state.scan(&from, &to, most);
        let complete = found.len() < most;
        self.soonest = found.into_iter().map(|(key, _)| key).collect();
        self.last = if complete { None } else { self.soonest.last().cloned() };
        for key in self.aside.iter().chain(&self.taken) {
            self.soonest.remove(key);
        }
    }

    /// Takes up deadlines that have come at `now`, at most `limit`. They are
    /// settled, or put back, when the group's fate is known.
    pub(crate) fn take_due(
        &mut self,
        state: &StateReader<M>,
        now: Micros,
        limit: usize,
    ) -> Vec<M::Key> {
        if self.soonest.is_empty() && self.last.is_some() {
            self.fetch(state);
        }
        let mut due = Vec::new();
        while due.len() < limit
            && let Some(first) = self.soonest.first()
            && M::deadline(first).is_none_or(|at| at <= now)
        {
            due.extend(self.soonest.pop_first());
        }
        self.taken.extend(due.iter().cloned());
        due
    }

    /// Nothing came of the group: what it took up is due again.
    pub(crate) fn put_back(&mut self) {
        self.soonest.append(&mut self.taken);
    }

    /// The group is durable and in `state`. Deadlines that it took up and that
    /// are still there are returned, and left alone from now on: taken up again
    /// they would be for ever.
    pub(crate) fn settle(&mut self, state: &StateReader<M>) -> Vec<M::Key> {
        let mut stuck = Vec::new();
        for key in std::mem::take(&mut self.taken) {
            if state.get(&key).is_some() {
                self.set_aside(key.clone());
                stuck.push(key);
            }
        }
        stuck
    }

    /// Leaves a deadline alone until it changes, or until [`Deadlines::resume`].
    fn set_aside(&mut self, key: M::Key) {
        self.soonest.remove(&key);
        self.taken.remove(&key);
        self.aside.insert(key);
    }

    /// Forgets what was set aside: everything in state is looked at again.
    pub(crate) fn resume(&mut self, state: &StateReader<M>) {
        self.aside.clear();
        self.fetch(state);
    }

    /// Takes in what a durable group changed.
    pub(crate) fn update(&mut self, changes: &[Change<M>]) {
        for (key, entry) in changes {
            if M::deadline(key).is_none() {
                continue;
            }
            self.aside.remove(key);
            if entry.is_none() {
                self.soonest.remove(key);
            } else if self.last.as_ref().is_none_or(|last| key <= last) {
                self.soonest.insert(key.clone());
            }
        }
        if self.soonest.len() > 2 * self.window {
            self.shrink();
        }
    }

    /// Leaves the later part of the window to state.
    fn shrink(&mut self) {
        if let Some(first_out) = self.soonest.iter().nth(self.window).cloned() {
            drop(self.soonest.split_off(&first_out));
            self.last = self.soonest.last().cloned();
        }
    }
}
