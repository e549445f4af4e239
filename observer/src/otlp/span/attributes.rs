//! The attributes of a span, of one of its events or of the resource, within their limits, written as they come.
#![expect(clippy::inline_always, reason = "a key whose length is known is a few moves")]

use std::net::IpAddr;

use saola_observability::record::OwnedValue;

use crate::logfmt::{self, is_secret};
use crate::otlp::settings::SpanLimits;
use crate::otlp::wire::{self, Field};

/// Attributes under construction.
pub(in crate::otlp) struct Attributes<'a> {
    out: &'a mut Vec<u8>,
    /// Where they stand in their message.
    field: Field,
    limits: SpanLimits,
    kept: usize,
    dropped: u32,
}

/// A value, as `opentelemetry.proto.common.v1.AnyValue` knows it.
#[derive(Copy, Clone)]
enum Any<'a> {
    /// UTF-8.
    Text(&'a [u8]),
    Bool(bool),
    Int(i64),
    Double(f64),
}

impl<'a> Attributes<'a> {
    pub(in crate::otlp) fn new(out: &'a mut Vec<u8>, field: Field, limits: SpanLimits) -> Self {
        Self { out, field, limits, kept: 0, dropped: 0 }
    }

    /// Says in `field` how many had to be left out.
    pub(super) fn finish(self, field: Field) {
        if self.dropped > 0 {
            wire::number(self.out, field, self.dropped.into());
        }
    }

    #[inline(always)]
    pub(in crate::otlp) fn text(&mut self, key: &str, value: &str) {
        let kept = value.split_at(value.floor_char_boundary(self.limits.value_bytes)).0;
        self.push(key, Any::Text(kept.as_bytes()));
    }

    #[inline(always)]
    pub(super) fn text_if_any(&mut self, key: &str, value: &str) {
        if !value.is_empty() {
            self.text(key, value);
        }
    }

    pub(super) fn address(&mut self, key: &str, address: IpAddr) {
        let (text, length) = logfmt::address(address);
        self.push(key, Any::Text(&text[..length.min(self.limits.value_bytes)]));
    }

    #[inline(always)]
    pub(super) fn number(&mut self, key: &str, value: u64) {
        self.push(key, Any::Int(i64::try_from(value).unwrap_or(i64::MAX)));
    }

    pub(super) fn worker(&mut self, worker: Option<u32>) {
        if let Some(worker) = worker {
            self.number("saola.worker", worker.into());
        }
    }

    /// What the application gave.
    pub(super) fn given(&mut self, fields: &[(String, OwnedValue)]) {
        for (key, value) in fields {
            match value {
                _ if is_secret(key) => self.text(key, "***"),
                OwnedValue::Str(text) => self.text(key, text),
                OwnedValue::U64(number) => self.number(key, *number),
                OwnedValue::I64(number) => self.push(key, Any::Int(*number)),
                OwnedValue::F64(number) => self.push(key, Any::Double(*number)),
                OwnedValue::Bool(yes) => self.push(key, Any::Bool(*yes)),
            }
        }
    }

    #[inline(always)]
    fn push(&mut self, key: &str, value: Any<'_>) {
        if self.kept >= self.limits.attributes {
            self.dropped += 1;
            return;
        }
        self.kept += 1;
        let len = value.len();
        let pair = wire::len_of(KEY, key.len()) + wire::len_of(VALUE, len);
        wire::begin_both(self.out, (self.field, pair), (KEY, key.len()));
        self.out.extend_from_slice(key.as_bytes());
        if let Any::Text(text) = value {
            wire::begin_both(self.out, (VALUE, len), (STRING, text.len()));
            self.out.extend_from_slice(text);
        } else {
            wire::begin(self.out, VALUE, len);
            value.write(self.out);
        }
    }
}

impl Any<'_> {
    #[inline(always)]
    fn len(self) -> usize {
        match self {
            Self::Text(text) => wire::len_of(STRING, text.len()),
            Self::Bool(yes) => wire::len_of_number(BOOL, yes.into()),
            Self::Int(number) => wire::len_of_number(INT, number.cast_unsigned()),
            Self::Double(_) => 1 + size_of::<f64>(),
        }
    }

    #[inline(always)]
    fn write(self, out: &mut Vec<u8>) {
        match self {
            Self::Text(text) => wire::bytes(out, STRING, text),
            Self::Bool(yes) => wire::number(out, BOOL, yes.into()),
            Self::Int(number) => wire::number(out, INT, number.cast_unsigned()),
            Self::Double(number) => wire::fixed64(out, DOUBLE, number.to_bits()),
        }
    }
}

// opentelemetry/proto/common/v1/common.proto
const KEY: Field = 1;
const VALUE: Field = 2;
const STRING: Field = 1;
const BOOL: Field = 2;
const INT: Field = 3;
const DOUBLE: Field = 4;
