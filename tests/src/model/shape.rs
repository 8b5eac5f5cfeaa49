//! Random templates: graphs of steps that are retried a random number of times.

use super::random::Random;
use std::fmt::Write as _;

/// The namespace of the templates made here.
pub(crate) const NAMESPACE: &str = "model";

/// The version of the templates made here that is not the newest.
pub(crate) const OLDER: &str = "1.0.0";

/// A template.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    pub(crate) steps: Vec<StepShape>,
    /// Whether the task may last an hour only.
    pub(crate) deadline: bool,
}

/// A step of a template; `s0`, `s1` and so on.
#[derive(Debug, Clone)]
pub(crate) struct StepShape {
    /// Earlier steps that it waits for.
    pub(crate) parents: Vec<usize>,
    pub(crate) max_attempts: u32,
    pub(crate) retryable: bool,
}

impl Shape {
    pub(crate) fn random(random: &mut Random) -> Self {
        let steps = 1 + random.below(5);
        let step = |n: usize, random: &mut Random| StepShape {
            parents: (0..n).filter(|_| random.one_in(2)).collect(),
            max_attempts: 1 + u32::try_from(random.below(3)).unwrap_or(0),
            retryable: !random.one_in(8),
        };
        Self { steps: (0..steps).map(|n| step(n, random)).collect(), deadline: random.one_in(4) }
    }

    /// The text of the template in two versions that differ in nothing else, the newer last. An input with the key `bad` is refused.
    pub(crate) fn versions(&self, name: &str) -> [String; 2] {
        [OLDER, "1.1.0"].map(|version| self.yaml(name, version))
    }

    fn yaml(&self, name: &str, version: &str) -> String {
        let mut yaml = format!(
            "name: {name}\nnamespace_name: {NAMESPACE}\nversion: {version}\n\
             input_schema: {{type: object, properties: {{bad: false}}}}\n"
        );
        if self.deadline {
            yaml.push_str("lifecycle: {max_duration_minutes: 60}\n");
        }
        yaml.push_str("steps:\n");
        for (n, step) in self.steps.iter().enumerate() {
            let parents: Vec<String> = step.parents.iter().map(|p| format!("s{p}")).collect();
            let _ = writeln!(
                yaml,
                "  - {{name: s{n}, dependencies: [{}], handler: {{callable: noop}}, \
                 retry: {{max_attempts: {}, retryable: {}, backoff: none}}}}",
                parents.join(", "),
                step.max_attempts,
                step.retryable
            );
        }
        yaml
    }
}
