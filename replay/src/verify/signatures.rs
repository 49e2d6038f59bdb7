//! Level 3: every signature in the log verified again, refused ones included,
//! by another library than the server's, on all cores.

use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::{Scope, ScopedJoinHandle};

use engine::events::{Event, VerificationV1};
use engine::ids::Id;
use engine::proofs::{Judged, Signed};
use engine::terms::Verdict;

use super::findings::Findings;
use super::records::Spot;
use crate::report::{Level, LevelReport, Outcome, Place};

/// Events handed to a worker at once.
const BATCH: usize = 32;

/// An event with signatures.
struct Job {
    spot: Spot,
    registration: Id,
    event: Event,
}

/// Hands events to the workers that check their signatures.
pub(super) struct Signatures<'scope> {
    sender: SyncSender<Vec<Job>>,
    batch: Vec<Job>,
    workers: Vec<ScopedJoinHandle<'scope, Findings>>,
    findings: Findings,
}

/// Where the workers get their batches from.
pub(super) struct Inbox(Mutex<Receiver<Vec<Job>>>);

/// The way to the workers, and their end of it. At most two batches a worker wait.
pub(super) fn channel(threads: NonZero<usize>) -> (Outbox, Inbox) {
    let (sender, receiver) = sync_channel(2 * threads.get());
    (Outbox(sender), Inbox(Mutex::new(receiver)))
}

/// The way to the workers.
pub(super) struct Outbox(SyncSender<Vec<Job>>);

impl<'scope> Signatures<'scope> {
    /// Starts the workers.
    pub(super) fn start<'env>(
        scope: &'scope Scope<'scope, 'env>,
        threads: NonZero<usize>,
        outbox: Outbox,
        inbox: &'env Inbox,
        findings: &Findings,
    ) -> Self {
        let workers = (0..threads.get())
            .map(|_| {
                let findings = findings.clone();
                scope.spawn(move || work(inbox, findings))
            })
            .collect();
        Self { sender: outbox.0, batch: Vec::new(), workers, findings: findings.clone() }
    }

    /// Has the signatures of an event checked, if it has any.
    pub(super) fn event(&mut self, spot: &Spot, registration: Id, event: Event) {
        if Judged::of(&event).is_none() {
            return;
        }
        self.batch.push(Job { spot: spot.clone(), registration, event });
        if self.batch.len() == BATCH {
            self.send();
        }
    }

    /// Waits for the workers. Incomplete: not all records could be read.
    pub(super) fn report(mut self, otherwise: Outcome) -> LevelReport {
        self.send();
        drop(self.sender);
        for worker in self.workers {
            match worker.join() {
                Ok(findings) => self.findings.merge(findings),
                Err(_) => self.findings.fail(
                    Place::default(),
                    "a thread that verified signatures failed",
                    "not all signatures were checked; this is a fault of keytrail",
                ),
            }
        }
        self.findings.report(Level::Signatures, otherwise)
    }

    fn send(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        if !batch.is_empty() {
            // Fails only when every worker has failed, which `report` notices.
            drop(self.sender.send(batch));
        }
    }
}

fn work(inbox: &Inbox, mut findings: Findings) -> Findings {
    loop {
        let next = inbox.0.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(batch) = next else { return findings };
        for job in &batch {
            // A worker that died would leave the others' batches unread, and
            // whoever sends them waiting.
            let checked = catch_unwind(AssertUnwindSafe(|| check(job, &mut findings)));
            if checked.is_err() {
                let means = "its signatures were not checked; this is a fault of keytrail";
                findings.fail(job.spot.place(), "verifying its signatures failed", means);
            }
        }
    }
}

fn check(job: &Job, findings: &mut Findings) {
    let means = "the record was not made by keytrail: no transcript can be made of it";
    match Signed::of_event(job.registration, &job.event) {
        Ok(None) => (),
        Ok(Some((signed, recorded))) => {
            for one in recorded {
                check_one(job, &signed, one, findings);
            }
        }
        Err(error) => findings.fail(job.spot.place(), error.to_string(), means),
    }
}

fn check_one(job: &Job, signed: &Signed, recorded: &VerificationV1, findings: &mut Findings) {
    findings.count("signatures");
    let found = match signed.recheck(recorded) {
        Ok(found) => found,
        Err(error) => {
            let means = "the record was not made by keytrail: its key is none";
            return findings.fail(job.spot.place(), error.to_string(), means);
        }
    };
    findings.count(match found {
        Verdict::Valid => "valid",
        Verdict::Invalid => "invalid",
        Verdict::Malformed => "malformed",
    });
    if found != recorded.verdict {
        let what = format!(
            "the {} signature for {} is recorded as {} and is {found}",
            recorded.role, recorded.method, recorded.verdict
        );
        let means = "what the record says of this signature is not true: the server erred, \
             or the record was forged";
        findings.fail(job.spot.place(), what, means);
    }
}
