//! A step as the handlers of other languages see it: one JSON document, and texts with placeholders into it.

use super::{HandlerError, StepContext, bounds::shortened, filters};
use minijinja::{Environment, UndefinedBehavior};
use serde::Serialize;
use serde_json::{Map, Value};
use std::{cell::Cell, collections::BTreeMap, io};
use tasker_shared::{
    id::{CorrelationId, StepId, TaskId},
    name::Name,
    template::placeholders,
};

/// Enough for any text of a sensible size.
const FUEL: u64 = 1_000_000;

/// The most bytes that the placeholders of a step's texts make together.
const MOST_BYTES: usize = 32 * 1024 * 1024;

/// The most of a text that is shown in a message.
const LONGEST_SHOWN: usize = 1024;

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
    /// How many bytes the texts of the step may still fill.
    left: Cell<usize>,
}

impl Placeholders {
    pub(super) fn of(context: &StepContext) -> Self {
        let mut environment = filters::environment();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_fuel(Some(FUEL));
        let values = minijinja::Value::from_serialize(Document::of(context));
        Self { environment, values, step: context.step_name.clone(), left: Cell::new(MOST_BYTES) }
    }

    /// `text` with its placeholders filled. `key` names the text in the message of a failure.
    ///
    /// # Errors
    /// A permanent failure: the same text and input give the same error another time.
    pub(super) fn text(&self, key: &str, text: &str) -> Result<String, HandlerError> {
        self.check(key, text)?;
        if !text.contains("{{") {
            return Ok(text.to_owned());
        }
        let mut filled = Bounded { bytes: Vec::new(), left: &self.left };
        let template = self.environment.template_from_str(text).map_err(|error| self.refused(key, text, &error))?;
        match template.render_captured_to(&self.values, &mut filled) {
            Ok(_) => String::from_utf8(filled.bytes).map_err(HandlerError::fail),
            Err(_) if filled.is_full() => Err(self.too_large(key)),
            Err(error) => Err(self.refused(key, text, &error)),
        }
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
        self.check(key, text)?;
        let compiled =
            self.environment.compile_expression(expression).map_err(|error| self.refused(key, text, &error))?;
        let value = compiled.eval(&self.values).map_err(|error| self.refused(key, text, &error))?;
        if value.is_undefined() {
            return Err(self.refused(key, text, &minijinja::ErrorKind::UndefinedError.into()));
        }
        let mut filled = Bounded { bytes: Vec::new(), left: &self.left };
        let written = serde_json::to_writer(&mut filled, &value);
        if filled.is_full() {
            return Err(self.too_large(key));
        }
        written
            .and_then(|()| serde_json::from_slice(&filled.bytes))
            .map_err(|error| HandlerError::fail(format!("`{key}` of step `{}` is not JSON: {error}", self.step)))
    }

    /// A template may have been applied before its placeholders were checked.
    fn check(&self, key: &str, text: &str) -> Result<(), HandlerError> {
        placeholders::check(text)
            .map_err(|reason| HandlerError::fail(format!("`{key}` of step `{}` cannot be filled: {reason}", self.step)))
    }

    fn too_large(&self, key: &str) -> HandlerError {
        HandlerError::fail(format!(
            "`{key}` of step `{}` cannot be filled: the texts of the step become larger than {MOST_BYTES} bytes",
            self.step
        ))
    }

    fn refused(&self, key: &str, text: &str, error: &minijinja::Error) -> HandlerError {
        let reason = error.detail().map_or_else(|| error.kind().to_string(), |d| format!("{}: {d}", error.kind()));
        HandlerError::fail(format!(
            "`{key}` of step `{}` cannot be filled: {} in `{}`; there are input, parents, task, step, attempt, \
             max_attempts and idempotency_key",
            self.step,
            shortened(&reason, LONGEST_SHOWN),
            shortened(text, LONGEST_SHOWN)
        ))
    }
}

/// A text that takes no more than what is left; one that is full has nothing left.
struct Bounded<'a> {
    bytes: Vec<u8>,
    left: &'a Cell<usize>,
}

impl Bounded<'_> {
    fn is_full(&self) -> bool {
        self.left.get() == 0
    }
}

impl io::Write for Bounded<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() >= self.left.get() {
            self.left.set(0);
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.left.set(self.left.get() - bytes.len());
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
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
    use tasker_shared::template::placeholders::LONGEST_EXPRESSION;

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
            ("{% if %}", "`{%` begins statements, which are not offered"),
            ("{{ range(9) }}", "unknown function"),
            ("{{ 'a'|indent(1000000000) }}", "unknown filter"),
            ("{{ '%1000000000d'|format(1) }}", "unknown filter"),
            ("{{ input.amount|nofilter }}", "unknown filter"),
            ("/{{ '..'|urlencode }}", "`..` cannot be a part of a URL"),
        ] {
            let error = placeholders.value("body", &json!({"a": [text]})).expect_err(text);
            assert!(!error.is_retryable());
            assert!(error.message().starts_with("`body.a[0]` of step `step` cannot be filled"), "{error}");
            assert!(error.message().contains(reason), "{error}");
        }
    }

    /// The longest expression that is accepted, with as many of `open` and `close` round `inner` as there may be.
    fn longest(open: &str, inner: &str, close: &str) -> String {
        let times = (LONGEST_EXPRESSION - inner.len() - 2) / (open.len() + close.len());
        let times = if close.contains(['+', '~']) { times.min(16) } else { times };
        format!("{{{{ {}{inner}{} }}}}", open.repeat(times), close.repeat(times))
    }

    #[test]
    fn the_longest_expressions_fit_a_thread_of_two_mebibytes() {
        let fill = || {
            let placeholders = Placeholders::of(&context());
            for (open, inner, close) in [
                ("", "1", "+1"),
                ("", "1", "~1"),
                ("", "1", "|abs"),
                ("", "input", ".a"),
                ("", "input", "[0]"),
                ("", "1", "/1"),
                ("", "1", "-1"),
                ("", "1", "<1"),
                ("", "1", " is int"),
                ("", "a", "()"),
                ("-", "1", ""),
                ("not ", "1", ""),
                ("1 if 1 else ", "1", ""),
                ("", "1", " and 1"),
                ("", "1", " or 1"),
                ("(", "1", ")"),
                ("[", "1", "]"),
            ] {
                let text = longest(open, inner, close);
                tasker_shared::template::placeholders::check(&text).expect("it is accepted");
                // some are errors of their own; what counts is that the stack suffices
                let _ = placeholders.value("body", &json!(text));
                let _ = placeholders.text("url", &format!("x{text}"));
            }
        };
        std::thread::Builder::new().stack_size(2 << 20).spawn(fill).expect("a thread").join().expect("it fits");
    }

    #[test]
    fn texts_that_would_become_too_large_are_refused() {
        let input = json!({"text": "<\"".repeat(500_000), "list": vec!["x"; 100_000]});
        let context = StepContext::for_test(input);
        let long = "y".repeat(500);
        for text in [
            format!("{{{{ input.text{} }}}}", "|tojson".repeat(30)),
            format!("{{{{ input.text|replace('<', '{long}') }}}}"),
            format!("{{{{ input.list|join('{long}') }}}}"),
            format!("{{{{ input.text{} }}}}", "|urlencode".repeat(30)),
        ] {
            let refused = Placeholders::of(&context).text("url", &text).expect_err("it is too large");
            assert!(refused.message().contains("becomes larger than 8388608 bytes"), "{refused}");
        }
        let all = [
            json!("{{ input.text }}".repeat(100)),
            json!(vec!["{{ input.text }}"; 100]),
            json!([format!("{{{{ [{}] }}}}", "input.text,".repeat(16)), "{{ [input.text, input.text] }}".repeat(10)]),
        ];
        for value in all {
            let refused = Placeholders::of(&context).value("body", &value).expect_err("it is too large");
            assert!(refused.message().contains("become larger than 33554432 bytes"), "{refused}");
        }
    }

    #[test]
    fn usual_filters_and_tests_are_there() {
        let fill = |text: &str| Placeholders::of(&context()).text("url", text).expect("it can be filled");
        assert_eq!(fill("{{ input.none|default('a')|upper }} {{ 'a' if input.b is defined else 'c' }}"), "A c");
        assert_eq!(fill("{{ parents|tojson }} {{ 'axa'|replace('a', 'b') }}"), "{\"quote-1\":{\"price\":7}} bxb");
        assert_eq!(fill("{{ input.amount|round|int + 1 }} {{ ' a '|trim ~ input.tags|first }}"), "14 ax");
        assert_eq!(fill("{{ input.tags|length }} {{ 'a,b'|split(',')|last }}"), "2 b");
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
