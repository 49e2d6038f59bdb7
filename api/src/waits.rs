//! Who waits for something to happen to a registration or operation.
//!
//! A device that asks what waits for it, and a back end that asks what became of
//! an operation, can stay until there is an answer (long polling), so neither
//! needs a push service or a loop. What they wait for is a record in a stream.
//!
//! A wait is never lost: whoever enters before looking at state is woken by
//! whatever comes after. Being woken means "look again", no more. Only records
//! that a request made wake; what time does by itself (an expiry) is for the
//! waiter to have a deadline for.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use engine::ids::Id;
use engine::machine::Record;
use tokio::sync::Notify;

/// Longest time a caller may ask to wait, in seconds.
pub const WAIT_S_MAX: u32 = 30;
/// Most who wait for one stream; whoever comes then is answered at once.
const WAITERS_MAX: usize = 16;
/// Most who wait for nothing: anybody can, so there must be an end to it.
const ASLEEP_MAX: usize = 1_024;

/// Everybody who waits.
#[derive(Debug, Default)]
pub struct Waits {
    /// Changed under the lock alone; read without it, so that a server on which
    /// nobody waits does nothing here.
    entered: AtomicUsize,
    streams: Mutex<Streams>,
}

#[derive(Debug, Default)]
struct Streams {
    stopping: bool,
    waiting: HashMap<Id, Vec<Arc<Notify>>>,
    /// Those who wait for no stream at all: only a stop wakes them.
    asleep: Vec<Arc<Notify>>,
}

/// One who waits, until it is dropped.
#[derive(Debug)]
pub struct Wait<'a> {
    of: &'a Waits,
    streams: Vec<Id>,
    woken: Arc<Notify>,
}

impl Waits {
    /// Begins to wait for any of `streams`; none if too many do already, or the
    /// server stops.
    pub fn enter(&self, streams: &[Id]) -> Option<Wait<'_>> {
        let mut all = self.lock();
        let full = |id| all.waiting.get(id).is_some_and(|waiting| waiting.len() >= WAITERS_MAX);
        let crowded = streams.is_empty() && all.asleep.len() >= ASLEEP_MAX;
        if all.stopping || crowded || streams.iter().any(full) {
            return None;
        }
        let woken = Arc::new(Notify::new());
        for id in streams {
            all.waiting.entry(*id).or_default().push(Arc::clone(&woken));
        }
        if streams.is_empty() {
            all.asleep.push(Arc::clone(&woken));
        }
        self.entered.fetch_add(1, Ordering::SeqCst);
        Some(Wait { of: self, streams: streams.to_vec(), woken })
    }

    /// Wakes whoever waits for the stream of one of `records`.
    pub fn wake(&self, records: &[Arc<Record>]) {
        if self.entered.load(Ordering::SeqCst) == 0 {
            return;
        }
        let all = self.lock();
        for record in records {
            let waiting = all.waiting.get(&record.draft.stream);
            waiting.into_iter().flatten().for_each(|woken| woken.notify_one());
        }
    }

    /// Wakes everybody, and lets nobody wait any more.
    pub fn stop(&self) {
        let mut all = self.lock();
        all.stopping = true;
        let waiting = all.waiting.values().flatten();
        waiting.chain(&all.asleep).for_each(|woken| woken.notify_one());
    }

    /// Whether [`Waits::stop`] was called.
    #[must_use]
    pub fn are_over(&self) -> bool {
        self.lock().stopping
    }

    fn lock(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wait<'_> {
    /// Ends when something has happened since the wait began, or since this last ended.
    pub async fn woken(&self) {
        self.woken.notified().await;
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let mut all = self.of.lock();
        for id in &self.streams {
            let Some(waiting) = all.waiting.get_mut(id) else { continue };
            waiting.retain(|woken| !Arc::ptr_eq(woken, &self.woken));
            if waiting.is_empty() {
                all.waiting.remove(id);
            }
        }
        if self.streams.is_empty() {
            all.asleep.retain(|woken| !Arc::ptr_eq(woken, &self.woken));
        }
        self.of.entered.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use engine::ids::{Micros, Position};
    use engine::machine::Draft;

    use super::*;

    const ONE: Id = Id([1; 16]);
    const OTHER: Id = Id([2; 16]);

    fn record(stream: Id) -> Arc<Record> {
        Arc::new(Record {
            position: Position(0),
            time: Micros(0),
            stream_version: 0,
            stream_prev: None,
            correlation: Id::NIL,
            causation: Id::NIL,
            draft: Draft {
                stream,
                event_id: Id::NIL,
                event_type: 0,
                schema: 0,
                subject: Id::NIL,
                clear: Vec::new(),
                sealed: Vec::new(),
            },
        })
    }

    fn is_woken(wait: &Wait) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        pin!(wait.woken()).poll(&mut context) == Poll::Ready(())
    }

    #[test]
    fn a_record_wakes_those_who_wait_for_its_stream_also_if_it_came_before_they_slept() {
        let waits = Waits::default();
        let one = waits.enter(&[ONE]).unwrap();
        let both = waits.enter(&[ONE, OTHER]).unwrap();
        waits.wake(&[record(OTHER)]);
        assert!(!is_woken(&one) && is_woken(&both));
        assert!(!is_woken(&both), "once for each");
        waits.wake(&[record(OTHER), record(ONE)]);
        assert!(is_woken(&one) && is_woken(&both));
    }

    #[test]
    fn those_who_left_take_no_room() {
        let waits = Waits::default();
        let all: Vec<_> = (0..WAITERS_MAX).map(|_| waits.enter(&[ONE]).unwrap()).collect();
        assert!(waits.enter(&[OTHER, ONE]).is_none());
        assert!(waits.enter(&[OTHER]).is_some());
        drop(all);
        assert!(waits.enter(&[ONE]).is_some());
        assert!(waits.lock().waiting.is_empty());
        assert_eq!(waits.entered.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn there_is_an_end_to_waiting_for_nothing() {
        let waits = Waits::default();
        let asleep: Vec<_> = (0..ASLEEP_MAX).map(|_| waits.enter(&[]).unwrap()).collect();
        assert!(waits.enter(&[]).is_none());
        assert!(waits.enter(&[ONE]).is_some(), "who waits for something is not kept out");
        drop(asleep);
        assert!(waits.enter(&[]).is_some());
    }

    #[test]
    fn a_stop_wakes_everybody_and_lets_nobody_wait() {
        let waits = Waits::default();
        let one = waits.enter(&[ONE]).unwrap();
        let none = waits.enter(&[]).unwrap();
        waits.wake(&[record(Id::NIL)]);
        assert!(!is_woken(&none), "nothing else wakes who waits for nothing");
        waits.stop();
        assert!(is_woken(&none));
        assert!(is_woken(&one) && waits.enter(&[OTHER]).is_none() && waits.are_over());
    }
}
