//! A JSON string: a text in JSON, and in logfmt one that cannot stand bare.

use super::escape;

pub(super) fn text(out: &mut Vec<u8>, value: &str, is_cut: bool) {
    out.push(b'"');
    escape::inside(out, value);
    if is_cut {
        out.extend_from_slice("…".as_bytes());
    }
    out.push(b'"');
}
