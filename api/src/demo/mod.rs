//! The whole flow on a real server and a temporary store, in a few seconds.
//!
//! A server runs in a thread of this process; everything else happens over
//! HTTP, with the simulated phone. Each step says what was expected and what
//! was seen. Afterwards the log is judged from its files alone: verified,
//! listed, and everything derived made from it once more.

mod server;
mod story;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use replay::folder::FolderError;
use replay::inspect::{Filter, Row, inspect};
use replay::rebuild::{RebuildError, rebuild};
use replay::report::{Level, Report};
use replay::verify::{self, verify};
use serde::Serialize;
use storage::open::{Options, Rebuilt};

use crate::device::{ClientError, DeviceError};
use crate::service::{Ports, StartError, StopError};

/// One step: what was expected of it, and what was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Stable name, for scripts.
    pub name: &'static str,
    /// What is done, for people.
    pub what: &'static str,
    /// What it was to show.
    pub expected: String,
    /// What it showed.
    pub seen: String,
    /// Whether the two are equal.
    pub held: bool,
}

/// How the demo went.
#[derive(Debug, Clone, Serialize)]
pub struct Demo {
    /// Whether all of it held.
    pub held: bool,
    /// The steps over HTTP, in order.
    pub steps: Vec<Step>,
    /// Events in the log by type.
    pub events: BTreeMap<&'static str, u64>,
    /// Where the log ends.
    pub head: Head,
    /// Whether `keytrail verify` finds every level in order.
    pub verified: bool,
    /// Signatures in the log that were verified again, by another library.
    pub signatures_verified_again: u64,
    /// State as its digest.
    pub state_digest: Digests,
}

/// Where a log ends.
#[derive(Debug, Clone, Serialize)]
pub struct Head {
    /// Records in it.
    pub records: u64,
    /// Chain value of the last one, in hexadecimal.
    pub chain: String,
}

/// Digests of state, in hexadecimal. All are equal if nothing differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Digests {
    /// Folded from the log by the verifier.
    pub folded: Option<String>,
    /// As the server left it.
    pub before_rebuild: String,
    /// After everything derived was deleted and made again.
    pub after_rebuild: String,
}

/// What kept the demo from its end.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The server did not start.
    #[error("the server did not start")]
    Start(#[from] StartError),
    /// The server did not stop.
    #[error("the server did not stop cleanly")]
    Stop(#[from] StopError),
    /// The thread of the server is gone.
    #[error("the server's thread ended early")]
    Gone,
    /// A request of the back end failed.
    #[error("a request failed")]
    Client(#[from] ClientError),
    /// The phone failed.
    #[error("the phone failed")]
    Device(#[from] DeviceError),
    /// A step that others stand on did not come out.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// The log cannot be read.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The store cannot be made again.
    #[error(transparent)]
    Rebuild(#[from] RebuildError),
}

/// Runs the demo on a new store in `folder`. `on_step` and `on_event` are told
/// of each step and, afterwards, of each event of the log.
///
/// # Errors
///
/// [`DemoError`] if it cannot go on; a step that does not hold is no error.
pub fn run(
    folder: &Path,
    ports: &Ports,
    on_step: &mut dyn FnMut(&Step),
    on_event: &mut dyn FnMut(&Row),
) -> Result<Demo, DemoError> {
    let server = server::start(folder, ports)?;
    let told = story::tell(&server.url, &server.administrator, &*ports.entropy, on_step);
    server.stop()?;
    let steps = told?;
    let verified = verify(folder, &verify::Options::default())?;
    inspect(folder, &Filter::default(), &mut |row| {
        on_event(&row);
        ControlFlow::Continue(())
    })?;
    let options = Options::new("", ports.clock.clone(), ports.entropy.clone());
    let rebuilt = rebuild(folder, &options)?;
    Ok(judged(steps, verified, &rebuilt))
}

fn judged(steps: Vec<Step>, verified: Report, rebuilt: &Rebuilt) -> Demo {
    let signatures = verified.level(Level::Signatures).map_or(0, |level| level.count("signatures"));
    let state_digest = Digests {
        folded: verified.state_digest,
        before_rebuild: replay::hex(&rebuilt.before),
        after_rebuild: replay::hex(&rebuilt.after),
    };
    let found = &rebuilt.found;
    // State that opening had to make again first would be compared with itself.
    let as_left = found.store_set_aside.is_none() && found.state_remade.is_none();
    let same = state_digest.before_rebuild == state_digest.after_rebuild
        && state_digest.folded.as_ref() == Some(&state_digest.after_rebuild);
    Demo {
        held: steps.iter().all(|step| step.held) && verified.holds && as_left && same,
        steps,
        events: verified.events,
        head: Head { records: verified.records, chain: verified.chain },
        verified: verified.holds,
        signatures_verified_again: signatures,
        state_digest,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::ports::{SystemClock, SystemEntropy};

    #[test]
    fn the_whole_demo_holds_and_counts_what_it_did() {
        let folder = tempfile::tempdir().unwrap();
        let (clock, entropy) = (Arc::new(SystemClock::start()), Arc::new(SystemEntropy));
        let (mut steps, mut events) = (0, 0);
        let demo = run(folder.path(), &Ports { clock, entropy }, &mut |_| steps += 1, &mut |_| {
            events += 1
        })
        .unwrap();
        assert!(demo.held, "{demo:#?}");
        assert_eq!((demo.steps.len(), demo.head.records), (steps, events));
        assert_eq!(demo.events.values().sum::<u64>(), events);
        assert_eq!(demo.events["LogStarted"], 1);
        assert_eq!(demo.events["ActivationJudged"], 2);
        assert!(demo.signatures_verified_again > 0);
    }
}
