//! What the log says, read by someone who does not trust its writer.
//!
//! - [`verify()`](verify::verify) checks a data folder, or a copy of it, level by
//!   level; it changes nothing and repairs nothing.
//! - [`inspect()`](inspect::inspect) shows the events of a folder.
//! - [`moment()`](moment::moment) shows what was known at a moment,
//!   [`history()`](history::history) how a registration came to be what it is, and
//!   [`what_if()`](what_if::what_if) how a past range would have gone under another
//!   configuration.
//! - [`export`] writes the log out for others.
//! - [`rebuild()`](rebuild::rebuild) deletes what is derived from the log and
//!   makes it again.
//!
//! This crate shares with the writer the decoder and the rules, and nothing
//! else. The signatures are verified by another library than the server's.

pub mod affected;
pub mod export;
pub mod folder;
pub mod history;
pub mod inspect;
pub mod moment;
pub mod proof;
pub mod rebuild;
pub mod report;
mod summary;
pub mod verify;
mod walk;
pub mod what_if;

pub use inspect::inspect;
pub use rebuild::rebuild;
pub use summary::summary;
pub use verify::verify;
pub use walk::{At, ReplayError};

use engine::ids::Micros;

/// A moment as text: RFC 3339, UTC, microseconds.
///
/// A moment beyond the year 9999, which no clock gave, is shown as its number.
#[must_use]
pub fn rfc3339(at: Micros) -> String {
    i64::try_from(at.0)
        .ok()
        .and_then(|micros| jiff::Timestamp::from_microsecond(micros).ok())
        .map_or_else(|| format!("{} us", at.0), |time| format!("{time:.6}"))
}

/// The moment that RFC 3339 text names; none if it is none, or before 1970.
#[must_use]
pub fn micros_of(text: &str) -> Option<Micros> {
    let time: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(time.as_microsecond()).ok().map(Micros)
}

/// `text` for a terminal. A log that someone forged can hold anything, also
/// sequences that would make a terminal hide or fake what is shown.
#[must_use]
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

/// As [`printable`], and on one line.
fn one_line(text: &str) -> String {
    printable(text).replace('\n', "\u{fffd}")
}

pub use engine::hex;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_printed_commands_a_terminal() {
        assert_eq!(
            printable("a\u{1b}[2Jb\u{9b}c\u{7f}\r\nd"),
            "a\u{fffd}[2Jb\u{fffd}c\u{fffd}\u{fffd}\nd"
        );
        assert_eq!(printable("čaj, 茶"), "čaj, 茶");
    }

    #[test]
    fn a_moment_reads_back_what_it_prints() {
        let at = Micros(1_700_000_000_000_001);
        assert_eq!(rfc3339(at), "2023-11-14T22:13:20.000001Z");
        assert_eq!(micros_of(&rfc3339(at)), Some(at));
        assert_eq!(micros_of("2023-11-14T23:13:20.000001+01:00"), Some(at));
        assert_eq!(rfc3339(Micros(u64::MAX)), "18446744073709551615 us");
        for text in ["", "2023-11-14", "1969-12-31T23:59:59Z", "2023-11-14T22:13:20"] {
            assert_eq!(micros_of(text), None, "{text}");
        }
    }
}
