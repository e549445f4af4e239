//! The reference application on its databases: what it answers, stores, and survives.

// The words.
mod api; // JSON calls
mod database; // SQLite and PostgreSQL, a fresh one for each test
mod kept; // services that end with the tests, however these end
mod person; // a caller, signed in or not
mod postgres; // clusters of the tests' own
mod proxy; // an inventory that hangs, refuses, or closes after its work
mod redis; // caches of the tests' own
mod tools; // programs that are not on every machine

// The facts, by theme.
mod access; // who may do what
mod blog; // posts and votes
mod caching; // Redis, there or not
mod canaries; // secrets that come out nowhere
mod cancelled; // clients that leave in the middle
mod conduit; // RealWorld
mod conduit_collection; // the RealWorld project's own requests
mod conflicts; // transactions that lose a deadlock
mod document; // the API document and its page; CORS
mod encrypted; // PostgreSQL over TLS
mod faults; // checkouts while workers, databases and the inventory fail
mod fuzzing; // what the API document promises, tried by schemathesis
mod guide; // the examples of docs/api.md
mod hostile; // texts and numbers that want to be more
mod loading; // saola load
mod outages; // databases and caches that are away, frozen or cut off
mod schema; // migrations, boot errors, settings
mod services; // the harness itself
mod shop; // checkouts, the stock, and keys that make them once
mod simulate; // seeds, and servers without simulation
mod source; // statements are constant
mod sweeping; // rows that have expired
mod throttle; // passwords that are guessed
mod tokens; // tokens that are not good
mod traces; // one trace of a checkout
