//! Random graphs with random failures end as a simple model says, by a legal history; and random stories, compared with
//! an oracle after each operation. `tasker-tests model` tells more of them.

use anyhow::{Result, ensure};
use proptest::{
    strategy::{Strategy, ValueTree as _},
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use serde_json::json;
use std::{collections::HashMap, fmt};
use tasker_orchestration::query;
use tasker_shared::{
    id::TaskId,
    step::{StepState, state::Edge},
    task::TaskState,
};
use tasker_tests::{System, model, system::worker_settings, templates::with_steps};
use tasker_worker::{HandlerError, StepContext, Worker, handler::handler_fn};

const MAX_ATTEMPTS: u32 = 3;
const CASES: usize = 25;

/// What the handler of a step does.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// It fails so often, and then succeeds.
    After(u32),
    /// It fails for good at its first run.
    Permanent,
}

/// A graph: by step, its parents (earlier steps) and its fate.
#[derive(Debug, Clone)]
struct Graph(Vec<(Vec<usize>, Fate)>);

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().enumerate().try_for_each(|(n, (parents, fate))| writeln!(f, "s{n} after {parents:?}: {fate:?}"))
    }
}

fn graphs() -> impl Strategy<Value = Graph> {
    let fate = proptest::prop_oneof![
        12 => proptest::strategy::Just(Fate::After(0)),
        3 => (1..=MAX_ATTEMPTS).prop_map(Fate::After),
        1 => proptest::strategy::Just(Fate::Permanent),
    ];
    proptest::collection::vec((proptest::bits::u16::ANY, fate), 1..14).prop_map(|steps| {
        let steps = steps.into_iter().enumerate();
        Graph(
            steps
                .map(|(n, (bits, fate))| ((0..n).filter(|p| bits >> p & 1 == 1 && (n - p) < 5).collect(), fate))
                .collect(),
        )
    })
}

impl Graph {
    fn template(&self, name: &str) -> String {
        with_steps(
            name,
            self.0.iter().enumerate().map(|(n, (parents, _))| {
                let parents: Vec<String> = parents.iter().map(|p| format!("s{p}")).collect();
                format!(
                    "{{name: s{n}, dependencies: [{}], handler: {{callable: fate}}, \
                     retry: {{max_attempts: {MAX_ATTEMPTS}, backoff: none}}}}",
                    parents.join(", ")
                )
            }),
        )
    }

    /// What becomes of each step: its state and how often it runs.
    fn model(&self) -> Vec<(StepState, u32)> {
        let mut ends: Vec<(StepState, u32)> = Vec::new();
        for (parents, fate) in &self.0 {
            let ready = parents.iter().all(|p| ends[*p].0 == StepState::Complete);
            ends.push(match fate {
                _ if !ready => (StepState::Pending, 0),
                Fate::After(failures) if *failures < MAX_ATTEMPTS => (StepState::Complete, failures + 1),
                Fate::After(_) => (StepState::Error, MAX_ATTEMPTS),
                Fate::Permanent => (StepState::Error, 1),
            });
        }
        ends
    }
}

fn worker(graphs: &[Graph]) -> tasker_worker::Builder {
    let graphs = graphs.to_vec();
    let fate = handler_fn(move |context: StepContext| {
        let number = |text: &str| text[1..].parse::<usize>().expect("a number");
        let fate = graphs[number(&context.task_name)].0[number(&context.step_name)].1;
        async move {
            match fate {
                Fate::After(failures) if context.failures >= failures => Ok(json!(context.attempt)),
                Fate::After(_) => Err(HandlerError::retry("not yet")),
                Fate::Permanent => Err(HandlerError::fail("never")),
            }
        }
    });
    Worker::builder().settings(worker_settings()).register("fate", fate)
}

/// Each row of a step's history goes on where the one before ended, along an edge of the machine.
async fn history_is_legal(system: &System, task: TaskId) -> Result<()> {
    let mut states: HashMap<Option<String>, String> = HashMap::new();
    for row in query::history(&system.orchestration, task).await?.transitions {
        let before = states.get(&row.step).cloned();
        match &row.step {
            Some(step) => {
                let before = before.unwrap_or_else(|| StepState::Pending.to_string());
                ensure!(row.from.as_ref() == Some(&before), "{step} was {before}: {row:?}");
                ensure!(
                    Edge::all().any(|edge| edge.from.as_str() == before && edge.to.as_str() == row.to),
                    "no edge: {row:?}"
                );
            }
            None => ensure!(row.from == before, "the task was {before:?}: {row:?}"),
        }
        states.insert(row.step, row.to);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_graphs_with_random_failures_end_as_the_model_says() -> Result<()> {
    // the same graphs in every run, so that a failure can be looked at again
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut all = Vec::new();
    for _ in 0..CASES {
        all.push(graphs().new_tree(&mut runner).map_err(anyhow::Error::msg)?.current());
    }
    let mut system = System::start().await?;
    system.add_worker(worker(&all))?;
    system.add_worker(worker(&all))?;
    let mut tasks = Vec::new();
    for (n, graph) in all.iter().enumerate() {
        tasks.push((graph, system.begin_new(&graph.template(&format!("g{n}"))).await?));
    }
    let mut failed = 0;
    for (graph, task) in tasks {
        let ended = system.ended(task).await?;
        let model = graph.model();
        let found: Vec<_> = ended.steps.iter().map(|step| (step.state, step.attempt.unsigned_abs())).collect();
        assert_eq!(found, model, "{graph}");
        let complete = model.iter().all(|(state, _)| *state == StepState::Complete);
        failed += usize::from(!complete);
        assert_eq!(ended.summary.state, if complete { TaskState::Complete } else { TaskState::Error }, "{graph}");
        history_is_legal(&system, task).await?;
    }
    assert!((1..CASES).contains(&failed), "{failed} of {CASES} failed: the graphs show too little");
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_system_does_what_the_oracle_does_after_every_operation_of_random_stories() -> Result<()> {
    let options = model::Options { cases: 300, seed: 1, operations: 60, seconds: None, until_covered: Some(50) };
    let report = model::run(&options).await?;
    println!("{report}");
    assert_eq!(report.uncovered(), Vec::<String>::new(), "no story took these transitions");
    Ok(())
}
