//! Whole-system tests of keytrail live in `tests/it`, its benches in [`bench`].

pub mod bench;
