//! The number by which a user shows to be in front of the screen that asks.
//!
//! Whoever asks for a log-in on a stranger's behalf hopes that the stranger
//! approves without looking. So the screen shows a number, and approving takes
//! that number: picked among three, or typed. It is signed with the answer. A
//! wrong one ends the operation at once; with tries left, a guess would do.
//!
//! Rejecting takes no number: saying no must always be possible.

use crate::command::Refusal;
use crate::events::MatchingV1;
use crate::machine::{Entropy, random};
use crate::reasons::Confirmation;
use crate::terms::Decision;
use crate::transcript::Said;

/// Numbers that a user picks one from.
pub const CHOICES: usize = 3;
/// The numbers to be picked have two digits.
const PICKED: std::ops::RangeInclusive<u32> = 10..=99;
/// The numbers to be typed have at most six digits.
const TYPED: std::ops::RangeInclusive<u32> = 0..=999_999;

/// A number to be confirmed, and those it is picked from.
///
/// The numbers of [`Confirmation::NumberMatching`] are distinct.
#[must_use]
pub fn draw(how: Confirmation, entropy: &dyn Entropy) -> MatchingV1 {
    match how {
        Confirmation::ProximityCode => {
            MatchingV1 { how, number: below(1_000_000, entropy), choices: Vec::new() }
        }
        Confirmation::NumberMatching => {
            let number = *PICKED.start() + below(90, entropy);
            let mut choices = vec![number];
            while choices.len() < CHOICES {
                let other = *PICKED.start() + below(90, entropy);
                if !choices.contains(&other) {
                    choices.push(other);
                }
            }
            // In order, so that their places tell nothing.
            choices.sort_unstable();
            MatchingV1 { how, number, choices }
        }
    }
}

/// A number below `limit`, each as likely as any other but for one part in 2^40.
fn below(limit: u32, entropy: &dyn Entropy) -> u32 {
    (u64::from_be_bytes(random(entropy)) % u64::from(limit)) as u32
}

/// Refuses what [`draw`] cannot have made.
pub(crate) fn check(matching: &MatchingV1) -> Result<(), Refusal> {
    let MatchingV1 { how, number, choices } = matching;
    let fits = match how {
        Confirmation::ProximityCode => TYPED.contains(number) && choices.is_empty(),
        Confirmation::NumberMatching => {
            choices.len() == CHOICES
                && choices.is_sorted_by(|one, next| one < next)
                && choices.iter().all(|choice| PICKED.contains(choice))
                && choices.contains(number)
        }
    };
    let expected = "must be a number to be confirmed as this server draws them";
    if fits { Ok(()) } else { Err(Refusal::Invalid { field: "confirmation", expected }) }
}

/// Refuses an answer that lacks what is wanted or brings what is not.
pub(crate) fn fits(matching: Option<&MatchingV1>, said: Said) -> Result<(), Refusal> {
    let wanted = matching.is_some() && said.decision == Decision::Approve;
    if said.number.is_some() != wanted {
        let expected = "must be there exactly where an operation with a confirmation is approved";
        return Err(Refusal::Invalid { field: "number", expected });
    }
    if said.reason.is_some() && said.decision != Decision::Reject {
        let expected = "must be absent unless the decision is reject";
        return Err(Refusal::Invalid { field: "reject_reason", expected });
    }
    Ok(())
}

/// Whether the answer has the right number, or needs none.
pub(crate) fn is_right(matching: Option<&MatchingV1>, said: Said) -> bool {
    match (matching, said.decision) {
        (None, Decision::Approve | Decision::Reject) | (Some(_), Decision::Reject) => true,
        (Some(matching), Decision::Approve) => said.number == Some(matching.number),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// Counts, so that draws meet.
    struct Counting(AtomicU64);

    impl Entropy for Counting {
        fn fill(&self, out: &mut [u8]) {
            let drawn = self.0.fetch_add(1, Ordering::Relaxed) / 2;
            out.copy_from_slice(&drawn.to_be_bytes()[..out.len()]);
        }
    }

    #[test]
    fn what_is_drawn_is_what_is_accepted_and_its_choices_are_distinct() {
        let entropy = Counting(AtomicU64::new(0));
        for &how in Confirmation::ALL {
            for _ in 0..200 {
                assert_eq!(check(&draw(how, &entropy)), Ok(()));
            }
        }
    }

    #[test]
    fn numbers_that_cannot_have_been_drawn_are_refused() {
        let matching =
            |how, number, choices: &[u32]| MatchingV1 { how, number, choices: choices.to_vec() };
        use Confirmation::{NumberMatching, ProximityCode};
        for wrong in [
            matching(NumberMatching, 10, &[]),
            matching(NumberMatching, 10, &[10, 11]),
            matching(NumberMatching, 10, &[10, 10, 11]),
            matching(NumberMatching, 10, &[11, 10, 12]),
            matching(NumberMatching, 9, &[9, 10, 11]),
            matching(NumberMatching, 99, &[98, 99, 100]),
            matching(NumberMatching, 13, &[10, 11, 12]),
            matching(ProximityCode, 1_000_000, &[]),
            matching(ProximityCode, 1, &[1]),
        ] {
            assert!(check(&wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(check(&matching(NumberMatching, 99, &[10, 11, 99])), Ok(()));
        assert_eq!(check(&matching(ProximityCode, 999_999, &[])), Ok(()));
    }
}
