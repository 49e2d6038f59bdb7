//! The marker in `store/`: whether state in sled may be trusted.
//!
//! sled's pages reach the disk in any order. While the machine runs, the
//! kernel's page cache holds what was written, whatever happens to the process;
//! after a power cut it does not. So state is trusted after a clean stop, which
//! syncs everything first, or under the boot id it was written under.
//!
//! Four lines of text: `keytrail store 1`, `boot …`, `state …` (the
//! STATE_VERSION of the rules) and `stop clean` or `stop none`.

use std::fs;
use std::io;
use std::path::PathBuf;

use crate::disk::{self, Privacy};
use crate::folder::Folder;

const FIRST_LINE: &str = "keytrail store 1";

/// Longer than any marker, in bytes.
const LEN_MAX: u64 = 4_096;

/// What the marker says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Marker {
    /// The kernel's boot id when the store was last opened.
    pub(crate) boot_id: String,
    /// STATE_VERSION of the rules that wrote state.
    pub(crate) state_version: u32,
    /// Whether it was stopped cleanly since.
    pub(crate) clean: bool,
}

impl Marker {
    /// The marker in `folder`; none if there is none that can be read.
    pub(crate) fn read(folder: &Folder) -> Option<Self> {
        let bytes = folder.disk.read(&path(folder), LEN_MAX).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let mut lines = text.lines();
        if lines.next()? != FIRST_LINE {
            return None;
        }
        let boot_id = lines.next()?.strip_prefix("boot ")?.to_owned();
        let state_version = lines.next()?.strip_prefix("state ")?.parse().ok()?;
        let clean = match lines.next()?.strip_prefix("stop ")? {
            "clean" => true,
            "none" => false,
            _ => return None,
        };
        Some(Self { boot_id, state_version, clean })
    }

    /// Replaces the marker in `folder`, durably.
    pub(crate) fn write(&self, folder: &Folder) -> io::Result<()> {
        let stop = if self.clean { "clean" } else { "none" };
        let text = format!(
            "{FIRST_LINE}\nboot {}\nstate {}\nstop {stop}\n",
            self.boot_id, self.state_version
        );
        let disk = folder.disk.as_ref();
        disk::write_atomically(disk, &path(folder), text.as_bytes(), Privacy::Shared)
    }

    /// Why state under this marker is not to be trusted; none if it is.
    pub(crate) fn distrust(&self, boot_id: &str, state_version: u32) -> Option<&'static str> {
        if self.state_version != state_version {
            Some("state is of other rules")
        } else if !self.clean && (boot_id.is_empty() || self.boot_id != boot_id) {
            Some("the machine stopped before state was synced")
        } else {
            None
        }
    }
}

/// Names the running kernel; empty where it has no name, which trusts nothing.
pub(crate) fn kernel_boot_id() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

fn path(folder: &Folder) -> PathBuf {
    folder.dir.join("marker")
}
