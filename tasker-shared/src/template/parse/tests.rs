//! What a template file may say, and the exact words with which everything else is refused.

use super::{DEFAULT_VERSION, parse, parse_with};
use crate::{
    name::Name,
    step::{Backoff, RetryPolicy},
    task::IdentityStrategy,
    template::{Concurrency, Keep, Limits, Template, model::DEFAULT_TIMEOUT},
};
use serde_json::json;
use std::time::Duration;

const HEAD: &str = "name: t\nnamespace_name: n\n";

/// Compares every case and then fails with all that differ.
fn assert_refusals(cases: &[(&str, &str)], refusal: impl Fn(&str) -> String) {
    let differs = |(source, expected): &(&str, &str)| {
        let found = refusal(source);
        (found != *expected).then(|| format!("{source}\n  expected {expected}\n  found    {found}\n"))
    };
    let different: String = cases.iter().filter_map(differs).collect();
    assert!(different.is_empty(), "{different}");
}

fn refusal(source: &str) -> String {
    match parse(source, Some("t.yaml")) {
        Ok(template) => panic!("accepted: {template:?}"),
        Err(invalid) => invalid.to_string(),
    }
}

/// The refusal of a template whose only step has the given lines.
fn step_refusal(lines: &str) -> String {
    let indented: String = lines.lines().map(|line| format!("    {line}\n")).collect();
    refusal(&format!("{HEAD}steps:\n  - name: a\n    handler: {{callable: c}}\n{indented}"))
}

fn accepted(source: &str) -> Template {
    parse(source, Some("t.yaml")).unwrap_or_else(|invalid| panic!("{invalid}"))
}

#[test]
fn every_key_is_read() {
    let template = accepted(
        r#"
name: order
namespace_name: shop
version: 1.10
description: An order
metadata: {team: "payments", sizes: [1, 2.5, null, true]}
identity_strategy: strict
input_schema:
  type: object
  required: [order_id]
lifecycle: {max_duration_minutes: 1.5, max_queued_seconds: 9, max_retry_wait_minutes: 1, max_retries: 0}
retention: {complete_after: 1d 12h, failed_after: never}
steps:
  - name: validate
    description: Looks at it
    type: standard
    handler:
      callable: orders.validate
      method: check
      initialization: {strict: true, limit: 0x10}
    retry: {retryable: false, max_attempts: 7, backoff: fibonacci, backoff_base_ms: 5, max_backoff_ms: 50, jitter: false}
    timeout_seconds: 2.5
    result_schema: {type: object}
    concurrency: {limit: 3, key: input.customer.id}
  - name: ship
    dependencies: [validate]
    handler: {callable: orders.ship}
    retry: {limit: 2}
environments:
  production:
    steps:
      - name: validate
        handler: {initialization: {limit: 99, region: eu}}
        retry: {max_attempts: 9}
        timeout_seconds: 60
  test: {}
"#,
    );
    assert_eq!(template.name, Name::new("order").unwrap());
    assert_eq!(template.version, "1.10");
    assert_eq!(template.metadata["sizes"], json!([1, 2.5, null, true]));
    assert_eq!(template.identity_strategy, IdentityStrategy::Strict);
    assert_eq!(template.lifecycle.max_duration, Some(Duration::from_secs(90)));
    let times = (template.lifecycle.max_queued, template.lifecycle.max_retry_wait);
    assert_eq!(times, (Some(Duration::from_secs(9)), Some(Duration::from_secs(60))));
    assert_eq!(template.lifecycle.max_retries, Some(0));
    let kept = (template.retention.complete_after, template.retention.failed_after);
    assert_eq!(kept, (Some(Keep::For(Duration::from_secs(36 * 3600))), Some(Keep::Forever)));
    let [validate, ship] = template.steps.as_slice() else { panic!("two steps") };
    assert_eq!(validate.timeout, Duration::from_millis(2_500));
    assert_eq!(validate.concurrency, Some(Concurrency { limit: 3, key: Some("input.customer.id".to_owned()) }));
    assert_eq!(validate.handler.method.as_deref(), Some("check"));
    assert_eq!(validate.handler.initialization["limit"], json!(16));
    let policy = RetryPolicy {
        retryable: false,
        max_attempts: 7,
        backoff: Backoff::Fibonacci,
        backoff_base_ms: 5,
        max_backoff_ms: 50,
        jitter: false,
    };
    assert_eq!(validate.retry, policy);
    assert_eq!(ship.dependencies, [Name::new("validate").unwrap()]);
    assert_eq!(ship.retry, RetryPolicy { max_attempts: 2, ..RetryPolicy::default() });
    assert_eq!(ship.timeout, DEFAULT_TIMEOUT);

    let production = template.for_environment("production");
    assert_eq!(
        production.steps[0].handler.initialization,
        *json!({"strict": true, "limit": 99, "region": "eu"}).as_object().unwrap()
    );
    assert_eq!(production.steps[0].retry, RetryPolicy { max_attempts: 9, ..policy });
    assert_eq!(production.steps[0].timeout, Duration::from_secs(60));
    assert_eq!(production.steps[1], template.steps[1]);
    assert!(production.environments.is_empty());
    let elsewhere = template.for_environment("elsewhere");
    assert_eq!(elsewhere.steps, template.steps);
    assert_eq!(template.for_environment("test"), elsewhere);
}

#[test]
fn the_stored_form_reads_back_equal() {
    let template = accepted(&format!(
        "{HEAD}lifecycle: {{max_duration_seconds: 1}}\nretention: {{complete_after: 2m, failed_after: never}}\nsteps: [{{name: a, handler: {{callable: c}}, timeout_seconds: 0.25}}]\nenvironments: {{x: {{steps: [{{name: a, timeout_seconds: 1}}]}}}}"
    ));
    let stored = serde_json::to_value(&template).unwrap();
    assert_eq!(stored["steps"][0]["timeout_ms"], 250);
    assert_eq!(stored["lifecycle"]["max_duration_ms"], 1_000);
    assert_eq!(stored["retention"], json!({"complete_after_ms": 120_000, "failed_after_ms": "never"}));
    assert_eq!(serde_json::from_value::<Template>(stored).unwrap(), template);
}

#[test]
fn json_is_yaml_and_defaults_are_filled_in() {
    let template =
        accepted(r#"{"name": "t", "namespace_name": "n", "steps": [{"name": "a", "handler": {"callable": "c"}}]}"#);
    assert_eq!(template.version, DEFAULT_VERSION);
    assert_eq!(template.identity_strategy, IdentityStrategy::AlwaysUnique);
    assert_eq!(template.steps[0].retry, RetryPolicy::default());
}

#[test]
fn an_alias_repeats_what_its_anchor_names() {
    let template = accepted(&format!(
        "{HEAD}steps:\n  - {{name: a, handler: &h {{callable: c}}, retry: &r {{limit: 5}}}}\n  - {{name: b, handler: *h, retry: *r}}\n"
    ));
    assert_eq!(template.steps[0].handler, template.steps[1].handler);
    assert_eq!(template.steps[1].retry.max_attempts, 5);
}

#[test]
fn a_tag_can_say_that_a_value_is_text() {
    let template = accepted(&format!(
        "{HEAD}metadata: {{a: !!str 1, b: ! no, c: \"2\", d: 3}}\nsteps: [{{name: a, handler: {{callable: c}}}}]\n"
    ));
    assert_eq!(json!(template.metadata), json!({"a": "1", "b": "no", "c": "2", "d": 3}));
}

#[test]
fn what_is_no_template_at_all_is_refused() {
    assert_refusals(
        &[
            ("", "t.yaml:1:1: the file is empty; a template needs at least `name`, `namespace_name` and `steps`"),
            (
                "# only a comment\n",
                "t.yaml:1:1: the file is empty; a template needs at least `name`, `namespace_name` and `steps`",
            ),
            ("just words", "t.yaml:1:1: expected a mapping, found the text \"just words\""),
            ("- a\n", "t.yaml:1:1: expected a mapping, found a list"),
            ("null", "t.yaml:1:1: expected a mapping, found nothing"),
            ("name: [a\n", "t.yaml:2:1: name[1]: not valid YAML: while parsing a flow sequence, expected ',' or ']'"),
            (
                "name: a\n---\nname: b\n",
                "t.yaml:2:1: a file holds one template; put the next document into a file of its own",
            ),
            ("[a]: b\n", "t.yaml:1:1: a key is one word, not a list or mapping"),
            ("a: *b\n", "t.yaml:1:4: a: not valid YAML: while parsing node, found unknown anchor"),
            ("a: &b [*b]\n", "t.yaml:1:8: a[0]: an alias stands inside the node that it names"),
        ],
        refusal,
    );
    assert_eq!(parse("", None).unwrap_err().to_string().split(": ").next(), Some("1:1"));
}

#[test]
fn missing_and_unknown_keys_are_named() {
    assert_refusals(
        &[
            ("name: t\n", "t.yaml:1:1: the key `namespace_name` is missing\nt.yaml:1:1: the key `steps` is missing"),
            (
                "namespace_name: n\nsteps: []\n",
                "t.yaml:1:1: the key `name` is missing\nt.yaml:2:8: steps: a template needs at least one step",
            ),
            (
                "name: t\nnamespace: n\nstep: []\nzzz: 1\n",
                "t.yaml:1:1: the key `namespace_name` is missing\n\
             t.yaml:1:1: the key `steps` is missing\n\
             t.yaml:2:1: namespace: unknown key; did you mean `namespace_name`?\n\
             t.yaml:3:1: step: unknown key; did you mean `steps`?\n\
             t.yaml:4:1: zzz: unknown key",
            ),
            (
                "name: t\nname: u\nnamespace_name: n\nsteps: [{name: a, name: b, handler: {callable: c}}]\n",
                "t.yaml:2:1: name: this key is given twice\nt.yaml:4:19: steps[0].name: this key is given twice",
            ),
            (
                "name: t\nnamespace_name: n\nsteps: [{name: a}, {handler: {}}]\n",
                "t.yaml:3:9: steps[0]: the key `handler` is missing\n\
             t.yaml:3:20: steps[1]: the key `name` is missing\n\
             t.yaml:3:30: steps[1].handler: the key `callable` is missing",
            ),
        ],
        refusal,
    );
    assert_refusals(
        &[
            ("retry: {backof: linear}", "t.yaml:6:13: steps[0].retry.backof: unknown key; did you mean `backoff`?"),
            ("depends_on_step: a", "t.yaml:6:5: steps[0].depends_on_step: unknown key; did you mean `dependencies`?"),
            (
                "retry:\n  <<: {limit: 2}",
                "t.yaml:7:7: steps[0].retry[\"<<\"]: merge keys are not supported; write the keys out",
            ),
        ],
        step_refusal,
    );
}

#[test]
fn wrong_types_say_what_was_expected_and_what_was_found() {
    assert_refusals(
        &[
            (
                "description: 12",
                "t.yaml:6:18: steps[0].description: expected text, found the number 12; put it into quotes",
            ),
            ("description:", "t.yaml:6:16: steps[0].description: expected text, found nothing"),
            ("description: true", "t.yaml:6:18: steps[0].description: expected text, found true; put it into quotes"),
            ("dependencies: b", "t.yaml:6:19: steps[0].dependencies: expected a list, found the text \"b\""),
            ("retry: [1]", "t.yaml:6:12: steps[0].retry: expected a mapping, found a list"),
            (
                "retry: {retryable: no}",
                "t.yaml:6:24: steps[0].retry.retryable: expected true or false, found `no`; write false",
            ),
            (
                "retry: {retryable: Yes}",
                "t.yaml:6:24: steps[0].retry.retryable: expected true or false, found `Yes`; write true",
            ),
            (
                "retry: {jitter: \"true\"}",
                "t.yaml:6:21: steps[0].retry.jitter: expected true or false, found the text \"true\"",
            ),
            ("retry: {jitter: 1}", "t.yaml:6:21: steps[0].retry.jitter: expected true or false, found the number 1"),
            (
                "retry: {limit: 0}",
                "t.yaml:6:20: steps[0].retry.limit: expected a whole number from 1 to 1000, found the number 0",
            ),
            (
                "retry: {limit: 1.5}",
                "t.yaml:6:20: steps[0].retry.limit: expected a whole number from 1 to 1000, found the number 1.5",
            ),
            (
                "retry: {max_attempts: \"3\"}",
                "t.yaml:6:27: steps[0].retry.max_attempts: expected a whole number from 1 to 1000, found the text \"3\"",
            ),
            (
                "retry: {max_attempts: 3, limit: 3}",
                "t.yaml:6:37: steps[0].retry.limit: `max_attempts` and `limit` mean the same; give one of them",
            ),
            (
                "retry: {backoff: exponental}",
                "t.yaml:6:22: steps[0].retry.backoff: `exponental` is not one of none, constant, linear, exponential, fibonacci; did you mean `exponential`?",
            ),
            (
                "retry: {backoff_base_ms: -1}",
                "t.yaml:6:30: steps[0].retry.backoff_base_ms: expected a whole number from 0 to 31536000000, found the number -1",
            ),
            (
                "retry: {backoff_base_ms: 90000}",
                "t.yaml:6:12: steps[0].retry: backoff_base_ms (90000) is larger than max_backoff_ms (60000)",
            ),
            (
                "timeout_seconds: 0",
                "t.yaml:6:22: steps[0].timeout_seconds: expected a number of seconds above 0 and at most 31536000, found the number 0",
            ),
            (
                "timeout_seconds: .inf",
                "t.yaml:6:22: steps[0].timeout_seconds: expected a number of seconds above 0 and at most 31536000, found the number .inf",
            ),
            (
                "timeout_seconds: 5s",
                "t.yaml:6:22: steps[0].timeout_seconds: expected a number of seconds above 0 and at most 31536000, found the text \"5s\"",
            ),
            (
                "timeout_seconds: 0.00001",
                "t.yaml:6:22: steps[0].timeout_seconds: the number 0.00001 is finer than a millisecond",
            ),
            (
                "type: decision",
                "t.yaml:6:11: steps[0].type: steps of type `decision` are not supported by this version; only `standard` is",
            ),
            (
                "type: standart",
                "t.yaml:6:11: steps[0].type: `standart` is not a type of step; only `standard` is supported; did you mean `standard`?",
            ),
            (
                "type: batchabel",
                "t.yaml:6:11: steps[0].type: `batchabel` is not a type of step; only `standard` is supported; did you mean `batchable`?",
            ),
            (
                "description: !custom x",
                "t.yaml:6:18: steps[0].description: the tag `!custom` is not supported; write the value without it",
            ),
        ],
        step_refusal,
    );
}

#[test]
fn the_head_is_checked() {
    let rest = "steps: [{name: a, handler: {callable: c}}]\n";
    assert_refusals(
        &[
            (
                "name: a b\nnamespace_name: n",
                "t.yaml:1:7: name: `a b` has the character ' ' at position 1; names are made of letters, digits, `_`, `-`, `.` and `:`, and begin with a letter, a digit or `_`",
            ),
            ("name: 1\nnamespace_name: n", "t.yaml:1:7: name: expected text, found the number 1; put it into quotes"),
            (
                "name: t\nnamespace_name: n\nversion: a b",
                "t.yaml:3:10: version: a version has 1 to 64 letters, digits, `.`, `-`, `_` and `+`, such as 1.0.0",
            ),
            ("name: t\nnamespace_name: n\nversion: [1]", "t.yaml:3:10: version: expected text, found a list"),
            (
                "name: t\nnamespace_name: n\nidentity_strategy: strikt",
                "t.yaml:3:20: identity_strategy: `strikt` is not one of always_unique, caller_provided, strict; did you mean `strict`?",
            ),
            (
                "name: t\nnamespace_name: n\nlifecycle: {max_duration_minuts: 1}",
                "t.yaml:3:13: lifecycle.max_duration_minuts: unknown key; did you mean `max_duration_minutes`?",
            ),
            (
                "name: t\nnamespace_name: n\nlifecycle: {staleness_threshold: 1}",
                "t.yaml:3:13: lifecycle.staleness_threshold: this limit is not supported; a task is limited by `max_duration_minutes` (or `_seconds`), `max_queued_…`, `max_retry_wait_…` and `max_retries`",
            ),
            (
                "name: t\nnamespace_name: n\nlifecycle: {max_duration_minutes: 1, max_duration_seconds: 1}",
                "t.yaml:3:35: lifecycle.max_duration_minutes: `max_duration_seconds` and `max_duration_minutes` mean the same; give one of them",
            ),
            (
                "name: t\nnamespace_name: n\nlifecycle: {max_duration_minutes: 0}",
                "t.yaml:3:35: lifecycle.max_duration_minutes: expected a number of minutes above 0 and at most 525600, found the number 0",
            ),
            (
                "name: t\nnamespace_name: n\nlifecycle: {max_retries: -1}",
                "t.yaml:3:26: lifecycle.max_retries: expected a whole number from 0 to 1000000, found the number -1",
            ),
            (
                "name: t\nnamespace_name: n\nretention: {complete_after: 30}",
                "t.yaml:3:29: retention.complete_after: expected an age from 1m to 36500d, such as 30d or 12h, or never, found the number 30",
            ),
            (
                "name: t\nnamespace_name: n\nretention: {failed_after: 59s}",
                "t.yaml:3:27: retention.failed_after: expected an age from 1m to 36500d, such as 30d or 12h, or never, found the text \"59s\"",
            ),
            (
                "name: t\nnamespace_name: n\nretention: {failed_after: 36501d}",
                "t.yaml:3:27: retention.failed_after: expected an age from 1m to 36500d, such as 30d or 12h, or never, found the text \"36501d\"",
            ),
            (
                "name: t\nnamespace_name: n\nretention: {complete_after: [1d]}",
                "t.yaml:3:29: retention.complete_after: expected text, found a list",
            ),
            (
                "name: t\nnamespace_name: n\nretention: {completed_after: 1d}",
                "t.yaml:3:13: retention.completed_after: unknown key; did you mean `complete_after`?",
            ),
            (
                "name: t\nnamespace_name: n\nretention: 30d",
                "t.yaml:3:12: retention: expected a mapping, found the text \"30d\"",
            ),
            (
                "name: t\nnamespace_name: n\nmetadata: {a: no}",
                "t.yaml:3:15: metadata.a: `no` is a boolean in YAML 1.1 and text in YAML 1.2; write false or \"no\"",
            ),
            (
                "name: t\nnamespace_name: n\nmetadata: {a: .nan}",
                "t.yaml:3:15: metadata.a: the number .nan is not a number of JSON",
            ),
            (
                "name: t\nnamespace_name: n\nmetadata: {a: 99999999999999999999}",
                "t.yaml:3:15: metadata.a: the number 99999999999999999999 is too large; put it into quotes to keep its digits",
            ),
            ("name: t\nnamespace_name: n\nmetadata: [a]", "t.yaml:3:11: metadata: expected a mapping, found a list"),
        ],
        |lines| refusal(&format!("{lines}\n{rest}")),
    );
}

#[test]
fn the_graph_is_checked() {
    let refusal = |steps: &[(&str, &str)]| {
        let line = |(name, dependencies): &(&str, &str)| {
            format!("  - {{name: {name}, dependencies: [{dependencies}], handler: {{callable: c}}}}\n")
        };
        refusal(&format!("{HEAD}steps:\n{}", steps.iter().map(line).collect::<String>()))
    };
    assert_eq!(
        refusal(&[("a", "c"), ("b", "a"), ("c", "b")]),
        "t.yaml:4:30: steps[0].dependencies[0]: the dependencies form a cycle: a -> c -> b -> a (each waits for the next)"
    );
    assert_eq!(
        refusal(&[("x", ""), ("a", "x, b"), ("b", "a"), ("c", "d"), ("d", "c")]),
        "t.yaml:5:33: steps[1].dependencies[1]: the dependencies form a cycle: a -> b -> a (each waits for the next)\n\
         t.yaml:7:30: steps[3].dependencies[0]: the dependencies form a cycle: c -> d -> c (each waits for the next)"
    );
    assert_eq!(refusal(&[("a", "a")]), "t.yaml:4:30: steps[0].dependencies[0]: step `a` depends on itself");
    assert_eq!(
        refusal(&[("reserve", ""), ("ship", "reserv")]),
        "t.yaml:5:33: steps[1].dependencies[0]: there is no step `reserv`; did you mean `reserve`?"
    );
    assert_eq!(
        refusal(&[("a", ""), ("a", "")]),
        "t.yaml:5:12: steps[1].name: `a` is already the name of steps[0] (line 4)"
    );
    assert_eq!(refusal(&[("a", ""), ("b", "a, a")]), "t.yaml:5:33: steps[1].dependencies[1]: `a` is listed twice");
}

#[test]
fn schemas_must_compile_without_other_documents() {
    let refusal = |schema: &str| {
        refusal(&format!("{HEAD}input_schema: {schema}\nsteps: [{{name: a, handler: {{callable: c}}}}]\n"))
    };
    assert_refusals(
        &[
            ("[1]", "t.yaml:3:15: input_schema: expected a mapping, found a list"),
            (
                "{type: object, properties: {n: {type: intt}}}",
                "t.yaml:3:53: input_schema.properties.n.type: not a JSON Schema: \"intt\" is not valid under any of the schemas listed in the 'anyOf' keyword",
            ),
            (
                "{required: n, minimum: x}",
                "t.yaml:3:26: input_schema.required: not a JSON Schema: \"n\" is not of type \"array\"\n\
             t.yaml:3:38: input_schema.minimum: not a JSON Schema: \"x\" is not of type \"number\"",
            ),
            (
                "{$ref: \"https://example.com/order.json\"}",
                "t.yaml:3:15: input_schema: not a JSON Schema: Resource 'https://example.com/order.json' is not present in a registry and retrieving it failed: `https://example.com/order.json` is not fetched; put the schema under `$defs` and refer to it as `#/$defs/…`",
            ),
            (
                "{$ref: \"#/$defs/missing\"}",
                "t.yaml:3:15: input_schema: not a JSON Schema: Pointer '/$defs/missing' does not exist",
            ),
            ("{pattern: \"(\"}", "t.yaml:3:25: input_schema.pattern: not a JSON Schema: \"(\" is not a \"regex\""),
            (
                "{format: emial}",
                "t.yaml:3:24: input_schema.format: not a JSON Schema: Unknown format: 'emial'. Adjust configuration to ignore unrecognized formats",
            ),
            (
                "{const: no}",
                "t.yaml:3:23: input_schema.const: `no` is a boolean in YAML 1.1 and text in YAML 1.2; write false or \"no\"",
            ),
        ],
        refusal,
    );
}

#[test]
fn environments_override_only_what_may_differ() {
    let refusal = |environments: &str| {
        refusal(&format!("{HEAD}steps: [{{name: validate, handler: {{callable: c}}}}]\nenvironments: {environments}\n"))
    };
    assert_refusals(
        &[
            (
                "{prod: {steps: [{name: validat}]}}",
                "t.yaml:4:38: environments.prod.steps[0].name: there is no step `validat`; did you mean `validate`?",
            ),
            (
                "{prod: {steps: [{timeout_seconds: 1}]}}",
                "t.yaml:4:31: environments.prod.steps[0]: the key `name` is missing",
            ),
            (
                "{prod: {steps: [{name: validate, dependencies: []}]}}",
                "t.yaml:4:48: environments.prod.steps[0].dependencies: this key cannot differ by environment; `handler.initialization`, `retry` and `timeout_seconds` can",
            ),
            (
                "{prod: {steps: [{name: validate, handler: {callable: d}}]}}",
                "t.yaml:4:58: environments.prod.steps[0].handler.callable: this key cannot differ by environment; `initialization` can",
            ),
            (
                "{prod: {steps: [{name: validate, retry: {max_backoff_ms: 10}}]}}",
                "t.yaml:4:55: environments.prod.steps[0].retry: backoff_base_ms (1000) is larger than max_backoff_ms (10)",
            ),
            (
                "{prod: {steps: [{name: validate}, {name: validate}]}}",
                "t.yaml:4:49: environments.prod.steps[1]: step `validate` is overridden twice in this environment",
            ),
            ("{prod: {step: []}}", "t.yaml:4:23: environments.prod.step: unknown key; did you mean `steps`?"),
            (
                "{a b: {}}",
                "t.yaml:4:16: environments[\"a b\"]: `a b` has the character ' ' at position 1; names are made of letters, digits, `_`, `-`, `.` and `:`, and begin with a letter, a digit or `_`",
            ),
            ("[a]", "t.yaml:4:15: environments: expected a mapping, found a list"),
        ],
        refusal,
    );
}

#[test]
fn hostile_sources_are_refused_quickly_and_without_a_stack_overflow() {
    let deep_block: String = (0..2_000).map(|depth| format!("{:depth$}a:\n", "")).collect();
    let dashes = format!("{}x", "- ".repeat(100_000));
    let questions = format!("{}x", "? ".repeat(100_000));
    let braces = "{a: ".repeat(100_000);
    let brackets = "[".repeat(100_000);
    for source in [deep_block, dashes, questions, braces, brackets] {
        let refused = refusal(&source);
        assert!(refused.len() < 5_000, "{refused}");
        assert!(
            refused.contains("nested more than 64 deep")
                || refused.contains("a key is one word")
                || refused.contains("not valid YAML"),
            "{refused}"
        );
    }
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    assert!(refusal(&bomb).contains("the aliases of this file expand to more than a template may hold"));
    let nested_by_alias: String = (1..100)
        .fold("a0: &a0 [x]\n".to_owned(), |text, level| text + &format!("a{level}: &a{level} [*a{}]\n", level - 1));
    assert!(refusal(&nested_by_alias).contains("nested more than 64 deep"));
}

#[test]
fn size_steps_and_the_list_of_problems_are_limited() {
    let limits = Limits { source_bytes: 200, steps: 1, ..Limits::default() };
    let two = format!("{HEAD}steps: [{{name: a, handler: {{callable: c}}}}, {{name: b, handler: {{callable: c}}}}]\n");
    let refused = parse_with(&two, None, &limits).unwrap_err().to_string();
    assert_eq!(refused, "3:8: steps: 2 steps are more than the 1 that a template may have");
    let refused = parse_with(&"x".repeat(201), None, &limits).unwrap_err().to_string();
    assert_eq!(refused, "1:1: the file has 201 bytes, at most 200 are read");
    let many: String = (0..150).map(|n| format!("key_{n}: 1\n")).collect();
    let invalid = parse(&many, None).unwrap_err();
    assert_eq!((invalid.problems.len(), invalid.omitted), (100, 53));
    assert!(invalid.to_string().ends_with("\nand 53 more"));
}

#[test]
fn a_limit_on_what_runs_at_once_is_refused_where_it_cannot_be_kept() {
    for (limit, reason) in [
        ("{limit: 0}", "concurrency.limit: expected a whole number from 1 to 100000, found the number 0"),
        ("{key: a}", "limit"),
        ("{limit: 1, key: input}", "concurrency.key: expected a word"),
        ("{limit: 1, key: input..a}", "concurrency.key: expected a word"),
        ("{limit: 1, key: \"a b\"}", "concurrency.key: expected a word"),
        ("{limit: 1, per: a}", "concurrency.per: unknown key"),
    ] {
        let refused =
            refusal(&format!("{HEAD}steps:\n  - {{name: a, handler: {{callable: c}}, concurrency: {limit}}}"));
        assert!(refused.contains(reason), "{limit}: {refused}");
    }
}

#[test]
fn placeholders_and_headers_of_built_in_handlers_are_checked_where_they_stand() {
    let step = |handler: &str| format!("{HEAD}steps:\n  - name: a\n    handler: {handler}\n");
    assert_refusals(
        &[
            (
                "{callable: http, initialization: {url: 'http://a/{{ 9 * 9 }}'}}",
                "t.yaml:5:47: steps[0].handler.initialization.url: a placeholder with `*` is not offered: it repeats texts and \
                 lists; leave the sum to who submits the task or to who is called",
            ),
            (
                "{callable: command, initialization: {argv: [echo, '{% set a = 1 %}']}}",
                "t.yaml:5:50: steps[0].handler.initialization.argv[1]: `{%` begins statements, which are not offered; there are \
                 only placeholders such as `{{ input.id }}`",
            ),
            (
                "{callable: http, initialization: {url: 'http://a/', headers: {Content-Length: '400'}}}",
                "t.yaml:5:47: steps[0].handler.initialization.headers.Content-Length: this header belongs to the connection, \
                 which other steps use too, and cannot be set; the handler sets it where it is needed",
            ),
        ],
        |handler| refusal(&step(handler)),
    );
    accepted(&step("{callable: my.own, initialization: {text: '{% if a %}', headers: {host: a}}}"));
    let environment = "environments: {test: {steps: [{name: a, handler: {initialization: {url: '{{ 1 * 1 }}'}}}]}}\n";
    let refused = refusal(&format!("{}{environment}", step("{callable: http}")));
    assert!(
        refused.contains("environments.test.steps[0].handler.initialization.url: a placeholder with `*`"),
        "{refused}"
    );
}
