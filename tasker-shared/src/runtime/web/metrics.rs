//! The page that is scraped: Prometheus text or OpenMetrics, as the scraper asks.

use super::{internal, problem};
use crate::config::Network;
use axum::{
    Router,
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use std::{fmt, net::SocketAddr, sync::Arc};

const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Text = Arc<dyn Fn() -> String + Send + Sync>;

/// Where the page's texts come from, and who may read it.
#[derive(Clone)]
pub struct Exposition {
    prometheus: Text,
    openmetrics: Text,
    allow: Arc<[Network]>,
}

impl Exposition {
    /// A page that everyone may read.
    pub fn new(
        prometheus: impl Fn() -> String + Send + Sync + 'static,
        openmetrics: impl Fn() -> String + Send + Sync + 'static,
    ) -> Self {
        Self { prometheus: Arc::new(prometheus), openmetrics: Arc::new(openmetrics), allow: Arc::new([]) }
    }

    /// Only clients of these networks may read; none named: everyone may. Needs a server that knows its clients'
    /// addresses, as [`serve`](super::serve) does; a client without one is refused.
    pub fn allow(mut self, networks: &[Network]) -> Self {
        self.allow = networks.into();
        self
    }

    fn admits(&self, client: Option<SocketAddr>) -> bool {
        self.allow.is_empty() || client.is_some_and(|c| self.allow.iter().any(|network| network.contains(c.ip())))
    }
}

/// `/metrics`.
pub fn metrics_router(exposition: Exposition) -> Router {
    Router::new().route("/metrics", get(page)).with_state(exposition)
}

/// The description of `/metrics` for an OpenAPI document.
#[derive(Debug, utoipa::OpenApi)]
#[openapi(paths(page))]
pub struct Document;

/// What this process measured: OpenMetrics 1.0.0 when the header `accept` asks for it, else Prometheus text 0.0.4.
#[utoipa::path(get, path = "/metrics", operation_id = "get_metrics", tag = "metrics", responses(
    (status = 200, description = "The metrics.", content(
        (String = "text/plain"),
        (String = "application/openmetrics-text"),
    )),
    (status = 403, description = "The client's address is not allowed to read them.",
        body = crate::api::Problem, content_type = "application/problem+json"),
    (status = 500, description = "The metrics could not be collected.",
        body = crate::api::Problem, content_type = "application/problem+json"),
))]
async fn page(State(exposition): State<Exposition>, request: Request) -> Response {
    let client = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|client| client.0);
    if !exposition.admits(client) {
        return problem(StatusCode::FORBIDDEN, "forbidden", "this address is not allowed to read the metrics")
            .into_response();
    }
    let (media_type, text) = match wants_openmetrics(request.headers()) {
        true => (OPENMETRICS, exposition.openmetrics),
        false => (PROMETHEUS, exposition.prometheus),
    };
    match tokio::task::spawn_blocking(move || text()).await {
        Ok(text) => ([(header::CONTENT_TYPE, media_type), (header::VARY, "accept")], text).into_response(),
        Err(failed) => internal(&failed).into_response(),
    }
}

/// Whether OpenMetrics is named, and preferred at least as much as the plain text.
fn wants_openmetrics(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let (mut openmetrics, mut plain) = (0, 0);
    for offer in accepted.flat_map(|value| value.split(',')).map(Offer::parse) {
        match (offer.media_type.as_str(), offer.version.as_deref()) {
            ("application/openmetrics-text", None | Some("1.0.0")) => openmetrics = openmetrics.max(offer.quality),
            ("text/plain", None | Some("0.0.4")) => plain = plain.max(offer.quality),
            _ => {}
        }
    }
    openmetrics > 0 && openmetrics >= plain
}

/// One of the things that a client accepts.
struct Offer {
    media_type: String,
    version: Option<String>,
    /// In thousandths.
    quality: u16,
}

impl Offer {
    fn parse(text: &str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default().to_ascii_lowercase();
        let mut offer = Self { media_type, version: None, quality: 1000 };
        for (key, value) in parts.filter_map(|part| part.split_once('=')) {
            let value = value.trim().trim_matches('"');
            match key.trim().to_ascii_lowercase().as_str() {
                "version" => offer.version = Some(value.to_owned()),
                "q" => offer.quality = quality(value),
                _ => {}
            }
        }
        offer
    }
}

/// A weight in thousandths; what is no weight counts as none.
fn quality(text: &str) -> u16 {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let weight = format!("{whole}{fraction:0<3.3}").parse().unwrap_or(0);
    std::cmp::min(weight, 1000)
}

impl fmt::Debug for Exposition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exposition").field("allow", &self.allow).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::{Exposition, OPENMETRICS, PROMETHEUS, metrics_router};
    use axum::{body::Body, extract::ConnectInfo, http::Request, response::Response};
    use std::net::SocketAddr;
    use tower::ServiceExt;

    fn exposition() -> Exposition {
        Exposition::new(|| "prometheus".to_owned(), || "openmetrics".to_owned())
    }

    async fn scrape(exposition: Exposition, accept: Option<&str>, client: Option<&str>) -> Response {
        let mut request = Request::get("/metrics");
        if let Some(accept) = accept {
            request = request.header("accept", accept);
        }
        if let Some(client) = client {
            request = request.extension(ConnectInfo::<SocketAddr>(client.parse().unwrap()));
        }
        metrics_router(exposition).oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn the_scraper_chooses_the_format() {
        let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
            application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
            text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, format) in [
            (None, PROMETHEUS),
            (Some("*/*"), PROMETHEUS),
            (Some("text/html,application/xhtml+xml,*/*;q=0.8"), PROMETHEUS),
            (Some("text/plain;version=0.0.4"), PROMETHEUS),
            (Some("application/openmetrics-text"), OPENMETRICS),
            (Some("Application/OpenMetrics-Text; Version=1.0.0; q=0.5"), OPENMETRICS),
            (Some(prometheus_3), OPENMETRICS),
            (Some("application/openmetrics-text;version=1.0.0;q=0.2,text/plain;version=0.0.4;q=0.7"), PROMETHEUS),
            (Some("application/openmetrics-text;version=0.0.1"), PROMETHEUS),
            (Some("application/openmetrics-text;q=0"), PROMETHEUS),
            (Some(";;=,q"), PROMETHEUS),
        ] {
            let response = scrape(exposition(), accept, None).await;
            assert_eq!(response.status(), 200);
            assert_eq!(response.headers()["content-type"], format, "{accept:?}");
            let body = axum::body::to_bytes(response.into_body(), 100).await.unwrap();
            assert_eq!(body, if format == OPENMETRICS { "openmetrics" } else { "prometheus" }, "{accept:?}");
        }
    }

    #[tokio::test]
    async fn only_allowed_addresses_read_the_metrics() {
        let listed = exposition().allow(&["10.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()]);
        for (client, code) in [
            (Some("10.1.2.3:4000"), 200),
            (Some("[::ffff:10.1.2.3]:4000"), 200),
            (Some("[::1]:4000"), 200),
            (Some("192.168.0.1:4000"), 403),
            (None, 403),
        ] {
            assert_eq!(scrape(listed.clone(), None, client).await.status().as_u16(), code, "{client:?}");
        }
    }
}
