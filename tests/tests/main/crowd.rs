//! Many tasks, several orchestrations and several workers on one database.

use anyhow::Result;
use serde_json::json;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};
use tasker_orchestration::submit;
use tasker_shared::{
    api::SubmitTask,
    id::{StepId, TaskId},
    task::TaskState,
};
use tasker_tests::{
    System,
    system::{orchestration_settings, worker_settings},
    templates::{NAMESPACE, dag, diamond, single},
};
use tasker_worker::{HandlerError, StepContext, Worker, handler::handler_fn};

type Runs = Arc<Mutex<HashMap<StepId, usize>>>;

/// Counts the runs of each step, and answers with the sum of its parents' results and one.
fn worker(runs: &Runs) -> tasker_worker::Builder {
    let runs = runs.clone();
    let count = handler_fn(move |context: StepContext| {
        *runs.lock().expect("nobody panics while counting").entry(context.step_id).or_insert(0) += 1;
        let sum: u64 = context.parents.values().filter_map(serde_json::Value::as_u64).sum();
        async move { Ok::<_, HandlerError>(sum + 1) }
    });
    Worker::builder().settings(worker_settings()).register("count", count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_on_several_orchestrations_and_workers_run_every_step_exactly_once() -> Result<()> {
    let (mut system, runs) = (System::start().await?, Runs::default());
    let other = system
        .add_orchestration(tasker_orchestration::Settings {
            process_loops: 2,
            results_batch: 10,
            ..orchestration_settings()
        })
        .await?;
    for _ in 0..3 {
        system.add_worker(worker(&runs))?;
    }
    let wide: Vec<String> = (0..10).map(|n| format!("w{n}")).collect();
    let wide: Vec<&str> = wide.iter().map(String::as_str).collect();
    let mut fan: Vec<(&str, &[&str])> = wide.iter().map(|name| (*name, &[] as &[&str])).collect();
    fan.push(("join", &wide));
    let chain: &[(&str, &[&str])] = &[("a", &[]), ("b", &["a"]), ("c", &["b"]), ("d", &["c"])];
    let mixed: &[(&str, &[&str])] = &[
        ("a", &[]),
        ("b", &["a"]),
        ("c", &["a"]),
        ("d", &["b", "c"]),
        ("e", &["a", "d"]),
        ("f", &[]),
        ("g", &["e", "f"]),
    ];
    // each with the number of its steps and the result of its last one
    let templates = [
        (single("one", "count", ""), "one", 1, 1),
        (dag("chain", "count", chain), "chain", 4, 4),
        (diamond("count"), "diamond", 4, 5),
        (dag("fan", "count", &fan), "fan", 11, 11),
        (dag("mixed", "count", mixed), "mixed", 7, 9),
    ];
    for (source, ..) in &templates {
        system.apply(source).await?;
    }
    let mut tasks: Vec<(TaskId, usize, u64)> = Vec::new();
    for (n, (_, name, steps, last)) in templates.iter().enumerate() {
        let (namespace, name) = (NAMESPACE.to_owned(), (*name).to_owned());
        let asked = SubmitTask { namespace, name, input: json!({}), ..SubmitTask::default() };
        let service = if n % 2 == 0 { &system.orchestration } else { &other };
        for answer in submit::submit(service, vec![asked; 40]).await? {
            tasks.push((answer?.task_id, *steps, *last));
        }
    }
    assert_eq!(tasks.len(), 200);
    let expected: usize = tasks.iter().map(|(_, steps, _)| steps).sum();
    for (task, steps, last) in tasks {
        let ended = system.ended(task).await?;
        assert_eq!((ended.summary.state, ended.steps.len()), (TaskState::Complete, steps));
        assert!(ended.steps.iter().all(|step| step.attempt == 1 && step.waiting_on == 0));
        assert_eq!(ended.steps.last().and_then(|step| step.result.clone()), Some(json!(last)));
    }
    let runs = runs.lock().unwrap().clone();
    assert_eq!(runs.len(), expected);
    assert!(runs.values().all(|runs| *runs == 1));
    let history = "select count(*) from tasker.step_transitions";
    assert_eq!(system.count(history).await?, 4 * i64::try_from(expected)?);
    system.finish().await
}
