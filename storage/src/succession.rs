//! Under which origin line, and with which key, the checkpoints of a log are
//! signed: in what order they followed each other, and from which size on each
//! one counts.
//!
//! A change stands in the log, in the record at some position. Checkpoints that
//! cover that record are signed in the new way, all smaller ones in the old way.
//! So a size alone says what signature a checkpoint must have.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use engine::entries::{Succeeded, Succession as Change};
use engine::events::KeyRotatedV1;
use engine::key::{KeyError, PublicKey};

use crate::merkle::Hash;
use crate::note::{Note, NoteError, SignatureLine, VerifierKey};

/// First line of what both keys sign. It has blanks, so it is no origin line.
const ROTATION: &str = "keytrail key rotation v1";

/// Why what the log says of its keys makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SuccessionError {
    /// A key in the log is no key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// An origin line cannot name a key.
    #[error(transparent)]
    Name(#[from] NoteError),
}

/// The keys of a log, each with its origin line, in order. At least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Succession {
    first: VerifierKey,
    /// The later ones, each for checkpoints over more records than the number.
    later: Vec<(u64, VerifierKey)>,
}

impl Succession {
    /// One key from the first record on.
    #[must_use]
    pub fn only(key: VerifierKey) -> Self {
        Self { first: key, later: Vec::new() }
    }

    /// What `changes` make of a log that began under the origin `first`. `key` is
    /// what signs where the log names no key.
    ///
    /// # Errors
    ///
    /// [`SuccessionError`].
    pub fn of(
        first: &str,
        key: &PublicKey,
        changes: &[Succeeded],
    ) -> Result<Self, SuccessionError> {
        let named = changes.iter().find_map(|change| match &change.by {
            Change::Key { old, .. } => Some(old.check()),
            Change::Origin { .. } => None,
        });
        let (mut origin, mut key) = (first.to_owned(), named.transpose()?.unwrap_or(*key));
        let mut made = Self::only(VerifierKey::ecdsa(&origin, key)?);
        for change in changes {
            match &change.by {
                Change::Key { new, .. } => key = new.check()?,
                Change::Origin { new, .. } => origin.clone_from(new),
            }
            made.later.push((change.at.0, VerifierKey::ecdsa(&origin, key)?));
        }
        Ok(made)
    }

    /// The key that must have signed a checkpoint over `size` records; its name
    /// is the origin line that the checkpoint must have.
    #[must_use]
    pub fn key_for(&self, size: u64) -> &VerifierKey {
        let later = self.later.iter().rev().find(|(after, _)| *after < size);
        later.map_or(&self.first, |(_, key)| key)
    }

    /// The key that signs now.
    #[must_use]
    pub fn latest(&self) -> &VerifierKey {
        self.later.last().map_or(&self.first, |(_, key)| key)
    }

    /// Whether this key, under its name, ever signed.
    #[must_use]
    pub fn has(&self, key: &VerifierKey) -> bool {
        self.first == *key || self.later.iter().any(|(_, later)| later == key)
    }

    /// Records that were left of what was signed under a former origin line, and
    /// the last key that signed under it; none for the present one and for others.
    #[must_use]
    pub fn former(&self, origin: &str) -> Option<(u64, &VerifierKey)> {
        let mut last = &self.first;
        for (after, key) in &self.later {
            if last.name == origin && key.name != origin {
                return Some((*after, last));
            }
            last = key;
        }
        None
    }
}

/// What both keys sign when one replaces the other.
#[must_use]
pub fn rotation_text(size: u64, root: &Hash, old: &VerifierKey, new: &VerifierKey) -> String {
    let (origin, root) = (&old.name, STANDARD.encode(root));
    format!("{ROTATION}\n{origin}\n{size}\n{root}\n{old}\n{new}\n")
}

/// Whether both keys that an event names have signed what it says.
///
/// # Errors
///
/// [`SuccessionError`] if it names no keys.
pub fn is_signed(rotated: &KeyRotatedV1) -> Result<bool, SuccessionError> {
    let key = |bytes: &engine::key::KeyBytes| -> Result<VerifierKey, SuccessionError> {
        Ok(VerifierKey::ecdsa(&rotated.origin, bytes.check()?)?)
    };
    let (old, new) = (key(&rotated.old_key)?, key(&rotated.new_key)?);
    let text = rotation_text(rotated.size, &rotated.root, &old, &new);
    let signed = |key: &VerifierKey, signature: &[u8]| {
        let line = SignatureLine {
            name: key.name.clone(),
            key_id: key.key_id,
            signature: signature.to_vec(),
        };
        let note = Note { text: text.clone(), signatures: vec![line] };
        matches!(key.verify(&note), Ok(Some(_)))
    };
    Ok(signed(&old, &rotated.old_signature) && signed(&new, &rotated.new_signature))
}

#[cfg(test)]
mod tests {
    use engine::ids::Position;

    use super::*;
    use crate::note::LogSigner;

    fn signer(name: &str, number: u8) -> LogSigner {
        LogSigner::new(name, &[number; 32]).unwrap()
    }

    fn key(number: u8) -> PublicKey {
        signer("x", number).verifier().ecdsa_key().unwrap()
    }

    fn rotation(at: u64, old: u8, new: u8) -> Succeeded {
        let (old, new) = (key(old).to_stored(), key(new).to_stored());
        Succeeded { at: Position(at), by: Change::Key { old, new } }
    }

    fn epoch(at: u64, old: &str, new: &str) -> Succeeded {
        Succeeded { at: Position(at), by: Change::Origin { old: old.into(), new: new.into() } }
    }

    #[test]
    fn a_size_says_which_key_must_have_signed() {
        let changes = [rotation(10, 1, 2), epoch(20, "a", "b"), rotation(30, 2, 3)];
        let made = Succession::of("a", &key(9), &changes).unwrap();
        let expected = [
            (0, "a", 1),
            (10, "a", 1),
            (11, "a", 2),
            (20, "a", 2),
            (21, "b", 2),
            (30, "b", 2),
            (31, "b", 3),
            (u64::MAX, "b", 3),
        ];
        for (size, name, number) in expected {
            assert_eq!(made.key_for(size), signer(name, number).verifier(), "{size}");
        }
        assert_eq!(made.latest(), signer("b", 3).verifier());
        assert!(made.has(signer("a", 2).verifier()) && !made.has(signer("b", 1).verifier()));
        assert_eq!(made.former("a"), Some((20, signer("a", 2).verifier())));
        assert_eq!((made.former("b"), made.former("c")), (None, None));
        // Where the log names no key, the one that is known has always signed.
        let epochs = Succession::of("a", &key(9), &[epoch(5, "a", "b")]).unwrap();
        assert_eq!(epochs.key_for(5), signer("a", 9).verifier());
        assert_eq!(epochs.key_for(6), signer("b", 9).verifier());
    }

    #[test]
    fn a_rotation_is_signed_by_both_keys_over_all_that_it_says() {
        let (old, new) = (signer("a", 1), signer("a", 2));
        let text = rotation_text(7, &[3; 32], old.verifier(), new.verifier());
        let rotated = KeyRotatedV1 {
            origin: "a".into(),
            size: 7,
            root: [3; 32],
            old_key: key(1).to_stored(),
            new_key: key(2).to_stored(),
            old_signature: old.sign(&text).signature,
            new_signature: new.sign(&text).signature,
        };
        assert_eq!(is_signed(&rotated), Ok(true));
        let changed: [fn(&mut KeyRotatedV1); 7] = [
            |it| it.origin.push('b'),
            |it| it.size += 1,
            |it| it.root[0] ^= 1,
            |it| it.old_key = key(3).to_stored(),
            |it| it.new_key = key(3).to_stored(),
            |it| it.old_signature.clone_from(&it.new_signature),
            |it| it.new_signature[20] ^= 1,
        ];
        for change in changed {
            let mut other = rotated.clone();
            change(&mut other);
            assert_eq!(is_signed(&other), Ok(false), "{other:?}");
        }
    }
}
