//! Records of the key region as they are written.
#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use crate::keys::{
    FAMILY, FOREIGN, Family, KEY_HEADER, LONGEST_KEY, SEPARATOR, SERIES, STRING, SeriesKey,
    checksum,
};

/// A family's record; `None` when a part is too long for the format.
pub(crate) fn family_bytes(family: &Family<'_>) -> Option<Vec<u8>> {
    let labels = family.labels.join("\u{0}").into_bytes();
    let labels: Vec<u8> =
        labels.into_iter().map(|byte| if byte == 0 { SEPARATOR } else { byte }).collect();
    let mut payload = Vec::new();
    for bound in family.bounds {
        payload.extend_from_slice(&bound.to_ne_bytes());
    }
    payload.extend_from_slice(family.name.as_bytes());
    payload.extend_from_slice(family.help.as_bytes());
    payload.extend_from_slice(&labels);
    let head = Head {
        kind: FAMILY,
        cells: family.kind.number(),
        mode: family.mode.number(),
        bounds: u8::try_from(family.bounds.len()).ok()?,
        family: 0,
        value: u32::try_from(labels.len()).ok()?,
        first: u16::try_from(family.name.len()).ok()?,
        second: u16::try_from(family.help.len()).ok()?,
    };
    head.bytes(&payload)
}

/// A series' record; `None` when its labels are too long for the format.
pub(crate) fn series_bytes(series: &SeriesKey<'_>) -> Option<Vec<u8>> {
    let payload = [series.labels.as_bytes(), series.raw].concat();
    let head = Head {
        kind: SERIES,
        cells: 0,
        mode: if series.foreign { FOREIGN } else { 0 },
        bounds: 0,
        family: series.family,
        value: series.value,
        first: u16::try_from(series.labels.len()).ok()?,
        second: u16::try_from(series.raw.len()).ok()?,
    };
    head.bytes(&payload)
}

/// An interned string's record.
pub(crate) fn string_bytes(text: &str) -> Option<Vec<u8>> {
    let first = u16::try_from(text.len()).ok()?;
    let head =
        Head { kind: STRING, cells: 0, mode: 0, bounds: 0, family: 0, value: 0, first, second: 0 };
    head.bytes(text.as_bytes())
}

/// `name="value",…` with the values escaped as both exposition formats ask.
pub(crate) fn label_text(names: &[&str], values: &[&str]) -> String {
    let mut text = String::new();
    for (name, value) in names.iter().zip(values) {
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(name);
        text.push_str("=\"");
        for character in value.chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str("\\n"),
                other => text.push(other),
            }
        }
        text.push('"');
    }
    text
}

/// Raw label values with separators: equal exactly when the label sets are.
pub(crate) fn raw_values(values: &[&str]) -> Vec<u8> {
    let mut raw = Vec::new();
    for (at, value) in values.iter().enumerate() {
        if at > 0 {
            raw.push(SEPARATOR);
        }
        raw.extend_from_slice(value.as_bytes());
    }
    raw
}

/// The first words of a record.
struct Head {
    kind: u8,
    cells: u8,
    mode: u8,
    bounds: u8,
    family: u32,
    value: u32,
    first: u16,
    second: u16,
}

impl Head {
    fn bytes(&self, payload: &[u8]) -> Option<Vec<u8>> {
        let length = KEY_HEADER.checked_add(payload.len())?.checked_next_multiple_of(8)?;
        if length > LONGEST_KEY {
            return None;
        }
        let mut bytes = Vec::with_capacity(length);
        bytes.extend_from_slice(&u32::try_from(length).ok()?.to_ne_bytes());
        bytes.extend_from_slice(&[self.kind, self.cells, self.mode, self.bounds]);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.family.to_ne_bytes());
        bytes.extend_from_slice(&self.value.to_ne_bytes());
        bytes.extend_from_slice(&self.first.to_ne_bytes());
        bytes.extend_from_slice(&self.second.to_ne_bytes());
        bytes.extend_from_slice(payload);
        bytes.resize(length, 0);
        let crc = checksum(&bytes);
        bytes.get_mut(8..12)?.copy_from_slice(&crc.to_ne_bytes());
        Some(bytes)
    }
}
