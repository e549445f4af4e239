//! Sets of bytes, as tables: one load for each byte of every head.

/// Says of every byte whether it is in the set.
pub(crate) struct Charset([bool; 256]);

/// What a target may hold without a second look: RFC 3986 section 2, and `%`.
pub(super) static PLAIN: Charset = Charset::alphanumeric_and(b"-._~:/?@!$&'()*+,;=%");
/// What a name in an authority may hold: RFC 3986 section 3.2.2, `reg-name`, and `%`.
pub(crate) static NAME: Charset = Charset::alphanumeric_and(b"-._~%!$&'()*+;=");
/// RFC 9110 section 5.6.2, `tchar`.
pub(super) static TOKEN: Charset = Charset::alphanumeric_and(b"!#$%&'*+-.^_`|~");

impl Charset {
    const fn alphanumeric_and(others: &[u8]) -> Self {
        let mut table = [false; 256];
        let mut byte = 0_u8;
        while byte < 128 {
            table[index(byte)] = byte.is_ascii_alphanumeric();
            byte += 1;
        }
        let mut at = 0;
        while at < others.len() {
            table[index(others[at])] = true;
            at += 1;
        }
        Self(table)
    }

    fn contains(&self, byte: u8) -> bool {
        self.0[usize::from(byte)]
    }

    /// Says whether there are bytes, and all are in the set.
    pub(crate) fn is_all_of(&self, bytes: &[u8]) -> bool {
        !bytes.is_empty() && bytes.iter().all(|byte| self.contains(*byte))
    }

    /// Cuts in front of the first byte that is not in the set.
    pub(crate) fn split<'b>(&self, bytes: &'b [u8]) -> (&'b [u8], &'b [u8]) {
        let end = bytes.iter().take_while(|byte| self.contains(**byte)).count();
        bytes.split_at(end)
    }
}

#[expect(clippy::as_conversions, reason = "`usize::from` is not const")]
const fn index(byte: u8) -> usize {
    byte as usize
}
