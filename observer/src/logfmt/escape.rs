//! Escaping: the one place that decides which characters may stand on a line, and how the others look.

/// Appends `value` as the inside of a JSON string: nothing in it can end the string, the line or the screen row.
pub(super) fn inside(out: &mut Vec<u8>, value: &str) {
    let bytes = value.as_bytes();
    if all_are(is_plain_byte, bytes) {
        out.extend_from_slice(bytes);
        return;
    }
    let mut plain = 0;
    for (at, character) in value.char_indices() {
        if is_plain(character) {
            continue;
        }
        out.extend_from_slice(&bytes[plain..at]);
        escape(out, character);
        plain = at + character.len_utf8();
    }
    out.extend_from_slice(&bytes[plain..]);
}

/// Says whether logfmt may show `value` without quotes.
pub(super) fn is_bare(value: &str) -> bool {
    !value.is_empty() && all_are(is_bare_byte, value.as_bytes())
}

/// Looks at sixteen bytes before it decides, for hardly ever one is found that is not of the kind: the compiler makes a few
/// vector instructions of it.
#[inline]
fn all_are(is: impl Fn(u8) -> bool, bytes: &[u8]) -> bool {
    let all = |chunk: &[u8; 16]| chunk.iter().fold(true, |all, byte| all & is(*byte));
    match (bytes.last_chunk(), bytes) {
        // What is left over behind the chunks is looked at together with bytes in front of it.
        (Some(last), _) => bytes.as_chunks().0.iter().all(all) && all(last),
        (None, [first, .., last]) => all(&widened(bytes, *first, *last)),
        (None, [only]) => is(*only),
        (None, []) => true,
    }
}

/// Two to fifteen bytes as sixteen, some of them twice. Not inlined, or it is taken apart into single bytes.
#[inline(never)]
fn widened(bytes: &[u8], first: u8, last: u8) -> [u8; 16] {
    let [low, high] = if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        [*first, *last].map(u64::from_ne_bytes)
    } else if let (Some([a, b, c, d]), Some([e, f, g, h])) =
        (bytes.first_chunk(), bytes.last_chunk())
    {
        [u64::from_ne_bytes([*a, *b, *c, *d, *e, *f, *g, *h]); 2]
    } else {
        let middle = bytes[bytes.len() / 2];
        [u64::from_ne_bytes([first, middle, last, first, first, middle, last, first]); 2]
    };
    (u128::from(high) << 64 | u128::from(low)).to_ne_bytes()
}

/// The longest beginning of `value` that has at most `raw` bytes, and at most `escaped` bytes when escaped.
pub(super) fn cut(value: &str, raw: usize, escaped: usize) -> &str {
    let kept =
        if value.len() <= raw { value } else { value.split_at(value.floor_char_boundary(raw)).0 };
    if kept.len() <= escaped / LONGEST_RATIO {
        return kept;
    }
    let mut room = escaped;
    for (at, character) in kept.char_indices() {
        let Some(left) = room.checked_sub(length(character)) else {
            return kept.split_at(at).0;
        };
        room = left;
    }
    kept
}

/// No character grows more than six times: a control character of one byte becomes `\u0001`.
const LONGEST_RATIO: usize = 6;

/// Which bytes need no quotes: ASCII letters, digits, and `+ , - . / : @ _ % ~`.
const fn is_bare_byte(byte: u8) -> bool {
    is_in(byte, b'+', b':')
        || is_in(byte, b'@', b'Z')
        || is_in(byte, b'a', b'z')
        || byte == b'_'
        || byte == b'%'
        || byte == b'~'
}

/// Which bytes are plain whatever stands beside them: those of almost every value.
const fn is_plain_byte(byte: u8) -> bool {
    is_in(byte, b' ', b'~') && byte != b'"' && byte != b'\\'
}

/// What a range pattern says, in the form that the compiler turns into vectors.
const fn is_in(byte: u8, first: u8, last: u8) -> bool {
    byte.wrapping_sub(first) <= last - first
}

/// Plain are all characters that neither end a string nor steer a terminal nor hide or reorder text.
fn is_plain(character: char) -> bool {
    if character.is_ascii() {
        return !character.is_ascii_control() && character != '"' && character != '\\';
    }
    !matches!(character,
        '\u{80}'..='\u{9f}' | '\u{ad}' | '\u{600}'..='\u{605}' | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        // Stands where bytes were not UTF-8: shown as an escape, so that it is seen.
        | '\u{fffd}'
        | '\u{e0001}' | '\u{e0020}'..='\u{e007f}')
}

fn length(character: char) -> usize {
    match character {
        _ if is_plain(character) => character.len_utf8(),
        '"' | '\\' | '\n' | '\r' | '\t' => 2,
        '\u{10000}'.. => 12,
        _ => 6,
    }
}

fn escape(out: &mut Vec<u8>, character: char) {
    match character {
        '"' => out.extend_from_slice(b"\\\""),
        '\\' => out.extend_from_slice(b"\\\\"),
        '\n' => out.extend_from_slice(b"\\n"),
        '\r' => out.extend_from_slice(b"\\r"),
        '\t' => out.extend_from_slice(b"\\t"),
        _ => {
            for unit in character.encode_utf16(&mut [0; 2]) {
                out.extend_from_slice(b"\\u");
                for byte in unit.to_be_bytes() {
                    out.push(HEX[usize::from(byte >> 4)]);
                    out.push(HEX[usize::from(byte & 15)]);
                }
            }
        }
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_every_character_is_what_is_written() {
        for character in '\0'..=char::MAX {
            let mut out = Vec::new();
            inside(&mut out, character.encode_utf8(&mut [0; 4]));
            assert_eq!(out.len(), length(character), "{character:?}");
            assert!(out.len() <= LONGEST_RATIO * character.len_utf8(), "{character:?}");
        }
    }

    #[test]
    fn one_byte_that_needs_quotes_is_seen_at_every_place() {
        let is_listed =
            |byte: u8| char::from(byte).is_ascii_alphanumeric() || b".:/+@_%,~-".contains(&byte);
        for length in 1..40 {
            for at in 0..length {
                for byte in 0..128 {
                    let mut text = vec![b'a'; length];
                    text[at] = byte;
                    let text = String::from_utf8(text).unwrap();
                    assert_eq!(is_bare(&text), is_listed(byte), "{text:?}");
                    let is_written_as_it_is = all_are(is_plain_byte, text.as_bytes());
                    assert_eq!(is_written_as_it_is, is_plain(char::from(byte)), "{text:?}");
                }
            }
        }
        assert!(!is_bare(""));
    }

    #[test]
    fn a_cut_never_halves_a_character_and_keeps_both_bounds() {
        assert_eq!(cut("añb", 2, 100), "a");
        assert_eq!(cut("añb", 3, 100), "añ");
        assert_eq!(cut("\u{1}\u{1}\u{1}", 10, 12), "\u{1}\u{1}");
        assert_eq!(cut("", 0, 0), "");
    }
}
