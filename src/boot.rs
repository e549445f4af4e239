//! What stands between a worker and its first request: a database that is there, of the right size and schema.
//!
//! A database that is away makes no boot error: a crash loop would not bring it back. The worker serves what it can, is not
//! ready, and tries again. A database that refuses us, or has another schema than ours, ends the start.

use std::time::Duration;

use saola::BoxError;

use crate::app::App;
use crate::db::{Error, Unfit};

/// Makes the database ready for the statements, now or as soon as it can be.
///
/// # Errors
///
/// What no waiting would mend.
pub(crate) async fn settle(app: &App) -> Result<(), BoxError> {
    if app.settings.secret_key.is_none() && app.worker.slot == 0 {
        tracing::warn!("SECRET_KEY is not set: tokens are signed with one that the database keeps");
    }
    if let Err(away) = attempt(app).await? {
        tracing::warn!(why = %away, "database away; the worker is not ready");
        app.worker.background(keep_trying(app.clone()));
    }
    Ok(())
}

async fn keep_trying(app: App) {
    let trying = async {
        loop {
            tokio::time::sleep(INTERVAL + Duration::from_millis(fastrand::u64(0..100))).await;
            match attempt(&app).await {
                Ok(Ok(())) => break tracing::info!("database ready"),
                Ok(Err(_)) => (),
                // It was away when the worker booted; now it cannot be a boot error any more.
                Err(error) => tracing::error!(%error, "database of no use"),
            }
        }
    };
    tokio::select! {
        () = trying => (),
        () = saola::draining() => (),
    }
}

/// One try. The inner error is one that waiting may mend.
async fn attempt(app: &App) -> Result<Result<(), String>, BoxError> {
    let result = async {
        app.db.fit(app.settings.pool_size, app.worker.workers).await?;
        if app.settings.auto_migrate {
            for done in app.db.migrate().await? {
                let took_ms = u64::try_from(done.took.as_millis()).unwrap_or(u64::MAX);
                tracing::info!(migration = done.name, took_ms, "migration applied");
            }
        } else if app.db.pending().await?.is_empty() {
            app.db.let_through();
        }
        if app.db.is_current() {
            let doing = |error| Unfit::Database { doing: "read the secret key".into(), error };
            app.auth.learn_key(&app.db).await.map_err(doing)?;
        }
        Ok(())
    };
    match result.await {
        Ok(()) if app.db.is_current() => Ok(Ok(())),
        Ok(()) => Ok(Err("its schema is not current: run `saola migrate`".to_owned())),
        Err(Unfit::Database {
            error: error @ (Error::Died(_) | Error::Away(_) | Error::Busy(_)),
            ..
        }) => Ok(Err(error.to_string())),
        Err(unfit) => Err(unfit.into()),
    }
}

const INTERVAL: Duration = Duration::from_millis(450);
