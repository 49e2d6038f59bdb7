//! Records and blocks: what is written reads back, and nothing else reads.

use engine::ids::{Id, Micros, Position};
use engine::machine::{Draft, Record};
use proptest::prelude::*;
use storage::block::{Block, BlockError, Head, genesis};
use storage::record::{HEADER_LEN, RECORD_MAX, RecordError, chain, decode, encode};

fn record(position: u64, clear: usize, sealed: usize) -> Record {
    Record {
        position: Position(position),
        time: Micros(1_700_000_000_000_000),
        stream_version: 3,
        stream_prev: (position > 0).then(|| Position(position - 1)),
        correlation: Id([1; 16]),
        causation: Id([2; 16]),
        draft: Draft {
            stream: Id([3; 16]),
            event_id: Id([4; 16]),
            event_type: 52,
            schema: 1,
            subject: Id([5; 16]),
            clear: vec![6; clear],
            sealed: vec![7; sealed],
        },
    }
}

/// A block of small records after `head`.
fn block(head: &Head, count: u64) -> Block {
    let mut block = Block::after(head);
    for n in 0..count {
        let bytes = encode(&record(head.size + n, 20, 10), &block.chain).unwrap();
        block.push(&bytes);
    }
    block
}

fn empty() -> Head {
    Head { size: 0, chain: genesis("keytrail.test/1") }
}

#[test]
fn a_header_stands_where_the_table_says() {
    let bytes = encode(&record(9, 1, 1), &[8; 32]).unwrap();
    assert_eq!(bytes.len(), HEADER_LEN + 2);
    assert_eq!(bytes[..8], [1, 1, 0, 52, 0, 1, 0, 0]);
    assert_eq!(bytes[8..16], 9_u64.to_be_bytes());
    assert_eq!(bytes[24..40], [4; 16]);
    assert_eq!(bytes[40..56], [3; 16]);
    assert_eq!(bytes[64..72], 8_u64.to_be_bytes());
    assert_eq!(bytes[104..120], [5; 16]);
    assert_eq!(bytes[120..152], [8; 32]);
    assert_eq!(bytes[152..], [0, 0, 0, 1, 0, 0, 0, 1, 6, 7]);
}

#[test]
fn the_longest_record_fits_and_one_byte_more_does_not() {
    let room = RECORD_MAX - HEADER_LEN;
    let longest = record(0, room, 0);
    let bytes = encode(&longest, &[0; 32]).unwrap();
    assert_eq!(decode(&bytes), Ok((longest, [0; 32])));
    assert_eq!(encode(&record(0, room, 1), &[0; 32]), Err(RecordError::Long));
}

#[test]
fn a_record_cut_anywhere_or_with_a_byte_more_is_none() {
    let bytes = encode(&record(0, 20, 10), &[0; 32]).unwrap();
    for len in 0..bytes.len() {
        assert_eq!(decode(&bytes[..len]), Err(RecordError::Short), "{len}");
    }
    assert_eq!(decode(&[bytes.as_slice(), &[0]].concat()), Err(RecordError::Long));
}

#[test]
fn unknown_formats_and_codecs_are_named() {
    let bytes = encode(&record(0, 1, 0), &[0; 32]).unwrap();
    let with = |at: usize, byte: u8| {
        let mut changed = bytes.clone();
        changed[at] = byte;
        decode(&changed)
    };
    assert_eq!(with(0, 2), Err(RecordError::Format(2)));
    assert_eq!(with(1, 2), Err(RecordError::Codec(2)));
    assert_eq!(with(6, 1), Err(RecordError::Reserved));
    assert_eq!(with(7, 1), Err(RecordError::Reserved));
}

#[test]
fn every_flipped_bit_in_a_block_is_found() {
    let good = block(&empty(), 3);
    assert_eq!(good.check(), Ok(()));
    for at in 0..good.frames.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad.frames[at] ^= 1 << bit;
            assert!(bad.check().is_err(), "byte {at} bit {bit}");
        }
    }
}

#[test]
fn a_block_says_where_it_breaks() {
    let good = block(&empty(), 3);
    let skewed = Block { first: Position(1), ..good.clone() };
    let found = BlockError::Position { expected: Position(1), found: Position(0) };
    assert_eq!(skewed.check(), Err(found));
    let elsewhere = Block { prev: [9; 32], ..good.clone() };
    assert_eq!(elsewhere.check(), Err(BlockError::Chain(Position(0))));
    let ends_elsewhere = Block { chain: [9; 32], ..good.clone() };
    assert_eq!(ends_elsewhere.check(), Err(BlockError::Chain(Position(3))));
    assert_eq!(Block { count: 2, ..good }.check(), Err(BlockError::Frames));
}

#[test]
fn blocks_follow_each_other_and_two_origins_never_share_a_chain() {
    let first = block(&empty(), 2);
    let second = block(&first.head(), 2);
    assert_eq!(second.check(), Ok(()));
    assert_eq!((second.first, second.prev), (Position(2), first.chain));
    let elsewhere = Head { size: 0, chain: genesis("keytrail.test/2") };
    assert_ne!(block(&elsewhere, 2).chain, first.chain);
}

proptest! {
    #[test]
    fn any_record_reads_back(
        numbers in any::<[u64; 4]>(),
        ids in any::<[[u8; 16]; 5]>(),
        kind in any::<(u16, u16)>(),
        prev in any::<[u8; 32]>(),
        clear in prop::collection::vec(any::<u8>(), 0..300),
        sealed in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let record = Record {
            position: Position(numbers[0]),
            time: Micros(numbers[1]),
            stream_version: numbers[2],
            stream_prev: (numbers[3] != u64::MAX).then_some(Position(numbers[3])),
            correlation: Id(ids[0]),
            causation: Id(ids[1]),
            draft: Draft {
                stream: Id(ids[2]),
                event_id: Id(ids[3]),
                event_type: kind.0,
                schema: kind.1,
                subject: Id(ids[4]),
                clear,
                sealed,
            },
        };
        let bytes = encode(&record, &prev).unwrap();
        prop_assert_eq!(decode(&bytes), Ok((record, prev)));
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Ok((record, prev)) = decode(&bytes) {
            prop_assert_eq!(encode(&record, &prev).unwrap(), bytes.clone());
        }
        let block = Block { first: Position(0), count: 1, prev: [0; 32], chain: chain(&bytes), frames: bytes };
        let _ = block.check();
    }
}
