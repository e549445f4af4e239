//! What every worker does now and then: it tidies up what requests left behind.

use std::time::Duration;

use crate::app::App;
use crate::{auth, idempotency, shop, simulate};

/// Sweeps until the worker drains.
pub(crate) async fn run(app: App) {
    loop {
        let pause = Duration::from_millis(fastrand::u64(INTERVAL_MS));
        tokio::select! {
            () = tokio::time::sleep(pause) => (),
            () = saola::draining() => return,
        }
        // What fails is told by the layer of the database, and is there for the next time.
        let _ = shop::sweep(&app).await;
        let _ = idempotency::sweep(&app.db).await;
        let _ = simulate::sweep(&app.db).await;
        let _ = auth::sweep(&app.db).await;
    }
}

/// Five seconds and a little more or less, so that the workers do not come together.
const INTERVAL_MS: std::ops::Range<u64> = 4_500..5_500;
