//! The drills of `scripts/`: upgrade, backup and failover under load, on servers of their own.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{path::Path, process::Stdio, time::Duration};
use tasker_postgres::Search;
use tasker_tests::process;
use tokio::{process::Command, time::timeout};

/// The longest that a drill takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// Runs a drill; answers with its figures. `None` where the machine lacks a program for it.
async fn drill(name: &str) -> Result<Option<Value>> {
    let installation = Search::from_env(&tasker_postgres::default_cache_dir()).discover()?.into_iter().next();
    let bin = installation.context("PostgreSQL is installed")?.bin;
    for program in [bin.join("pg_dump"), bin.join("pg_basebackup"), "curl".into()] {
        if Command::new(&program).arg("--version").stdout(Stdio::null()).status().await.is_err() {
            eprintln!("skipped: there is no {}", program.display());
            return Ok(None);
        }
    }
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts").join(name));
    command.env("BIN", process::directory()?).env("PG_BIN", bin).env_remove("OLD_BIN").stdin(Stdio::null());
    let output = timeout(PATIENCE, command.kill_on_drop(true).output()).await.context("the drill ends")??;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name}: {}\n{said}{}", output.status, String::from_utf8_lossy(&output.stdout));
    let figures = serde_json::from_slice(&output.stdout)?;
    eprintln!("{name}: {figures}");
    Ok(Some(figures))
}

fn nothing_lost(figures: &Value) {
    for what in ["lost", "outcomes_counted_twice", "broken_histories", "not_complete"] {
        assert_eq!(figures[what], 0, "{what}: {figures}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_and_new_services_work_side_by_side_across_a_migration() -> Result<()> {
    let Some(figures) = drill("upgrade-drill").await? else { return Ok(()) };
    nothing_lost(&figures);
    assert_eq!(figures["migrations"], 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_taken_under_load_is_restored_and_every_task_of_it_ends() -> Result<()> {
    let Some(figures) = drill("backup-drill").await? else { return Ok(()) };
    nothing_lost(&figures);
    assert!(figures["open_in_snapshot"].as_i64() > Some(0), "{figures}");
    assert!(figures["in_snapshot"].as_i64() >= figures["acknowledged_before"].as_i64(), "{figures}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_go_on_at_a_promoted_replica_and_no_acknowledged_task_is_lost() -> Result<()> {
    let Some(figures) = drill("failover-drill").await? else { return Ok(()) };
    nothing_lost(&figures);
    assert!(figures["acknowledged"].as_i64() >= Some(400), "{figures}");
    Ok(())
}
