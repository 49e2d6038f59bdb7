//! What if: a past range of the log under another configuration.
//!
//! Beside the state that the log made, a second one, the *alternative*, is
//! carried through the range. It begins as the state at the range's start, with
//! the properties that are asked about in force, and stays under them whatever
//! the log set meanwhile. Each command of the range, recovered from its
//! records, is put to the rules again on the alternative. What they make of it
//! is folded into the alternative, so effects cascade; see [`CASCADES`] and
//! [`DOES_NOT_CASCADE`].
//!
//! An operation or activation counts once, by the first command at which the
//! two histories part. Where the alternative cannot take the command, because
//! people would have acted on another history, it is *not comparable*, and the
//! reason is given.
//!
//! Nothing here depends on anything but the log and the question: the same log
//! gives the same answer, byte for byte.

mod branch;
mod ending;
mod properties;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;

use engine::Keytrail;
use engine::command::{Command, Refusal, Want};
use engine::entries::Look;
use engine::events::Event;
use engine::ids::{Id, Micros, Position};
use engine::inverse::command_of;
use engine::machine::{Machine, Record};
use engine::reasons::{LockReason, RegistrationState};
use serde::Serialize;
use serde_json::Value;
use storage::fold::FoldedState;

pub use self::properties::{PropertyError, properties};

use self::branch::Branch;
use self::ending::{Made, Stands, Why, events_of, outcome, touched};
use crate::moment::Place;
use crate::one_line;
use crate::walk::{self, At, ReplayError};

/// What follows from what, in the alternative.
pub const CASCADES: &[&str] = &[
    "counted failures, and the locks that they make or no longer make",
    "uncounted failures and the limit on them",
    "whether an activation succeeds, which keys it leaves, and whether the device counts as one without a hardware key",
    "deadlines set in the range: codes, activations and operations expire when the alternative says",
    "what a locked, deactivated or never activated registration can no longer do",
];

/// What is taken from the log as it was.
pub const DOES_NOT_CASCADE: &[&str] = &[
    "what people do: retries, unlocks, re-activations, new operations, cancellations are those of the log, also where nobody would have had a reason",
    "signatures: those that were sent and checked at the time, by the keys of that time",
    "requests that were refused at the time: they left no record, so a laxer configuration cannot bring them back",
    "wrong activation codes and the budgets that they use up: they are counted outside the log",
    "deadlines that were set before the range",
];

/// The question.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Options {
    /// Properties that are in force throughout the range; see [`properties`].
    pub properties: Vec<(String, Value)>,
    /// The only application that has them; none for all.
    pub application: Option<Id>,
    /// First moment of the range; none for the beginning of the log.
    pub from: Option<At>,
    /// First moment after the range; none for the end of the log.
    pub to: Option<At>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WhatIf {
    /// The log's origin line.
    pub origin: String,
    /// The properties asked about.
    pub properties: BTreeMap<String, Value>,
    /// The only application that had them.
    pub application_id: Option<Id>,
    /// First record of the range.
    pub first: Option<Place>,
    /// Last record of the range.
    pub last: Option<Place>,
    /// Commands of the applications concerned.
    pub commands: Commands,
    /// Activations that something happened to in the range.
    pub activations: Tally,
    /// Operations that something happened to in the range.
    pub operations: Tally,
    /// Locks by the server.
    pub locks: Locks,
    /// How often what ended otherwise, as `kind: in the log -> in the alternative`.
    pub changes: BTreeMap<String, u64>,
    /// How often what could not be compared, by reason.
    pub reasons: BTreeMap<String, u64>,
    /// Entries of state that differ at the end of the range.
    pub entries_differing: u64,
    /// What ended otherwise, in the order of the log.
    pub different: Vec<Ending>,
    /// What could not be compared, in the order of the log.
    pub not_comparable: Vec<Ending>,
    /// What is to be known of the question.
    pub remarks: Vec<String>,
    /// What follows from what, in the alternative.
    pub cascades: &'static [&'static str],
    /// What is taken from the log as it was.
    pub does_not_cascade: &'static [&'static str],
}

/// What became of the commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Commands {
    /// Those that have the same outcome.
    pub same: u64,
    /// Those that are judged otherwise.
    pub different: u64,
    /// Those that the alternative cannot take.
    pub not_carried: u64,
}

/// What became of operations or activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Tally {
    /// Those that go the same way.
    pub same: u64,
    /// Those that end otherwise.
    pub different: u64,
    /// Those of which it cannot be said.
    pub not_comparable: u64,
}

/// What became of the locks that the server makes after too many failures.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Locks {
    /// Those in both histories.
    pub same: u64,
    /// Those that only the alternative has.
    pub only_in_alternative: Vec<Locked>,
    /// Those that only the log has.
    pub only_in_log: Vec<Locked>,
}

/// A lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Locked {
    /// The registration.
    pub registration_id: Id,
    /// The command.
    #[serde(flatten)]
    pub place: Place,
}

/// What a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An activation.
    Activation,
    /// An operation.
    Operation,
}

impl Kind {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Activation => "activation",
            Self::Operation => "operation",
        }
    }
}

/// Where the two histories of an operation or activation part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ending {
    /// What it is.
    pub kind: Kind,
    /// Its id.
    pub id: Id,
    /// Its registration.
    pub registration_id: Id,
    /// Its application.
    pub application_id: Id,
    /// The command at which they part.
    #[serde(flatten)]
    pub place: Place,
    /// What the command did in the log.
    pub log: String,
    /// What it does in the alternative, or why that cannot be said.
    pub alternative: String,
}

/// An operation or activation of the range that is not over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Track {
    /// Whether its histories have parted.
    parted: bool,
}

/// Folds the range of the log in the folder `dir` under the properties of
/// `options`, and compares.
///
/// # Errors
///
/// [`ReplayError`]; [`ReplayError::Configuration`] where an application cannot
/// have these properties.
pub fn what_if(dir: &Path, options: &Options) -> Result<WhatIf, ReplayError> {
    let mut pass = Pass::new(options);
    let walked = walk::commands(dir, &mut |records| pass.command(records))?;
    pass.end()?;
    let mut answer = pass.answer;
    answer.origin = walked.origin;
    answer.remarks.extend(walked.findings.iter().map(ToString::to_string));
    Ok(answer)
}

/// One pass over the log.
struct Pass<'a> {
    options: &'a Options,
    /// State as the log made it.
    log: FoldedState<Keytrail>,
    /// The alternative, from the range's start on.
    branch: Option<Branch>,
    open: BTreeMap<(Kind, Id), Track>,
    last: Option<(Position, Micros)>,
    answer: WhatIf,
}

impl<'a> Pass<'a> {
    fn new(options: &'a Options) -> Self {
        let answer = WhatIf {
            origin: String::new(),
            properties: options.properties.iter().cloned().collect(),
            application_id: options.application,
            first: None,
            last: None,
            commands: Commands::default(),
            activations: Tally::default(),
            operations: Tally::default(),
            locks: Locks::default(),
            changes: BTreeMap::new(),
            reasons: BTreeMap::new(),
            entries_differing: 0,
            different: Vec::new(),
            not_comparable: Vec::new(),
            remarks: properties::remarks(&options.properties),
            cascades: CASCADES,
            does_not_cascade: DOES_NOT_CASCADE,
        };
        let log = FoldedState::default();
        Self { options, log, branch: None, open: BTreeMap::new(), last: None, answer }
    }

    fn command(&mut self, records: &[Record]) -> walk::Going {
        let Some(first) = records.first() else { return Ok(ControlFlow::Continue(())) };
        if self.options.to.is_some_and(|to| to.is_reached_by(first)) {
            return Ok(ControlFlow::Break(()));
        }
        let begins = self.options.from.is_none_or(|from| from.is_reached_by(first));
        if self.branch.is_none() && begins {
            self.branch = Some(Branch::of(&self.log, first.position, self.options)?);
            self.answer.first = Some(Place::new(first.position, first.time));
        }
        let mut branch = self.branch.take();
        match &mut branch {
            Some(branch) => self.carry(branch, records)?,
            None => self.fold(records)?,
        }
        self.branch = branch;
        if let Some(last) = records.last() {
            self.last = Some((last.position, last.time));
        }
        Ok(ControlFlow::Continue(()))
    }

    fn fold(&mut self, records: &[Record]) -> Result<(), ReplayError> {
        records.iter().try_for_each(|record| walk::fold(&mut self.log, record))
    }

    /// Takes a command of the range in, on both sides.
    fn carry(&mut self, branch: &mut Branch, records: &[Record]) -> Result<(), ReplayError> {
        let Some(first) = records.first() else { return Ok(()) };
        let position = first.position;
        let command =
            command_of(records).map_err(|source| ReplayError::Command { position, source })?;
        let unreadable = |source| ReplayError::Event { position, source };
        let events = events_of(records.iter().map(|record| &record.draft)).map_err(unreadable)?;
        branch.pass_time(&self.log, first.time);
        let Some(subject) = subject(&command.want) else {
            self.fold(records)?;
            records.iter().for_each(|record| branch.take(record));
            return branch.overlay(&self.log, position, self.options);
        };
        let other_keys = judges_keys(&command) && branch.keys_differ(&self.log, first.draft.stream);
        let decided = Keytrail::decide(branch, first.time, &command);
        self.fold(records)?;
        let made = match decided {
            Ok(_) | Err(Refusal::Stale | Refusal::MethodNotOffered) if other_keys => {
                Made::Nothing(Why::of_other_keys())
            }
            Ok(drafts) => {
                let made = events_of(drafts.iter()).map_err(unreadable)?;
                branch.take_drafts(drafts, records);
                Made::Events(made)
            }
            Err(refusal) => Made::Nothing(Why::of(&refusal)),
        };
        if self.concerns(first.draft.stream) {
            self.locks(branch, first, &events, &made);
            self.compare(branch, subject, first, &events, &made);
        }
        Ok(())
    }

    /// Whether the registration belongs to an application that is asked about.
    fn concerns(&self, registration: Id) -> bool {
        self.options.application.is_none_or(|asked| {
            Look(&self.log).registration(registration).is_some_and(|it| it.application == asked)
        })
    }

    fn locks(&mut self, branch: &Branch, first: &Record, events: &[Event], made: &Made) {
        let registration_id = first.draft.stream;
        let locked = || Locked { registration_id, place: Place::new(first.position, first.time) };
        let locks = &mut self.answer.locks;
        match (by_server(events), by_server(made.events())) {
            (true, true) => locks.same += 1,
            (false, true) => locks.only_in_alternative.push(locked()),
            // Locked earlier is no lock less.
            (true, false) => {
                let there = Look(branch).registration(registration_id);
                if there.is_none_or(|there| there.state != RegistrationState::Locked) {
                    locks.only_in_log.push(locked());
                }
            }
            (false, false) => (),
        }
    }

    fn compare(
        &mut self,
        branch: &Branch,
        subject: Subject,
        first: &Record,
        events: &[Event],
        made: &Made,
    ) {
        let log = outcome(events);
        let place = Place::new(first.position, first.time);
        let same = matches!(made, Made::Events(events) if outcome(events) == log);
        let thing = match subject {
            Subject::Thing(kind, id) => Some((kind, id)),
            Subject::Registration => None,
        };
        let parted = thing.is_some_and(|thing| self.open.get(&thing).is_some_and(|it| it.parted));
        let commands = &mut self.answer.commands;
        match made {
            Made::Events(_) if same => commands.same += 1,
            Made::Events(_) | Made::Nothing(Why::Ruled(_)) if !parted => commands.different += 1,
            Made::Events(made) if !made.is_empty() => commands.different += 1,
            Made::Events(_) | Made::Nothing(_) => commands.not_carried += 1,
        }
        if let Some(thing) = thing {
            self.open.entry(thing).or_default();
            let parting = match made {
                // What follows from nothing is seen when the log ends it.
                Made::Events(events) if same || events.is_empty() => None,
                Made::Events(events) => Some(Why::Ruled(outcome(events))),
                Made::Nothing(why) => Some(why.clone()),
            };
            if let Some(why) = parting {
                self.part(thing, &place, log.clone(), why);
            }
        }
        for touched in thing.into_iter().chain(touched(events)) {
            self.close_if_over(branch, touched, &place);
        }
    }

    /// Notes where two histories of a thing part, unless they have parted before.
    fn part(&mut self, thing: (Kind, Id), place: &Place, log: String, why: Why) {
        let track = self.open.entry(thing).or_default();
        if std::mem::replace(&mut track.parted, true) {
            return;
        }
        let (kind, id) = thing;
        let (registration_id, application_id) = self.owner(thing);
        let (alternative, comparable) = match why {
            Why::Ruled(text) => (text, true),
            Why::Elsewhere(text) => (text, false),
        };
        let answer = &mut self.answer;
        let tally = match kind {
            Kind::Activation => &mut answer.activations,
            Kind::Operation => &mut answer.operations,
        };
        let ending = Ending {
            kind,
            id,
            registration_id,
            application_id,
            place: place.clone(),
            log,
            alternative,
        };
        if comparable {
            tally.different += 1;
            let change = format!("{}: {} -> {}", kind.as_str(), ending.log, ending.alternative);
            *answer.changes.entry(change).or_default() += 1;
            answer.different.push(ending);
        } else {
            tally.not_comparable += 1;
            *answer.reasons.entry(ending.alternative.clone()).or_default() += 1;
            answer.not_comparable.push(ending);
        }
    }

    /// Registration and application of a thing of the log.
    fn owner(&self, (kind, id): (Kind, Id)) -> (Id, Id) {
        let look = Look(&self.log);
        match kind {
            Kind::Activation => look.activation(id).map(|it| (it.registration, it.application)),
            Kind::Operation => look.operation(id).map(|it| (it.registration, it.application)),
        }
        .unwrap_or_default()
    }

    /// Compares how a thing ended once it has in the log.
    fn close_if_over(&mut self, branch: &Branch, thing: (Kind, Id), place: &Place) {
        let stands = Stands::of(Look(&self.log), thing);
        if stands.over {
            self.close(branch, thing, place, &stands);
        }
    }

    fn close(&mut self, branch: &Branch, thing: (Kind, Id), place: &Place, log: &Stands) {
        let alternative = Stands::of(Look(branch), thing);
        if alternative.over != log.over || alternative.over && alternative.state != log.state {
            let why = if alternative.over {
                Why::Ruled(alternative.state.to_owned())
            } else {
                Why::Elsewhere("it would have stayed open longer".to_owned())
            };
            self.part(thing, place, log.state.to_owned(), why);
        }
        if self.open.remove(&thing).is_some_and(|track| track.parted) {
            return;
        }
        match thing.0 {
            Kind::Activation => self.answer.activations.same += 1,
            Kind::Operation => self.answer.operations.same += 1,
        }
    }

    /// What is to be said when the range is over.
    fn end(&mut self) -> Result<(), ReplayError> {
        if let Some(id) = self.options.application
            && Look(&self.log).application(id).is_none()
        {
            return Err(ReplayError::Unknown { what: "application", id });
        }
        let Some((position, time)) = self.last else { return Ok(()) };
        let Some(mut branch) = self.branch.take() else { return Ok(()) };
        let place = Place::new(position, time);
        branch.pass_time(&self.log, time);
        let open: Vec<_> = self.open.keys().copied().collect();
        for thing in open {
            let log = Stands::of(Look(&self.log), thing);
            self.close(&branch, thing, &place, &log);
        }
        self.answer.last = Some(place);
        self.answer.entries_differing = branch.entries_differing(&self.log);
        Ok(())
    }
}

/// What a command is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    Thing(Kind, Id),
    /// A registration by itself.
    Registration,
}

/// None for what is taken over from the log: administration, erasures, blocks of
/// devices, sweeps, and what the server notes of its surroundings.
fn subject(want: &Want) -> Option<Subject> {
    use Kind::{Activation, Operation};
    match want {
        Want::StartLog(_)
        | Want::NoteClockStep { .. }
        | Want::CountRefusals(_)
        | Want::CreateApiKey(_)
        | Want::RevokeApiKey { .. }
        | Want::CreateApplication(_)
        | Want::ChangeConfiguration(_)
        | Want::ExhaustCodeBudget { .. }
        | Want::CountKeyUse(_)
        | Want::ConfirmClock(_)
        | Want::RecordExport(_)
        | Want::Reveal(_)
        | Want::NoteStateDigest(_)
        | Want::RotateKey(_)
        | Want::BeginEpoch(_)
        | Want::TakeRevocationList(_)
        | Want::OrderErasure(_)
        | Want::RecordErased { .. }
        | Want::BlockDevice(_)
        | Want::UnblockDevice { .. }
        | Want::LockBlocked(_)
        | Want::DeactivateInactive(_)
        | Want::ConfirmInactivity { .. } => None,
        Want::RequestActivation(want) => Some(Subject::Thing(Activation, want.activation)),
        Want::StartActivation(want) => Some(Subject::Thing(Activation, want.activation)),
        Want::StartRecovery(want) => Some(Subject::Thing(Activation, want.activation)),
        Want::FinishActivation(want) => Some(Subject::Thing(Activation, want.activation)),
        Want::CancelActivation { activation, .. } => Some(Subject::Thing(Activation, *activation)),
        Want::ExpireActivation(activation) => Some(Subject::Thing(Activation, *activation)),
        Want::BeginOperation(want) => Some(Subject::Thing(Operation, want.operation)),
        Want::CreateOperation(want) => Some(Subject::Thing(Operation, want.operation)),
        // The first operation stands for those of the other devices.
        Want::Broadcast(asks) => {
            asks.first().map(|first| Subject::Thing(Operation, first.operation))
        }
        Want::AskOffline(want) => Some(Subject::Thing(Operation, want.operation)),
        Want::FinishOffline(want) => Some(Subject::Thing(Operation, want.operation)),
        Want::StartAuthentication(want) => Some(Subject::Thing(Operation, want.operation)),
        Want::FinishAuthentication(want) => Some(Subject::Thing(Operation, want.operation)),
        Want::CancelOperation { operation, .. } => Some(Subject::Thing(Operation, *operation)),
        Want::ExpireOperation(operation) => Some(Subject::Thing(Operation, *operation)),
        Want::LockRegistration { .. }
        | Want::ReleaseLock(_)
        | Want::UnlockRegistration { .. }
        | Want::DeactivateRegistration { .. }
        | Want::NameDevice(_)
        | Want::SetPushAddress(_) => Some(Subject::Registration),
    }
}

/// Whether signatures by keys of the registration are judged.
fn judges_keys(command: &Command) -> bool {
    matches!(
        command.want,
        Want::FinishActivation(_) | Want::FinishAuthentication(_) | Want::FinishOffline(_)
    )
}

/// Whether the server locked, after too many failures.
fn by_server(events: &[Event]) -> bool {
    events.iter().any(|event| {
        matches!(event, Event::RegistrationLocked(it) if it.reason == LockReason::TooManyFailures)
    })
}

/// Lines of each list that the page shows.
const SHOWN: usize = 40;

/// One page for people.
impl fmt::Display for WhatIf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "log          {}", one_line(&self.origin))?;
        let asked: Vec<_> =
            self.properties.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let whose = self
            .application_id
            .map_or_else(|| "every application".to_owned(), |id| format!("application {id}"));
        writeln!(f, "what if      {} for {whose}", asked.join(" "))?;
        match (&self.first, &self.last) {
            (Some(first), Some(last)) => writeln!(f, "range        record {first} to {last}\n")?,
            _ => writeln!(f, "range        no record is in it\n")?,
        }
        writeln!(f, "             {:>10} {:>10} {:>15}", "same", "different", "not comparable")?;
        for (name, tally) in [("activations", self.activations), ("operations", self.operations)] {
            let Tally { same, different, not_comparable } = tally;
            writeln!(f, "{name:12} {same:>10} {different:>10} {not_comparable:>15}")?;
        }
        let Commands { same, different, not_carried } = self.commands;
        writeln!(f, "{:12} {same:>10} {different:>10} {not_carried:>15}", "commands")?;
        let Locks { same, only_in_alternative, only_in_log } = &self.locks;
        writeln!(
            f,
            "locks        {same} in both, {} only in the alternative, {} only in the log\n",
            only_in_alternative.len(),
            only_in_log.len()
        )?;
        counted(f, "ended otherwise", &self.changes)?;
        counted(f, "not comparable, because", &self.reasons)?;
        listed(f, "would have ended otherwise", &self.different)?;
        listed(f, "not comparable", &self.not_comparable)?;
        locked(f, "locked only in the alternative", only_in_alternative)?;
        locked(f, "locked only in the log", only_in_log)?;
        sentences(f, "followed into later commands", self.cascades)?;
        sentences(f, "taken from the log as it was", self.does_not_cascade)?;
        self.remarks.iter().try_for_each(|remark| writeln!(f, "note: {remark}"))
    }
}

fn counted(f: &mut fmt::Formatter<'_>, title: &str, counts: &BTreeMap<String, u64>) -> fmt::Result {
    if counts.is_empty() {
        return Ok(());
    }
    writeln!(f, "{title}")?;
    counts.iter().try_for_each(|(what, count)| writeln!(f, "{count:>8}  {what}"))?;
    writeln!(f)
}

fn listed(f: &mut fmt::Formatter<'_>, title: &str, endings: &[Ending]) -> fmt::Result {
    if endings.is_empty() {
        return Ok(());
    }
    writeln!(f, "{title}")?;
    for ending in endings.iter().take(SHOWN) {
        let Ending { kind, id, registration_id, place, log, alternative, .. } = ending;
        writeln!(f, "{:>8}  {}  {} {id}", place.position, place.time, kind.as_str())?;
        writeln!(f, "{:>8}  registration {registration_id}", "")?;
        writeln!(f, "{:>8}  {log} -> {alternative}", "")?;
    }
    more(f, endings.len())
}

fn locked(f: &mut fmt::Formatter<'_>, title: &str, locks: &[Locked]) -> fmt::Result {
    if locks.is_empty() {
        return Ok(());
    }
    writeln!(f, "{title}")?;
    for Locked { registration_id, place } in locks.iter().take(SHOWN) {
        writeln!(f, "{:>8}  {}  registration {registration_id}", place.position, place.time)?;
    }
    more(f, locks.len())
}

fn more(f: &mut fmt::Formatter<'_>, count: usize) -> fmt::Result {
    if count > SHOWN {
        writeln!(f, "{:>8}  and {} more; --json lists all", "", count - SHOWN)?;
    }
    writeln!(f)
}

fn sentences(f: &mut fmt::Formatter<'_>, title: &str, sentences: &[&str]) -> fmt::Result {
    writeln!(f, "{title}")?;
    sentences.iter().try_for_each(|sentence| writeln!(f, "  - {sentence}"))
}
