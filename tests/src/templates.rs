//! Templates for tests.

use std::fmt::Write as _;

/// The namespace of the templates made here.
pub const NAMESPACE: &str = "test";

/// A template of steps `(name, dependencies)` with one handler for all, retried three times at once.
pub fn dag(name: &str, callable: &str, steps: &[(&str, &[&str])]) -> String {
    with_steps(
        name,
        steps.iter().map(|(step, parents)| {
            format!(
                "{{name: {step}, dependencies: [{}], handler: {{callable: {callable}}}, \
                 retry: {{max_attempts: 3, backoff: none}}}}",
                parents.join(", ")
            )
        }),
    )
}

/// A template of one step `only`, with further keys of the step.
pub fn single(name: &str, callable: &str, keys: &str) -> String {
    let keys = if keys.is_empty() { String::new() } else { format!(", {keys}") };
    with_steps(name, [format!("{{name: only, handler: {{callable: {callable}}}{keys}}}")])
}

/// A template of steps in YAML's flow style.
pub fn with_steps(name: &str, steps: impl IntoIterator<Item = String>) -> String {
    let mut source = format!("name: {name}\nnamespace_name: {NAMESPACE}\nversion: 1.0.0\nsteps:\n");
    for step in steps {
        let _ = writeln!(source, "  - {step}");
    }
    source
}

/// `a` before `b` and `c`, and `d` after both.
pub fn diamond(callable: &str) -> String {
    dag("diamond", callable, &[("a", &[]), ("b", &["a"]), ("c", &["a"]), ("d", &["b", "c"])])
}
