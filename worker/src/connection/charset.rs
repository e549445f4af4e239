//! Sets of bytes, as tables: one load for each byte of every head.

/// Says of every byte whether it is in the set.
pub(super) struct Charset([bool; 256]);

/// What a target may hold without a second look: RFC 3986 section 2, and `%`.
pub(super) static PLAIN: Charset = Charset::alphanumeric_and(b"-._~:/?@!$&'()*+,;=%");
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

    pub(super) fn contains(&self, byte: u8) -> bool {
        self.0[usize::from(byte)]
    }
}

#[expect(clippy::as_conversions, reason = "`usize::from` is not const")]
const fn index(byte: u8) -> usize {
    byte as usize
}
