//! Everything that reads what others wrote, each as a function of bytes that must neither panic nor hang, and that
//! checks what it promises of what it accepts.
//!
//! `cargo fuzz` drives them from `fuzz_targets/`; the ordinary tests drive them too, from `tests/tests/main/fuzz.rs`.

mod http;
mod token;
mod unconnected;

pub use http::http;
pub use token::{jwks, token};

use std::fs;
use tasker_shared::{
    config::{Config, Sources},
    queue,
    telemetry::TraceParent,
    template::{Compiled, Limits, checksum, graph, parse, parse_with, to_yaml, wfformat},
};

/// A function of bytes.
pub type Target = fn(&[u8]);

/// Every target by its name.
pub const TARGETS: [(&str, Target); 8] = [
    ("template", template),
    ("wfformat", wfformat),
    ("config", config),
    ("traceparent", traceparent),
    ("http", http),
    ("message", message),
    ("token", token),
    ("jwks", jwks),
];

/// A template: what is accepted can be drawn, written, read again as the same, and applied in every environment.
pub fn template(data: &[u8]) {
    let Ok(source) = std::str::from_utf8(data) else { return };
    let limits = Limits { source_bytes: 64 * 1024, steps: 200, depth: 32 };
    let _ = parse_with(source, None, &limits);
    let template = match parse(source, Some("a.yaml")) {
        Ok(template) => template,
        Err(invalid) => {
            assert!(!invalid.to_string().is_empty());
            return;
        }
    };
    let (_, _) = (graph::text(&template), graph::mermaid(&template));
    let written = to_yaml(&template);
    let again = parse(&written, None).unwrap_or_else(|invalid| panic!("{invalid}\n{written}"));
    assert_eq!(checksum(&template), checksum(&again), "{written}");
    let environments = template.environments.keys().map(String::as_str).chain(["test"]);
    for environment in environments.collect::<Vec<_>>() {
        let compiled = Compiled::new(template.for_environment(environment)).expect("a checked template compiles");
        let _ = compiled.validate_input(&serde_json::Value::Null);
        assert_eq!(compiled.steps().len(), compiled.dag().order().len());
    }
}

/// A WfFormat document: what is accepted is a valid template.
pub fn wfformat(data: &[u8]) {
    let Ok(json) = std::str::from_utf8(data) else { return };
    if let Ok(template) = wfformat::import(json, &wfformat::Options::default()) {
        let written = to_yaml(&template);
        let again = parse(&written, None).unwrap_or_else(|invalid| panic!("{invalid}\n{written}"));
        assert_eq!(checksum(&template), checksum(&again), "{written}");
    }
}

/// Settings: a TOML file, and after the first NUL lines `VARIABLE=value`. Every setting in force can be shown.
pub fn config(data: &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let (file, variables) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("base.toml"), file).expect("a file");
    let root = directory.path().to_str().expect("a plain name");
    let mut sources = Sources::built_in("test").with("TASKER_CONFIG_ROOT", root);
    for line in String::from_utf8_lossy(variables).lines() {
        if let Some((name, value)) = line.split_once('=') {
            sources = sources.with(name, value);
        }
    }
    match Config::load(&sources) {
        Ok(config) => assert!(!config.describe().is_empty()),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// A `traceparent` header: what is accepted says the same when it is sent on.
pub fn traceparent(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(context) = text.parse::<TraceParent>() {
        assert_eq!(context.to_string().parse::<TraceParent>().expect("it was sent on"), context);
    }
}

/// A message of the queues of requests and results: what is understood says the same when it is written anew.
pub fn message(data: &[u8]) {
    let Ok(message) = serde_json::from_slice::<serde_json::Value>(data) else { return };
    if let Some(task_id) = queue::requested_task(&message) {
        assert_eq!(queue::requested_task(&serde_json::json!({ "task_id": task_id })), Some(task_id));
    }
    if let Some(reported) = queue::reported_step(&message) {
        let (step_id, task_id, attempt) = reported;
        let again = serde_json::json!({ "step_id": step_id, "task_id": task_id, "attempt": attempt });
        assert_eq!(queue::reported_step(&again), Some(reported));
    }
}
