//! Escaping: the one place that decides which characters may stand on a line, and how the others look.

/// Appends `value` as the inside of a JSON string: nothing in it can end the string, the line or the screen row.
pub(super) fn inside(out: &mut Vec<u8>, value: &str) {
    let bytes = value.as_bytes();
    if is_plain_text(value) {
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
    !value.is_empty() && all_are(&BARE, value.as_bytes())
}

/// Says whether a JSON string can hold `value` as it is.
pub(super) fn is_plain_text(value: &str) -> bool {
    all_are(&PLAIN, value.as_bytes())
}

/// Looks at eight bytes before it decides: hardly ever one is found that a table does not have.
fn all_are(table: &[bool; 256], bytes: &[u8]) -> bool {
    let has = |byte: &u8| table[usize::from(*byte)];
    let (words, rest) = bytes.as_chunks::<8>();
    words.iter().all(|word| word.iter().fold(true, |all, byte| all & has(byte)))
        && rest.iter().all(has)
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

/// Which bytes need no quotes: looked up for each byte of almost every value.
static BARE: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        table[index(byte)] = byte.is_ascii_alphanumeric()
            || matches!(byte, b'.' | b'_' | b':' | b'/' | b'+' | b'@' | b'%' | b',' | b'~' | b'-');
        byte += 1;
    }
    table
};

/// Which bytes are plain whatever stands beside them: those of almost every value, again.
static PLAIN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = b' ';
    while byte <= b'~' {
        table[index(byte)] = byte != b'"' && byte != b'\\';
        byte += 1;
    }
    table
};

#[expect(clippy::as_conversions, reason = "`usize::from` is not const")]
const fn index(byte: u8) -> usize {
    byte as usize
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
                    let is_written_as_it_is = is_plain_text(&text);
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
