//! The first administrator key, made on the very first start.
//!
//! It is handed over *before* the event that makes it valid is durable: if the
//! process dies between the two, the operator holds a key that never worked and
//! the next start makes another. The other order could lock everybody out.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use engine::machine::{Clock, Entropy, fresh_id, random};

use super::credential::{Credential, Secret};

/// Name of the file that takes the key when nobody watches, inside the store's folder.
pub const FILE: &str = "first-administrator-key";

/// A fresh API key.
#[must_use]
pub fn generate(clock: &dyn Clock, entropy: &dyn Entropy) -> Credential {
    Credential { id: fresh_id(clock, entropy), secret: Secret::new(random(entropy)) }
}

/// Prints the key to a terminal, once.
///
/// # Errors
///
/// Any of writing.
pub fn print(key: &Credential, terminal: &mut dyn Write) -> io::Result<()> {
    writeln!(terminal, "First administrator key. It is shown once and stored nowhere:\n")?;
    terminal.write_all(text(key).as_bytes())?;
    writeln!(terminal)?;
    terminal.flush()
}

/// Writes the key to a file of mode 0600 in `folder`; returns its path.
///
/// The file is durable on return. One left by a start that did not finish is
/// replaced: its key was never valid.
///
/// # Errors
///
/// Any of the file system.
pub fn write(key: &Credential, folder: &Path) -> io::Result<PathBuf> {
    let path = folder.join(FILE);
    let fresh = folder.join(format!("{FILE}.new"));
    // A leftover may have another mode; `mode` below holds for new files only.
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    file.write_all(text(key).as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&fresh, &path)?;
    File::open(folder)?.sync_all()?;
    Ok(path)
}

fn text(key: &Credential) -> zeroize::Zeroizing<String> {
    let (id, secret, token) = (key.id, key.secret.text(), key.token());
    zeroize::Zeroizing::new(format!("id     {id}\nsecret {}\nbearer {}\n", *secret, *token))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use engine::ids::Micros;

    use super::*;

    struct Fixed;

    impl Clock for Fixed {
        fn wall(&self) -> Micros {
            Micros(1_700_000_000_000_000)
        }
        fn monotonic(&self) -> Micros {
            Micros(0)
        }
    }

    impl Entropy for Fixed {
        fn fill(&self, out: &mut [u8]) {
            out.fill(7);
        }
    }

    #[test]
    fn the_printed_key_is_complete_and_is_accepted_when_sent() {
        let key = generate(&Fixed, &Fixed);
        let mut shown = Vec::new();
        print(&key, &mut shown).unwrap();
        let shown = String::from_utf8(shown).unwrap();
        let token = shown.lines().find_map(|line| line.strip_prefix("bearer ")).unwrap();
        let parsed = Credential::parse(format!("Bearer {token}").as_bytes()).unwrap();
        assert_eq!((parsed.id, &*parsed.secret.text()), (key.id, &*key.secret.text()));
        assert!(shown.contains(&key.id.to_string()) && shown.contains(&**key.secret.text()));
    }

    #[test]
    fn the_file_is_for_its_owner_alone_and_replaces_leftovers() {
        let folder = tempfile::tempdir().unwrap();
        let key = generate(&Fixed, &Fixed);
        for leftover in [FILE, "first-administrator-key.new"] {
            std::fs::write(folder.path().join(leftover), "old").unwrap();
        }
        let path = write(&key, folder.path()).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), *text(&key));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
