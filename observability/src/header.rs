//! The first page of a slot file: made once by its creator, checked by everybody who opens it (F19).
#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use std::fs::File;
use std::io;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use nix::errno::Errno;

use crate::closed::Role;
use crate::layout::{
    BOOT_AT, CRC_AT, CREATED_AT, ENTRY_BYTES, EPOCH_AT, FILE_BYTES, FORMAT_AT, HEADER_BYTES,
    KEYS_ALLOCATED_AT, KEYS_LENGTH_AT, LINE, MAGIC, MAGIC_AT, MAJOR, MINOR, NUMBER_AT,
    SAMPLE_BYTES, SECTIONS, SECTIONS_AT, STEP, Section, Sections, Shape, VALUES_ALLOCATED_AT,
    VALUES_LENGTH_AT, halves, long, size,
};
use crate::map::Map;
use crate::ring::{Ring, RingName, Stage};
use crate::series::{allocate, sentinel};

/// Which file this is.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) struct Identity {
    pub(crate) epoch: u64,
    pub(crate) created_ns: u64,
    pub(crate) number: u32,
    pub(crate) role: Role,
}

/// Why a file is not taken for a slot file.
#[derive(Copy, Clone, Eq, PartialEq, Debug, thiserror::Error)]
pub enum WhyBad {
    /// Its creator has not finished it: readers skip it without a word.
    #[error("it is still being made")]
    BeingMade,
    /// It is shorter than its parts.
    #[error("it is too short")]
    TooShort,
    /// It is something else.
    #[error("it is no slot file")]
    NoSlotFile,
    /// It is of another format.
    #[error("it has format {major}.{minor}, this version reads {MAJOR}.x")]
    Format {
        /// Its major.
        major: u16,
        /// Its minor.
        minor: u16,
    },
    /// Its header was overwritten.
    #[error("its header is damaged")]
    Header,
    /// It was left by an earlier boot of the machine.
    #[error("it is from another boot")]
    OtherBoot,
    /// It is another file of the same kind.
    #[error("it belongs to another slot or epoch")]
    OtherSlot,
    /// A part does not fit.
    #[error("its section table is damaged")]
    SectionTable,
    /// It is no longer there, or another file has its name.
    #[error("it was deleted or replaced")]
    Gone,
    /// Keys or values end outside their part, or were cut and grown again.
    #[error("its keys or values are damaged")]
    Contents,
}

/// Makes a complete file of an empty one: space first, so that no later store can fail, the magic last.
pub(crate) fn create(file: &File, identity: Identity, shape: Shape) -> io::Result<()> {
    let sections = shape.sections(identity.role);
    file.set_len(long(FILE_BYTES))?;
    let space = |offset, bytes| allocate(file, offset, bytes).map_err(io::Error::from);
    space(0, sections.samples.end())?;
    space(sections.keys.offset, STEP)?;
    space(sections.values.offset, STEP)?;
    let map = Map::writable(file, FILE_BYTES)?;
    let boot = boot_id()?;
    map.store(FORMAT_AT, format_word());
    map.store(BOOT_AT, boot[0]);
    map.store(BOOT_AT.saturating_add(8), boot[1]);
    map.store(EPOCH_AT, identity.epoch);
    map.store(NUMBER_AT, number_word(identity.number, identity.role));
    map.store(CREATED_AT, identity.created_ns);
    for (at, section) in sections.array().into_iter().enumerate() {
        let entry = SECTIONS_AT.saturating_add(at.saturating_mul(16));
        map.store(entry, long(section.offset));
        map.store(entry.saturating_add(8), long(section.capacity));
    }
    map.store(CRC_AT, checksum(&map));
    for (section, length_at, allocated_at) in growing(&sections) {
        map.store(length_at, long(LINE));
        map.store(allocated_at, long(STEP));
        map.store(section.offset, sentinel(identity.epoch, section.offset));
    }
    for name in [RingName::Owner, RingName::Shared] {
        Ring::new(&sections, name).reset_cursors(&map, &[Stage::Log, Stage::Otlp]);
    }
    map.word(MAGIC_AT).store(MAGIC, Release);
    Ok(())
}

/// Checks a mapped file and says where its parts are.
pub(crate) fn check(
    map: &Map,
    file_bytes: u64,
    epoch: u64,
    number: u32,
    role: Role,
) -> Result<Sections, WhyBad> {
    if file_bytes < long(FILE_BYTES) || map.length() < FILE_BYTES {
        return Err(WhyBad::TooShort);
    }
    match map.word(MAGIC_AT).load(Acquire) {
        MAGIC => {}
        0 => return Err(WhyBad::BeingMade),
        _ => return Err(WhyBad::NoSlotFile),
    }
    let [a, b, c, d, length @ ..] = map.load(FORMAT_AT).to_le_bytes();
    let (major, minor) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
    if major != MAJOR {
        return Err(WhyBad::Format { major, minor });
    }
    if long(HEADER_BYTES) != u64::from(u32::from_ne_bytes(length))
        || map.load(CRC_AT) != checksum(map)
    {
        return Err(WhyBad::Header);
    }
    let boot = boot_id().map_err(|_| WhyBad::OtherBoot)?;
    if [map.load(BOOT_AT), map.load(BOOT_AT.saturating_add(8))] != boot {
        return Err(WhyBad::OtherBoot);
    }
    if map.load(EPOCH_AT) != epoch || map.load(NUMBER_AT) != number_word(number, role) {
        return Err(WhyBad::OtherSlot);
    }
    let sections = read_sections(map)?;
    check_contents(map, &sections, epoch)?;
    Ok(sections)
}

/// Looks at what a foreign hand may have changed since: cheap enough for each read (F57a).
pub(crate) fn check_contents(map: &Map, sections: &Sections, epoch: u64) -> Result<(), WhyBad> {
    if map.word(MAGIC_AT).load(Acquire) != MAGIC {
        return Err(WhyBad::Contents);
    }
    if map.load(CRC_AT) != checksum(map) {
        return Err(WhyBad::Header);
    }
    for (section, length_at, allocated_at) in growing(sections) {
        let allocated = size(map.word(allocated_at).load(Acquire));
        let length = size(map.word(length_at).load(Acquire));
        if allocated > section.capacity || length > allocated || length < LINE {
            return Err(WhyBad::Contents);
        }
        for step in (0..allocated).step_by(STEP) {
            let at = section.offset.saturating_add(step);
            if map.load(at) != sentinel(epoch, at) {
                return Err(WhyBad::Contents);
            }
        }
    }
    Ok(())
}

fn read_sections(map: &Map) -> Result<Sections, WhyBad> {
    let mut sections = [Section::default(); SECTIONS];
    let mut end = HEADER_BYTES;
    for (at, section) in sections.iter_mut().enumerate() {
        let entry = SECTIONS_AT.saturating_add(at.saturating_mul(16));
        *section = Section {
            offset: size(map.load(entry)),
            capacity: size(map.load(entry.saturating_add(8))),
        };
        let inside = section.offset >= end && section.end() <= FILE_BYTES;
        if !inside || !section.offset.is_multiple_of(8) || !section.capacity.is_multiple_of(8) {
            return Err(WhyBad::SectionTable);
        }
        end = section.end();
    }
    let sections = Sections::from_array(sections);
    let whole = sections.in_flight.capacity.is_multiple_of(ENTRY_BYTES)
        && sections.owner_ring.capacity.is_power_of_two()
        && sections.shared_ring.capacity.is_power_of_two()
        && (sections.samples.capacity == 0 || sections.samples.capacity >= SAMPLE_BYTES)
        && sections.keys.capacity.is_multiple_of(STEP)
        && sections.values.capacity.is_multiple_of(STEP);
    if whole { Ok(sections) } else { Err(WhyBad::SectionTable) }
}

fn growing(sections: &Sections) -> [(Section, usize, usize); 2] {
    [
        (sections.keys, KEYS_LENGTH_AT, KEYS_ALLOCATED_AT),
        (sections.values, VALUES_LENGTH_AT, VALUES_ALLOCATED_AT),
    ]
}

fn format_word() -> u64 {
    u64::from(MAJOR) | u64::from(MINOR) << 16 | long(HEADER_BYTES) << 32
}

fn number_word(number: u32, role: Role) -> u64 {
    let [a, b, c, d] = number.to_ne_bytes();
    u64::from_ne_bytes([a, b, c, d, role.number(), 0, 0, 0])
}

/// Covers the identity and the section table, all of which never changes.
fn checksum(map: &Map) -> u64 {
    let mut hasher = crc32fast::Hasher::new();
    let identity = map.words(FORMAT_AT, CRC_AT.saturating_sub(FORMAT_AT) / 8);
    let created = map.words(CREATED_AT, 1);
    let table = map.words(SECTIONS_AT, SECTIONS.saturating_mul(2));
    for word in identity.iter().chain(created).chain(table) {
        hasher.update(&word.load(Relaxed).to_ne_bytes());
    }
    u64::from(hasher.finalize())
}

/// The boot of this machine, as two words: files of another boot are never read.
pub(crate) fn boot_id() -> io::Result<[u64; 2]> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let hex: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let id = u128::from_str_radix(&hex, 16).map_err(|_| io::Error::from(Errno::EINVAL))?;
    Ok(halves(id.to_ne_bytes()))
}
