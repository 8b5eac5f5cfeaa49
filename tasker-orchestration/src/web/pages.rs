//! Pages for people: where things are, and the API with its explorer.

use axum::{
    Router,
    http::{HeaderMap, header},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use utoipa::openapi::OpenApi;
use utoipa_swagger_ui::{Config, SwaggerUi};

const LINKS: [(&str, &str); 6] = [
    ("/docs", "the API, to read and to try"),
    ("/openapi.json", "the API as an OpenAPI document"),
    ("/v1/tasks", "the newest tasks"),
    ("/v1/templates", "the registered templates"),
    ("/v1/workers", "the workers"),
    ("/health/detailed", "the health of this service"),
];

/// `/`, `/openapi.json` and `/docs`.
pub(super) fn routes(api: &OpenApi) -> Router {
    let document = serde_json::to_string_pretty(api).unwrap_or_default();
    let document = move || async move { ([(header::CONTENT_TYPE, "application/json")], document) };
    Router::new()
        .route("/", get(index))
        .route("/openapi.json", get(document))
        .merge(SwaggerUi::new("/docs").config(Config::from("/openapi.json")))
}

async fn index(headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if accept.contains("text/html") { Html(html()).into_response() } else { text().into_response() }
}

fn text() -> String {
    let links: String = LINKS.iter().map(|(path, what)| format!("{path:<18} {what}\n")).collect();
    format!("Tasker orchestration {}\n\n{links}", env!("CARGO_PKG_VERSION"))
}

fn html() -> String {
    let links: String =
        LINKS.iter().map(|(path, what)| format!("<li><a href=\"{path}\">{path}</a>: {what}</li>\n")).collect();
    format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>Tasker</title>\n\
        <h1>Tasker orchestration {}</h1>\n<ul>\n{links}</ul>\n</html>\n",
        env!("CARGO_PKG_VERSION")
    )
}
