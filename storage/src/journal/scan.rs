//! Reading one segment file from front to end, whatever is in it.
//!
//! Damage is stepped over, not stumbled over: after bytes that are no group the
//! scan looks at every later offset for the next group or seal. Memory is one
//! group and a window; every length is checked against the file before it is
//! believed.

use std::io;
use std::sync::Arc;

use engine::ids::Position;

use super::format::{
    GROUP_HEADER_LEN, GROUP_MAGIC, GROUPS_AT, GroupHeader, HEADER_COPY_AT, HEADER_LEN, SEAL_LEN,
    SEAL_MAGIC, Seal, SegmentHeader,
};
use crate::disk::DiskFile;

/// How much is read at once, in bytes.
const WINDOW: usize = 256 * 1024;

/// The two copies of a segment's header.
#[derive(Debug)]
pub(super) struct Headers {
    /// The header, from whichever copy is whole.
    pub(super) header: SegmentHeader,
    /// Offset of the other copy, if it is damaged.
    pub(super) damaged_copy: Option<u64>,
}

/// Reads a segment's header; none if both copies are damaged.
pub(super) fn read_headers(file: &dyn DiskFile) -> io::Result<Option<Headers>> {
    let copies = [0, HEADER_COPY_AT].map(|offset| read_copy(file, offset));
    let [first, second] = copies;
    Ok(match (first?, second?) {
        (Some(header), Some(copy)) => {
            let damaged_copy = (header != copy).then_some(HEADER_COPY_AT);
            Some(Headers { header, damaged_copy })
        }
        (Some(header), None) => Some(Headers { header, damaged_copy: Some(HEADER_COPY_AT) }),
        (None, Some(header)) => Some(Headers { header, damaged_copy: Some(0) }),
        (None, None) => None,
    })
}

fn read_copy(file: &dyn DiskFile, offset: u64) -> io::Result<Option<SegmentHeader>> {
    let mut bytes = [0; HEADER_LEN];
    let read = read_up_to(file, &mut bytes, offset)?;
    Ok(SegmentHeader::decode(&bytes[..read]))
}

/// About how far a file is written, if zeros stand behind that: whole pages,
/// found by halving, so that the rest need not be read.
pub(super) fn written_len(file: &dyn DiskFile) -> io::Result<u64> {
    const PAGE: u64 = 4_096;
    let len = file.len()?;
    let (mut from, mut to) = (0, len.div_ceil(PAGE));
    while from < to {
        let middle = from + (to - from) / 2;
        let mut page = [0; PAGE as usize];
        read_up_to(file, &mut page, middle * PAGE)?;
        if page.iter().all(|&byte| byte == 0) {
            to = middle;
        } else {
            from = middle + 1;
        }
    }
    Ok((from * PAGE).min(len))
}

/// Fills `out` as far as the file goes.
fn read_up_to(file: &dyn DiskFile, out: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < out.len() {
        let read = file.read_at(&mut out[done..], offset + done as u64)?;
        if read == 0 {
            break;
        }
        done += read;
    }
    Ok(done)
}

/// What stands at one place of a segment.
#[derive(Debug)]
pub(super) enum Part {
    /// A group, whole.
    Group {
        /// Where its header is.
        offset: u64,
        /// Its header.
        header: GroupHeader,
        /// Its frames.
        payload: Vec<u8>,
    },
    /// A group whose header is whole and whose payload is not.
    Payload {
        /// Where its header is.
        offset: u64,
        /// Its header.
        header: GroupHeader,
    },
    /// Bytes that are no group; one, or a seal, follows at `end`.
    Rubbish {
        /// Where they begin.
        offset: u64,
        /// Where they end.
        end: u64,
    },
    /// The seal.
    Seal(Seal),
    /// Bytes that are neither zero nor a group, with none after them.
    Tail {
        /// Where they begin.
        offset: u64,
        /// Where the last one that is not zero ends.
        end: u64,
    },
}

/// Goes through the groups of one segment.
pub(super) struct Scan {
    window: Window,
    key: [u8; 32],
    at: u64,
    /// No group that begins before this position is looked for.
    least: Position,
    over: bool,
}

impl Scan {
    /// Begins after the header.
    pub(super) fn new(file: Arc<dyn DiskFile>, header: &SegmentHeader) -> io::Result<Self> {
        Self::from(file, header, GROUPS_AT)
    }

    /// Begins at `offset`, where a group does.
    pub(super) fn from(
        file: Arc<dyn DiskFile>,
        header: &SegmentHeader,
        offset: u64,
    ) -> io::Result<Self> {
        let window = Window::new(file)?;
        Ok(Self { window, key: header.key, at: offset, least: header.first, over: false })
    }

    /// Where the part that comes next begins.
    pub(super) fn offset(&self) -> u64 {
        self.at
    }

    /// The next part; none at the end or where only zeros follow.
    pub(super) fn next(&mut self) -> io::Result<Option<Part>> {
        if self.over {
            return Ok(None);
        }
        let bytes = self.window.get(self.at, GROUP_HEADER_LEN)?;
        if let Some(header) = GroupHeader::decode(bytes, &self.key) {
            return self.group(header).map(Some);
        }
        if let Some(seal) = Seal::decode(bytes, &self.key).filter(|seal| seal.offset == self.at) {
            self.over = true;
            self.at += SEAL_LEN as u64;
            return Ok(Some(Part::Seal(seal)));
        }
        self.rubbish()
    }

    /// The header of the next group; none where something else stands.
    pub(super) fn peek(&mut self) -> io::Result<Option<GroupHeader>> {
        let bytes = self.window.get(self.at, GROUP_HEADER_LEN)?;
        Ok(GroupHeader::decode(bytes, &self.key))
    }

    /// Steps over the next group without reading its payload.
    pub(super) fn skip(&mut self) -> io::Result<()> {
        self.at += self.peek()?.map_or(0, |header| header.total());
        Ok(())
    }

    fn group(&mut self, header: GroupHeader) -> io::Result<Part> {
        let offset = self.at;
        let payload = self.window.get(offset + GROUP_HEADER_LEN as u64, header.len as usize)?;
        self.least = Position(header.head().size);
        if payload.len() == header.len as usize && header.matches(payload, &self.key) {
            let payload = payload.to_vec();
            self.at += header.total();
            return Ok(Part::Group { offset, header, payload });
        }
        // The length stands under the header's hash, so it says where to go on.
        self.at = (offset + header.total()).min(self.window.len);
        Ok(Part::Payload { offset, header })
    }

    fn rubbish(&mut self) -> io::Result<Option<Part>> {
        let offset = self.at;
        let Some(mut end) = self.window.nonzero_from(offset)? else {
            self.over = true;
            return Ok(None);
        };
        if let Some(next) = self.search(offset + 1)? {
            self.at = next;
            return Ok(Some(Part::Rubbish { offset, end: next }));
        }
        while let Some(next) = self.window.nonzero_from(end)? {
            end = self.window.zero_from(next)?;
        }
        self.over = true;
        Ok(Some(Part::Tail { offset, end }))
    }

    /// The first offset from `from` on where a group of this segment or its
    /// seal stands.
    fn search(&mut self, from: u64) -> io::Result<Option<u64>> {
        let mut from = from;
        let end = self.window.len;
        while from < self.window.len {
            let bytes = self.window.get(from, WINDOW)?;
            let len = bytes.len();
            let marks = bytes.windows(2).enumerate().filter(|(_, pair)| pair == b"KT");
            for at in marks.map(|(at, _)| at as u64 + from) {
                let bytes = &bytes[(at - from) as usize..];
                if bytes.len() < GROUP_HEADER_LEN && at + (bytes.len() as u64) < end {
                    // Cut by the window: looked at again below.
                    break;
                }
                let group = bytes.starts_with(GROUP_MAGIC)
                    && GroupHeader::decode(bytes, &self.key)
                        .is_some_and(|header| header.first >= self.least);
                let seal = bytes.starts_with(SEAL_MAGIC)
                    && Seal::decode(bytes, &self.key).is_some_and(|seal| seal.offset == at);
                if group || seal {
                    return Ok(Some(at));
                }
            }
            if from + len as u64 >= self.window.len || len <= GROUP_HEADER_LEN {
                break;
            }
            from += (len - GROUP_HEADER_LEN) as u64;
        }
        Ok(None)
    }
}

/// A file seen through a buffer.
struct Window {
    file: Arc<dyn DiskFile>,
    len: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    fn new(file: Arc<dyn DiskFile>) -> io::Result<Self> {
        let len = file.len()?;
        Ok(Self { file, len, start: 0, bytes: Vec::new() })
    }

    /// `count` bytes from `offset`; fewer only where the file ends.
    fn get(&mut self, offset: u64, count: usize) -> io::Result<&[u8]> {
        let rest = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let count = count.min(rest);
        let inside = offset.checked_sub(self.start).and_then(|at| usize::try_from(at).ok());
        if let Some(at) = inside
            && at + count <= self.bytes.len()
        {
            return Ok(&self.bytes[at..at + count]);
        }
        self.bytes.resize(count.max(WINDOW.min(rest)), 0);
        self.start = offset;
        let read = read_up_to(self.file.as_ref(), &mut self.bytes, offset)?;
        self.bytes.truncate(read);
        Ok(&self.bytes[..count.min(read)])
    }

    /// The offset behind the first byte from `offset` on that is not zero.
    fn nonzero_from(&mut self, offset: u64) -> io::Result<Option<u64>> {
        let mut at = offset;
        loop {
            let bytes = self.get(at, WINDOW)?;
            if bytes.is_empty() {
                return Ok(None);
            }
            if let Some(found) = bytes.iter().position(|&byte| byte != 0) {
                return Ok(Some(at + found as u64 + 1));
            }
            at += bytes.len() as u64;
        }
    }

    /// The offset of the first zero from `offset` on; the end if there is none.
    fn zero_from(&mut self, offset: u64) -> io::Result<u64> {
        let mut at = offset;
        loop {
            let bytes = self.get(at, WINDOW)?;
            if bytes.is_empty() {
                return Ok(at);
            }
            if let Some(found) = bytes.iter().position(|&byte| byte == 0) {
                return Ok(at + found as u64);
            }
            at += bytes.len() as u64;
        }
    }
}
