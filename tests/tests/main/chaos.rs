//! The chaos suite, briefly: a few scenarios on real processes, and the judge against histories that are wrong.

use anyhow::Result;
use sqlx::{Executor as _, PgConnection};
use std::time::Duration;
use tasker_shared::{api::SubmitTask, storage::retention};
use tasker_tests::{
    System,
    chaos::{
        Options, archive,
        checker::{Promise, Violations, facts::Facts, judge, sql},
        dice::Dice,
        disk::SlowDisk,
        effects::Effects,
        graph::Graph,
        ledger::{Action, Ledger},
        load::ORDERS,
        run,
        scenario::named,
    },
    system::worker_settings,
};
use tasker_worker::{HandlerError, StepContext, Worker, handler::handler_fn};

async fn survives(scenario: &str, seconds: u64) -> Result<()> {
    let scenario = named(scenario).expect("a scenario");
    let lasts = Duration::from_secs(seconds);
    let report = run(&Options { seed: 20, scenario, lasts, tasks: Some(40), services: 2, keep: false }).await?;
    println!("{report}");
    assert!(report.skipped.is_some() || report.tasks > 30 && !report.faults.is_empty(), "{report}");
    assert!(report.is_well(), "{report}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promises_are_kept_while_services_are_killed() -> Result<()> {
    survives("chaos_repeated_kills", 8).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promises_are_kept_while_postgresql_crashes() -> Result<()> {
    survives("chaos_postgres_restart", 10).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promises_are_kept_while_acknowledgements_of_commits_are_lost() -> Result<()> {
    survives("lost_commit_ack", 8).await
}

/// A small run without faults, and what the judge is given.
struct Judged {
    system: System,
    connection: PgConnection,
    graph: Graph,
    ledger: Ledger,
    effects: Effects,
}

impl Judged {
    async fn new() -> Result<Self> {
        let mut dice = Dice::new(11, "judge");
        let mut graph = std::iter::repeat_with(|| Graph::random(&mut dice, 1))
            .find(|graph| graph.steps.len() > 3 && graph.model().iter().all(|end| end.as_str() == "complete"))
            .expect("a chain that succeeds");
        graph.limits.scarce = true;
        let mut system = System::start().await?;
        let work = handler_fn(|context: StepContext| async move {
            let given: serde_json::Map<String, serde_json::Value> =
                context.parents.iter().map(|(name, result)| (name.to_string(), result["attempt"].clone())).collect();
            Ok::<_, HandlerError>(serde_json::json!({ "attempt": context.attempt, "parents": given }))
        });
        system.add_worker(Worker::builder().settings(worker_settings()).register("work", work))?;
        let source = graph.steps.iter().enumerate().map(|(n, step)| {
            let parents: Vec<String> = step.parents.iter().map(|p| format!("s{p}")).collect();
            format!("  - {{name: s{n}, dependencies: [{}], handler: {{callable: work}}}}\n", parents.join(", "))
        });
        let (name, namespace) = (&graph.name, graph.namespace);
        let head = format!("name: {name}\nnamespace_name: {namespace}\nversion: 1.0.0\nsteps:\n");
        system.apply(&source.fold(head, |text, step| text + &step)).await?;
        let ledger = Ledger::default();
        for number in 0..3 {
            let task = SubmitTask {
                namespace: namespace.to_owned(),
                name: name.clone(),
                input: serde_json::json!({ "number": number }),
                idempotency_key: Some(format!("number {number}")),
                ..SubmitTask::default()
            };
            ledger.tried(number, 0, 0);
            let mut answers = tasker_orchestration::submit::submit(&system.orchestration, vec![task]).await?;
            let id = answers.remove(0)?.task_id;
            ledger.acknowledged(number, id);
            system.ended(id).await?;
        }
        let mut connection = tasker_tests::chaos::machines::connect(&system.test_database.url).await?;
        connection.execute(ORDERS).await?;
        let mut effects = Effects::default();
        for step in Facts::read(&mut connection).await?.steps {
            effects.add(&format!("{} 1 begin", step.id));
            effects.add(&format!("{} 1 end", step.id));
        }
        Ok(Self { system, connection, graph, ledger, effects })
    }

    /// A message that nobody understands has one letter, with its reason and the message.
    async fn letters(&mut self) -> Result<()> {
        self.ledger.garbage("nonsense", false);
        assert_eq!(self.verdict().await?, [], "it may never have been sent");
        self.ledger.garbage("nonsense", true);
        assert_eq!(self.verdict().await?, [Promise::Parked], "it was dropped");
        let park = |message: &str, detail: &str| {
            format!(
                "insert into tasker.dead_letters (id, reason, queue, message, detail, read_count)
                 values (gen_random_uuid(), 'unreadable', 'worker_chaos', '{message}', '{detail}', 0)"
            )
        };
        let (whole, says) = (park("{\"garbage\": \"nonsense\"}", "no step_id"), "{\"garbage\": \"nonsense\"}");
        for (letters, verdict) in [
            (vec![whole.clone()], &[][..]),
            (vec![whole.clone(), whole], &[Promise::Parked]),
            (vec![park(says, "")], &[Promise::Parked]),
            (vec![park("{\"garbage\": \"other\"}", "no step_id")], &[Promise::Parked, Promise::Parked]),
        ] {
            self.connection.execute("begin").await?;
            for letter in &letters {
                self.connection.execute(letter.as_str()).await?;
            }
            assert_eq!(self.verdict().await?, verdict, "{letters:?}");
            self.connection.execute("rollback").await?;
        }
        self.ledger.garbage("nonsense", false);
        Ok(())
    }

    /// The promises that the judge says are broken.
    async fn verdict(&mut self) -> Result<Vec<Promise>> {
        let facts = Facts::read(&mut self.connection).await?;
        let mut found =
            Violations(judge(&facts, &self.ledger.entries(), std::slice::from_ref(&self.graph), &self.effects));
        sql::check(&mut self.connection, &mut found).await?;
        Ok(found.0.into_iter().map(|violation| violation.promise).collect())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_judge_objects_to_each_history_that_is_corrupted_by_hand() -> Result<()> {
    let mut judged = Judged::new().await?;
    assert_eq!(judged.verdict().await?, [], "a good run");
    let first = "(select id from tasker.steps order by task_id, position limit 1)";
    let corruptions: &[(&str, Promise, &str)] = &[
        ("a task vanishes", Promise::NothingLost, "delete from tasker.tasks where input->>'number' = '1'"),
        (
            "a task stands still",
            Promise::NothingLost,
            "update tasker.tasks set state = 'in_progress', finished_at = null where input->>'number' = '0'",
        ),
        (
            "a move is missing",
            Promise::LegalHistory,
            "delete from tasker.step_transitions where to_state = 'reported' and step_id = FIRST",
        ),
        (
            "an outcome counts twice",
            Promise::CountedOnce,
            "insert into tasker.step_transitions (task_id, step_id, from_state, to_state, attempt, actor)
          select task_id, step_id, from_state, to_state, attempt, actor from tasker.step_transitions
           where to_state in ('complete', 'reported') and step_id = FIRST",
        ),
        (
            "another worker reports",
            Promise::CountedOnce,
            "update tasker.step_transitions set actor = 'worker:another' where to_state = 'reported' and step_id = FIRST",
        ),
        (
            "an operator completes a step",
            Promise::LegalHistory,
            "update tasker.step_transitions set actor = 'operator:x' where to_state = 'complete' and step_id = FIRST",
        ),
        (
            "an attempt is skipped",
            Promise::CountedOnce,
            "update tasker.step_transitions set attempt = 2 where step_id = FIRST and attempt = 1",
        ),
        (
            "time goes back",
            Promise::LegalHistory,
            "update tasker.step_transitions set at = at - interval '1 hour' where to_state = 'complete' and step_id = FIRST",
        ),
        (
            "a counter is wrong",
            Promise::Agreement,
            "update tasker.tasks set remaining_steps = 1 where input->>'number' = '0'",
        ),
        (
            "one submission is two tasks",
            Promise::OneTask,
            "update tasker.tasks set input = '{\"number\": 0}' where input->>'number' = '1'",
        ),
        (
            "nobody asked for a task",
            Promise::OneTask,
            "update tasker.tasks set input = '{\"number\": 99}' where input->>'number' = '1'",
        ),
        (
            "a child is given an old result",
            Promise::Order,
            "update tasker.steps set result = '{\"attempt\": 7}' where id = FIRST",
        ),
        (
            "a child starts before its parent",
            Promise::Order,
            "update tasker.step_transitions set id = -id where to_state = 'enqueued'",
        ),
        (
            "a step ends otherwise than its model",
            Promise::Agreement,
            "update tasker.steps set state = 'error' where id = FIRST",
        ),
        (
            "a message is left",
            Promise::NothingLeft,
            "insert into pgmq.q_step_results (vt, message) values (now(), '{}')",
        ),
        (
            "a timer is left",
            Promise::NothingLeft,
            "insert into tasker.timers (kind, subject, task_id, due_at) select 'start', id, id, now() from tasker.tasks limit 1",
        ),
        (
            "a step is parked without a reason",
            Promise::Parked,
            "insert into tasker.dead_letters (id, reason, queue, message, detail, read_count)
             values (gen_random_uuid(), 'poison', 'worker_chaos', '{}', 'it was in the way', 1)",
        ),
        (
            "a step is put aside and nobody did it",
            Promise::Parked,
            "update tasker.step_transitions set to_state = 'error', from_state = 'enqueued', actor = 'operator:x'
              where to_state = 'complete' and step_id = FIRST",
        ),
        (
            "more run at once than may",
            Promise::Limits,
            "delete from tasker.step_transitions where to_state = 'reported'",
        ),
        (
            "a task is cut short before its time",
            Promise::Limits,
            "update tasker.task_transitions set reason = 'the task lasted longer than its lifecycle.max_duration allows'
              where to_state = 'complete'",
        ),
        (
            "a task begins before its time",
            Promise::Limits,
            "update tasker.tasks set run_at = clock_timestamp() + interval '1 hour' where input->>'number' = '1'",
        ),
        (
            "a step is overdue that may wait for ever",
            Promise::Limits,
            "update tasker.step_transitions set reason = 'it waited on its queue longer than lifecycle.max_queued allows'
              where to_state = 'in_progress' and step_id = FIRST",
        ),
        (
            "a task is more urgent than it was asked for",
            Promise::Limits,
            "update tasker.tasks set priority = 7 where input->>'number' = '1'",
        ),
        (
            "a permit is left",
            Promise::NothingLeft,
            "insert into tasker.permits (namespace, scope, slot, step_id, attempt) values ('chaos', 'key:scarce', 1, FIRST, 1)",
        ),
        (
            "a letter is put back and nobody did it",
            Promise::Parked,
            "insert into tasker.dead_letters (id, reason, queue, message, detail, read_count, resolution, resolved_by, resolved_at)
             values (gen_random_uuid(), 'manual', 'worker_chaos', '{}', 'it was in the way', 1, 'redriven', 'operator:x', now())",
        ),
        ("a caller's row has no task", Promise::NothingLost, "insert into chaos.orders values (1, gen_random_uuid())"),
    ];
    for (what, promise, corruption) in corruptions {
        let corruption = corruption.replace("FIRST", first);
        judged.connection.execute("begin").await?;
        judged.connection.execute(corruption.as_str()).await?;
        let broken = judged.verdict().await?;
        assert!(broken.contains(promise), "{what}: the judge finds {broken:?}");
        judged.connection.execute("rollback").await?;
    }
    assert_eq!(judged.verdict().await?, [], "nothing is left of the corruptions");
    // and to what handlers did
    let (of, effect) = judged.effects.attempts.iter().next().map(|(of, effect)| (*of, *effect)).expect("an effect");
    judged.effects.attempts.remove(&of);
    assert!(judged.verdict().await?.contains(&Promise::AtLeastOnce), "an outcome without a run");
    judged.effects.attempts.insert(of, effect);
    judged.effects.attempts.insert((of.0, 9), effect);
    assert!(judged.verdict().await?.contains(&Promise::AtLeastOnce), "a run without a claim");
    judged.effects.attempts.remove(&(of.0, 9));
    judged.letters().await?;
    // who retries a task puts its letters back
    let put_back = "insert into tasker.dead_letters (id, reason, queue, message, detail, read_count, resolution, resolved_by, resolved_at)
        values (gen_random_uuid(), 'manual', 'worker_chaos', '{}', 'it was in the way', 1, 'redriven', 'operator:z', now())";
    let task = judged.ledger.task(0).expect("it was acknowledged");
    judged.connection.execute("begin").await?;
    judged.connection.execute(put_back).await?;
    assert_eq!(judged.verdict().await?, [Promise::Parked, Promise::Parked], "nobody parked it, and nobody put it back");
    judged.ledger.acted("z".to_owned(), Action { task, step: None, verb: "retry", acknowledged: false });
    assert_eq!(judged.verdict().await?, [Promise::Parked], "nobody parked it");
    judged.connection.execute("rollback").await?;
    // a letter that somebody put back has no trace
    judged.ledger.acted("y".to_owned(), Action { task, step: Some(0), verb: "redrive", acknowledged: true });
    assert_eq!(
        judged.verdict().await?,
        [Promise::NothingLost, Promise::Parked],
        "a letter was put back, and it does not know"
    );
    judged.ledger.rolled_back(2);
    judged.ledger.tried(3, 0, 0);
    assert!(judged.verdict().await?.contains(&Promise::Accepted), "somebody asks in vain");
    assert!(judged.verdict().await?.contains(&Promise::OneTask), "what was rolled back is there");
    judged.system.close().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_judge_sees_tasks_that_were_archived_and_objects_where_it_was_too_early() -> Result<()> {
    let mut judged = Judged::new().await?;
    let tasks: Vec<_> = (0..2).filter_map(|number| judged.ledger.task(number)).collect();
    let mut session = judged.system.database.session("test").await?;
    assert_eq!(retention::archive(&mut session, &tasks).await?, 2);
    retention::delete(&mut session, &tasks).await?;
    drop(session);
    let broken = judged.verdict().await?;
    assert_eq!(broken.iter().filter(|promise| **promise == Promise::NothingLost).count(), 2, "{broken:?}");
    let mut found = Violations::default();
    judged.connection.execute("begin").await?;
    assert_eq!(archive::bring_back(&mut judged.connection, Duration::from_secs(3600), &mut found).await?, 2);
    assert_eq!(found.0.len(), 1, "they were archived within the hour");
    judged.connection.execute("rollback").await?;
    assert_eq!(archive::bring_back(&mut judged.connection, Duration::ZERO, &mut found).await?, 2);
    assert_eq!(found.0.len(), 1, "they had ended");
    assert_eq!(judged.verdict().await?, [], "all is as it was");
    judged.system.close().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_slow_disk_a_commit_takes_as_long_as_the_disk_does_and_no_longer_when_it_is_well() -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir()?;
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755))?;
    let disk = match SlowDisk::build(directory.path()) {
        Ok(disk) => disk,
        Err(why) => {
            eprintln!("skipped: {why:#}");
            return Ok(());
        }
    };
    let root = directory.path().join("postgres");
    let options = tasker_postgres::Options { environment: disk.variables(), ..tasker_postgres::Options::new(root) };
    let cluster = tokio::task::spawn_blocking(move || tasker_postgres::Cluster::start(&options)).await??;
    let mut connection = tasker_tests::chaos::machines::connect(&cluster.tcp_url("postgres")).await?;
    connection.execute("create table written (at timestamptz)").await?;
    // the quickest of some, so that what else the machine does is not counted
    let mut commit = async || {
        let mut quickest = Duration::MAX;
        for _ in 0..5 {
            let began = std::time::Instant::now();
            connection.execute("insert into written values (now())").await?;
            quickest = quickest.min(began.elapsed());
        }
        anyhow::Ok(quickest)
    };
    let (sync, write) = (Duration::from_millis(300), Duration::from_millis(50));
    assert!(commit().await? < sync);
    disk.set(sync, write)?;
    assert!(commit().await? >= sync + write);
    disk.set(Duration::ZERO, Duration::ZERO)?;
    assert!(commit().await? < sync);
    drop(connection);
    tokio::task::spawn_blocking(move || drop(cluster)).await?;
    Ok(())
}
