//! What every [`BlockLog`] has to do, checked on each implementation.

use std::io;

use engine::ids::{Id, Micros, Position};
use engine::machine::{Draft, Record};

use crate::block::{AppendError, Block, BlockLog, Head};
use crate::record;

/// A block of `count` records that follows `head`; `seed` makes it another one.
pub(crate) fn block_after(head: &Head, count: u64, seed: u8) -> Block {
    let mut block = Block::after(head);
    for index in 0..count {
        let draft = Draft {
            stream: Id([seed; 16]),
            event_id: Id([seed; 16]),
            event_type: 1,
            schema: 1,
            subject: Id([0; 16]),
            clear: vec![seed; 40 + index as usize],
            sealed: vec![seed; 3],
        };
        let record = Record {
            position: Position(block.head().size),
            time: Micros(1),
            stream_version: index + 1,
            stream_prev: None,
            correlation: Id([seed; 16]),
            causation: Id([seed; 16]),
            draft,
        };
        block.push(&record::encode(&record, &block.chain).unwrap());
    }
    block
}

/// Appends `counts` groups and gives back their records.
pub(crate) fn fill(log: &mut dyn BlockLog, counts: &[u64]) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    for (index, &count) in counts.iter().enumerate() {
        let head = log.head();
        let block = block_after(&head, count, index as u8 + 1);
        log.append(&head, &block).unwrap();
        records.extend(block.records().map(<[u8]>::to_vec));
    }
    records
}

/// All records of a log.
pub(crate) fn all(log: &dyn BlockLog) -> io::Result<Vec<Vec<u8>>> {
    log.read(Position(0), usize::MAX)
}

/// Holds an empty log to everything that [`BlockLog`] promises.
pub(crate) fn check(log: &mut dyn BlockLog) {
    let start = log.head();
    assert_eq!(start.size, 0);
    assert!(all(log).unwrap().is_empty());
    let records = fill(log, &[1, 3, 2, 7, 1]);
    let head = log.head();
    assert_eq!(head.size, 14);
    assert_eq!(all(log).unwrap(), records);
    for from in 0..=15 {
        for limit in [0, 1, 2, 5, 100] {
            let read = log.read(Position(from), limit).unwrap();
            let expected: Vec<_> =
                records.iter().skip(from as usize).take(limit).cloned().collect();
            assert_eq!(read, expected, "{limit} from {from}");
        }
    }
    assert!(log.read(Position(u64::MAX), 1).unwrap().is_empty());
    refuses(log, &start);
    assert_eq!(log.head(), head);
    assert_eq!(all(log).unwrap(), records);
    fill(log, &[2]);
    assert_eq!(log.head().size, 16);
}

/// Holds a log that has no space for its next appends to what [`BlockLog`]
/// promises then: nothing changes.
pub(crate) fn check_full(log: &mut dyn BlockLog) {
    refused_without_a_trace(log, |error| matches!(error, AppendError::Full));
}

/// Holds a log whose next append fails to what [`BlockLog`] promises then: it
/// takes nothing more, and shows nothing that was not acknowledged.
pub(crate) fn check_failed(log: &mut dyn BlockLog) {
    refused_without_a_trace(log, |error| matches!(error, AppendError::Io(_)));
}

fn refused_without_a_trace(log: &mut dyn BlockLog, expected: fn(&AppendError) -> bool) {
    let (head, records) = (log.head(), all(log).unwrap());
    for _ in 0..2 {
        let error = log.append(&head, &block_after(&head, 1, 7)).unwrap_err();
        assert!(expected(&error), "{error}");
        assert_eq!(log.head(), head);
        assert_eq!(all(log).unwrap(), records);
        assert!(log.read(Position(head.size), 1).unwrap().is_empty());
    }
}

fn refuses(log: &mut dyn BlockLog, start: &Head) {
    let head = log.head();
    let good = block_after(&head, 2, 9);
    let stale = log.append(start, &good);
    assert!(matches!(stale, Err(AppendError::Conflict { actual }) if actual == head));
    let elsewhere = log.append(&head, &block_after(start, 2, 9));
    assert!(matches!(elsewhere, Err(AppendError::Malformed(_))));
    let empty = log.append(&head, &Block::after(&head));
    assert!(matches!(empty, Err(AppendError::Malformed(_))));
    let cut = Block { frames: good.frames[..good.frames.len() - 1].to_vec(), ..good };
    assert!(matches!(log.append(&head, &cut), Err(AppendError::Malformed(_))));
}
