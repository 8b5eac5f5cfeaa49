//! The OpenAPI document: what the routes do not say themselves.

use std::collections::BTreeMap;
use tasker_shared::{
    api::Problem,
    runtime::web::{HealthDocument, MetricsDocument, PROBLEM_JSON},
};
use utoipa::{
    IntoResponses, OpenApi as _,
    openapi::{ContentBuilder, OpenApi, Ref, RefOr, Response, ResponseBuilder},
};

/// The document before its routes.
pub(super) fn base() -> OpenApi {
    Base::openapi()
}

/// The document of the API with the routes that every service has; with `/metrics` where it is on the same port.
pub(super) fn complete(mut api: OpenApi, metrics: bool) -> OpenApi {
    api.merge(HealthDocument::openapi());
    if metrics {
        api.merge(MetricsDocument::openapi());
    }
    api
}

#[derive(utoipa::OpenApi)]
#[openapi(
    info(title = "Tasker", description = "Submits tasks to the Tasker orchestration service and looks after them."),
    components(schemas(Problem)),
    tags(
        (name = "tasks", description = "Submit tasks and look at them."),
        (name = "operate", description = "What operators do by hand."),
        (name = "templates", description = "Register templates and look at them."),
        (name = "dead letters", description = "Deal with what was parked."),
        (name = "limits", description = "How many steps run at once."),
        (name = "workers", description = "Look at workers."),
        (name = "health", description = "For probes."),
        (name = "metrics", description = "For scrapers."),
    )
)]
struct Base;

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident { $($status:literal = $text:literal,)* })*) => {$(
        $(#[$doc])*
        pub(super) enum $name {}

        impl IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<Response>> {
                BTreeMap::from([$(($status.to_owned(), refusal($text))),*])
            }
        }
    )*};
}

refusals! {
    /// What any route may answer when the service fails.
    Broken {
        "429" = "Too many requests of this client; try again after the header `retry-after`.",
        "500" = "The service failed; `instance` is the id to find it by in the log.",
        "503" = "The database does not serve at the moment, or too many requests are being served; try again after the header `retry-after`.",
        "504" = "It took too long; whether it took effect is not known.",
    }
    /// A part of the path, or a parameter, is malformed.
    BadPath { "400" = "The path or a parameter is malformed.", }
    /// A parameter is malformed.
    BadQuery { "400" = "A parameter is malformed.", "422" = "A parameter has a value that is not allowed.", }
    /// The body is refused.
    BadBody {
        "400" = "The request cannot be understood.",
        "413" = "The body, or a part of it, is larger than allowed.",
        "415" = "The body's media type is not understood.",
        "422" = "The body is refused; `title` and `errors` name the places.",
    }
    /// The task or step does not exist.
    NoTask { "404" = "There is no such task or step.", }
    /// The dead letter does not exist.
    NoLetter { "404" = "There is no such dead letter.", }
    /// The namespace or limit does not exist.
    NoLimit { "404" = "There is no such namespace or limit.", }
    /// The template does not exist.
    NoTemplate { "404" = "There is no such template.", }
    /// The state does not allow it.
    Illegal { "409" = "The state does not allow it.", }
    /// Tasks use another definition of the same version.
    Conflict { "409" = "Tasks use another definition of the same version.", }
}

fn refusal(description: &str) -> RefOr<Response> {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    ResponseBuilder::new().description(description).content(PROBLEM_JSON, content).build().into()
}
