//! Trace and span ids (W3C Trace Context level 2, section 3.2.2): bytes inside, lower-case hex outside.

use std::fmt;

/// Identifies a trace: 16 bytes, of which all zero means "none".
///
/// ```
/// use saola_observability::TraceId;
///
/// let trace = TraceId::from_hex(b"0af7651916cd43dd8448eb211c80319c").unwrap();
/// assert_eq!(trace.to_string(), "0af7651916cd43dd8448eb211c80319c");
/// assert!(TraceId::from_hex(b"0AF7").is_none() && TraceId::NONE.is_none());
/// ```
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Default, Debug)]
pub struct TraceId(pub [u8; 16]);

/// Identifies a span inside a trace: 8 bytes, of which all zero means "none". Hex as of a [`TraceId`].
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Default, Debug)]
pub struct SpanId(pub [u8; 8]);

macro_rules! id {
    ($name:ident, $bytes:literal) => {
        impl $name {
            /// The absent id: all bytes zero.
            pub const NONE: Self = Self([0; $bytes]);

            /// Says whether this is the absent id.
            pub fn is_none(self) -> bool {
                self == Self::NONE
            }

            /// Reads exactly two lower-case hex digits a byte; anything else is `None`.
            ///
            /// The all-zero id is read as [`Self::NONE`]: whether it is allowed is the caller's rule.
            pub fn from_hex(text: &[u8]) -> Option<Self> {
                let mut bytes = [0; $bytes];
                let (pairs, rest) = text.as_chunks::<2>();
                if pairs.len() != bytes.len() || !rest.is_empty() {
                    return None;
                }
                for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
                    *byte = digit(*high)? << 4 | digit(*low)?;
                }
                Some(Self(bytes))
            }

            /// Writes the id as lower-case hex into a caller's buffer, without allocating.
            #[inline]
            pub fn hex(self) -> [u8; 2 * $bytes] {
                let mut text = [0; 2 * $bytes];
                for (pair, byte) in text.as_chunks_mut::<2>().0.iter_mut().zip(self.0) {
                    *pair = [hex(byte >> 4), hex(byte & 0xf)];
                }
                text
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                for byte in self.0 {
                    write!(f, "{byte:02x}")?;
                }
                Ok(())
            }
        }
    };
}

id!(TraceId, 16);
id!(SpanId, 8);

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

const fn hex(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_reads_back_and_refuses_all_else() {
        let id = TraceId(*b"0123456789abcdef");
        assert_eq!(TraceId::from_hex(&id.hex()), Some(id));
        assert_eq!(id.to_string().as_bytes(), id.hex());
        assert_eq!(
            SpanId::from_hex(b"00f067aa0ba902b7").map(|id| id.to_string()).unwrap(),
            "00f067aa0ba902b7"
        );
        for bad in [
            "",
            "00",
            "00F067AA0BA902B7",
            "00f067aa0ba902b",
            "00f067aa0ba902b77",
            "00f067aa0ba902bg",
        ] {
            assert_eq!(SpanId::from_hex(bad.as_bytes()), None, "{bad:?}");
        }
        assert!(SpanId::from_hex(&[b'0'; 16]).unwrap().is_none());
    }
}
