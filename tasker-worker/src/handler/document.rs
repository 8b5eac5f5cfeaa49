//! A step as the handlers of other languages see it: one JSON document, and texts with placeholders into it.

use super::{HandlerError, StepContext};
use minijinja::{Environment, UndefinedBehavior};
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use tasker_shared::{
    id::{CorrelationId, StepId, TaskId},
    name::Name,
};

/// Enough for any text of a sensible size, and an end to a loop that has none.
const FUEL: u64 = 1_000_000;

/// What the `command` handler writes to standard input, what `http` sends as body when the template names none, and
/// what placeholders refer to.
#[derive(Serialize)]
pub(super) struct Document<'a> {
    input: &'a Value,
    parents: &'a BTreeMap<Name, Value>,
    task: Task<'a>,
    step: Step<'a>,
    attempt: u32,
    max_attempts: u32,
    idempotency_key: String,
}

#[derive(Serialize)]
struct Task<'a> {
    id: TaskId,
    namespace: &'a Name,
    name: &'a Name,
    correlation_id: CorrelationId,
    priority: i16,
}

#[derive(Serialize)]
struct Step<'a> {
    id: StepId,
    name: &'a Name,
    method: Option<&'a str>,
}

impl<'a> Document<'a> {
    pub(super) fn of(context: &'a StepContext) -> Self {
        Self {
            input: &context.input,
            parents: &context.parents,
            task: Task {
                id: context.task_id,
                namespace: &context.namespace,
                name: &context.task_name,
                correlation_id: context.correlation_id,
                priority: context.priority,
            },
            step: Step { id: context.step_id, name: &context.step_name, method: context.method() },
            attempt: context.attempt,
            max_attempts: context.max_attempts,
            idempotency_key: context.idempotency_key(),
        }
    }
}

/// Fills `{{ placeholders }}`. A name that does not exist is an error, never an empty text.
///
/// `|urlencode` makes a value one part of a path or query: `/` is encoded too, and `.` and `..` are refused, so that an
/// input cannot choose another path.
pub(super) struct Placeholders {
    environment: Environment<'static>,
    values: minijinja::Value,
    step: Name,
}

impl Placeholders {
    pub(super) fn of(context: &StepContext) -> Self {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_fuel(Some(FUEL));
        environment.add_filter("urlencode", urlencode);
        let values = minijinja::Value::from_serialize(Document::of(context));
        Self { environment, values, step: context.step_name.clone() }
    }

    /// `text` with its placeholders filled. `key` names the text in the message of a failure.
    ///
    /// # Errors
    /// A permanent failure: the same text and input give the same error another time.
    pub(super) fn text(&self, key: &str, text: &str) -> Result<String, HandlerError> {
        if !text.contains("{{") && !text.contains("{%") {
            return Ok(text.to_owned());
        }
        self.environment.render_str(text, &self.values).map_err(|error| self.refused(key, text, &error))
    }

    /// `value` with the placeholders of every text in it filled. A text that is one placeholder and nothing else
    /// takes that value as it is: a number stays a number.
    ///
    /// # Errors
    /// As [`text`](Self::text).
    pub(super) fn value(&self, key: &str, value: &Value) -> Result<Value, HandlerError> {
        match value {
            Value::String(text) => match alone(text) {
                Some(expression) => self.expression(key, text, expression),
                None => self.text(key, text).map(Value::String),
            },
            Value::Array(items) => {
                items.iter().enumerate().map(|(n, item)| self.value(&format!("{key}[{n}]"), item)).collect()
            }
            Value::Object(map) => {
                let fill =
                    |(name, item): (&String, &Value)| Ok((name.clone(), self.value(&format!("{key}.{name}"), item)?));
                map.iter().map(fill).collect::<Result<Map<_, _>, _>>().map(Value::Object)
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => Ok(value.clone()),
        }
    }

    fn expression(&self, key: &str, text: &str, expression: &str) -> Result<Value, HandlerError> {
        let compiled =
            self.environment.compile_expression(expression).map_err(|error| self.refused(key, text, &error))?;
        let value = compiled.eval(&self.values).map_err(|error| self.refused(key, text, &error))?;
        if value.is_undefined() {
            return Err(self.refused(key, text, &minijinja::ErrorKind::UndefinedError.into()));
        }
        serde_json::to_value(&value)
            .map_err(|error| HandlerError::fail(format!("`{key}` of step `{}` is not JSON: {error}", self.step)))
    }

    fn refused(&self, key: &str, text: &str, error: &minijinja::Error) -> HandlerError {
        let reason = error.detail().map_or_else(|| error.kind().to_string(), |d| format!("{}: {d}", error.kind()));
        HandlerError::fail(format!(
            "`{key}` of step `{}` cannot be filled: {reason} in `{text}`; there are input, parents, task, step, attempt, \
             max_attempts and idempotency_key",
            self.step
        ))
    }
}

fn urlencode(value: &minijinja::Value) -> Result<String, minijinja::Error> {
    let text = value.to_string();
    if matches!(text.as_str(), "." | "..") {
        let reason = format!("`{text}` cannot be a part of a URL");
        return Err(minijinja::Error::new(minijinja::ErrorKind::InvalidOperation, reason));
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let encode = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    Ok(text.bytes().map(encode).collect())
}

/// What is between the braces, when the text is one placeholder and nothing else.
fn alone(text: &str) -> Option<&str> {
    let expression = text.trim().strip_prefix("{{")?.strip_suffix("}}")?;
    (!expression.contains("{{") && !expression.contains("}}")).then_some(expression)
}

#[cfg(test)]
mod tests {
    use super::{Document, Placeholders};
    use crate::handler::StepContext;
    use serde_json::json;

    fn context() -> StepContext {
        let input = json!({"id": "a/b", "amount": 12.5, "tags": ["x", "y"]});
        StepContext::for_test(input).with_parent("quote-1", json!({"price": 7})).with_attempt(2)
    }

    #[test]
    fn texts_are_filled_from_input_parents_and_step() {
        let fill = |text| Placeholders::of(&context()).text("url", text).expect("it can be filled");
        assert_eq!(fill("/orders/{{ input.id|urlencode }}?n={{ attempt }}"), "/orders/a%2Fb?n=2");
        assert_eq!(fill("{{ parents['quote-1'].price }} {{ step.name }} {{ task.namespace }}"), "7 step test");
        assert_eq!(fill("<{{ input.tags|join('&') }}>"), "<x&y>");
        assert_eq!(fill("${#shell} {plain}"), "${#shell} {plain}");
        assert_eq!(fill("{{ '../ä&b=c'|urlencode }}"), "..%2F%C3%A4%26b%3Dc");
    }

    #[test]
    fn a_text_that_is_one_placeholder_keeps_its_type() {
        let body = json!({"amount": "{{ input.amount }}", "tags": ["{{ input.tags }}", "n {{ attempt }}"], "n": 1});
        let filled = Placeholders::of(&context()).value("body", &body).expect("it can be filled");
        assert_eq!(filled, json!({"amount": 12.5, "tags": [["x", "y"], "n 2"], "n": 1}));
    }

    #[test]
    fn bad_placeholders_fail_for_good_and_name_the_key() {
        let placeholders = Placeholders::of(&context());
        for (text, reason) in [
            ("x {{ input.nothing }}", "undefined value"),
            ("{{ input.nothing.at.all }}", "undefined value"),
            ("{{ input. }}", "syntax error"),
            ("{% if %}", "syntax error"),
            ("{{ input.amount|nofilter }}", "unknown filter"),
            ("/{{ '..'|urlencode }}", "`..` cannot be a part of a URL"),
            ("{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}", "ran out of fuel"),
        ] {
            let error = placeholders.value("body", &json!({"a": [text]})).expect_err(text);
            assert!(!error.is_retryable());
            assert!(error.message().starts_with("`body.a[0]` of step `step` cannot be filled"), "{error}");
            assert!(error.message().contains(reason), "{error}");
        }
    }

    #[test]
    fn the_document_has_what_a_program_needs() {
        let context = context();
        let document = serde_json::to_value(Document::of(&context)).expect("it is JSON");
        assert_eq!(document["input"]["amount"], json!(12.5));
        assert_eq!(document["parents"]["quote-1"]["price"], json!(7));
        assert_eq!(document["idempotency_key"], json!(context.step_id.to_string()));
        assert_eq!(document["step"], json!({"id": context.step_id, "name": "step", "method": null}));
    }
}
