//! All surfaces of one worker: every endpoint, and what stands before them.

use saola::{BoxError, WorkerInfo};
use utoipa_axum::router::OpenApiRouter;

use crate::app::App;
use crate::error::Error;
use crate::front::Front;
use crate::{blog, boot, conduit, cors, items, openapi, orders, shop, simulate, sweeper, system};

/// Makes what a worker serves.
///
/// # Errors
///
/// What no waiting would mend; a database that is only away is waited for in the background.
pub(crate) async fn serve(worker: WorkerInfo) -> Result<Front, BoxError> {
    let app = App::new(worker)?;
    boot::settle(&app).await?;
    app.worker.background(sweeper::run(app.clone()));
    Ok(front(app))
}

fn front(app: App) -> Front {
    let mut router = OpenApiRouter::with_openapi(openapi::document())
        .merge(system::router())
        .merge(conduit::router())
        .merge(blog::router())
        .merge(items::router())
        .merge(orders::router())
        .merge(shop::router())
        .merge(simulate::always());
    if app.settings.simulation {
        router = router.merge(simulate::router());
    }
    let (router, mut document) = router.split_for_parts();
    openapi::complete(&mut document);
    let cors = cors::layer(&app.settings.allowed_origins);
    let router = router
        .merge(openapi::router(document))
        .fallback(|| async { Error::NoRoute })
        .method_not_allowed_fallback(|| async { Error::MethodNotAllowed })
        .with_state(app);
    Front { router, cors }
}
