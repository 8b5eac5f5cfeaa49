//! The OpenAPI document: what the routes do not say themselves.

use super::permissions::ROUTES;
use std::collections::BTreeMap;
use tasker_shared::{
    access::Permission,
    api::Problem,
    runtime::{
        access::{Access, COMMON, Route},
        web::{HealthDocument, MetricsDocument, PROBLEM_JSON},
    },
};
use utoipa::{
    IntoResponses, OpenApi as _,
    openapi::{
        ContentBuilder, OpenApi, Ref, RefOr, Response, ResponseBuilder,
        path::Operation,
        security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
    },
};

/// The name of the security scheme.
const SCHEME: &str = "bearer";

/// The document before its routes.
pub(super) fn base() -> OpenApi {
    Base::openapi()
}

/// The document of the API with the routes that every service has (with `/metrics` where it is on the same port), and
/// with what each route asks of its caller.
pub(super) fn complete(mut api: OpenApi, metrics: bool) -> OpenApi {
    api.merge(HealthDocument::openapi());
    if metrics {
        api.merge(MetricsDocument::openapi());
    }
    let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(
        "An API key (`tsk_…`) or a token (JWT) of the configured issuer. Off unless `auth.enabled` is set.",
    ));
    let components = api.components.get_or_insert_default();
    components.add_security_scheme(SCHEME, SecurityScheme::Http(scheme.build()));
    for (path, item) in &mut api.paths.paths {
        let operations =
            [("GET", &mut item.get), ("POST", &mut item.post), ("PUT", &mut item.put), ("DELETE", &mut item.delete)];
        for (method, operation) in operations {
            let Some(operation) = operation else { continue };
            let needs = routes().find(|route| route.path == path && route.method == method).map(|route| route.access);
            if let Some(Access::Needs(permission, _)) = needs {
                secure(operation, permission);
            }
        }
    }
    api
}

/// Every route of the service.
fn routes() -> impl Iterator<Item = &'static Route> {
    ROUTES.iter().chain(COMMON)
}

fn secure(operation: &mut Operation, permission: Permission) {
    let anyone: SecurityRequirement = SecurityRequirement::default();
    operation.security = Some(vec![anyone, SecurityRequirement::new(SCHEME, [permission.as_str()])]);
    let needs = format!("Needs the permission `{permission}` where authentication is on.");
    operation.description = Some(match operation.description.take().filter(|text| !text.is_empty()) {
        Some(text) => format!("{text}\n\n{needs}"),
        None => needs,
    });
    let answers = &mut operation.responses.responses;
    answers.entry("401".to_owned()).or_insert_with(|| refusal("It is not known who asks; see `www-authenticate`."));
    answers.entry("403".to_owned()).or_insert_with(|| refusal("The caller lacks the permission that `title` names."));
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
        (name = "keys", description = "API keys."),
        (name = "audit", description = "What operators did."),
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
        "408" = "The body did not come in time.",
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
    /// The key does not exist.
    NoKey { "404" = "There is no such key among those that the caller may see.", }
    /// Keys cannot be managed over HTTP yet.
    AuthenticationOff { "409" = "Authentication is off, or the name was given before.", }
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
