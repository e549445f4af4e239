//! The little of protobuf's encoding that spans need (protobuf.dev, "Encoding"). Generated code would first want a message
//! with a string of its own for each value, and then read all of it three times: for its lengths, and to copy it.
//!
//! Almost every length and number here is below 128 and so one byte: that case stands first, and is put together from what is
//! known where it is written.
//!
//! Fields that have their default value are left out by those who write them, as everywhere in protobuf.

#![expect(clippy::inline_always, reason = "a tag that is known is a byte; else it is a call")]

/// The number of a field in its message.
pub(super) type Field = u32;

/// A whole number, an enumeration or a truth.
#[inline(always)]
pub(super) fn number(out: &mut Vec<u8>, field: Field, value: u64) {
    tagged(out, field, VARINT, value);
}

/// Eight bytes: `fixed64`, and `double` by its bits.
pub(super) fn fixed64(out: &mut Vec<u8>, field: Field, value: u64) {
    tag(out, field, FIXED64);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Four bytes.
pub(super) fn fixed32(out: &mut Vec<u8>, field: Field, value: u32) {
    tag(out, field, FIXED32);
    out.extend_from_slice(&value.to_le_bytes());
}

/// A string, bytes or an encoded message.
#[inline(always)]
pub(super) fn bytes(out: &mut Vec<u8>, field: Field, value: &[u8]) {
    begin(out, field, value.len());
    out.extend_from_slice(value);
}

/// What stands before the `len` bytes of a string, bytes or an encoded message.
#[inline(always)]
pub(super) fn begin(out: &mut Vec<u8>, field: Field, len: usize) {
    tagged(out, field, LENGTH, wide(len));
}

/// What stands before a message of `outer_len` bytes that begins with a field of `inner_len`: all of it at once where all of it
/// is short.
#[inline(always)]
pub(super) fn begin_both(
    out: &mut Vec<u8>,
    (outer, outer_len): (Field, usize),
    (inner, inner_len): (Field, usize),
) {
    let tag_of = |field| u64::from(field) << 3 | LENGTH;
    let parts = [tag_of(outer), wide(outer_len), tag_of(inner), wide(inner_len)];
    if parts.iter().all(|part| *part < 0x80) {
        out.extend_from_slice(&parts.map(lowest));
    } else {
        begin(out, outer, outer_len);
        begin(out, inner, inner_len);
    }
}

/// How many bytes a field takes whose value has `len` of them.
#[inline(always)]
pub(super) fn len_of(field: Field, len: usize) -> usize {
    varint_len(u64::from(field) << 3) + varint_len(wide(len)) + len
}

/// How many bytes a field takes whose value is a number.
#[inline(always)]
pub(super) fn len_of_number(field: Field, value: u64) -> usize {
    varint_len(u64::from(field) << 3) + varint_len(value)
}

#[inline(always)]
fn tagged(out: &mut Vec<u8>, field: Field, wire: u64, value: u64) {
    let tag = u64::from(field) << 3 | wire;
    if tag < 0x80 && value < 0x80 {
        out.extend_from_slice(&[lowest(tag), lowest(value)]);
    } else {
        varint(out, tag);
        varint(out, value);
    }
}

fn tag(out: &mut Vec<u8>, field: Field, wire: u64) {
    varint(out, u64::from(field) << 3 | wire);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(lowest(value) | 0x80);
        value >>= 7;
    }
    out.push(lowest(value));
}

#[inline(always)]
fn varint_len(value: u64) -> usize {
    if value < 0x80 {
        return 1;
    }
    // Seven bits a byte.
    let bits = 64 - value.leading_zeros();
    usize::try_from(bits.div_ceil(7)).unwrap_or(0)
}

fn lowest(value: u64) -> u8 {
    let [lowest, ..] = value.to_le_bytes();
    lowest
}

fn wide(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const LENGTH: u64 = 2;
const FIXED32: u64 = 5;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_length_is_what_is_written(value: u64, shift in 0_u32..64, field in 1_u32..40) {
            let value = value >> shift;
            let mut out = Vec::new();
            number(&mut out, field, value);
            prop_assert_eq!(out.len(), len_of_number(field, value));
            let len = usize::try_from(value % 40_000).unwrap();
            let mut out = Vec::new();
            bytes(&mut out, field, &vec![7; len]);
            prop_assert_eq!(out.len(), len_of(field, len));
            let mut whole = Vec::new();
            bytes(&mut whole, 7, &out);
            let mut both = Vec::new();
            begin_both(&mut both, (7, out.len()), (field, len));
            prop_assert_eq!(&both[..], &whole[..whole.len() - len]);
        }
    }
}
