//! Workflows that others recorded run to their end, each step once and after its parents.

use anyhow::{Context as _, Result};
use serde_json::json;
use std::{collections::HashMap, path::PathBuf};
use tasker_shared::{
    task::TaskState,
    template::{to_yaml, wfformat},
};
use tasker_tests::{System, system::worker_settings};
use tasker_worker::{Worker, handler::Sleep};

/// Names a directory of WfFormat files.
const DIRECTORY: &str = "TASKER_WFINSTANCES";

fn files() -> Result<Vec<PathBuf>> {
    let mut files = vec![PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/wfformat/three-stage.json"))];
    match std::env::var_os(DIRECTORY) {
        None => println!("{DIRECTORY} is not set: only the example is imported"),
        Some(directory) => {
            let entries = std::fs::read_dir(&directory).with_context(|| format!("read {}", directory.display()))?;
            for entry in entries {
                files.push(entry?.path());
            }
        }
    }
    files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    Ok(files)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn imported_workflows_run_each_step_once_after_its_parents() -> Result<()> {
    let mut system = System::start().await?;
    system.add_worker(Worker::builder().settings(worker_settings()).register("sleep", Sleep))?;
    let mut tasks = Vec::new();
    for file in files()? {
        let text = std::fs::read_to_string(&file)?;
        let template =
            wfformat::import(&text, &wfformat::Options::default()).with_context(|| file.display().to_string())?;
        system.apply(&to_yaml(&template)).await?;
        let task = system.submit("wfformat", &template.name, json!({})).await?.task_id;
        tasks.push((file, template.steps.len(), task));
    }
    for (file, steps, task) in tasks {
        let ended = system.ended(task).await.with_context(|| file.display().to_string())?;
        assert_eq!((ended.summary.state, ended.steps.len()), (TaskState::Complete, steps), "{}", file.display());
        let finished: HashMap<_, _> = ended.steps.iter().map(|step| (step.name.as_str(), step.finished_at)).collect();
        for step in &ended.steps {
            assert_eq!((step.attempt, step.failures), (1, 0), "{} of {}", step.name, file.display());
            for parent in &step.dependencies {
                assert!(finished[parent.as_str()] <= step.started_at, "{parent} before {}", step.name);
            }
        }
    }
    system.finish().await
}
