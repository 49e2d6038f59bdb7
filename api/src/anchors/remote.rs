//! Anchors behind HTTP: an endpoint that takes notes, and witnesses.

use std::path::Path;
use std::time::Duration;

use storage::notary::{Evidence, Guard};
use storage::note::{Note, SignatureLine, Signed, VerifierKey};

use super::AnchorError;
use crate::endpoint::{Endpoint, Reply, host};
use crate::settings::WitnessAt;
use crate::witness::http::SIZE_TYPE;
use crate::witness::request::{AddCheckpoint, decimal};

/// Longest wait for a whole answer.
const WHOLE: Duration = Duration::from_secs(10);
/// Requests for one checkpoint: the first, one with the size that the witness
/// said, and one more if it has moved meanwhile.
const TRIES: usize = 3;

/// Posts text; the bytes that the endpoint answers with are bounded.
fn post(endpoint: &Endpoint, text: &str) -> Result<Reply, AnchorError> {
    endpoint.post("text/plain", &[], text).map_err(AnchorError::Failed)
}

/// An endpoint that takes each checkpoint as the body of a POST.
pub struct Post {
    endpoint: Endpoint,
    name: String,
}

impl Post {
    /// The endpoint at `url`; `token` is a file with a bearer token.
    pub(super) fn new(url: &str, ca: Option<&Path>, token: Option<&Path>) -> Result<Self, String> {
        Ok(Self { endpoint: Endpoint::new(url, ca, token, WHOLE)?, name: host(url) })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn submit(&self, latest: &Guard) -> Result<(), AnchorError> {
        let reply = post(&self.endpoint, &latest.note.to_string())?;
        if (200..300).contains(&reply.status) {
            Ok(())
        } else {
            Err(AnchorError::Failed(format!("it answered with status {}", reply.status)))
        }
    }
}

/// A client of a witness.
pub struct WitnessClient {
    endpoint: Endpoint,
    key: VerifierKey,
    /// Size of the latest checkpoint that it has cosigned, as far as we know.
    known: u64,
}

/// What a witness said to a checkpoint.
enum Said {
    Cosigned(SignatureLine),
    /// Its latest size is this.
    Size(u64),
    /// The proof does not hold for it.
    Unproven,
}

impl WitnessClient {
    pub(super) fn new(at: &WitnessAt, ca: Option<&Path>) -> Result<Self, String> {
        let url = format!("{}/add-checkpoint", at.url.trim_end_matches('/'));
        Ok(Self { endpoint: Endpoint::new(&url, ca, None, WHOLE)?, key: at.key.clone(), known: 0 })
    }

    pub(super) fn name(&self) -> &str {
        &self.key.name
    }

    /// Size of the latest checkpoint that it has cosigned. `signed` is any
    /// checkpoint that the log has signed; a witness that knew nothing knows
    /// that one then.
    pub(super) fn ask(&mut self, signed: &Note) -> Result<u64, AnchorError> {
        let request = AddCheckpoint { old: 0, proof: Vec::new(), note: signed.clone() };
        self.known = match self.send(&request)? {
            Said::Size(size) => size,
            Said::Cosigned(_) => size_of(signed),
            Said::Unproven => return Err(AnchorError::Failed("it answered 422 to nothing".into())),
        };
        Ok(self.known)
    }

    /// Has the latest checkpoint cosigned.
    pub(super) fn submit(
        &mut self,
        latest: &Guard,
        evidence: &Evidence,
    ) -> Result<SignatureLine, AnchorError> {
        let size = latest.checkpoint.size;
        for _ in 0..TRIES {
            if self.known > size {
                let theirs = std::mem::take(&mut self.known);
                return Err(AnchorError::Ahead { theirs, ours: size });
            }
            let proof = evidence
                .consistency_proof(self.known, size)
                .map_err(|error| AnchorError::Failed(format!("no proof: {error}")))?;
            let request = AddCheckpoint { old: self.known, proof, note: latest.note.clone() };
            match self.send(&request)? {
                Said::Cosigned(line) => {
                    self.known = size;
                    return Ok(line);
                }
                Said::Size(theirs) if theirs == self.known => {
                    return Err(AnchorError::OtherHistory { size: theirs });
                }
                Said::Size(theirs) => self.known = theirs,
                Said::Unproven => {
                    let size = std::mem::take(&mut self.known);
                    return Err(AnchorError::OtherHistory { size });
                }
            }
        }
        Err(AnchorError::Failed("somebody else submits checkpoints of this log to it".to_owned()))
    }

    fn send(&self, request: &AddCheckpoint) -> Result<Said, AnchorError> {
        let reply = post(&self.endpoint, &request.to_string())?;
        let failed = |why: &str| AnchorError::Failed(why.to_owned());
        match reply.status {
            200 => cosignature(&self.key, &request.note, &reply.body)
                .map(Said::Cosigned)
                .ok_or_else(|| failed("it answered 200 without a cosignature by its key")),
            409 if reply.media_type.split(';').next() == Some(SIZE_TYPE) => {
                let size = reply.body.strip_suffix('\n').and_then(decimal);
                size.map(Said::Size).ok_or_else(|| failed("it answered 409 without a size"))
            }
            // Another root at the same size: no size need be said then.
            409 if request.old == size_of(&request.note) => Ok(Said::Size(request.old)),
            422 => Ok(Said::Unproven),
            403 => Err(failed("it has another key for this log (403)")),
            404 => Err(failed("it does not know this log, or is no witness (404)")),
            status => Err(AnchorError::Failed(format!("it answered with status {status}"))),
        }
    }
}

fn size_of(note: &Note) -> u64 {
    storage::note::Checkpoint::of_text(&note.text).map_or(0, |checkpoint| checkpoint.size)
}

/// The signature of `key` on the note among the lines of an answer.
fn cosignature(key: &VerifierKey, note: &Note, lines: &str) -> Option<SignatureLine> {
    let lines = lines.strip_suffix('\n')?.split('\n');
    let mut ours = lines
        .filter_map(|line| line.parse::<SignatureLine>().ok())
        .filter(|line| line.name == key.name && line.key_id == key.key_id);
    let line = ours.next()?;
    let cosigned = Note { text: note.text.clone(), signatures: vec![line.clone()] };
    matches!(key.verify(&cosigned), Ok(Some(Signed::Witness { .. }))).then_some(line)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use storage::note::{Checkpoint, LogSigner, WitnessSigner};

    use super::*;
    use crate::endpoint::ANSWER_MAX;

    fn signed(size: u64) -> Note {
        let origin = "bank.example/log".to_owned();
        let mut note = Note::new(Checkpoint { origin, size, root: [9; 32] }.text()).unwrap();
        let signer = LogSigner::new("bank.example/log", &[7; 32]).unwrap();
        note.signatures.push(signer.sign(&note.text));
        note
    }

    fn signer(name: &str, seed: u8) -> WitnessSigner {
        WitnessSigner::new(name, &[seed; 32]).unwrap()
    }

    /// What a client of a witness makes of one answer, byte for byte.
    fn said(answer: Vec<u8>, request: &AddCheckpoint) -> Result<Said, AnchorError> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let served = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            let mut part = [0; 4096];
            while !String::from_utf8_lossy(&request).contains('\u{2014}') {
                let read = stream.read(&mut part).unwrap();
                request.extend_from_slice(&part[..read]);
            }
            // The client may hang up on an answer that is too long.
            let _ = stream.write_all(&answer);
        });
        let key = signer("w", 1).verifier().clone();
        let client = WitnessClient::new(&WitnessAt { key, url }, None).unwrap();
        let said = client.send(request);
        served.join().unwrap();
        said
    }

    fn answer(status: &str, media_type: &str, body: &str) -> Vec<u8> {
        let length = body.len();
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: {media_type}\r\nContent-Length: {length}\r\n\
             Connection: close\r\n\r\n{body}"
        )
        .into_bytes()
    }

    fn request(old: u64, size: u64) -> AddCheckpoint {
        AddCheckpoint { old, proof: Vec::new(), note: signed(size) }
    }

    #[test]
    fn a_cosignature_counts_only_by_the_right_key_and_over_the_right_checkpoint() {
        let asked = request(0, 5);
        let ours = signer("w", 1).cosign(&asked.note.text, 7).to_string();
        let foreign = signer("w", 2).cosign(&asked.note.text, 7).to_string();
        let later = signer("w", 1).cosign(&signed(6).text, 7).to_string();
        for (body, counts) in [
            (ours.clone(), true),
            (format!("{foreign}{ours}"), true),
            (foreign, false),
            (later, false),
            (ours.trim_end().to_owned(), false),
            (String::new(), false),
            ("\u{2014} w AAAA\n".to_owned(), false),
        ] {
            let said = said(answer("200 OK", "text/plain; charset=utf-8", &body), &asked);
            assert_eq!(matches!(said, Ok(Said::Cosigned(_))), counts, "{body:?}");
            assert_eq!(matches!(said, Err(AnchorError::Failed(_))), !counts, "{body:?}");
        }
    }

    #[test]
    fn only_what_the_specification_says_can_raise_an_alarm() {
        let size = |text: &str| answer("409 Conflict", SIZE_TYPE, text);
        let asked = request(5, 5);
        assert!(matches!(said(size("12\n"), &asked), Ok(Said::Size(12))));
        let parameter = answer("409 Conflict", "text/x.tlog.size; charset=utf-8", "12\n");
        assert!(matches!(said(parameter, &asked), Ok(Said::Size(12))));
        for bad in ["12", "", "\n", "012\n", "-1\n", "99999999999999999999\n", "12\n13\n"] {
            assert!(matches!(said(size(bad), &asked), Err(AnchorError::Failed(_))), "{bad:?}");
        }
        let plain = || answer("409 Conflict", "text/html", "<h1>no</h1>");
        assert!(matches!(said(plain(), &asked), Ok(Said::Size(5))), "another root at this size");
        assert!(matches!(said(plain(), &request(3, 5)), Err(AnchorError::Failed(_))));
        assert!(matches!(said(answer("422 No", "text/plain", ""), &asked), Ok(Said::Unproven)));
        let long = "x".repeat(ANSWER_MAX as usize + 1);
        for bad in [
            answer("403 Forbidden", "text/plain", ""),
            answer("404 Not Found", "text/plain", ""),
            answer("500 Oh", "text/plain", ""),
            answer("302 Found", "text/plain", ""),
            answer("200 OK", "text/plain", &long),
            b"nonsense\r\n\r\n".to_vec(),
            Vec::new(),
        ] {
            let said = said(bad, &asked);
            assert!(matches!(&said, Err(error) if !error.is_alarm()));
        }
    }
}
