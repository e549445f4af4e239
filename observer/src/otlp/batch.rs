//! A batch on the wire: encoded spans behind one another, and before them who they are from.

use bytes::Bytes;

use super::resource::Resource;
use super::settings::SpanLimits;
use super::span::Attributes;
use super::wire::{self, Field};

/// What stands before the spans of every batch, encoded once.
#[derive(Debug)]
pub(super) struct Envelope {
    /// The field `resource` of `ResourceSpans`.
    resource: Vec<u8>,
    /// The field `scope` of `ScopeSpans`.
    scope: Vec<u8>,
}

impl Envelope {
    pub(super) fn new(resource: &Resource) -> Self {
        let mut pairs = Vec::new();
        let mut attributes = Attributes::new(&mut pairs, ATTRIBUTES, UNLIMITED);
        for (key, value) in resource.all() {
            attributes.text(key, value);
        }
        let mut who = Vec::new();
        wire::bytes(&mut who, RESOURCE, &pairs);
        let mut scope = Vec::new();
        wire::bytes(&mut scope, SCOPE_NAME, b"saola");
        wire::bytes(&mut scope, SCOPE_VERSION, env!("CARGO_PKG_VERSION").as_bytes());
        let mut from = Vec::new();
        wire::bytes(&mut from, SCOPE, &scope);
        Self { resource: who, scope: from }
    }

    /// The batch as bytes of `opentelemetry.proto.collector.trace.v1.ExportTraceServiceRequest`.
    pub(super) fn close<'a>(&self, spans: impl Iterator<Item = &'a [u8]> + Clone) -> Bytes {
        let lens = spans.clone().map(|span| wire::len_of(SPANS, span.len()));
        let scoped = self.scope.len() + lens.sum::<usize>();
        let from = self.resource.len() + wire::len_of(SCOPE_SPANS, scoped);
        let mut out = Vec::with_capacity(wire::len_of(RESOURCE_SPANS, from));
        wire::begin(&mut out, RESOURCE_SPANS, from);
        out.extend_from_slice(&self.resource);
        wire::begin(&mut out, SCOPE_SPANS, scoped);
        out.extend_from_slice(&self.scope);
        for span in spans {
            wire::bytes(&mut out, SPANS, span);
        }
        out.into()
    }
}

/// The limits are for spans: nothing of the resource is left out.
const UNLIMITED: SpanLimits =
    SpanLimits { attributes: usize::MAX, value_bytes: usize::MAX, events: 0 };

// opentelemetry/proto/collector/trace/v1/trace_service.proto, trace.proto, resource.proto and common.proto
const RESOURCE_SPANS: Field = 1;
const RESOURCE: Field = 1;
const SCOPE_SPANS: Field = 2;
const SCOPE: Field = 1;
const SPANS: Field = 2;
const ATTRIBUTES: Field = 1;
const SCOPE_NAME: Field = 1;
const SCOPE_VERSION: Field = 2;
