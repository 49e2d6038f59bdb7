//! The alternative: state that is carried on beside the log's.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::Keytrail;
use engine::config::Config;
use engine::entries::{Deadline, Entry, Expiring, Key, Look};
use engine::ids::{Id, Micros, Position};
use engine::machine::{Draft, Entries, Machine, Record};
use serde_json::Value;
use storage::fold::FoldedState;

use super::Options;
use crate::walk::ReplayError;

/// State in the alternative.
pub(super) struct Branch {
    entries: BTreeMap<Key, Arc<Entry>>,
}

impl Entries<Keytrail> for Branch {
    fn get(&self, key: &Key) -> Option<Arc<Entry>> {
        self.entries.get(key).cloned()
    }
}

impl Branch {
    /// Parts from the log at `position`, with the properties in force.
    pub(super) fn of(
        log: &FoldedState<Keytrail>,
        position: Position,
        options: &Options,
    ) -> Result<Self, ReplayError> {
        let entries = log.entries().map(|(key, entry)| (*key, Arc::clone(entry))).collect();
        let mut branch = Self { entries };
        branch.overlay(log, position, options)?;
        Ok(branch)
    }

    /// Puts the properties in force over the configuration that the log has.
    pub(super) fn overlay(
        &mut self,
        log: &FoldedState<Keytrail>,
        position: Position,
        options: &Options,
    ) -> Result<(), ReplayError> {
        for (key, entry) in log.entries() {
            let (Key::Application(id), Entry::Application(theirs)) = (key, entry.as_ref()) else {
                continue;
            };
            let Some(ours) = Look(self).application(*id) else { continue };
            let mut config = theirs.config.clone();
            if options.application.is_none_or(|asked| asked == *id) {
                config = with(&config, &options.properties).map_err(|errors| {
                    ReplayError::Configuration { application: *id, position, errors }
                })?;
            }
            if ours.config != config {
                let mut application = (*ours).clone();
                application.config = config;
                self.entries.insert(*key, Arc::new(Entry::Application(Arc::new(application))));
            }
        }
        Ok(())
    }

    /// Takes in a record.
    pub(super) fn take(&mut self, record: &Record) {
        for (key, entry) in Keytrail::evolve(self, record) {
            match entry {
                Some(entry) => self.entries.insert(key, entry),
                None => self.entries.remove(&key),
            };
        }
    }

    /// Takes in what the rules make here of the command of `records`. Each event
    /// stands at the position of its counterpart, so that what the log says of
    /// positions (which keys were judged against) means the same here.
    pub(super) fn take_drafts(&mut self, drafts: Vec<Draft>, records: &[Record]) {
        let (Some(first), Some(last)) = (records.first(), records.last()) else { return };
        for (index, draft) in drafts.into_iter().enumerate() {
            let head = Keytrail::head(self, draft.stream);
            let record = Record {
                position: records.get(index).unwrap_or(last).position,
                time: first.time,
                stream_version: head.version,
                stream_prev: head.last,
                correlation: first.correlation,
                causation: first.causation,
                draft,
            };
            self.take(&record);
        }
    }

    /// Lets expire what only here is due by `now`. What is due in the log as well
    /// waits for the log's own event.
    pub(super) fn pass_time(&mut self, log: &FoldedState<Keytrail>, now: Micros) {
        let earliest = Deadline { at: Micros(0), of: Expiring::Activation(Id::NIL) };
        let due: Vec<Key> = self
            .entries
            .range(Key::Deadline(earliest)..)
            .map(|(key, _)| *key)
            .take_while(|key| Keytrail::deadline(key).is_some_and(|at| at <= now))
            .filter(|key| log.get(key).is_none())
            .collect();
        for key in due {
            let command = Keytrail::on_deadline(&key, Id::NIL);
            // What is over already needs no event; nothing else is refused here.
            for draft in Keytrail::decide(self, now, &command).unwrap_or_default() {
                let head = Keytrail::head(self, draft.stream);
                self.take(&Record {
                    position: log.position(),
                    time: now,
                    stream_version: head.version,
                    stream_prev: head.last,
                    correlation: Id::NIL,
                    causation: Id::NIL,
                    draft,
                });
            }
        }
    }

    /// Whether the registration has other keys here than in the log.
    pub(super) fn keys_differ(&self, log: &FoldedState<Keytrail>, registration: Id) -> bool {
        let keys = |look: Look| {
            look.registration(registration).map(|it| (it.software.clone(), it.hardware, it.keys_at))
        };
        keys(Look(self)) != keys(Look(log))
    }

    /// Entries that only one has, or that differ in more than the configuration
    /// that was asked about.
    pub(super) fn entries_differing(&self, log: &FoldedState<Keytrail>) -> u64 {
        let theirs = |key: &Key| log.get(key).map(|entry| bare(&entry));
        let here = self.entries.iter().filter(|(key, entry)| theirs(key) != Some(bare(entry)));
        let missing = log.entries().filter(|(key, _)| !self.entries.contains_key(key));
        (here.count() + missing.count()) as u64
    }
}

/// An entry without what is different in the alternative in any case.
fn bare(entry: &Entry) -> Entry {
    match entry {
        Entry::Application(application) => {
            let mut application = (**application).clone();
            application.config = Config::default();
            Entry::Application(Arc::new(application))
        }
        Entry::System(_)
        | Entry::ApiKey(_)
        | Entry::Registration(_)
        | Entry::Activation(_)
        | Entry::Operation(_)
        | Entry::Broadcast(_)
        | Entry::Code(_)
        | Entry::Request { .. }
        | Entry::Deadline
        | Entry::Memory { .. }
        | Entry::Subject(_)
        | Entry::Owned
        | Entry::Erasure(_) => entry.clone(),
    }
}

fn with(
    config: &Config,
    properties: &[(String, Value)],
) -> Result<Config, Vec<engine::config::ConfigError>> {
    config.with(properties.iter().map(|(name, value)| (name.as_str(), value)))
}
