//! The little of CBOR (RFC 8949) that App Attest uses: definite lengths, small
//! maps with text keys, and every head in its shortest form (section 4.2.1).
//!
//! Heads are read by `ciborium-ll`; what stands behind them is borrowed from
//! the input, so reading allocates nothing and no length can make it wait or
//! recurse.

use ciborium_ll::{Decoder, Encoder, Header};

/// Most bytes of a head: one, and a number of 64 bits.
const HEAD_MAX: usize = 9;

/// What is left of the input, read from the front.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a>(&'a [u8]);

/// Not what was asked for, or not in its shortest form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotSo;

impl<'a> Reader<'a> {
    /// Reads `octets` from their beginning.
    pub(super) const fn new(octets: &'a [u8]) -> Self {
        Self(octets)
    }

    /// That nothing is left.
    pub(super) fn end(self) -> Result<(), NotSo> {
        if self.0.is_empty() { Ok(()) } else { Err(NotSo) }
    }

    /// The number of pairs of a map.
    pub(super) fn map(&mut self) -> Result<usize, NotSo> {
        match self.head()? {
            Header::Map(Some(pairs)) => Ok(pairs),
            _ => Err(NotSo),
        }
    }

    /// The number of items of an array.
    pub(super) fn array(&mut self) -> Result<usize, NotSo> {
        match self.head()? {
            Header::Array(Some(items)) => Ok(items),
            _ => Err(NotSo),
        }
    }

    /// A byte string.
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], NotSo> {
        match self.head()? {
            Header::Bytes(Some(length)) => self.take(length),
            _ => Err(NotSo),
        }
    }

    /// A text string, as its octets.
    pub(super) fn text(&mut self) -> Result<&'a [u8], NotSo> {
        match self.head()? {
            Header::Text(Some(length)) => self.take(length),
            _ => Err(NotSo),
        }
    }

    /// An integer; those beyond 64 bits are not read.
    pub(super) fn integer(&mut self) -> Result<i64, NotSo> {
        match self.head()? {
            Header::Positive(number) => i64::try_from(number).map_err(|_| NotSo),
            // CBOR writes -1 - n.
            Header::Negative(number) => i64::try_from(number).map(|n| -1 - n).map_err(|_| NotSo),
            _ => Err(NotSo),
        }
    }

    /// The octets that `read` reads.
    pub(super) fn within(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<(), NotSo>,
    ) -> Result<&'a [u8], NotSo> {
        let start = self.0;
        read(self)?;
        Ok(&start[..start.len() - self.0.len()])
    }

    fn head(&mut self) -> Result<Header, NotSo> {
        let mut decoder = Decoder::from(self.0);
        let header = decoder.pull().map_err(|_| NotSo)?;
        let length = decoder.offset();
        let mut buffer = [0; HEAD_MAX];
        let mut free = &mut buffer[..];
        Encoder::from(&mut free).push(header).map_err(|_| NotSo)?;
        let shortest = HEAD_MAX - free.len();
        if self.take(length)? == &buffer[..shortest] { Ok(header) } else { Err(NotSo) }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], NotSo> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(NotSo)?;
        self.0 = rest;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_read_and_nothing_else() {
        let mut reader = Reader::new(&[0xa1, 0x61, b'x', 0x82, 0x42, 7, 8, 0x26]);
        assert_eq!(reader.map(), Ok(1));
        assert_eq!(reader.text(), Ok(&b"x"[..]));
        assert_eq!(reader.array(), Ok(2));
        assert!(reader.end().is_err());
        assert_eq!(reader.bytes(), Ok(&[7, 8][..]));
        assert_eq!(reader.integer(), Ok(-7));
        assert_eq!(reader.end(), Ok(()));
        assert_eq!(reader.integer(), Err(NotSo));
    }

    #[test]
    fn a_head_longer_than_it_need_be_is_not_read() {
        assert_eq!(Reader::new(&[0x41, 7]).bytes(), Ok(&[7][..]));
        for long in [&[0x58, 1, 7][..], &[0x59, 0, 1, 7], &[0x5a, 0, 0, 0, 1, 7]] {
            assert_eq!(Reader::new(long).bytes(), Err(NotSo), "{long:?}");
        }
    }

    #[test]
    fn indefinite_and_lying_lengths_are_not_read() {
        assert_eq!(Reader::new(&[0x5f, 0x41, 7, 0xff]).bytes(), Err(NotSo));
        assert_eq!(Reader::new(&[0xbf, 0xff]).map(), Err(NotSo));
        assert_eq!(Reader::new(&[0x42, 7]).bytes(), Err(NotSo));
        let huge = [0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(Reader::new(&huge).bytes(), Err(NotSo));
    }
}
