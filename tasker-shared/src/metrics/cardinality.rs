//! The cardinality contract: how many series one process exports at most, as a function of what is deployed.
//!
//! Each metric has at most the product of its labels' values. Names of what is deployed belong together: a step has one
//! template, a template one namespace, a namespace one queue. All other labels are closed sets of words, or texts of the
//! code, whose number is bounded here; a test that runs everything holds both against what is exported.

use super::{CATALOG, Kind, Spec, spec::CORRELATION_ID};
use crate::{
    step::{DeadLetterReason, FailureKind, ResultType, StallKind, StepState},
    task::state::TaskState,
};

/// The queues that all namespaces share.
const SHARED_QUEUES: usize = 2;
/// Tables of schema `tasker`.
const TABLES: usize = 30;
/// Statements, by name.
const STATEMENTS: usize = 160;
/// Transactions, by name.
const TRANSACTIONS: usize = 80;
/// Routes of the HTTP with their methods, and the unknown one.
const ROUTES: usize = 60;
/// Answers of one route, by status.
const STATUSES: usize = 12;
/// Loops, components, channels and what else the code names.
const PARTS: usize = 16;

/// What is deployed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Deployment {
    /// Namespaces.
    pub namespaces: usize,
    /// Templates, over all namespaces.
    pub templates: usize,
    /// Steps, over all templates.
    pub steps: usize,
    /// Steps of the largest template.
    pub steps_of_largest: usize,
    /// Limits on what runs at once, of templates and operators.
    pub limits: usize,
    /// `telemetry.metrics.max_correlation_ids`.
    pub correlation_ids: usize,
}

/// The most series that one process exports at one time.
pub fn most_series(deployment: &Deployment) -> usize {
    CATALOG.iter().map(|spec| most_of(spec, deployment)).sum()
}

/// The most series of one metric. A histogram has one for each bucket, one without an upper bound, and sum and count.
pub fn most_of(spec: &Spec, deployment: &Deployment) -> usize {
    let each = if spec.kind == Kind::Histogram { spec.buckets.len() + 3 } else { 1 };
    each * most_sets(spec, deployment)
}

/// The most label sets of one metric.
pub fn most_sets(spec: &Spec, deployment: &Deployment) -> usize {
    let closed: usize = spec.labels.iter().map(|label| words(spec, label)).product();
    let of_ids = if spec.has_correlation_id() {
        // one task has one namespace, one template and its steps
        deployment.correlation_ids * if spec.labels.contains(&"step_name") { deployment.steps_of_largest } else { 1 }
    } else {
        0
    };
    // what exceeds the bound on ids has the same label sets as what has no ids
    closed * (of_ids + deployed(spec.labels, deployment))
}

/// How many values the labels have together that name what is deployed.
fn deployed(labels: &[&str], deployment: &Deployment) -> usize {
    let has = |label| labels.contains(&label);
    if has("step_name") {
        deployment.steps
    } else if has("task_type") {
        deployment.templates
    } else if has("queue") {
        deployment.namespaces + SHARED_QUEUES
    } else if has("scope") {
        deployment.limits
    } else if has("table") {
        deployment.namespaces + SHARED_QUEUES + TABLES
    } else if has("namespace") {
        // failures of steps that were never read have a namespace of their own
        deployment.namespaces + 1
    } else {
        1
    }
}

/// How many values a label of a metric has; 1 for those that [`deployed`] counts.
fn words(spec: &Spec, label: &str) -> usize {
    match label {
        CORRELATION_ID | "namespace" | "task_type" | "step_name" | "queue" | "scope" | "table" => 1,
        "result_type" => ResultType::ALL.len(),
        "final_state" => TaskState::ALL.iter().filter(|state| state.is_final()).count(),
        "state" => TaskState::ALL.iter().filter(|state| !state.is_final()).count(),
        "error_type" => super::ErrorType::ALL.len().max(FailureKind::ALL.len()),
        "result" => super::Success::ALL.len(),
        "claim_method" => super::ClaimMethod::ALL.len(),
        "credential" => super::Credential::ALL.len(),
        "priority" => super::Priority::ALL.len(),
        "handler_type" => super::HandlerType::ALL.len(),
        "status" => super::HealthStatus::ALL.len(),
        "signal" => super::Signal::ALL.len(),
        "reason" => DeadLetterReason::ALL.len(),
        "kind" => StallKind::ALL.len().max(super::Pruned::ALL.len()),
        "from" | "to" if spec.field == "tasks_transitions" => TaskState::ALL.len() + 1,
        "from" | "to" => StepState::ALL.len() + 1,
        "outcome" if spec.labels.contains(&"credential") => super::AccessOutcome::ALL.len(),
        "outcome" => super::TransactionOutcome::ALL.len().max(super::LoopOutcome::ALL.len()),
        "operation" => STATEMENTS,
        "transaction" => TRANSACTIONS,
        // together with the method
        "http.route" | "endpoint" => ROUTES,
        "http.request.method" if spec.labels.contains(&"http.route") => 1,
        // a process has HTTP or HTTPS
        "url.scheme" => 1,
        "http.response.status_code" => STATUSES,
        _ => PARTS,
    }
}

/// The contract in words and figures, for the reference page.
pub(super) fn section() -> String {
    let of = |change: fn(&mut Deployment)| {
        let mut deployment = Deployment::default();
        change(&mut deployment);
        most_series(&deployment)
    };
    let nothing = most_series(&Deployment::default());
    let each = |change: fn(&mut Deployment)| of(change) - nothing;
    let of_id = each(|d| d.correlation_ids = 1);
    let of_step = each(|d| (d.correlation_ids, d.steps_of_largest) = (1, 1)) - of_id;
    let (with_ids, without) = (most_series(&EXAMPLE), most_series(&Deployment { correlation_ids: 0, ..EXAMPLE }));
    format!(
        "## How many series there are

One process exports at most so many series at one time, whatever the number of tasks:

| for | series |
|---|---|
| the process | {nothing} |
| each namespace | {} |
| each template | {} |
| each step of a template | {} |
| each limit on what runs at once | {} |
| each of `telemetry.metrics.max_correlation_ids` | {of_id}, and {of_step} for each step of the largest template |

A histogram counts one for each bucket, and three. {} namespaces, {} templates of {} steps each and {} ids: at most
{with_ids}, of which {without} are without ids. A task that runs through without a failure has far fewer than its share.
`/metrics` has no ids; its OpenMetrics form has one more series (`_created`) for each counter and histogram.

Prometheus keeps series that have ended until it compacts its newest block, two to three hours. With ids it holds what all
tasks of that time had, at most `max_correlation_ids` tasks for each export. Where that is too much, lower the bound, or set
`telemetry.metrics.correlation = \"off\"`.
",
        each(|d| d.namespaces = 1),
        each(|d| d.templates = 1),
        each(|d| d.steps = 1),
        each(|d| d.limits = 1),
        EXAMPLE.namespaces,
        EXAMPLE.templates,
        EXAMPLE.steps / EXAMPLE.templates,
        EXAMPLE.correlation_ids,
    )
}

/// What the reference page reckons with.
const EXAMPLE: Deployment =
    Deployment { namespaces: 5, templates: 20, steps: 100, steps_of_largest: 5, limits: 10, correlation_ids: 1_000 };

#[cfg(test)]
mod tests {
    use super::{Deployment, EXAMPLE, most_series};

    #[test]
    fn the_number_of_series_depends_on_the_bound_and_not_on_the_number_of_tasks() {
        let without_ids = most_series(&Deployment { correlation_ids: 0, ..EXAMPLE });
        let of_one_id = most_series(&Deployment { correlation_ids: 1, ..EXAMPLE }) - without_ids;
        assert_eq!(most_series(&EXAMPLE), without_ids + 1_000 * of_one_id);
    }

    #[test]
    fn the_parts_of_a_deployment_add_up() {
        let nothing = most_series(&Deployment::default());
        let more = |deployment: Deployment| most_series(&deployment) - nothing;
        let zero = Deployment::default();
        let parts = [
            more(Deployment { namespaces: 5, ..zero }),
            more(Deployment { templates: 20, ..zero }),
            more(Deployment { steps: 100, ..zero }),
            more(Deployment { limits: 10, ..zero }),
            more(Deployment { correlation_ids: 1_000, steps_of_largest: 5, ..zero }),
        ];
        assert_eq!(most_series(&EXAMPLE), nothing + parts.iter().sum::<usize>());
    }

    #[test]
    fn one_task_of_ten_steps_has_at_most_600_series() {
        let largest = Deployment { steps_of_largest: 10, correlation_ids: 1, ..EXAMPLE };
        let of_one_id = most_series(&largest) - most_series(&Deployment { correlation_ids: 0, ..largest });
        assert!(of_one_id <= 600, "{of_one_id}");
    }
}
