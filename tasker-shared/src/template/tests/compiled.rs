//! A compiled template checks inputs and results.

use crate::template::{Compiled, parse};
use serde_json::{Value, json};

fn compiled(source: &str) -> Compiled {
    let template = parse(source, None).unwrap_or_else(|invalid| panic!("{invalid}"));
    Compiled::new(template).unwrap()
}

const SOURCE: &str = r#"
name: t
namespace_name: n
input_schema:
  type: object
  required: [order]
  additionalProperties: false
  properties:
    order:
      type: object
      properties: {id: {type: integer}, mail: {type: string, format: email}, lines: {type: array, items: {type: integer}}}
steps:
  - {name: a, handler: {callable: c}, result_schema: {type: object, required: [ok]}}
  - {name: b, dependencies: [a], handler: {callable: c}}
"#;

#[test]
fn an_input_that_breaks_its_schema_is_told_with_every_place() {
    let compiled = compiled(SOURCE);
    assert_eq!(compiled.validate_input(&json!({"order": {"id": 1, "mail": "a@example.org"}})), Ok(()));
    let refused = compiled.validate_input(&json!({"order": {"id": "1", "mail": "nobody"}, "x": 1})).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "/order/id: \"1\" is not of type \"integer\"; /order/mail: \"nobody\" is not a \"email\"; \
         Additional properties are not allowed ('x' was unexpected)"
    );
    assert_eq!(refused.violations[0].pointer, "/order/id");
    assert!(!refused.more);
}

#[test]
fn the_list_of_violations_and_each_message_are_bounded() {
    let compiled = compiled(SOURCE);
    let lines: Vec<Value> = (0..500).map(|_| json!("x".repeat(1_000))).collect();
    let refused = compiled.validate_input(&json!({"order": {"lines": lines}})).unwrap_err();
    assert_eq!(refused.violations.len(), 20);
    assert!(refused.more);
    assert!(refused.to_string().len() < 8_000);
}

#[test]
fn a_schema_whose_work_doubles_with_every_level_refuses_deep_values_at_once() {
    let compiled = compiled(
        r##"
name: t
namespace_name: n
input_schema: &schema
  $defs:
    n:
      allOf:
        - {properties: {a: {$ref: "#/$defs/n"}}}
        - {properties: {a: {$ref: "#/$defs/n"}}}
  $ref: "#/$defs/n"
steps:
  - {name: a, handler: {callable: c}, result_schema: *schema}
"##,
    );
    let nested = |depth: usize| (0..depth).fold(json!(1), |inner, _| json!({"a": inner}));
    assert_eq!(compiled.validate_input(&nested(8)), Ok(()));
    for refused in [compiled.validate_input(&nested(60)), compiled.validate_result(0, &nested(60))] {
        let refused = refused.expect_err("it would take for ever").to_string();
        assert!(refused.contains("would take more than 10000000 steps; make the value smaller"), "{refused}");
    }
}

#[test]
fn a_value_that_is_wrong_everywhere_is_refused_without_listing_it_all() {
    let source = |items: &str| {
        format!(
            "name: t\nnamespace_name: n\ninput_schema: {{items: {items}}}\nsteps:\n  - {{name: a, handler: {{callable: c}}}}\n"
        )
    };
    let wrong = json!(vec![1; 120_000]);
    let refused = compiled(&source("{type: string}")).validate_input(&wrong).unwrap_err();
    assert_eq!(refused.to_string(), "/0: 1 is not of type \"string\"; and more");
    let any = format!("{{anyOf: [{}]}}", vec!["{type: string}"; 20].join(", "));
    let refused = compiled(&source(&any)).validate_input(&wrong).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "/0: 1 is not valid under any of the schemas listed in the 'anyOf' keyword; and more"
    );
    let deep = format!(
        "{{name: t, namespace_name: n, input_schema: {{anyOf: [{{items: {any}}}]}}, steps: [{{name: a, handler: {{callable: c}}}}]}}"
    );
    let refused = compiled(&deep).validate_input(&wrong).unwrap_err();
    assert!(refused.to_string().contains("in so many ways that they are not listed"), "{refused}");
}

#[test]
fn the_deepest_check_fits_a_thread_of_two_mebibytes() {
    let chain = |tail: &str, length: usize| {
        let next = |n: usize| format!("    d{n}: {{oneOf: [{{allOf: [{{$ref: \"#/$defs/d{}\"}}]}}]}}\n", n + 1);
        let definitions: String = (0..length).map(next).collect();
        format!(
            "name: t\nnamespace_name: n\ninput_schema:\n  $ref: \"#/$defs/d0\"\n  $defs:\n{definitions}    \
             d{length}: {tail}\nsteps:\n  - {{name: a, handler: {{callable: c}}}}\n"
        )
    };
    let check = move || {
        let compiled = compiled(&chain("{type: integer}", 330));
        assert_eq!(compiled.validate_input(&json!(1)), Ok(()));
        assert!(compiled.validate_input(&json!("x")).is_err());
        let refused = compiled_deeper(&chain("{type: integer}", 400)).expect_err("it is too deep");
        assert!(refused.contains("more than 1000 schemas inside each other"), "{refused}");
    };
    std::thread::Builder::new().stack_size(2 << 20).spawn(check).unwrap().join().unwrap();
}

fn compiled_deeper(source: &str) -> Result<(), String> {
    compiled(source).validate_input(&json!(1)).map_err(|refused| refused.to_string())
}

#[test]
fn results_are_checked_by_step_and_anything_goes_without_a_schema() {
    let compiled = compiled(SOURCE);
    let (a, b) = (compiled.index("a").unwrap(), compiled.index("b").unwrap());
    assert_eq!(compiled.validate_result(a, &json!({"ok": 1})), Ok(()));
    assert_eq!(compiled.validate_result(a, &json!({})).unwrap_err().to_string(), "\"ok\" is a required property");
    assert_eq!(compiled.validate_result(b, &json!(null)), Ok(()));
    assert_eq!(compiled.step("b").map(|step| step.name.as_str()), Some("b"));
    assert!(compiled.step("c").is_none());
    assert_eq!(compiled.dag().parents(b), [a]);
    assert_eq!(compiled.dag().children(a), [b]);
}

#[test]
fn a_pattern_that_would_backtrack_for_ever_ends_as_a_violation() {
    let source = "name: t\nnamespace_name: n\ninput_schema: {pattern: \"^(a+)+(?=b)$\"}\nsteps: [{name: a, handler: {callable: c}}]\n";
    let refused = compiled(source).validate_input(&json!("a".repeat(5_000)));
    assert!(refused.is_err());
}

#[test]
fn a_schema_that_refers_to_itself_without_end_is_survived() {
    for schema in [
        "{$ref: \"#\"}",
        "{allOf: [{$ref: \"#\"}]}",
        "{$defs: {a: {$ref: \"#/$defs/b\"}, b: {$ref: \"#/$defs/a\"}}, $ref: \"#/$defs/a\"}",
    ] {
        let source = format!(
            "name: t\nnamespace_name: n\ninput_schema: {schema}\nsteps: [{{name: a, handler: {{callable: c}}}}]\n"
        );
        if let Ok(template) = parse(&source, None) {
            let _ = Compiled::new(template).unwrap().validate_input(&json!({"a": [1]}));
        }
    }
}

#[test]
fn a_compiled_template_can_be_shared_between_threads() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<Compiled>();
}
