//! What released versions have left is read by this one (F20): of each major.minor the files of a server, in `released/`.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::FileExt;
use std::path::Path;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use saola_observability::exposition::{self, Format};
use saola_observability::reader::Reader;
use saola_observability::rings::{Reading, Rings, Slot};
use saola_observability::samples::Found;
use saola_observability::{Entry, Method, Record, RingName, Role, SpanId, Stage, TraceId};

use crate::written::{SPAN, TRACE};

/// The files of each. The test of the page writes those of this version; they come here when a format is released.
const RELEASED: [(&str, &[u8]); 1] = [("1.0", include_bytes!("released/1.0.gz"))];

const FILES: [&str; 3] = ["supervisor", "observer", "slot-0000"];
const PAGE: usize = 4_096;
const FILE_BYTES: u64 = 64 << 20;

/// Lines that a scrape of what [`Written`](crate::written::Written) wrote has.
const LINES: [&str; 10] = [
    "test_work_total 42",
    r#"test_by_total{a="x",b="y \"z\""} 7"#,
    "test_last 2.5",
    r#"test_values_bucket{le="1.0"} 1"#,
    r#"test_values_bucket{le="2.0"} 3"#,
    r#"test_values_bucket{le="+Inf"} 3"#,
    "test_values_sum 3.5",
    "test_values_count 3",
    "test_traced_sum 5",
    r#"http_server_requests_started_total{http_request_method="GET"} 2"#,
];
/// As the other format shows it.
const EXEMPLAR: &str =
    r#"test_traced_bucket{le="+Inf"} 1 # {trace_id="61207472616365206f66206279746573""#;

#[test]
fn what_released_versions_left_is_read() {
    for (version, packed) in RELEASED {
        check(version, packed);
    }
}

/// Reads back what [`Written`](crate::written::Written) wrote.
pub(crate) fn check(version: &str, packed: &[u8]) {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    unpack(packed, folder.path());
    let mut reader = Reader::open(folder.path()).unwrap();
    let text = exposition::text(reader.read().unwrap(), Format::Text);
    assert!(reader.bad().is_empty(), "{version}: {:?}", reader.bad());
    let text = String::from_utf8(text).unwrap();
    for line in LINES {
        assert!(text.lines().any(|other| other == line), "{version} has no {line} in {text}");
    }
    let text = exposition::text(reader.families(), Format::OpenMetrics);
    assert!(String::from_utf8(text).unwrap().contains(EXEMPLAR), "{version}");
    let mut rings = Rings::open_as_guest(folder.path()).unwrap();
    let slot = rings.slots().iter_mut().find(|slot| slot.role() == Role::Worker).unwrap();
    running(version, slot);
    records(version, slot);
    let Found::Sample(sample) = slot.sample(0) else { panic!("{version} has no sample") };
    assert_eq!((sample.span, sample.depth, sample.frames[1]), (SpanId(SPAN), 2, 22));
}

fn running(version: &str, slot: &mut Slot) {
    let running = slot.in_flight();
    assert_eq!(running.len(), 1, "{version}");
    let [request, ..] = &running[..] else { unreachable!() };
    assert_eq!((request.trace, request.span), (TraceId(TRACE), SpanId(SPAN)));
    assert_eq!((request.route.as_str(), request.path.as_str()), ("/items/{id}", "/items/7"));
    assert_eq!((request.client, request.client_port), (Some(CLIENT), 40_000));
}

fn records(version: &str, slot: &mut Slot) {
    let mut found = Vec::new();
    for ring in [RingName::Owner, RingName::Shared] {
        let start = slot.start(ring, Stage::Log);
        slot.read(ring, start, |_, entry| {
            match entry {
                Entry::Record(Record::Request(request)) => {
                    assert_eq!((request.method, request.status), (Method::Get, Some(200)));
                    assert_eq!((request.trace, request.client), (TraceId(TRACE), Some(CLIENT)));
                    found.push(request.path.to_string());
                }
                Entry::Record(Record::Event(event)) => found.push(event.message),
                other => panic!("{version}: {other:?}"),
            }
            Reading::On
        });
    }
    assert_eq!(found, ["/items/7", "m"], "{version}");
}

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The files of a run directory, without their empty pages.
pub(crate) fn pack(directory: &Path) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    for name in FILES {
        let bytes = std::fs::read(directory.join(name)).unwrap();
        for (number, page) in (0_u64..).zip(bytes.chunks_exact(PAGE)) {
            if page.iter().any(|byte| *byte != 0) {
                packed.write_all(&[u8::try_from(name.len()).unwrap()]).unwrap();
                packed.write_all(name.as_bytes()).unwrap();
                packed.write_all(&number.to_le_bytes()).unwrap();
                packed.write_all(page).unwrap();
            }
        }
    }
    packed.finish().unwrap()
}

/// Lays the pages out as files again, of this boot: those of another are not read, whatever their format.
fn unpack(packed: &[u8], run: &Path) {
    let directory = run.join("epoch-000001");
    std::fs::create_dir(&directory).unwrap();
    std::os::unix::fs::symlink("epoch-000001", run.join("current")).unwrap();
    for name in FILES {
        File::create_new(directory.join(name)).unwrap().set_len(FILE_BYTES).unwrap();
    }
    let mut pages = GzDecoder::new(packed);
    let mut length = [0];
    while pages.read(&mut length).unwrap() == 1 {
        let (mut name, mut number, mut page) = (vec![0; usize::from(length[0])], [0; 8], [0; PAGE]);
        for part in [&mut name[..], &mut number[..], &mut page[..]] {
            pages.read_exact(part).unwrap();
        }
        let path = directory.join(String::from_utf8(name).unwrap());
        let file = File::options().write(true).open(path).unwrap();
        let number = u64::from_le_bytes(number);
        if number == 0 {
            adopt(&mut page);
        }
        file.write_all_at(&page, number * 4_096).unwrap();
    }
}

/// Puts this boot into a header, and the checksum that goes with it.
fn adopt(header: &mut [u8; PAGE]) {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let hex: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    header[0x10..0x20].copy_from_slice(&u128::from_str_radix(&hex, 16).unwrap().to_ne_bytes());
    let mut crc = crc32fast::Hasher::new();
    for part in [0x08..0x30, 0x38..0x40, 0x40..0xA0] {
        crc.update(&header[part]);
    }
    header[0x30..0x38].copy_from_slice(&u64::from(crc.finalize()).to_ne_bytes());
}
