//! The HTTP API of a real orchestration against its own OpenAPI document, by requests that schemathesis makes up:
//! right ones are accepted, wrong ones refused, and every answer is one that the document describes.

use crate::stage::Stage;
use anyhow::{Context as _, Result, ensure};
use std::{
    path::Path,
    process::{Command, Stdio},
};

/// How long requests are made up, in seconds.
const SECONDS: &str = "40";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_answers_as_its_document_says_whatever_it_is_asked() -> Result<()> {
    let python = std::env::var("TASKER_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let has = Command::new(&python).args(["-c", "import schemathesis"]).stderr(Stdio::null()).status();
    if !has.is_ok_and(|status| status.success()) {
        println!("skipped: {python} lacks schemathesis; install it and name the program in TASKER_TEST_PYTHON");
        return Ok(());
    }
    let stage = Stage::start().await?;
    stage.submit_chains(1).await?;
    let document = format!("{}/openapi.json", stage.orchestration.url().await?);
    let settings = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.ci/schemathesis.toml");
    let work = tempfile::tempdir()?;
    let mut command = tokio::process::Command::new(python);
    command.args(["-m", "schemathesis.cli", "--config-file"]).arg(settings).args(["run", &document]);
    command.args(["--max-time", SECONDS, "--seed", "1", "--continue-on-failure", "--no-color"]);
    let output = command.current_dir(work.path()).kill_on_drop(true).output().await.context("schemathesis")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    println!("{}", said.lines().filter(|line| line.contains("generated")).collect::<Vec<_>>().join("\n"));
    stage.drop().await
}
