//! A request from its begin to its end, with a record of about 240 bytes.

use std::hint::black_box;
use std::path::Path;

use saola_observability::rings::Rings;
use saola_observability::{
    Begin, Detail, End, Kind, Method, Outcome, Protocol, RingName, Sampling, Slot, SpanId, Stage,
    TraceId,
};

use crate::clock::once;

/// Between two looks of the observer; a full ring would be measured without the record.
const BATCH: usize = 1_000;

pub(crate) struct Requests {
    slot: &'static Slot,
    rings: Rings,
}

impl Requests {
    pub(crate) fn new(slot: &'static Slot, run_dir: &Path) -> Self {
        Self { slot, rings: Rings::open(run_dir).unwrap() }
    }

    /// CPU nanoseconds of one request that leaves behind so much.
    pub(crate) fn measure(&mut self, detail: Detail, count: usize) -> f64 {
        self.slot.in_flight().set_detail(detail);
        let mut spent = 0.0;
        for _ in 0..count / BATCH {
            self.empty();
            spent += once(|| (0..BATCH).for_each(|_| one(self.slot)));
        }
        let dropped: u64 = self.rings.slots().iter().map(|slot| slot.dropped(Kind::Request)).sum();
        assert_eq!(dropped, 0, "the ring was full");
        spent / count as f64
    }

    /// Does what the observer does with its cursors.
    fn empty(&mut self) {
        for slot in self.rings.slots() {
            for stage in [Stage::Log, Stage::Otlp] {
                slot.commit(RingName::Owner, stage, slot.head(RingName::Owner));
            }
        }
    }
}

fn one(slot: &'static Slot) {
    let begin = Begin {
        method: Method::Get,
        protocol: Protocol::Http11,
        start_ns: 1_000,
        start_wall_ns: 1_700_000_000_000_000_000,
        trace: TraceId([7; 16]),
        span: SpanId([8; 8]),
        parent: SpanId::NONE,
        remote_parent: false,
        sampled: true,
        client: Some(std::net::Ipv4Addr::LOCALHOST.into()),
        client_port: 40_000,
        request_id: b"0123456789abcdef",
        path: "/api/articles/how-to-train",
    };
    let mut request = slot.in_flight().begin(black_box(&begin));
    request.set_route("/api/articles/{slug}");
    request.end(black_box(&End {
        end_ns: 2_000_000,
        outcome: Outcome::Ok,
        status: Some(200),
        request_bytes: 0,
        response_bytes: 512,
        sampling: Sampling::Ratio,
        exception: None,
        path: "/api/articles/how-to-train",
        method_text: "",
        user_agent: b"Mozilla/5.0 (X11; Linux x86_64)",
        server_address: b"localhost",
        is_https: false,
        server_port: 80,
        tracestate: "",
        request_id: b"0123456789abcdef",
    }));
}
