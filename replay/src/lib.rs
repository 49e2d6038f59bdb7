//! Views folded from the log: rebuild, verify, time travel, export.
