//! Signed notes and checkpoints: C2SP signed-note and tlog-checkpoint.
//!
//! A note is text and signature lines. A checkpoint is a note whose text names
//! a log by its origin, its size and its root. Our own signatures are ECDSA on
//! P-256 with SHA-256 over the text (type 0x02, DER, key id from the SHA-256 of
//! the SubjectPublicKeyInfo); witnesses sign with Ed25519 and a time (type
//! 0x04, C2SP tlog-cosignature).
//!
//! Signing is deterministic (RFC 6979): no bad random number can give a key
//! away, and the same checkpoint is the same bytes.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use engine::key::PublicKey;
use engine::signature::verify_independent;
use engine::terms::Verdict;
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::merkle::Hash;

/// BLAKE3's context of the private key that signs checkpoints.
const KEY_CONTEXT: &str = "keytrail 2026-11 checkpoint signing key v1";
/// Longest note that is read, in bytes.
pub const NOTE_MAX: usize = 64 * 1024;
/// Most signature lines that are read. The specification asks for at least 16.
const SIGNATURES_MAX: usize = 64;
/// Signature type of ECDSA keys.
const ECDSA: u8 = 0x02;
/// Signature type of timestamped Ed25519 cosignatures.
const COSIGNATURE: u8 = 0x04;

/// Bytes that are no note, checkpoint or verifier key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Not a signed note.
    #[error("not a signed note")]
    Form,
    /// A note, but its text is no checkpoint.
    #[error("not a checkpoint")]
    Checkpoint,
    /// Not a verifier key of a known type.
    #[error("not a verifier key of type ECDSA P-256 or Ed25519 cosignature")]
    VerifierKey,
    /// A key's name is empty or has blanks or a plus sign.
    #[error("a key's name must not be empty and have no blanks and no plus sign")]
    Name,
}

/// A signature line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureLine {
    /// The key's name.
    pub name: String,
    /// The key's id.
    pub key_id: [u8; 4],
    /// What the key made.
    pub signature: Vec<u8>,
}

/// A text and who signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The text, with its final newline.
    pub text: String,
    /// Signatures, in order.
    pub signatures: Vec<SignatureLine>,
}

impl Note {
    /// A note without signatures.
    ///
    /// # Errors
    ///
    /// [`NoteError::Form`] if the text does not end in a newline or has other
    /// control characters.
    pub fn new(text: String) -> Result<Self, NoteError> {
        let sane = text.len() <= NOTE_MAX && text.ends_with('\n') && text.bytes().all(printable);
        if sane { Ok(Self { text, signatures: Vec::new() }) } else { Err(NoteError::Form) }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|line| line.fmt(f))
    }
}

impl FromStr for Note {
    type Err = NoteError;

    fn from_str(note: &str) -> Result<Self, NoteError> {
        if note.len() > NOTE_MAX || !note.bytes().all(printable) {
            return Err(NoteError::Form);
        }
        // The last empty line separates: the text may have some of its own.
        let end = note.rfind("\n\n").ok_or(NoteError::Form)?;
        let (text, lines) = (&note[..=end], &note[end + 2..]);
        let lines = lines.strip_suffix('\n').ok_or(NoteError::Form)?;
        let signatures: Vec<_> = lines.split('\n').take(SIGNATURES_MAX + 1).collect();
        if signatures.len() > SIGNATURES_MAX {
            return Err(NoteError::Form);
        }
        let signatures = signatures.into_iter().map(str::parse).collect::<Result<_, _>>()?;
        Ok(Self { text: text.to_owned(), signatures })
    }
}

impl fmt::Display for SignatureLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [&self.key_id[..], &self.signature].concat();
        writeln!(f, "\u{2014} {} {}", self.name, STANDARD.encode(bytes))
    }
}

impl FromStr for SignatureLine {
    type Err = NoteError;

    fn from_str(line: &str) -> Result<Self, NoteError> {
        let (name, signature) = line
            .strip_prefix("\u{2014} ")
            .and_then(|rest| rest.split_once(' '))
            .ok_or(NoteError::Form)?;
        check_name(name).map_err(|_| NoteError::Form)?;
        let bytes = STANDARD.decode(signature).map_err(|_| NoteError::Form)?;
        let (key_id, signature) = bytes.split_first_chunk::<4>().ok_or(NoteError::Form)?;
        if signature.is_empty() {
            return Err(NoteError::Form);
        }
        Ok(Self { name: name.to_owned(), key_id: *key_id, signature: signature.to_vec() })
    }
}

/// What a checkpoint says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Names the log.
    pub origin: String,
    /// Number of leaves.
    pub size: u64,
    /// Root of the tree over them.
    pub root: Hash,
}

impl Checkpoint {
    /// Reads the text of a note. Extension lines are read over.
    ///
    /// # Errors
    ///
    /// [`NoteError::Checkpoint`].
    pub fn of_text(text: &str) -> Result<Self, NoteError> {
        let read = || {
            let mut lines = text.strip_suffix('\n')?.split('\n');
            let (origin, size, root) = (lines.next()?, lines.next()?, lines.next()?);
            let number: u64 = size.parse().ok()?;
            let root = STANDARD.decode(root).ok()?.try_into().ok()?;
            let sound = !origin.is_empty()
                && number.to_string() == size
                && lines.all(|extension| !extension.is_empty());
            sound.then(|| Self { origin: origin.to_owned(), size: number, root })
        };
        read().ok_or(NoteError::Checkpoint)
    }

    /// The text that is signed.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root))
    }
}

/// The public half of a key that signs notes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    /// The key's name.
    pub name: String,
    /// Its id.
    pub key_id: [u8; 4],
    key: Key,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Key {
    Ecdsa(PublicKey),
    Cosignature([u8; 32]),
}

/// A signature that verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signed {
    /// By a log.
    Log,
    /// By a witness, at this time in seconds since 1970.
    Witness {
        /// When.
        at_s: u64,
    },
}

impl VerifierKey {
    /// The verifier key of an ECDSA key.
    ///
    /// # Errors
    ///
    /// [`NoteError::Name`].
    pub fn ecdsa(name: &str, key: PublicKey) -> Result<Self, NoteError> {
        check_name(name)?;
        let key_id = truncated(Sha256::digest(key.spki_der()).into());
        Ok(Self { name: name.to_owned(), key_id, key: Key::Ecdsa(key) })
    }

    /// The verifier key of a witness.
    ///
    /// # Errors
    ///
    /// [`NoteError::Name`].
    pub fn cosignature(name: &str, key: [u8; 32]) -> Result<Self, NoteError> {
        check_name(name)?;
        let hashed = Sha256::new()
            .chain_update(name)
            .chain_update([b'\n', COSIGNATURE])
            .chain_update(key)
            .finalize();
        let key_id = truncated(hashed.into());
        Ok(Self { name: name.to_owned(), key_id, key: Key::Cosignature(key) })
    }

    /// The key of a log; none if this is the key of a witness.
    #[must_use]
    pub fn ecdsa_key(&self) -> Option<PublicKey> {
        match &self.key {
            Key::Ecdsa(key) => Some(*key),
            Key::Cosignature(_) => None,
        }
    }

    /// Whether this is the key of a witness.
    #[must_use]
    pub fn is_witness(&self) -> bool {
        match self.key {
            Key::Cosignature(_) => true,
            Key::Ecdsa(_) => false,
        }
    }

    /// The signature of this key on `note`: none if it has none, and an error if
    /// it has one that does not verify.
    ///
    /// # Errors
    ///
    /// [`BadSignature`]: the note is not to be believed at all then.
    pub fn verify(&self, note: &Note) -> Result<Option<Signed>, BadSignature> {
        let mut found = None;
        for line in &note.signatures {
            if line.name == self.name && line.key_id == self.key_id {
                let signed = self.check(&note.text, &line.signature).ok_or(BadSignature)?;
                found.get_or_insert(signed);
            }
        }
        Ok(found)
    }

    fn check(&self, text: &str, signature: &[u8]) -> Option<Signed> {
        match &self.key {
            Key::Ecdsa(key) => {
                let verdict = verify_independent(key, text.as_bytes(), signature);
                (verdict == Verdict::Valid).then_some(Signed::Log)
            }
            Key::Cosignature(key) => {
                let (time, signature) = signature.split_first_chunk::<8>()?;
                let at_s = u64::from_be_bytes(*time);
                let message = cosigned(at_s, text);
                let verified = UnparsedPublicKey::new(&ED25519, key).verify(&message, signature);
                verified.ok().map(|()| Signed::Witness { at_s })
            }
        }
    }
}

/// A signature line of a known key that does not verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a signature of this key does not verify")]
pub struct BadSignature;

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let encoded = match &self.key {
            Key::Ecdsa(key) => [&[ECDSA][..], &key.spki_der()].concat(),
            Key::Cosignature(key) => [&[COSIGNATURE][..], key].concat(),
        };
        let id = u32::from_be_bytes(self.key_id);
        write!(f, "{}+{id:08x}+{}", self.name, STANDARD.encode(encoded))
    }
}

impl FromStr for VerifierKey {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let mut parts = text.trim().splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NoteError::VerifierKey);
        };
        let key = STANDARD.decode(key).map_err(|_| NoteError::VerifierKey)?;
        let read = match key.split_first() {
            Some((&ECDSA, spki)) => {
                let key = PublicKey::from_bytes(spki).map_err(|_| NoteError::VerifierKey)?;
                Self::ecdsa(name, key)?
            }
            Some((&COSIGNATURE, key)) => {
                let key = key.try_into().map_err(|_| NoteError::VerifierKey)?;
                Self::cosignature(name, key)?
            }
            Some(_) | None => return Err(NoteError::VerifierKey),
        };
        let same_id = format!("{:08x}", u32::from_be_bytes(read.key_id)) == id;
        if same_id { Ok(read) } else { Err(NoteError::VerifierKey) }
    }
}

/// The key pair that follows, for the one use that `context` names, from a secret
/// of 32 random bytes.
///
/// # Panics
///
/// If none of 256 hashes is a private key; one in 2^32 is none.
#[must_use]
pub fn signing_key(context: &str, secret: &[u8; 32]) -> (SigningKey, PublicKey) {
    let tried = |attempt: u8| {
        let seed = Zeroizing::new([&secret[..], &[attempt]].concat());
        key_pair(&Zeroizing::new(blake3::derive_key(context, &seed)))
    };
    #[expect(clippy::expect_used, reason = "a chance of 1 in 2^8192")]
    let found = (0..=255).find_map(tried).expect("a private key");
    found
}

/// A private key with its public half; none if the bytes are none.
fn key_pair(private: &[u8; 32]) -> Option<(SigningKey, PublicKey)> {
    let key = SigningKey::from_slice(private).ok()?;
    let point = key.verifying_key().to_sec1_point(false);
    let public = PublicKey::from_bytes(point.as_bytes()).ok()?;
    Some((key, public))
}

/// Signs a log's checkpoints.
pub struct LogSigner {
    key: SigningKey,
    public: PublicKey,
    verifier: VerifierKey,
}

impl LogSigner {
    /// A signer with this private key. None if the bytes are none.
    #[must_use]
    pub fn new(name: &str, private: &[u8; 32]) -> Option<Self> {
        Self::with(name, key_pair(private)?).ok()
    }

    fn with(name: &str, (key, public): (SigningKey, PublicKey)) -> Result<Self, NoteError> {
        let verifier = VerifierKey::ecdsa(name, public)?;
        Ok(Self { key, public, verifier })
    }

    /// A signer whose private key follows from a secret of 32 random bytes.
    ///
    /// # Errors
    ///
    /// [`NoteError::Name`].
    pub fn of_secret(name: &str, secret: &[u8; 32]) -> Result<Self, NoteError> {
        Self::with(name, signing_key(KEY_CONTEXT, secret))
    }

    /// The public half.
    #[must_use]
    pub fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    /// The public half without its name.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        self.public
    }

    /// Signs a text.
    #[must_use]
    pub fn sign(&self, text: &str) -> SignatureLine {
        let signature: Signature = self.key.sign(text.as_bytes());
        SignatureLine {
            name: self.verifier.name.clone(),
            key_id: self.verifier.key_id,
            signature: signature.to_der().as_bytes().to_vec(),
        }
    }
}

impl fmt::Debug for LogSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogSigner").field("verifier", &self.verifier).finish_non_exhaustive()
    }
}

/// Signs as a witness.
pub struct WitnessSigner {
    key: Ed25519KeyPair,
    verifier: VerifierKey,
}

impl WitnessSigner {
    /// A signer with this seed. None if the name is none.
    #[must_use]
    pub fn new(name: &str, seed: &[u8; 32]) -> Option<Self> {
        let key = Ed25519KeyPair::from_seed_unchecked(seed).ok()?;
        let public = key.public_key().as_ref().try_into().ok()?;
        let verifier = VerifierKey::cosignature(name, public).ok()?;
        Some(Self { key, verifier })
    }

    /// The public half.
    #[must_use]
    pub fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    /// Cosigns the text of a checkpoint at a time in seconds since 1970.
    #[must_use]
    pub fn cosign(&self, text: &str, at_s: u64) -> SignatureLine {
        let signature = self.key.sign(&cosigned(at_s, text));
        SignatureLine {
            name: self.verifier.name.clone(),
            key_id: self.verifier.key_id,
            signature: [&at_s.to_be_bytes()[..], signature.as_ref()].concat(),
        }
    }
}

impl fmt::Debug for WitnessSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WitnessSigner").field("verifier", &self.verifier).finish_non_exhaustive()
    }
}

/// What a witness signs (C2SP tlog-cosignature, "Ed25519 signed message").
fn cosigned(at_s: u64, text: &str) -> Vec<u8> {
    format!("cosignature/v1\ntime {at_s}\n{text}").into_bytes()
}

fn check_name(name: &str) -> Result<(), NoteError> {
    let sane = !name.is_empty()
        && name.len() <= 255
        && !name
            .chars()
            .any(|symbol| symbol.is_whitespace() || symbol == '+' || symbol.is_control());
    if sane { Ok(()) } else { Err(NoteError::Name) }
}

fn printable(byte: u8) -> bool {
    byte >= 0x20 || byte == b'\n'
}

fn truncated(hash: [u8; 32]) -> [u8; 4] {
    [hash[0], hash[1], hash[2], hash[3]]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn signer() -> LogSigner {
        LogSigner::new("bank.example/log", &[7; 32]).unwrap()
    }

    fn checkpoint() -> Checkpoint {
        Checkpoint { origin: "bank.example/log".into(), size: 20_852_163, root: [9; 32] }
    }

    fn signed() -> Note {
        let mut note = Note::new(checkpoint().text()).unwrap();
        note.signatures.push(signer().sign(&note.text));
        note
    }

    #[test]
    fn a_signed_checkpoint_reads_back_and_verifies() {
        let note = signed();
        let read: Note = note.to_string().parse().unwrap();
        assert_eq!(read, note);
        assert_eq!(Checkpoint::of_text(&read.text).unwrap(), checkpoint());
        let verifier: VerifierKey = signer().verifier().to_string().parse().unwrap();
        assert_eq!(&verifier, signer().verifier());
        assert_eq!(verifier.verify(&read), Ok(Some(Signed::Log)));
        assert_eq!(signer().sign(&note.text), note.signatures[0], "the same bytes each time");
    }

    #[test]
    fn the_specifications_own_note_is_read() {
        // C2SP tlog-cosignature, example of a checkpoint with a cosignature.
        let text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\
            \u{2014} example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n\
            \u{2014} witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n";
        let note: Note = text.parse().unwrap();
        assert_eq!(note.signatures.len(), 2);
        assert_eq!(note.to_string(), text);
        assert_eq!(Checkpoint::of_text(&note.text).unwrap().size, 20_852_163);
    }

    #[test]
    fn a_key_id_is_that_of_its_type() {
        let LogSigner { verifier, .. } = signer();
        let Key::Ecdsa(key) = verifier.key else { panic!("an ECDSA key") };
        let spki: [u8; 32] = Sha256::digest(key.spki_der()).into();
        assert_eq!(verifier.key_id, spki[..4]);
        let witness = WitnessSigner::new("w.example/1", &[3; 32]).unwrap();
        let Key::Cosignature(key) = witness.verifier.key else { panic!("a witness key") };
        let hash: [u8; 32] = Sha256::digest([&b"w.example/1\n\x04"[..], &key].concat()).into();
        assert_eq!(witness.verifier.key_id, hash[..4]);
    }

    #[test]
    fn a_witness_signs_text_and_time() {
        let witness = WitnessSigner::new("w.example/1", &[3; 32]).unwrap();
        let mut note = signed();
        note.signatures.push(witness.cosign(&note.text, 1_679_315_147));
        let verifier: VerifierKey = witness.verifier().to_string().parse().unwrap();
        assert_eq!(verifier.verify(&note), Ok(Some(Signed::Witness { at_s: 1_679_315_147 })));
        assert!(verifier.is_witness() && !signer().verifier().is_witness());
        note.signatures[1].signature[7] ^= 1;
        assert_eq!(verifier.verify(&note), Err(BadSignature), "another time");
    }

    #[test]
    fn every_flipped_bit_of_a_signed_checkpoint_is_noticed() {
        let (note, signer) = (signed().to_string(), signer());
        for bit in 0..note.len() * 8 {
            let mut damaged = note.clone().into_bytes();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let accepted = std::str::from_utf8(&damaged)
                .ok()
                .and_then(|text| text.parse::<Note>().ok())
                .is_some_and(|note| signer.verifier().verify(&note) == Ok(Some(Signed::Log)));
            assert!(!accepted, "bit {bit}");
        }
    }

    #[test]
    fn unknown_signatures_are_read_over_and_bad_ones_spoil_the_note() {
        let mut note = signed();
        let other = LogSigner::new("bank.example/log", &[8; 32]).unwrap();
        note.signatures.insert(0, other.sign("something else\n"));
        assert_eq!(signer().verifier().verify(&note), Ok(Some(Signed::Log)));
        assert_eq!(other.verifier().verify(&note), Err(BadSignature));
        note.signatures.push(SignatureLine { signature: vec![1], ..note.signatures[1].clone() });
        assert_eq!(signer().verifier().verify(&note), Err(BadSignature));
    }

    #[test]
    fn what_is_no_checkpoint_is_refused() {
        let root = STANDARD.encode([9; 32]);
        for text in [
            "",
            "\n",
            "o\n",
            "o\n1\n",
            &format!("o\n01\n{root}\n"),
            &format!("o\n+1\n{root}\n"),
            &format!("o\n-1\n{root}\n"),
            &format!("o\n1\n{root}"),
            &format!("\n1\n{root}\n"),
            "o\n1\nAAAA\n",
            &format!("o\n1\n{root}\n\n"),
            &format!("o\n18446744073709551616\n{root}\n"),
        ] {
            assert_eq!(Checkpoint::of_text(text), Err(NoteError::Checkpoint), "{text:?}");
        }
        assert!(Checkpoint::of_text(&format!("o\n1\n{root}\nmore\n")).is_ok());
    }

    proptest! {
        #[test]
        fn hostile_text_never_fails_otherwise(text in "\\PC{0,80}", lines in "(— [a-z+ ]{0,9} [A-Za-z0-9+/=]{0,20}\n){0,3}") {
            let _ = text.parse::<Note>();
            let _ = text.parse::<VerifierKey>();
            let _ = Checkpoint::of_text(&text);
            if let Ok(note) = format!("{text}\n\n{lines}").parse::<Note>() {
                prop_assert_eq!(note.to_string().parse::<Note>(), Ok(note));
            }
        }
    }
}
