//! Whatever stands in a ring, the reader makes lines and spans of it.

use nix::unistd::pipe;
use proptest::prelude::*;
use saola_observability::closed::{
    Level, LostReason, Method, Outcome, Sampling, SpanKind, SpanStatus,
};
use saola_observability::record::{
    EventRecord, LostRecord, OwnedValue, PanicRecord, Record, RequestRecord, SpanRecord,
};
use saola_observability::{SpanId, TraceId};

use super::{lines, stacks};
use crate::logfmt::tests::request;
use crate::logfmt::{Encoder, Format, Origin};
use crate::otlp::Traces;
use crate::profile::{Profiles, Symbols};

/// What a worker or a damaged ring may have written.
#[derive(Debug)]
struct Anything {
    texts: [String; 6],
    numbers: [u64; 6],
    trace: TraceId,
    span: SpanId,
    choice: [u8; 4],
}

fn anything() -> impl Strategy<Value = Anything> {
    let texts = proptest::array::uniform6(any::<String>());
    let numbers = proptest::array::uniform6(any::<u64>());
    let all = (texts, numbers, any::<[u8; 16]>(), any::<[u8; 8]>(), any::<[u8; 4]>());
    all.prop_map(|(texts, numbers, trace, span, choice)| Anything {
        texts,
        numbers,
        trace: TraceId(trace),
        span: SpanId(span),
        choice,
    })
}

impl Anything {
    fn request(&self) -> RequestRecord<'static> {
        let [path, route, agent, method, _, tracestate] = self.texts.clone();
        let [start_wall_ns, duration_ns, request_bytes, response_bytes, status, _] = self.numbers;
        let at = |all: usize, place: usize| usize::from(self.choice[place]) % all;
        RequestRecord {
            start_wall_ns,
            duration_ns,
            trace: self.trace,
            span: self.span,
            request_bytes,
            response_bytes,
            status: u16::try_from(status % 1_200).ok(),
            outcome: Outcome::ALL[at(Outcome::ALL.len(), 1)],
            sampling: Sampling::ALL[at(Sampling::ALL.len(), 2)],
            method: Method::Other,
            path: path.into(),
            route: route.into(),
            user_agent: agent.into(),
            method_text: method.into(),
            tracestate: tracestate.into(),
            ..request()
        }
    }

    fn fields(&self) -> Vec<(String, OwnedValue)> {
        let [first, second, third, ..] = self.texts.clone();
        vec![
            (first, OwnedValue::Str(second.clone())),
            (second, OwnedValue::F64(f64::from_bits(self.numbers[5]))),
            (third, OwnedValue::I64(self.numbers[4].cast_signed())),
        ]
    }

    fn record(self) -> Record<'static> {
        let (request, fields) = (self.request(), self.fields());
        let [target, message, request_id, name, location, backtrace] = self.texts;
        let [wall_ns, duration_ns, ..] = self.numbers;
        let (trace, span) = (self.trace, self.span);
        match self.choice[0] % 5 {
            0 => Record::Request(request),
            1 => Record::Lost(LostRecord {
                request,
                slot: 7,
                pid: 9,
                signal: self.choice[3].checked_sub(99).map(i32::from),
                exit_code: None,
                reason: LostReason::Crash,
                count: wall_ns,
            }),
            2 => Record::Span(SpanRecord {
                start_ns: wall_ns,
                duration_ns,
                trace,
                span,
                parent: span,
                request: span,
                kind: SpanKind::Client,
                status: SpanStatus::Error,
                status_text: message,
                name,
                attributes: fields,
            }),
            3 => {
                let level = Level::ALL[usize::from(self.choice[1]) % Level::ALL.len()];
                Record::Event(EventRecord {
                    wall_ns,
                    level,
                    target,
                    message,
                    trace,
                    span,
                    request_id,
                    fields,
                })
            }
            _ => {
                let route = target;
                Record::Panic(PanicRecord {
                    wall_ns,
                    trace,
                    span,
                    route,
                    message,
                    location,
                    backtrace,
                })
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    /// A record that made the reader panic would do so again in the next observer, and so for ever.
    #[test]
    fn whatever_a_record_says_it_becomes_a_line_and_a_span(all in proptest::collection::vec(anything(), 1..8)) {
        let lookup = |name: &str| (name == "OTEL_TRACES_EXPORTER").then(|| "otlp".to_owned());
        let traces = Traces::new(crate::OtlpSettings::from_env(&lookup).unwrap().unwrap());
        let (mut profiles, mut symbols) = (Profiles::new(0, None), Symbols::default());
        let (_read, stdout) = pipe().unwrap();
        let mut lines = lines(stdout);
        let formats = [Format::Logfmt, Format::Json, Format::Pretty];
        let encoders = formats.map(|format| Encoder::new(format, "shop"));
        for (position, mut record) in all.into_iter().map(Anything::record).enumerate() {
            stacks::name(&mut record, &mut symbols);
            lines.add(0, position, Origin::default(), &record);
            let mut all = Vec::new();
            for encoder in &encoders {
                match &record {
                    Record::Request(request) => encoder.request(&mut all, Origin::default(), request),
                    Record::Lost(lost) => encoder.lost(&mut all, lost),
                    Record::Event(event) => encoder.event_record(&mut all, Origin::default(), event),
                    Record::Panic(panic) => encoder.panic(&mut all, Origin::default(), panic),
                    Record::Span(_) => {}
                }
            }
            let all = String::from_utf8(all).unwrap();
            prop_assert!(all.split_inclusive('\n').all(|line| line.len() <= 4_096 && line.ends_with('\n')));
            traces.record(Some(1), record, &mut profiles);
        }
    }
}
