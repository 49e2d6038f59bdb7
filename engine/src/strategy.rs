//! The table of the additional hardware check: what each strategy makes of
//! each thing that can be found.
//!
//! The check always runs. The table says only what follows from it. It is the
//! same at authentication and, for the proof of possession, at activation.
//! `docs/protocol.md` shows it with the claims a device can make beside it.

use crate::reasons::Strategy;
use crate::signature::Verdict;
use crate::terms::HwKeyServerResult;

/// A row of the table: what was found of the hardware key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HardwareCheck {
    /// A key is on file and its signature verifies.
    Valid,
    /// A key is on file; the signature does not verify or cannot be read.
    Invalid(
        /// [`Verdict::Invalid`] or [`Verdict::Malformed`].
        Verdict,
    ),
    /// A key is on file; no signature came.
    Missing,
    /// No key is on file, and the device cannot have one, as recorded at activation.
    NoKeyCannot,
    /// No key is on file, though the device could have one.
    NoKeyCould,
}

/// What a strategy makes of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consequence {
    /// The check stands in nobody's way.
    Pass,
    /// The authentication or activation fails.
    Fail,
}

impl HardwareCheck {
    /// The row for a key on file whose signature got `verdict`, if one came.
    #[must_use]
    pub fn with_key(verdict: Option<Verdict>) -> Self {
        match verdict {
            Some(Verdict::Valid) => Self::Valid,
            Some(verdict @ (Verdict::Invalid | Verdict::Malformed)) => Self::Invalid(verdict),
            None => Self::Missing,
        }
    }

    /// The row for a registration without a hardware key.
    #[must_use]
    pub fn without_key(cannot_have_one: bool) -> Self {
        if cannot_have_one { Self::NoKeyCannot } else { Self::NoKeyCould }
    }

    /// What `strategy` makes of it.
    #[must_use]
    pub fn under(self, strategy: Strategy) -> Consequence {
        use Consequence::{Fail, Pass};
        use Strategy::{Required, RequiredIfSupported, RiskParams, Supported};
        match (self, strategy) {
            (Self::Valid, Supported | RiskParams | RequiredIfSupported | Required) => Pass,
            (Self::Invalid(_) | Self::Missing, RiskParams) => Pass,
            (Self::Invalid(_) | Self::Missing, Supported | RequiredIfSupported | Required) => Fail,
            (Self::NoKeyCannot, Supported | RiskParams | RequiredIfSupported) => Pass,
            (Self::NoKeyCannot, Required) => Fail,
            (Self::NoKeyCould, Supported | RiskParams) => Pass,
            (Self::NoKeyCould, RequiredIfSupported | Required) => Fail,
        }
    }

    /// The risk attribute `hw_key_server_result` at authentication.
    #[must_use]
    pub fn result(self) -> HwKeyServerResult {
        match self {
            Self::Valid => HwKeyServerResult::Valid,
            Self::Invalid(Verdict::Malformed) => HwKeyServerResult::Malformed,
            Self::Invalid(Verdict::Invalid | Verdict::Valid) => HwKeyServerResult::Invalid,
            Self::Missing => HwKeyServerResult::SignatureMissing,
            Self::NoKeyCannot | Self::NoKeyCould => HwKeyServerResult::NoKeyRegistered,
        }
    }

    /// The same attribute at activation, where a key that was offered and not
    /// proven is never stored.
    #[must_use]
    pub fn result_at_activation(self) -> HwKeyServerResult {
        match self {
            Self::Valid => HwKeyServerResult::Valid,
            Self::Invalid(_) | Self::Missing => HwKeyServerResult::KeyUnproven,
            Self::NoKeyCannot | Self::NoKeyCould => HwKeyServerResult::NoKeyRegistered,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table as the design states it, cell by cell: true where it passes.
    const TABLE: [(HardwareCheck, [bool; 4]); 6] = [
        (HardwareCheck::Valid, [true, true, true, true]),
        (HardwareCheck::Invalid(Verdict::Invalid), [false, true, false, false]),
        (HardwareCheck::Invalid(Verdict::Malformed), [false, true, false, false]),
        (HardwareCheck::Missing, [false, true, false, false]),
        (HardwareCheck::NoKeyCannot, [true, true, true, false]),
        (HardwareCheck::NoKeyCould, [true, true, false, false]),
    ];

    #[test]
    fn every_cell_is_as_the_table_says() {
        for (row, cells) in TABLE {
            for (strategy, passes) in Strategy::ALL.iter().copied().zip(cells) {
                let expected = if passes { Consequence::Pass } else { Consequence::Fail };
                assert_eq!(row.under(strategy), expected, "{row:?} under {strategy:?}");
            }
        }
    }
}
