//! Whether every event id stands in the log once, in bounded memory.
//!
//! The ids of a command differ in their last byte alone, so one id a command is
//! enough. They are collected in runs; a full run is sorted and goes to a
//! temporary file, and in the end all runs are merged.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::path::PathBuf;

use engine::ids::Id;

/// Commands in a run: 48 MiB.
const RUN: usize = 1 << 21;

/// A command's id, and the position of its first record.
type Entry = (Id, u64);

/// Collects the ids of commands.
pub(super) struct Ids {
    run: Vec<Entry>,
    run_max: usize,
    spilled: Vec<File>,
    scratch: PathBuf,
}

impl Ids {
    /// Temporary files go to `scratch`.
    pub(super) fn new(scratch: PathBuf) -> Self {
        Self { run: Vec::new(), run_max: RUN, spilled: Vec::new(), scratch }
    }

    /// Takes in the id of a command whose first record is at `position`.
    pub(super) fn add(&mut self, id: Id, position: u64) -> io::Result<()> {
        self.run.push((id.first_of_command(), position));
        if self.run.len() < self.run_max {
            return Ok(());
        }
        self.run.sort_unstable();
        let mut out = BufWriter::new(tempfile::tempfile_in(&self.scratch)?);
        for (id, position) in self.run.drain(..) {
            out.write_all(&id.0)?;
            out.write_all(&position.to_be_bytes())?;
        }
        let mut file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.rewind()?;
        self.spilled.push(file);
        Ok(())
    }

    /// Tells `again` of every id that was there before: where it stood first,
    /// and where it stands again.
    pub(super) fn repeated(mut self, mut again: impl FnMut(Id, u64, u64)) -> io::Result<()> {
        self.run.sort_unstable();
        let mut runs: Vec<Box<dyn Iterator<Item = io::Result<Entry>>>> = Vec::new();
        for file in self.spilled {
            runs.push(Box::new(entries(BufReader::new(file))));
        }
        runs.push(Box::new(self.run.into_iter().map(Ok)));
        let mut heads = BinaryHeap::new();
        for (index, run) in runs.iter_mut().enumerate() {
            heads.extend(run.next().transpose()?.map(|entry| Reverse((entry, index))));
        }
        let mut first: Option<Entry> = None;
        while let Some(Reverse((entry, index))) = heads.pop() {
            match first {
                Some((id, position)) if id == entry.0 => again(id, position, entry.1),
                Some(_) | None => first = Some(entry),
            }
            heads.extend(runs[index].next().transpose()?.map(|entry| Reverse((entry, index))));
        }
        Ok(())
    }
}

fn entries(mut file: impl Read) -> impl Iterator<Item = io::Result<Entry>> {
    std::iter::from_fn(move || {
        let mut bytes = [0; 24];
        match file.read_exact(&mut bytes) {
            Ok(()) => {
                let (mut id, mut position) = ([0; 16], [0; 8]);
                id.copy_from_slice(&bytes[..16]);
                position.copy_from_slice(&bytes[16..]);
                Some(Ok((Id(id), u64::from_be_bytes(position))))
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
            Err(error) => Some(Err(error)),
        }
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// An id of few, whose last byte does not count.
    fn id(number: u8, last: u8) -> Id {
        let mut id = [0; 16];
        (id[3], id[15]) = (number, last);
        Id(id)
    }

    proptest! {
        #[test]
        fn every_repeated_id_is_told_with_where_it_stood_first(
            numbers in vec((0..40_u8, any::<u8>()), 0..60), run_max in 1..9_usize,
        ) {
            let mut ids = Ids { run_max, ..Ids::new(std::env::temp_dir()) };
            let mut expected = Vec::new();
            let mut seen = BTreeMap::new();
            for (position, (number, last)) in (0..).zip(numbers) {
                ids.add(id(number, last), position).unwrap();
                match seen.get(&number) {
                    Some(first) => expected.push((id(number, 0), *first, position)),
                    None => drop(seen.insert(number, position)),
                }
            }
            let mut found = Vec::new();
            ids.repeated(|id, first, again| found.push((id, first, again))).unwrap();
            expected.sort();
            prop_assert_eq!(found, expected);
        }
    }
}
