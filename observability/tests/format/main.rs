//! The format of slot files: as its page says, and as released versions have left it.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of a test stand outside of it")]

mod page;
mod released;
mod written;
