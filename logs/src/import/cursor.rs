//! Reading numbers and fixed words out of a line of bytes, without allocation.

/// What is left to read of a line. Every method takes from the front, and takes nothing when it answers `None`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Takes exactly these bytes.
    #[inline]
    pub(crate) fn word(&mut self, word: &[u8]) -> Option<()> {
        self.rest = self.rest.strip_prefix(word)?;
        Some(())
    }

    /// Takes any number of spaces and tabs; says how many.
    #[inline]
    pub(crate) fn spaces(&mut self) -> usize {
        let n = self
            .rest
            .iter()
            .take_while(|b| matches!(b, b' ' | b'\t'))
            .count();
        self.rest = &self.rest[n..];
        n
    }

    /// Takes bytes up to the next space or the end; at least one.
    #[inline]
    pub(crate) fn token(&mut self) -> Option<&'a [u8]> {
        let n = self
            .rest
            .iter()
            .position(|b| matches!(b, b' ' | b'\t'))
            .unwrap_or(self.rest.len());
        self.take(n)
    }

    /// Takes a name of letters, digits and underscores.
    #[inline]
    pub(crate) fn name(&mut self) -> Option<&'a [u8]> {
        let n = self
            .rest
            .iter()
            .take_while(|b| b.is_ascii_alphanumeric() || **b == b'_')
            .count();
        self.take(n)
    }

    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        if n == 0 {
            return None;
        }
        let (taken, rest) = self.rest.split_at(n);
        self.rest = rest;
        Some(taken)
    }

    /// Takes a decimal number that fits.
    #[inline]
    pub(crate) fn dec(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        let mut n = 0;
        for &b in self.rest {
            let digit = b.wrapping_sub(b'0');
            if digit > 9 {
                break;
            }
            value = value.checked_mul(10)?.checked_add(u64::from(digit))?;
            n += 1;
        }
        self.take(n)?;
        Some(value)
    }

    #[inline]
    pub(crate) fn dec32(&mut self) -> Option<u32> {
        let mut ahead = *self;
        let value = u32::try_from(ahead.dec()?).ok()?;
        *self = ahead;
        Some(value)
    }

    /// Takes a decimal number with an optional minus sign.
    pub(crate) fn signed(&mut self) -> Option<i64> {
        let mut ahead = *self;
        let negative = ahead.word(b"-").is_some();
        let magnitude = i64::try_from(ahead.dec()?).ok()?;
        *self = ahead;
        Some(if negative { -magnitude } else { magnitude })
    }

    /// Takes a hexadecimal number, with or without `0x`, that fits.
    #[inline]
    pub(crate) fn hex(&mut self) -> Option<u64> {
        let mut ahead = *self;
        let _ = ahead.word(b"0x");
        let mut value = 0_u64;
        let mut n = 0;
        for &b in ahead.rest {
            let digit = match b {
                b'0'..=b'9' => b - b'0',
                b'a'..=b'f' => b - b'a' + 10,
                b'A'..=b'F' => b - b'A' + 10,
                _ => break,
            };
            if value >> 60 != 0 {
                return None;
            }
            value = value << 4 | u64::from(digit);
            n += 1;
        }
        ahead.take(n)?;
        *self = ahead;
        Some(value)
    }

    #[inline]
    pub(crate) fn hex32(&mut self) -> Option<u32> {
        let mut ahead = *self;
        let value = u32::try_from(ahead.hex()?).ok()?;
        *self = ahead;
        Some(value)
    }

    /// Nothing but spaces is left.
    pub(crate) fn end(&mut self) -> Option<()> {
        self.spaces();
        self.rest.is_empty().then_some(())
    }
}

/// Where `needle` starts in `haystack`.
pub(crate) fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    memchr::memmem::find(haystack, needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_do_not_fit_are_refused_and_nothing_is_taken() {
        for text in ["18446744073709551616", "x", ""] {
            let mut cursor = Cursor::new(text.as_bytes());
            assert_eq!(cursor.dec(), None);
            assert_eq!(cursor.rest(), text.as_bytes());
        }
        let mut cursor = Cursor::new(b"0x10000000000000000");
        assert_eq!(cursor.hex(), None);
        assert_eq!(cursor.rest(), b"0x10000000000000000");
        assert_eq!(Cursor::new(b"ffffffffffffffff").hex(), Some(u64::MAX));
        assert_eq!(Cursor::new(b"-4 ").signed(), Some(-4));
    }
}
