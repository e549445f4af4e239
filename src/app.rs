//! What the handlers of one worker share.

use std::ops::Deref;
use std::sync::Arc;

use saola::{BoxError, WorkerInfo};

use crate::auth::Auth;
use crate::cache::Cache;
use crate::db::Db;
use crate::settings::Settings;
use crate::shop::client::Inventory;

/// What the handlers of one worker share; each request takes a reference. Made after the fork: `main` opens nothing.
#[derive(Clone)]
pub(crate) struct App(Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) db: Db,
    pub(crate) auth: Auth,
    pub(crate) cache: Cache,
    pub(crate) inventory: Inventory,
    pub(crate) settings: Arc<Settings>,
    pub(crate) worker: WorkerInfo,
}

impl Deref for App {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl App {
    /// Makes the pool and everything else that a worker needs; connects to nothing yet.
    ///
    /// # Errors
    ///
    /// What is wrong with a setting.
    pub(crate) fn new(worker: WorkerInfo) -> Result<Self, BoxError> {
        let settings = Settings::of_process().map_err(|mistakes| mistakes.join("; "))?;
        let db = Db::new(&settings.database, settings.pool_size)?;
        let settings = Arc::new(settings);
        let auth = Auth::new(&settings);
        let cache = Cache::new(settings.redis_url.as_ref())?;
        let inventory = Inventory::new(settings.inventory_url.as_ref(), &worker.addresses);
        Ok(Self(Arc::new(Shared { db, auth, cache, inventory, settings, worker })))
    }
}
