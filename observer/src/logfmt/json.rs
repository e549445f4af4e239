//! JSON: one object a line, with the keys, the order and the limits of logfmt.

use super::escape;

pub(super) fn key(out: &mut Vec<u8>, is_first: bool, key: &str) {
    out.push(if is_first { b'{' } else { b',' });
    out.push(b'"');
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(b"\":");
}

/// `,"key":` as it stands behind others.
pub(super) fn known_key(out: &mut Vec<u8>, is_first: bool, key: &str) {
    let from = out.len();
    out.extend_from_slice(key.as_bytes());
    if is_first && let Some(comma) = out.get_mut(from) {
        *comma = b'{';
    }
}

pub(super) fn text(out: &mut Vec<u8>, value: &str, is_cut: bool) {
    out.push(b'"');
    escape::inside(out, value);
    if is_cut {
        out.extend_from_slice("…".as_bytes());
    }
    out.push(b'"');
}
