//! The description of every route, and a page to read it and try it out.
//!
//! The document is made of the declarations that make the routes. All that the page needs is in the program.

use axum::Router;
use axum::response::Redirect;
use axum::routing::get;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Components, Info, OpenApi, OpenApiBuilder, Response};
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

/// Adds what operations of a kind have in common, so that no declaration repeats it.
pub(crate) fn complete(document: &mut OpenApi) {
    for item in document.paths.paths.values_mut() {
        let methods =
            [&mut item.get, &mut item.post, &mut item.put, &mut item.patch, &mut item.delete];
        for operation in methods.into_iter().flatten() {
            let has_body = operation.request_body.is_some();
            let has_parameters = operation.parameters.as_ref().is_some_and(|all| !all.is_empty());
            let has_security = operation.security.is_some();
            for (status, text, is_possible) in [
                ("401", "No token, or no good one", has_security),
                ("413", "The body is too large", has_body),
                ("415", "The body is of another type", has_body),
                ("422", "Something in it does not fit", has_body || has_parameters),
                ("503", "The database is away or busy: to be repeated", true),
            ] {
                if is_possible {
                    let responses = &mut operation.responses.responses;
                    responses
                        .entry(status.to_owned())
                        .or_insert_with(|| Response::new(text).into());
                }
            }
        }
    }
}

/// `/openapi.json`, the page at `/docs/`, and the paths of other pages that lead there: these would load their script from
/// somewhere else.
pub(crate) fn router(document: OpenApi) -> Router<App> {
    let config = Config::from("/openapi.json").validator_url("none");
    let page = SwaggerUi::new("/docs").url("/openapi.json", document).config(config);
    let there = || async { Redirect::temporary("/docs/") };
    Router::from(page).route("/redoc", get(there)).route("/scalar", get(there))
}
