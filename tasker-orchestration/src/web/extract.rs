//! What requests bring, checked: a wrong part is answered by a problem that names it.

use super::answer::Refusal;
use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Path, Query, Request, rejection::JsonRejection},
    http::{HeaderMap, StatusCode, header, request},
};
use serde::de::DeserializeOwned;
use std::error::Error;
use tasker_shared::{api::ApplyTemplate, runtime::web::problem};

/// The parts of the path that vary.
pub(super) struct Segments<T>(pub(super) T);

/// The parameters after the `?`.
pub(super) struct Params<T>(pub(super) T);

/// A JSON body.
pub(super) struct Body<T>(pub(super) T);

/// A JSON body of parts that are answered one by one: a text that cannot be stored refuses its part alone, where it is checked.
pub(super) struct Parts<T>(pub(super) T);

/// A JSON body that may be left out, or `null`.
pub(super) struct OptionalBody<T>(pub(super) T);

/// A template: JSON around the YAML text, or the YAML text itself.
pub(super) struct TemplateText(pub(super) ApplyTemplate);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Segments<T> {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut request::Parts, state: &S) -> Result<Self, Refusal> {
        if parts.uri.path().contains("%00") {
            return Err(malformed("the path has the character U+0000, which no name has"));
        }
        let segments = Path::from_request_parts(parts, state).await;
        segments.map(|Path(segments)| Self(segments)).map_err(|refused| malformed(&refused.body_text()))
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut request::Parts, state: &S) -> Result<Self, Refusal> {
        if parts.uri.query().is_some_and(|query| query.contains("%00")) {
            return Err(malformed("the query has the character U+0000, which no value has"));
        }
        let params = Query::from_request_parts(parts, state).await;
        params.map(|Query(params)| Self(params)).map_err(|refused| malformed(&innermost(&refused)))
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Refusal;
    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        json(&json_bytes(request, state).await?).map(Self)
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Parts<T> {
    type Rejection = Refusal;
    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        parsed(&json_bytes(request, state).await?).map(Self)
    }
}

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequest<S> for OptionalBody<T> {
    type Rejection = Refusal;
    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let media_type = media_type(request.headers());
        let bytes = bytes(request, state).await?;
        match bytes.is_empty() {
            true => Ok(Self(T::default())),
            false if is_json(&media_type) => json::<Option<T>>(&bytes).map(|body| Self(body.unwrap_or_default())),
            false => Err(unsupported(&media_type, "application/json")),
        }
    }
}

impl<S: Send + Sync> FromRequest<S> for TemplateText {
    type Rejection = Refusal;
    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let media_type = media_type(request.headers());
        let yaml = ["application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml"];
        if is_json(&media_type) {
            return json(&bytes(request, state).await?).map(Self);
        }
        if !yaml.contains(&media_type.as_str()) {
            return Err(unsupported(&media_type, "application/yaml or application/json"));
        }
        let source = String::from_utf8(bytes(request, state).await?.into());
        let source =
            source.map_err(|wrong| malformed(&format!("the template is not UTF-8: {}", wrong.utf8_error())))?;
        Ok(Self(ApplyTemplate { source, file: None }))
    }
}

/// The whole body, if it says that it is JSON.
async fn json_bytes<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Refusal> {
    let media_type = media_type(request.headers());
    if !is_json(&media_type) {
        return Err(unsupported(&media_type, "application/json"));
    }
    bytes(request, state).await
}

/// The whole body, if the limit admits it.
pub(super) async fn bytes<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Refusal> {
    Bytes::from_request(request, state).await.map_err(|refused| match refused.status() {
        StatusCode::PAYLOAD_TOO_LARGE => problem(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
            "the body is larger than the service takes (orchestration.max_request_bytes)",
        )
        .into(),
        _ => malformed(&refused.body_text()),
    })
}

fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    if escapes_nul(bytes) {
        let title = "the body has the character U+0000 (\\u0000), which PostgreSQL does not store";
        return Err(problem(StatusCode::UNPROCESSABLE_ENTITY, "invalid_text", title).into());
    }
    parsed(bytes)
}

fn parsed<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    // the parser would take the fields of an object from an array, by their order
    if bytes.trim_ascii_start().first() == Some(&b'[') {
        let title = "the body is an array where an object is expected";
        return Err(problem(StatusCode::UNPROCESSABLE_ENTITY, "invalid_body", title).into());
    }
    axum::Json::from_bytes(bytes).map(|axum::Json(value)| value).map_err(|refused| match &refused {
        JsonRejection::JsonDataError(wrong) => {
            problem(StatusCode::UNPROCESSABLE_ENTITY, "invalid_body", innermost(wrong)).into()
        }
        JsonRejection::JsonSyntaxError(wrong) => malformed(&format!("the body is not JSON: {}", innermost(wrong))),
        _ => malformed(&refused.body_text()),
    })
}

/// Whether a JSON text escapes the character U+0000. Backslashes stand in strings only, each with what it escapes.
fn escapes_nul(json: &[u8]) -> bool {
    let mut rest = json;
    while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
        rest = &rest[at + 1..];
        if rest.starts_with(b"u0000") {
            return true;
        }
        rest = rest.get(1..).unwrap_or_default();
    }
    false
}

fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn is_json(media_type: &str) -> bool {
    media_type == "application/json" || (media_type.starts_with("application/") && media_type.ends_with("+json"))
}

fn unsupported(media_type: &str, expected: &str) -> Refusal {
    let title = match media_type {
        "" => format!("the header `content-type` is missing; send {expected}"),
        other => format!("`content-type: {other}` is not understood; send {expected}"),
    };
    problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", title).into()
}

fn malformed(what: &str) -> Refusal {
    problem(StatusCode::BAD_REQUEST, "malformed_request", what).into()
}

/// The text of the first cause: it names the field and the place.
fn innermost(error: &dyn Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| source.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::answer::Refusal;
    use super::{Body, OptionalBody, Params, TemplateText, escapes_nul};
    use axum::{
        extract::FromRequest,
        extract::{FromRequestParts, Request},
        http::request::Builder,
    };
    use tasker_shared::api::{Action, Problem, SubmitTask, SubmitTasks, TaskFilter};

    fn json() -> Builder {
        Request::post("/").header("content-type", "application/json")
    }

    async fn body<T: FromRequest<(), Rejection = Refusal>>(request: Builder, body: &str) -> Result<T, Problem> {
        T::from_request(request.body(body.to_owned().into()).unwrap(), &()).await.map_err(|Refusal(problem)| *problem)
    }

    async fn refused<T: FromRequest<(), Rejection = Refusal>>(request: Builder, text: &str) -> (u16, String, String) {
        let problem = body::<T>(request, text).await.err().expect("refused");
        (problem.status, problem.kind, problem.title)
    }

    #[tokio::test]
    async fn an_array_is_no_object() {
        let (status, kind, title) = refused::<OptionalBody<Action>>(json(), " [null, null]").await;
        assert_eq!((status, kind.as_str()), (422, "invalid_body"));
        assert!(title.contains("array"), "{title}");
    }

    #[tokio::test]
    async fn a_wrong_field_is_named_with_its_path_and_place() {
        let text = r#"{"tasks": [{"namespace": "a", "name": "b", "priority": "high"}]}"#;
        let (status, kind, title) = refused::<Body<SubmitTasks>>(json(), text).await;
        assert_eq!((status, kind.as_str()), (422, "invalid_body"));
        assert!(
            title.starts_with("tasks[0].priority: invalid type: string \"high\", expected i16 at line 1"),
            "{title}"
        );
    }

    #[tokio::test]
    async fn an_unknown_key_is_named() {
        let text = r#"{"namespace": "a", "name": "b", "prioritty": 3}"#;
        let (status, _, title) = refused::<Body<SubmitTask>>(json(), text).await;
        assert!(status == 422 && title.contains("unknown field `prioritty`"), "{title}");
    }

    #[tokio::test]
    async fn what_is_not_json_is_refused_with_its_place() {
        let (status, kind, title) = refused::<Body<SubmitTask>>(json(), "{\"namespace\": \n oops}").await;
        assert_eq!((status, kind.as_str()), (400, "malformed_request"));
        assert!(title.contains("at line 2 column 2"), "{title}");
    }

    #[tokio::test]
    async fn another_media_type_is_refused_naming_the_right_one() {
        let form = Request::post("/").header("content-type", "application/x-www-form-urlencoded");
        let (status, _, title) = refused::<Body<SubmitTask>>(form, "{}").await;
        assert!(status == 415 && title.contains("send application/json"), "{title}");
    }

    #[tokio::test]
    async fn an_action_needs_no_body() {
        let OptionalBody(action) = body::<OptionalBody<Action>>(Request::post("/"), "").await.ok().unwrap();
        assert_eq!(action, Action::default());
        let OptionalBody(action) =
            body::<OptionalBody<Action>>(json(), r#"{"by": "ada", "reason": "stuck"}"#).await.ok().unwrap();
        assert_eq!(action.by.as_deref(), Some("ada"));
        assert!(body::<OptionalBody<Action>>(json(), "null").await.is_ok());
        assert_eq!(refused::<OptionalBody<Action>>(Request::post("/"), "{}").await.0, 415);
    }

    #[tokio::test]
    async fn a_template_comes_as_yaml_or_inside_json() {
        let yaml = Request::post("/").header("content-type", "application/yaml; charset=utf-8");
        let TemplateText(apply) = body::<TemplateText>(yaml, "name: a\n").await.ok().unwrap();
        assert_eq!(apply.source, "name: a\n");
        let TemplateText(apply) = body::<TemplateText>(json(), r#"{"source": "name: a\n"}"#).await.ok().unwrap();
        assert_eq!(apply.source, "name: a\n");
        assert_eq!(refused::<TemplateText>(Request::post("/"), "name: a\n").await.0, 415);
    }

    #[tokio::test]
    async fn a_wrong_parameter_is_named() {
        for (query, named) in [
            ("before=7", "before: "),
            ("state=running", "state: unknown variant `running`, expected one of"),
            ("limit=many", "limit: "),
            ("stat=error", "unknown field `stat`"),
            ("name=%00", "U+0000"),
        ] {
            let request = Request::get(format!("/v1/tasks?{query}")).body(()).unwrap();
            let mut parts = request.into_parts().0;
            let problem = Params::<TaskFilter>::from_request_parts(&mut parts, &()).await;
            let Refusal(problem) = problem.err().expect("refused");
            assert_eq!(problem.status, 400);
            assert!(problem.title.contains(named), "{}", problem.title);
        }
    }

    #[test]
    fn an_escaped_nul_is_told_from_an_escaped_backslash() {
        assert!(escapes_nul(br#"{"a": "x\u0000"}"#));
        assert!(escapes_nul(br#"{"a": "\\\u0000"}"#));
        assert!(!escapes_nul(br#"{"a": "\\u0000"}"#));
        assert!(!escapes_nul(br#"{"a": "u0000 \n\u0001"}"#));
        assert!(!escapes_nul(br"\"));
    }
}
