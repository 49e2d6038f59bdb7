//! The body of an `add-checkpoint` request (C2SP tlog-witness), both ways.
//!
//! ```text
//! old 20852014
//! PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=   none to 63 hashes
//!
//! example.com/behind-the-sofa                    a checkpoint, signed
//! …
//! ```

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use replay::proof::Hash;
use storage::note::{NOTE_MAX, Note};

/// Most hashes of a consistency proof that a request may have.
pub const PROOF_MAX: usize = 63;
/// Longest request that is read, in bytes: the longest note behind the longest proof.
pub const REQUEST_MAX: usize = NOTE_MAX + 4 * 1024;

/// A checkpoint for a witness, and the proof that it continues an earlier one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddCheckpoint {
    /// Size of the checkpoint that the witness cosigned last; 0 for none.
    pub old: u64,
    /// Consistency proof from there (RFC 6962, section 2.1.2).
    pub proof: Vec<Hash>,
    /// The signed checkpoint.
    pub note: Note,
}

/// Text that is no such request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an add-checkpoint request")]
pub struct NotARequest;

impl fmt::Display for AddCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "old {}", self.old)?;
        for hash in &self.proof {
            writeln!(f, "{}", STANDARD.encode(hash))?;
        }
        write!(f, "\n{}", self.note)
    }
}

impl FromStr for AddCheckpoint {
    type Err = NotARequest;

    fn from_str(text: &str) -> Result<Self, NotARequest> {
        let (head, note) = text.split_once("\n\n").ok_or(NotARequest)?;
        let mut lines = head.split('\n');
        let old = lines.next().and_then(|line| line.strip_prefix("old "));
        let old = old.and_then(decimal).ok_or(NotARequest)?;
        let mut proof = Vec::new();
        for line in lines {
            if proof.len() == PROOF_MAX {
                return Err(NotARequest);
            }
            let hash = STANDARD.decode(line).ok().and_then(|hash| hash.try_into().ok());
            proof.push(hash.ok_or(NotARequest)?);
        }
        Ok(Self { old, proof, note: note.parse().map_err(|_| NotARequest)? })
    }
}

/// A number in its one spelling: no sign, no leading zero.
pub fn decimal(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The example of the specification, with its key name.
    const EXAMPLE: &str = "old 20852014\n\
        PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\n\
        jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=\n\
        5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=\n\
        /6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=\n\
        \n\
        example.com/behind-the-sofa\n\
        20852163\n\
        CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\
        \n\
        \u{2014} example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n";

    #[test]
    fn the_example_of_the_specification_reads_back() {
        let request: AddCheckpoint = EXAMPLE.parse().unwrap();
        assert_eq!((request.old, request.proof.len()), (20_852_014, 4));
        assert!(request.note.text.starts_with("example.com/behind-the-sofa\n20852163\n"));
        assert_eq!(request.to_string(), EXAMPLE);
        let first = AddCheckpoint { old: 0, proof: Vec::new(), ..request };
        assert_eq!(first.to_string().parse(), Ok(first));
    }

    #[test]
    fn what_the_specification_does_not_allow_is_no_request() {
        let line = "PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\n";
        let proof = &EXAMPLE["old 20852014\n".len()..EXAMPLE.find("\n\n").unwrap() + 1];
        let with = |head: &str| EXAMPLE.replacen("old 20852014\n", head, 1);
        for bad in [
            String::new(),
            "old 0\n\n".to_owned(),
            with(""),
            with("old\n"),
            with("old 01\n"),
            with("old +1\n"),
            with("old -1\n"),
            with("old  1\n"),
            with("Old 1\n"),
            with("old 1 \n"),
            with("old 1\r\n"),
            with("old 18446744073709551616\n"),
            EXAMPLE.replacen(line, "PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpka==\n", 1),
            EXAMPLE.replacen(line, "PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkax=\n", 1),
            EXAMPLE.replacen(line, "PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw\n", 1),
            EXAMPLE.replacen(proof, &line.repeat(PROOF_MAX + 1), 1),
            EXAMPLE.trim_end().to_owned(),
        ] {
            assert_eq!(bad.parse::<AddCheckpoint>(), Err(NotARequest), "{bad}");
        }
        let longest = EXAMPLE.replacen(proof, &line.repeat(PROOF_MAX), 1);
        assert_eq!(longest.parse::<AddCheckpoint>().unwrap().proof.len(), PROOF_MAX);
    }

    proptest! {
        #[test]
        fn hostile_text_is_refused_or_reads_back(
            text in "\\PC{0,80}",
            head in "(old [0-9+ -]{0,22}\n)?([A-Za-z0-9+/=]{0,46}\n){0,4}",
            cut in 0..EXAMPLE.len(),
        ) {
            let _ = text.parse::<AddCheckpoint>();
            let note = &EXAMPLE[EXAMPLE.find("\n\n").unwrap() + 1..];
            if let Ok(read) = format!("{head}{note}").parse::<AddCheckpoint>() {
                prop_assert_eq!(read.to_string().parse::<AddCheckpoint>(), Ok(read));
            }
            if EXAMPLE.is_char_boundary(cut) {
                prop_assert!(EXAMPLE[..cut].parse::<AddCheckpoint>().is_err());
            }
        }
    }
}
