//! `docs/slot-file.md` is enough to read a slot file: this reader knows its offsets and numbers, and nothing of the crate's
//! own reading.

use std::path::Path;

use crate::released;
use crate::written::{SPAN, TRACE, Written};

/// Bytes from some offset on, read one field after the other.
struct Fields<'f> {
    rest: &'f [u8],
}

impl<'f> Fields<'f> {
    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let (first, rest) = self.rest.split_first_chunk().unwrap();
        self.rest = rest;
        *first
    }

    fn byte(&mut self) -> u8 {
        self.bytes::<1>()[0]
    }

    fn short(&mut self) -> u16 {
        u16::from_ne_bytes(self.bytes())
    }

    fn half(&mut self) -> u32 {
        u32::from_ne_bytes(self.bytes())
    }

    fn word(&mut self) -> u64 {
        u64::from_ne_bytes(self.bytes())
    }

    fn number(&mut self) -> f64 {
        f64::from_bits(self.word())
    }

    fn text(&mut self) -> &'f str {
        let length = usize::from(self.short());
        let (text, rest) = self.rest.split_at(length);
        self.rest = rest;
        std::str::from_utf8(text).unwrap()
    }
}

struct File(Vec<u8>);

impl File {
    fn at(&self, offset: usize) -> Fields<'_> {
        Fields { rest: &self.0[offset..] }
    }

    fn word(&self, offset: usize) -> u64 {
        self.at(offset).word()
    }

    fn index(&self, offset: usize) -> usize {
        usize::try_from(self.word(offset)).unwrap()
    }

    /// Offset of a section, by its place in the table.
    fn section(&self, place: usize) -> usize {
        self.index(0x40 + place * 16)
    }

    /// Type, place in the section, and place in the file of each record of the keys.
    fn keys(&self) -> Vec<(u8, usize, usize)> {
        let (start, length) = (self.section(4), self.index(0x180));
        let (mut at, mut keys) = (64, Vec::new());
        while at < length {
            let bytes = usize::try_from(self.at(start + at).half()).unwrap();
            let mut record = self.0[start + at..start + at + bytes].to_vec();
            let crc = u32::from_ne_bytes(record[8..12].try_into().unwrap());
            record[8..12].fill(0);
            assert_eq!(crc, crc32fast::hash(&record), "the checksum of a record");
            keys.push((record[4], at, start + at));
            at += bytes;
        }
        keys
    }

    /// Kind of a family by its name, and where the cells of each of its series stand, by label text.
    fn series(&self, name: &str) -> (u8, Vec<(String, usize)>) {
        let text = |from: usize, length: u16| {
            let bytes = &self.0[from..from + usize::from(length)];
            String::from_utf8(bytes.to_vec()).unwrap()
        };
        let keys = self.keys();
        let is_wanted = |&&(kind, _, at): &&(u8, usize, usize)| {
            let bounds = usize::from(self.0[at + 7]) * 8;
            kind == 1 && text(at + 24 + bounds, self.at(at + 20).short()) == name
        };
        let (_, family, at) = *keys.iter().find(is_wanted).unwrap();
        let of_it = keys.iter().filter(|(kind, _, at)| {
            *kind == 2 && usize::try_from(self.at(at + 12).half()).unwrap() == family
        });
        let cells = |at: usize| self.section(5) + usize::try_from(self.at(at + 16).half()).unwrap();
        let series = of_it.map(|&(_, _, at)| (text(at + 24, self.at(at + 20).short()), cells(at)));
        (self.0[at + 5], series.collect())
    }

    /// Where the cells of a series stand.
    fn cells(&self, name: &str, labels: &str) -> usize {
        let (_, series) = self.series(name);
        series.into_iter().find(|(text, _)| text == labels).unwrap().1
    }
}

#[test]
fn the_page_is_enough_to_read_a_file() {
    let written = Written::new();
    let file = File(std::fs::read(written.directory().join("slot-0000")).unwrap());
    header(&file);
    metrics(&file);
    in_flight(&file);
    records(&file);
    samples(&file);
    // What a release of this version will have left.
    let packed = released::pack(&written.directory());
    released::check("this version", &packed);
    std::fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join("released.gz"), packed).unwrap();
    written.end();
}

fn header(file: &File) {
    assert_eq!(&file.0[..8], b"SAOLASLT");
    let mut format = file.at(0x08);
    assert_eq!((format.short(), format.short(), format.half()), (1, 0, 4_096));
    assert_eq!(file.word(0x20), 1, "the epoch");
    let mut number = file.at(0x28);
    assert_eq!((number.half(), number.byte()), (0, 3), "slot 0 of a worker");
    let mut crc = crc32fast::Hasher::new();
    for part in [0x08..0x30, 0x38..0x40, 0x40..0xA0] {
        crc.update(&file.0[part]);
    }
    assert_eq!(file.word(0x30), u64::from(crc.finalize()));
    assert_eq!(file.word(0x100), u64::from(std::process::id()));
    assert_eq!([file.word(0x110), file.word(0x120), file.word(0x128)], [3, 1, 2]);
    for section in [file.section(4), file.section(5)] {
        assert_eq!(
            file.word(section),
            1 ^ u64::try_from(section).unwrap(),
            "the first word of a step"
        );
    }
}

fn metrics(file: &File) {
    assert_eq!(file.word(file.cells("test_work_total", "")), 42);
    assert_eq!(file.word(file.cells("test_by_total", "a=\"x\",b=\"y \\\"z\\\"\"")), 7);
    let (kind, last) = file.series("test_last");
    let at = last[0].1;
    let pair = at + 8 + usize::try_from(file.word(at) >> 1 & 1).unwrap() * 16;
    assert_eq!((kind, file.at(pair + 8).number()), (3, 2.5));
    assert_eq!(histogram::<3>(file, "test_values", 4), ([1, 2, 0], 3.5));
    assert_eq!(histogram::<2>(file, "test_traced", 5), ([0, 1], 5.0));
    // Behind two buckets of three words: six words for each bucket.
    let mut exemplar = file.at(file.cells("test_traced", "") + (2 * 3 + 6) * 8);
    assert_eq!(exemplar.word() % 2, 0);
    assert_eq!((exemplar.bytes(), exemplar.bytes(), exemplar.number()), (TRACE, SPAN, 5.0));
}

/// The counts, and the sum of the places that they say.
fn histogram<const N: usize>(file: &File, name: &str, expected: u8) -> ([u64; N], f64) {
    let (kind, series) = file.series(name);
    assert_eq!(kind, expected);
    let at = |bucket| series[0].1 + bucket * 24;
    let counts = std::array::from_fn(|bucket| file.word(at(bucket)) & !(1 << 63));
    let sum = |bucket: usize| {
        file.at(at(bucket) + 8 + usize::try_from(counts[bucket] & 1).unwrap() * 8).number()
    };
    (counts, (0..N).map(sum).sum())
}

fn in_flight(file: &File) {
    let table = file.section(0);
    let entries = (0..16).map(|entry| table + entry * 256);
    let running: Vec<usize> = entries.filter(|at| file.at(*at).half() == 1).collect();
    assert_eq!(running.len(), 1);
    let mut entry = file.at(running[0] + 8);
    assert_eq!((entry.word(), entry.word()), (1_000, 2_000));
    assert_eq!((entry.bytes(), entry.bytes(), entry.bytes()), (TRACE, SPAN, [0; 8]));
    let route = usize::try_from(entry.half()).unwrap();
    assert_eq!(entry.bytes(), [1, 2, 1, 3], "method, protocol, phase, flags");
    let (_samples, port) = (entry.half(), entry.short());
    let [id, path] = entry.bytes().map(usize::from);
    assert_eq!((port, &entry.rest[..16]), (40_000, &MAPPED[..]));
    let texts = &entry.rest[16..];
    assert_eq!((&texts[..id], &texts[40..40 + path]), (&b"request"[..], &b"/items/7"[..]));
    // Its route is a string in the keys.
    let string = file.section(4) + route;
    let length = usize::from(file.at(string + 20).short());
    assert_eq!(file.0[string + 4], 3);
    assert_eq!(&file.0[string + 24..string + 24 + length], b"/items/{id}");
}

/// Header of the first record of a ring: kind, flags and the rest, up to its end.
fn first_record(file: &File, section: usize, head: usize) -> (u8, u16, Fields<'_>) {
    let at = file.section(section);
    let mut header = file.at(at);
    let half = header.half();
    let length = usize::try_from(half).unwrap();
    let (kind, version, flags) = (header.byte(), header.byte(), header.short());
    assert_eq!((version, header.word(), file.word(head)), (1, 0, u64::from(half)));
    (kind, flags, Fields { rest: &file.0[at + 16..at + length] })
}

fn records(file: &File) {
    let (kind, flags, mut request) = first_record(file, 1, 0x240);
    assert_eq!((kind, flags), (1, 0));
    assert_eq!((request.word(), request.word()), (2_000, 499_000), "start, duration");
    assert_eq!((request.bytes(), request.bytes(), request.bytes()), (TRACE, SPAN, [0; 8]));
    assert_eq!((request.word(), request.word(), request.bytes()), (3, 5, MAPPED), "bytes, client");
    let samples = request.half();
    assert_eq!((samples, [(); 3].map(|()| request.short())), (0, [200, 40_000, 443]));
    assert_eq!(request.bytes(), [1, 2, 1, 4, 3], "method, protocol, outcome, sampling, flags");
    let texts = [(); 8].map(|()| request.text());
    let expected = ["/items/{id}", "", "/items/7", "request", "page", "localhost", "", "a=b"];
    assert_eq!(texts, expected);

    let (kind, _, mut event) = first_record(file, 2, 0x2C0);
    assert_eq!((kind, event.word(), event.bytes(), event.bytes()), (3, 6, TRACE, SPAN));
    assert_eq!((event.byte(), event.text(), event.text(), event.text()), (2, "t", "m", "request"));
    assert_eq!((event.byte(), event.text(), event.byte(), event.text()), (2, "k", 0, "v"));
    assert_eq!((event.text(), event.byte(), event.word()), ("n", 2, (-1_i64).cast_unsigned()));
}

fn samples(file: &File) {
    assert_eq!(file.word(0x340), 1, "the head");
    let mut sample = file.at(file.section(3));
    assert_eq!((sample.word(), sample.word()), (1, 5), "sequence, time");
    assert_eq!((sample.bytes(), sample.bytes()), (SPAN, TRACE));
    assert_eq!((sample.half(), sample.half(), sample.half()), (9, 2, 77));
    assert_eq!((sample.short(), sample.short(), sample.word()), (2, 1, 13), "depth, cut, image");
    assert_eq!((sample.word(), sample.word()), (11, 22));
}

/// 127.0.0.1 as an IPv6 address.
const MAPPED: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 127, 0, 0, 1];
