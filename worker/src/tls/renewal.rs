//! Renewed certificates are taken up while the worker runs: the files are looked at, through links, every ten seconds.
//!
//! Looking needs no watches, which run out, and sees the swapped link of a Kubernetes secret.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use saola_observability::closed::Level;
use tokio::time::Instant;

use super::{Pair, TlsError, certificate};
use crate::worker::{Seldom, Worker};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(10);
/// How long before its end a certificate is named.
const NOTICE: Duration = Duration::from_hours(14 * 24);
const DAY: Duration = Duration::from_hours(24);

/// What tells one state of a file from another; `None` when there is none.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

/// Looks until dropped.
pub(crate) async fn renew(worker: Rc<Worker>) {
    let Some(tls) = &worker.tls else { return };
    let pairs = Arc::new(tls.settings.pairs.clone());
    let mut loaded = look(&pairs).await;
    let mut seen = loaded.clone();
    let (mut bad, mut notice) = (Seldom::default(), Instant::now());
    loop {
        if notice <= Instant::now() {
            name_the_ending(&worker);
            notice = Instant::now() + DAY;
        }
        tokio::time::sleep(LOOK).await;
        let now = look(&pairs).await;
        // Two looks that agree: nobody is in the middle of writing.
        if now != loaded && now == seen {
            match load(&worker).await {
                Ok(()) => {
                    loaded.clone_from(&now);
                    notice = Instant::now();
                    worker.event(Level::Info, "TLS certificates renewed", &[]);
                }
                Err(error) if bad.is_due(Instant::now()) => complain(&worker, &error),
                Err(_) => {}
            }
        }
        seen = now;
    }
}

async fn look(pairs: &Arc<Vec<Pair>>) -> Vec<Stamp> {
    let pairs = Arc::clone(pairs);
    let files = move || -> Vec<_> {
        pairs.iter().flat_map(|pair| [stamp(&pair.certificate), stamp(&pair.key)]).collect()
    };
    // A worker that ends does not look any more.
    tokio::task::spawn_blocking(files).await.unwrap_or_default()
}

fn stamp(path: &Path) -> Stamp {
    let found = std::fs::metadata(path).ok()?;
    Some((found.dev(), found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
}

/// Puts what the files hold in the place of what is used, or leaves that as it is.
async fn load(worker: &Rc<Worker>) -> Result<(), TlsError> {
    let Some(tls) = &worker.tls else { return Ok(()) };
    let (settings, provider) = (tls.settings.clone(), Arc::clone(&tls.provider));
    let loading = tokio::task::spawn_blocking(move || settings.keys(&provider));
    let keys = loading.await.map_err(|error| TlsError::Setup(error.into()))??;
    let now = SystemTime::now();
    for (key, pair) in keys.iter().zip(&tls.settings.pairs) {
        if key.cert.first().and_then(|first| certificate::end(first)).is_some_and(|end| end <= now)
        {
            return Err(TlsError::Ended { path: pair.certificate.clone() });
        }
    }
    tls.keys.replace(keys);
    Ok(())
}

fn complain(worker: &Worker, error: &TlsError) {
    let why = crate::chain::chain(error);
    let fields = [("error", why.as_str())];
    worker.event(Level::Error, "TLS certificates cannot be renewed", &fields);
}

/// An event for each certificate that is near its end, or behind it.
fn name_the_ending(worker: &Worker) {
    let Some(tls) = &worker.tls else { return };
    let soon = SystemTime::now() + NOTICE;
    for (key, pair) in tls.keys.present().iter().zip(&tls.settings.pairs) {
        let end = key.cert.first().and_then(|first| certificate::end(first));
        let Some(end) = end.filter(|end| *end <= soon) else { continue };
        let left = end.duration_since(SystemTime::now()).unwrap_or_default();
        let days = (left.as_secs() / DAY.as_secs()).to_string();
        let path: &PathBuf = &pair.certificate;
        let fields = [("path", &*path.to_string_lossy()), ("days_left", days.as_str())];
        worker.event(Level::Warn, "a TLS certificate ends soon", &fields);
    }
}
