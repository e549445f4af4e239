//! The black-box tests: they start the real binary, talk HTTP and signals to it, and read what it says.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

// The words in which the tests are told.
mod certificates; // an authority, and what it has signed
mod client; // simple calls over HTTP/1.1, HTTP/2 and unix sockets
mod collector;
mod collector_http; // an OTLP gRPC receiver that can refuse, hang and err
mod corpus; // raw requests and the answers that the standards ask for
mod lines; // a strict logfmt reader
mod load; // clients that keep the books of what they sent
mod metrics; // a strict reader of the Prometheus text format
mod output; // what a process has written
mod posts;
mod profile_server; // takes what the profile client pushes
mod server; // a server in a folder of its own
mod setup; // how it is started
mod wait; // the one way to wait
mod wire; // a connection where each byte matters

// The facts, by theme.
mod accounting; // every request is counted once, in every signal alike
mod admin; // the admin listener: refusals, and scrapes while workers die
mod app; // the reference application on its databases
mod children; // the processes of a server and their titles; the crates that the supervisor may know
mod death; // workers, observers and supervisors that are killed
mod following; // saola log
mod hang; // workers that live and do not work
#[cfg(feature = "jemalloc")]
mod heap; // what the memory of a worker is used for
mod hostile; // input that wants to be a line, a key or a label
mod output_kinds; // json, terminal, filters
mod pipes; // stdout that nobody reads, or that is closed
mod profiling; // where the CPU goes, at the profile server and on the admin listener
mod refusals; // what the gate and the application refuse, with an id all the same
mod run_directories;
mod secrets; // canaries that must come out nowhere
mod serving; // endpoints, protocols, addresses
mod slot_files; // one owner each; damage, readers and telemetry cost nobody anything
mod stopping; // signals that end a server
mod supervision_clock;
mod supervision_control; // operators' commands, reloads with other settings, recycling
mod supervision_faults; // signals, hostile operators, missing resources
mod supervision_limits; // workers that are too old, too big, or die again and again
mod supervision_load; // reloads, kills and restarts under load: nothing is lost or leaked
mod supervision_surroundings; // service managers, pidfiles, inherited sockets, being pid 1
mod supervision_terminal; // the end and the size of a terminal
mod supervision_upgrade; // another program in place of the running one
mod telemetry_levels; // how much requests leave behind
mod tracing; // spans at the collector
mod tracing_children; // spans and errors inside handlers
mod tracing_faults; // collectors that do not work
mod usage; // the command line, the settings and what they refuse
mod watching; // saola top
mod worker_accept; // exclusive or not: what a worker holds, and what is lost with it
mod worker_corpus; // the corpus of raw requests against the echo
mod worker_drain; // HTTP/2 clients while workers are replaced
mod worker_floods; // HTTP/2 clients that send frames without end
mod worker_fronts; // TLS, PROXY headers, and what proxies say of the client
mod worker_grpc; // tonic as a tower service
mod worker_many; // very many connections, idle or holding memory
mod worker_overload; // too many clients, too few descriptors, handlers that hold the loop
mod worker_queues; // a socket for each worker
mod worker_serving; // applications without a framework
mod worker_slow; // crowds of slow and silent clients
