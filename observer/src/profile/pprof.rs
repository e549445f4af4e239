//! A window as pprof (github.com/google/pprof, proto/profile.proto), encoded with the messages of the push client.

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message as _;
use pyroscope::encode::r#gen::google::{
    Function, Label, Line, Location, Mapping, Profile, Sample, ValueType,
};
use saola_observability::SpanId;

use super::heap::Heap;
use super::symbols::{Frame, Symbols};
use super::window::{Key, Window};

/// A profile under construction.
pub(crate) struct Pprof<'s> {
    symbols: &'s mut Symbols,
    profile: Profile,
    strings: HashMap<String, i64>,
    functions: HashMap<(i64, i64), u64>,
    locations: HashMap<(u64, bool), u64>,
    names: HashMap<String, i64>,
    span_label: &'s str,
}

impl<'s> Pprof<'s> {
    /// The window as pprof bytes, not compressed. `hz` is samples a second of CPU time; `span_label` names the label of the
    /// span id, `span_id` for servers of today.
    pub(crate) fn encode(
        window: &Window,
        hz: u32,
        symbols: &'s mut Symbols,
        span_label: &'s str,
    ) -> Vec<u8> {
        let mut pprof = Self::new(symbols, span_label);
        let period = 1_000_000_000 / i64::from(hz.max(1));
        pprof.head(window, period);
        for (key, weight) in window.stacks() {
            pprof.sample(
                window,
                key,
                i64::try_from(weight).unwrap_or(i64::MAX).saturating_mul(period),
            );
        }
        pprof.profile.encode_to_vec()
    }

    /// What a heap holds as pprof bytes, not compressed.
    pub(crate) fn encode_heap(heap: &Heap, symbols: &'s mut Symbols) -> Vec<u8> {
        let mut pprof = Self::new(symbols, "");
        let objects = pprof.value_type("inuse_objects", "count");
        let space = pprof.value_type("inuse_space", "bytes");
        pprof.program();
        pprof.profile.sample_type = vec![objects, space];
        pprof.profile.period_type = Some(space);
        pprof.profile.period = i64::try_from(heap.period).unwrap_or(i64::MAX);
        for stack in &heap.stacks {
            // Every one of its addresses is that of a return.
            let location_id = stack.frames.iter().map(|counter| pprof.location(*counter, false));
            let location_id = location_id.collect();
            let value =
                [stack.objects, stack.bytes].map(|one| i64::try_from(one).unwrap_or(i64::MAX));
            pprof.profile.sample.push(Sample { location_id, value: value.to_vec(), label: vec![] });
        }
        pprof.profile.encode_to_vec()
    }

    fn new(symbols: &'s mut Symbols, span_label: &'s str) -> Self {
        let mut pprof = Self {
            symbols,
            profile: Profile::default(),
            strings: HashMap::new(),
            functions: HashMap::new(),
            locations: HashMap::new(),
            names: HashMap::new(),
            span_label,
        };
        // The first string is the empty one (profile.proto).
        pprof.string("");
        pprof
    }

    fn head(&mut self, window: &Window, period: i64) {
        let cpu = self.value_type("cpu", "nanoseconds");
        let (since, length) = window.span_ns();
        self.program();
        self.profile.sample_type = vec![cpu];
        self.profile.period_type = Some(cpu);
        self.profile.period = period;
        self.profile.time_nanos = i64::try_from(since).unwrap_or(0);
        self.profile.duration_nanos = i64::try_from(length).unwrap_or(0);
    }

    fn value_type(&mut self, name: &str, unit: &str) -> ValueType {
        ValueType { r#type: self.string(name), unit: self.string(unit) }
    }

    fn program(&mut self) {
        let program = std::env::current_exe().unwrap_or_default().display().to_string();
        let filename = self.string(&program);
        self.profile.mapping = vec![Mapping {
            id: MAPPING,
            memory_start: 0,
            memory_limit: u64::MAX,
            filename,
            has_functions: true,
            has_filenames: true,
            has_line_numbers: true,
            has_inline_frames: true,
            ..Mapping::default()
        }];
    }

    fn sample(&mut self, window: &Window, key: &Key, value: i64) {
        let mut location_id: Vec<_> = key
            .frames
            .iter()
            .enumerate()
            .map(|(depth, counter)| self.location(*counter, depth == 0))
            .collect();
        if location_id.is_empty() {
            location_id.push(self.location(0, true));
        }
        let mut label = vec![self.label("worker", &key.worker.to_string())];
        if key.span != SpanId::NONE
            && let Some(request) = window.request(key.span)
        {
            let name = self.span_name(&request.route);
            let span_label = self.span_label;
            label.push(self.label(span_label, &key.span.to_string()));
            label.push(self.label("trace_id", &request.trace.to_string()));
            label.push(Label { key: self.string("span_name"), str: name, ..Label::default() });
        }
        self.profile.sample.push(Sample { location_id, value: vec![value], label });
    }

    fn label(&mut self, key: &str, value: &str) -> Label {
        Label { key: self.string(key), str: self.string(value), ..Label::default() }
    }

    /// A route template, or `other` when there are too many: the server makes a series of each (O63).
    fn span_name(&mut self, route: &str) -> i64 {
        if let Some(known) = self.names.get(route) {
            return *known;
        }
        let name = self.string(if self.names.len() < MOST_NAMES { route } else { "other" });
        self.names.insert(route.to_owned(), name);
        name
    }

    fn location(&mut self, counter: u64, is_leaf: bool) -> u64 {
        if let Some(known) = self.locations.get(&(counter, is_leaf)) {
            return *known;
        }
        let frames: Arc<[Frame]> = if counter == 0 {
            Arc::new([Frame { function: OTHER.to_owned(), file: String::new(), line: 0 }])
        } else {
            self.symbols.frames(counter, is_leaf)
        };
        let line = frames
            .iter()
            .map(|frame| Line { function_id: self.function(frame), line: frame.line.into() })
            .collect();
        let id = number(self.profile.location.len() + 1);
        self.profile.location.push(Location {
            id,
            mapping_id: MAPPING,
            address: counter,
            line,
            is_folded: false,
        });
        self.locations.insert((counter, is_leaf), id);
        id
    }

    fn function(&mut self, frame: &Frame) -> u64 {
        let (name, filename) = (self.string(&frame.function), self.string(&frame.file));
        let next = number(self.profile.function.len() + 1);
        let id = *self.functions.entry((name, filename)).or_insert(next);
        if id == next {
            let function = Function { id, name, system_name: name, filename, start_line: 0 };
            self.profile.function.push(function);
        }
        id
    }

    fn string(&mut self, text: &str) -> i64 {
        if let Some(known) = self.strings.get(text) {
            return *known;
        }
        let id = i64::try_from(self.profile.string_table.len()).unwrap_or(0);
        self.profile.string_table.push(text.to_owned());
        self.strings.insert(text.to_owned(), id);
        id
    }
}

/// Compresses what `go tool pprof` and browsers take as a file.
pub(crate) fn gzip(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes)?;
    encoder.finish()
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

const MAPPING: u64 = 1;
const MOST_NAMES: usize = 200;
pub(super) const OTHER: &str = "[other]";
