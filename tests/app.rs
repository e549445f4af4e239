//! The reference application on its databases: what it answers, stores, and survives.

// The words.
mod database; // SQLite and PostgreSQL, a fresh one for each test
mod kept; // services that end with the tests, however these end
mod person; // a caller, signed in or not
mod postgres; // clusters of the tests' own
mod redis; // caches of the tests' own
mod tools; // programs that are not on every machine

// The facts, by theme.
mod blog; // posts and votes
mod conduit; // RealWorld
mod services; // the harness itself
