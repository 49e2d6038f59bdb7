//! `keytrail rebuild`: deletes what is derived from the log of a stopped server
//! and makes it again.
//!
//! Exit code 0 if the state came out as it was, 1 if it did not or could not be
//! made, 2 if there is nothing to rebuild, or a server runs on it.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use replay::rebuild::{RebuildError, rebuild};
use serde_json::json;
use storage::open::{OpenError, Options, Rebuilt};

use super::{Exit, report, verify};
use crate::ports::{SystemClock, SystemEntropy};

/// What to rebuild, and how to say it.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Folder of a stopped server
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Print the outcome as one JSON object
    #[arg(long)]
    json: bool,
}

/// Rebuilds.
pub fn run(arguments: &Arguments) -> Exit {
    verify::quiet_sled();
    // The log has its own origin line; where there is none, nothing is rebuilt.
    let mut options = Options::new("", Arc::new(SystemClock::start()), Arc::new(SystemEntropy));
    let bar = verify::bar("rebuilding", 0);
    if std::io::stderr().is_terminal() {
        let shown = bar.clone();
        options.progress = Some(Arc::new(move |done, total| {
            shown.set_length(total);
            shown.set_position(done);
        }));
    }
    let rebuilt = rebuild(&arguments.dir, &options);
    bar.finish_and_clear();
    let rebuilt = match rebuilt {
        Ok(rebuilt) => rebuilt,
        Err(error) => {
            report(&error);
            return match error {
                RebuildError::Folder(_) | RebuildError::Store(OpenError::Lock(_)) => Exit::Usage,
                RebuildError::Store(_) => Exit::Failed,
            };
        }
    };
    match print(&rebuilt, arguments.json) {
        Ok(()) if rebuilt.before == rebuilt.after => Exit::Ok,
        Ok(()) => Exit::Failed,
        Err(error) => {
            report(&error);
            Exit::Failed
        }
    }
}

fn print(rebuilt: &Rebuilt, json: bool) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let equal = rebuilt.before == rebuilt.after;
    let [before, after] = [rebuilt.before, rebuilt.after].map(|digest| replay::hex(&digest));
    let found = &rebuilt.found;
    let remade = found.store_set_aside.as_ref().or(found.state_remade.as_ref());
    if json {
        let outcome = json!({
            "records": rebuilt.position.0,
            "replayed": rebuilt.report.replayed,
            "before": before,
            "after": after,
            "equal": equal,
            "remade_before": remade,
        });
        return writeln!(out, "{outcome}");
    }
    writeln!(out, "records  {}", rebuilt.position.0)?;
    writeln!(out, "before   {before}")?;
    writeln!(out, "after    {after}")?;
    if let Some(why) = remade {
        writeln!(
            out,
            "note: what was stored could not be used ({why}); \"before\" was made new too"
        )?;
    }
    writeln!(
        out,
        "{}",
        if equal { "equal" } else { "NOT equal: what was stored was not what the log says" }
    )
}
