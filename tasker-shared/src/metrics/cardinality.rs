//! The cardinality contract: how many series the catalogue can have at most, as a function of what is deployed.

use super::{CATALOG, Kind, Spec, spec::CORRELATION_ID};
use crate::{
    step::{FailureKind, ResultType, StepState},
    task::state::TaskState,
};

/// What is deployed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deployment {
    /// Namespaces.
    pub namespaces: usize,
    /// Templates, over all namespaces.
    pub templates: usize,
    /// Steps, over all templates.
    pub steps: usize,
    /// Steps of the largest template.
    pub steps_of_largest: usize,
    /// Queues.
    pub queues: usize,
    /// `telemetry.metrics.max_correlation_ids`.
    pub correlation_ids: usize,
    /// Values of each label that is a fixed text in the code: operations, loops, routes, tables and the like.
    pub fixed: usize,
}

/// The most series that one process exports. A histogram counts one for each bucket and three more.
pub fn most_series(deployment: &Deployment) -> usize {
    CATALOG.iter().map(|spec| of(spec, deployment)).sum()
}

fn of(spec: &Spec, deployment: &Deployment) -> usize {
    let each = if spec.kind == Kind::Histogram { spec.buckets.len() + 4 } else { 1 };
    let closed: usize = spec.labels.iter().map(|label| words(label, deployment)).product();
    let open = open(spec.labels, deployment);
    if spec.has_correlation_id() {
        // One task has one namespace, one template and its steps; what exceeds the bound has all of them.
        let steps = if spec.labels.contains(&"step_name") { deployment.steps_of_largest } else { 1 };
        each * closed * (deployment.correlation_ids * steps + open)
    } else {
        each * closed * open
    }
}

/// Labels that name what is deployed belong together: a step to one template, a template to one namespace.
fn open(labels: &[&str], deployment: &Deployment) -> usize {
    let has = |label| labels.contains(&label);
    let of_templates = if has("step_name") {
        deployment.steps
    } else if has("task_type") {
        deployment.templates
    } else if has("namespace") && !has("queue") {
        // Failures of steps that were never read have a namespace of their own.
        deployment.namespaces + 1
    } else {
        1
    };
    of_templates * if has("queue") { deployment.queues } else { 1 }
}

/// The values of labels that have a closed set of words; 1 for those that [`open`] counts.
fn words(label: &str, deployment: &Deployment) -> usize {
    match label {
        CORRELATION_ID | "namespace" | "task_type" | "step_name" | "queue" => 1,
        "result_type" => ResultType::ALL.len(),
        "final_state" | "state" => TaskState::ALL.len(),
        "error_type" => super::ErrorType::ALL.len().max(FailureKind::ALL.len()),
        "result" => super::Success::ALL.len(),
        "claim_method" => super::ClaimMethod::ALL.len(),
        "priority" => super::Priority::ALL.len(),
        "handler_type" => super::HandlerType::ALL.len(),
        "outcome" => super::TransactionOutcome::ALL.len().max(super::LoopOutcome::ALL.len()),
        "status" => super::HealthStatus::ALL.len(),
        "signal" => super::Signal::ALL.len(),
        "from" | "to" => StepState::ALL.len() + 1,
        _ => deployment.fixed,
    }
}

#[cfg(test)]
mod tests {
    use super::{Deployment, most_series};

    const SMALL: Deployment = Deployment {
        namespaces: 5,
        templates: 20,
        steps: 100,
        steps_of_largest: 10,
        queues: 8,
        correlation_ids: 1_000,
        fixed: 8,
    };

    #[test]
    fn the_number_of_series_depends_on_the_bound_and_not_on_the_number_of_tasks() {
        let without_ids = most_series(&Deployment { correlation_ids: 0, ..SMALL });
        let of_one_id = most_series(&Deployment { correlation_ids: 1, ..SMALL }) - without_ids;
        assert_eq!(most_series(&SMALL), without_ids + 1_000 * of_one_id);
    }

    #[test]
    fn one_task_of_ten_steps_has_at_most_600_series() {
        let of_one_id = most_series(&SMALL) / 1_000;
        assert!(of_one_id <= 600, "{of_one_id}");
    }
}
