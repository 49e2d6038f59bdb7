//! What happens when the process must not go on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::folder::{Folder, Note};

/// Called with a message when the process must not go on. The default prints it
/// and aborts; where a test returns from it, the store is dead from then on.
pub type Fatal = Arc<dyn Fn(&str) + Send + Sync>;

/// The way out, shared by every thread of a store.
pub(crate) struct Trouble {
    fatal: Fatal,
    /// Where damage is noted, so that the next start makes `store/` again.
    folder: Folder,
    noted: AtomicBool,
    dead: AtomicBool,
}

impl Trouble {
    pub(crate) fn new(fatal: Fatal, folder: Folder) -> Self {
        Self { fatal, folder, noted: AtomicBool::new(false), dead: AtomicBool::new(false) }
    }

    /// Whether the store has been given up.
    pub(crate) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    /// Gives the store up: the log could not be made durable, or its writer is broken.
    pub(crate) fn stop(&self, message: &str) {
        if !self.dead.swap(true, Ordering::SeqCst) {
            tracing::error!("{message}");
            (self.fatal)(message);
        }
    }

    /// Gives the store up because what is derived from the log is damaged, and
    /// notes it: the next start makes it again from the log.
    pub(crate) fn derived_damage(&self, what: &str) {
        if self.is_dead() {
            return;
        }
        self.note_damage(what);
        self.stop(&format!(
            "the store is damaged: {what}; the log is not: start again to make the store from it"
        ));
    }

    /// Notes damage of what is derived from the log, for the next start to make
    /// it again. Going on meanwhile is the caller's choice.
    pub(crate) fn note_damage(&self, what: &str) {
        if self.noted.swap(true, Ordering::SeqCst) {
            return;
        }
        tracing::error!("the store is damaged, the next start makes it again: {what}");
        // Without the note the next start still compares state with its sum.
        if let Err(error) = self.folder.put_note(Note::Damage, what) {
            tracing::error!(%error, "the damage of the store could not be noted");
        }
    }

    /// The answer of sled, which reports damage as an error or as a panic.
    ///
    /// # Panics
    ///
    /// After damage, where the fatal hook returned: nothing can be answered.
    pub(crate) fn answer<T>(&self, ask: impl FnOnce() -> sled::Result<T>) -> T {
        match guarded(ask) {
            Ok(answer) => answer,
            Err(why) => self.no_answer(&why),
        }
    }

    /// # Panics
    ///
    /// Where the fatal hook returned.
    pub(crate) fn no_answer(&self, why: &str) -> ! {
        self.derived_damage(why);
        panic!("no answer from a damaged store: {why}")
    }
}

/// The outcome of `ask`, or what sled's error or panic said.
pub(crate) fn guarded<T, E: std::fmt::Display>(
    ask: impl FnOnce() -> Result<T, E>,
) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(ask)) {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(format!("sled: {error}")),
        Err(panic) => Err(format!("sled panicked: {}", panic_text(panic.as_ref()))),
    }
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
