//! The hot paths allocate nothing: each is run between two looks at a counting allocator.
#![expect(clippy::print_stdout, reason = "a test with its own main")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use saola_observability::metrics::{Counter, CounterVec, Gauge, Histogram};
use saola_observability::{
    Begin, End, Method, Outcome, Protocol, Sampling, Slot, SpanId, TraceId, metrics,
};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

#[expect(unsafe_code, reason = "an allocator is the only one who sees all allocations")]
// SAFETY: every call is handed on to the system's allocator with the arguments it came with.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps to the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from `alloc` above, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static PLAIN: Counter = Counter::new("test_plain_total", "Plain.");
static LABELLED: CounterVec<3> =
    CounterVec::new("test_labelled_total", "Labelled.", ["a", "b", "c"]);
static GAUGE: Gauge = Gauge::new("test_gauge", "A gauge.");
static VALUES: Histogram = Histogram::new("test_values", "Values.", &[0.1, 1.0]).exemplars();

fn main() {
    let slot = Slot::in_memory();
    let turn = || {
        PLAIN.inc();
        LABELLED.with(["GET", "/a/route", "200"]).inc();
        GAUGE.set(1.0);
        VALUES.observe(0.2);
        VALUES.observe_with_exemplar(0.2, TraceId([1; 16]), SpanId([1; 8]));
        let mut request = slot.in_flight().begin(&begin());
        request.set_route("/a/{id}");
        request.end(&end());
    };
    for _ in 0..3 {
        turn(); // known from here on
    }
    let before = ALLOCATIONS.get();
    for _ in 0..1_000 {
        turn();
    }
    let allocations = ALLOCATIONS.get() - before;
    assert_eq!(allocations, 0, "1,000 turns allocated {allocations} times");
    assert!(metrics::local().sum("test_plain_total", "") >= 1_003.0);
    println!(
        "test nothing_is_allocated_for_what_is_known ... ok\n\ntest result: ok. 1 passed; 0 failed"
    );
}

fn begin() -> Begin<'static> {
    Begin {
        method: Method::Get,
        protocol: Protocol::Http11,
        start_ns: 1_000,
        start_wall_ns: 2_000,
        trace: TraceId([1; 16]),
        span: SpanId([2; 8]),
        parent: SpanId::NONE,
        remote_parent: false,
        sampled: true,
        client: None,
        client_port: 0,
        request_id: b"request",
        path: "/a/1",
    }
}

fn end() -> End<'static> {
    End {
        end_ns: 2_000_000,
        outcome: Outcome::Panic,
        status: Some(500),
        request_bytes: 3,
        response_bytes: 5,
        sampling: Sampling::Error,
        exception: Some("panic"),
        path: "/a/1",
        method_text: "",
        user_agent: b"agent",
        server_address: b"localhost",
        is_https: false,
        server_port: 80,
        tracestate: "",
        request_id: b"request",
    }
}
