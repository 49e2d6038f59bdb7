//! Whole-system tests of keytrail live in `tests/it`.
