//! `tasker dev` and `tasker demo`: the whole system from one command, on a machine where nothing is set up.

use crate::stage::exists;
use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::path::Path;
use tasker_tests::{
    TestDatabase,
    process::{Process, TASKER, command, tasker},
};
use tokio::{net::TcpListener, process::Command};

fn dev(data_dir: &Path) -> Result<Command> {
    let mut command = command(TASKER)?;
    command.args(["dev", "--listen", "127.0.0.1:0", "--worker-listen", "127.0.0.1:0", "--data-dir"]).arg(data_dir);
    Ok(command)
}

/// The process ids of the servers that run on a data directory.
fn servers(data_dir: &Path) -> Vec<i32> {
    let text = data_dir.to_string_lossy().into_owned();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        line.contains(&text) && line.contains("postgres") && exists(*pid)
    })
    .collect()
}

async fn api(dev: &Process) -> Result<String> {
    let line = dev.wrote("HTTP API").await?;
    Ok(line.split_whitespace().find(|word| word.starts_with("http://")).context("an address")?.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dev_starts_everything_stops_it_with_ctrl_c_and_keeps_the_data() -> Result<()> {
    let root = tempfile::tempdir()?;
    let data = root.path().join("data");
    let mut first = Process::start(TASKER, dev(&data)?)?;
    let url = api(&first).await?;
    let input = ["task", "submit", "rust_e2e_linear/mathematical_sequence", "--input", "{\"even_number\": 6}"];
    let done = tasker(&url, &[&input[..], &["--wait", "--json"]].concat()).await?;
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(!servers(&data).is_empty(), "it runs a PostgreSQL of its own");

    let mut second = Process::start(TASKER, dev(&data)?)?;
    assert_eq!(second.ended().await?.code(), Some(4), "{}", second.text());
    second.wrote("is already in use: process").await?;

    first.signal(Signal::SIGINT)?;
    assert_eq!(first.ended().await?.code(), Some(0), "{}", first.text());
    assert_eq!(servers(&data), Vec::<i32>::new());
    for noise in ["WARN", "ERROR", "panicked"] {
        assert!(!first.text().contains(noise), "a clean run says nothing of the kind: {}", first.text());
    }

    let mut again = Process::start(TASKER, dev(&data)?)?;
    let list = tasker(&api(&again).await?, &["--json", "task", "list"]).await?;
    let list: Value = serde_json::from_slice(&list.stdout)?;
    assert_eq!(list["tasks"][0]["state"], "complete", "{list}");
    again.signal(Signal::SIGTERM)?;
    assert_eq!(again.ended().await?.code(), Some(0), "{}", again.text());
    assert_eq!(servers(&data), Vec::<i32>::new());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dev_that_is_killed_leaves_no_server_behind_and_starts_again() -> Result<()> {
    let root = tempfile::tempdir()?;
    let data = root.path().join("data");
    let mut killed = Process::start(TASKER, dev(&data)?)?;
    api(&killed).await?;
    killed.kill9().await?;
    tasker_tests::system::eventually("its PostgreSQL is gone", async || Ok(servers(&data).is_empty())).await?;
    let mut again = Process::start(TASKER, dev(&data)?)?;
    api(&again).await?;
    again.drain().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dev_uses_the_server_that_is_given() -> Result<()> {
    let database = TestDatabase::empty().await?;
    let root = tempfile::tempdir()?;
    let data = root.path().join("data");
    let mut command = dev(&data)?;
    command.env("DATABASE_URL", &database.url);
    let mut given = Process::start(TASKER, command)?;
    api(&given).await?;
    given.wrote("the one of DATABASE_URL").await?;
    assert!(!data.exists(), "no server of its own");
    given.drain().await?;
    database.drop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dev_that_cannot_listen_says_so_and_stops_what_it_started() -> Result<()> {
    let taken = TcpListener::bind("127.0.0.1:0").await?;
    let database = TestDatabase::empty().await?;
    let mut command = command(TASKER)?;
    command.env("DATABASE_URL", &database.url).args(["dev", "--worker-listen", "127.0.0.1:0", "--listen"]);
    command.arg(taken.local_addr()?.to_string());
    let mut dev = Process::start(TASKER, command)?;
    assert_eq!(dev.ended().await?.code(), Some(2), "{}", dev.text());
    dev.wrote("address in use").await?;
    assert!(!dev.text().contains("WARN"), "{}", dev.text());
    database.drop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_completes_four_workflows_and_tells_programs_their_results() -> Result<()> {
    let root = tempfile::tempdir()?;
    let demo = |root: &Path| -> Result<Command> {
        let mut command = command(TASKER)?;
        command.args(["--json", "demo", "--data-dir"]).arg(root.join("data")).arg("--output").arg(root.join("out"));
        Ok(command)
    };
    let output = demo(root.path())?.output().await?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{told}");
    let result: Value = serde_json::from_slice(&output.stdout).context(told)?;
    let tasks = result["tasks"].as_array().with_context(|| format!("no tasks in {result}"))?;
    assert_eq!(tasks.len(), 4);
    assert!(tasks.iter().all(|task| task["state"] == "complete"), "{result}");
    assert!(root.path().join("out/weather-report.md").is_file());
    assert_eq!(servers(&root.path().join("data")), Vec::<i32>::new());

    let broken = demo(root.path())?.env("DATABASE_URL", "postgres://u@127.0.0.1:1/x").output().await?;
    assert_eq!(broken.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&broken.stderr).contains("Connection refused"));
    let file = root.path().join("file");
    std::fs::write(&file, "in the way")?;
    let blocked = command(TASKER)?.args(["demo", "--data-dir"]).arg(file.join("data")).output().await?;
    assert_ne!(blocked.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&blocked.stderr).contains("error: "));
    Ok(())
}
