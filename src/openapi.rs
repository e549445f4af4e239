//! The description of every route, and a page to read it and try it out.
//!
//! The document is made of the declarations that make the routes. All that the page needs is in the program.

use axum::Router;
use axum::response::Redirect;
use axum::routing::get;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Components, Info, OpenApi, OpenApiBuilder};
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::app::App;

/// The document, before the routes are in it.
pub(crate) fn document() -> OpenApi {
    let mut info = Info::new("Saola reference application", env!("CARGO_PKG_VERSION"));
    info.description = Some("Five surfaces on one database.".to_owned());
    let token = ApiKeyValue::with_description("Authorization", "`Token` and the token");
    let mut components = Components::new();
    components.add_security_scheme("token", SecurityScheme::ApiKey(ApiKey::Header(token)));
    let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    components.add_security_scheme("bearer", bearer);
    OpenApiBuilder::new().info(info).components(Some(components)).build()
}

/// `/openapi.json`, the page at `/docs/`, and the paths of other pages that lead there: these would load their script from
/// somewhere else.
pub(crate) fn router(document: OpenApi) -> Router<App> {
    let config = Config::from("/openapi.json").validator_url("none");
    let page = SwaggerUi::new("/docs").url("/openapi.json", document).config(config);
    let there = || async { Redirect::temporary("/docs/") };
    Router::from(page).route("/redoc", get(there)).route("/scalar", get(there))
}
