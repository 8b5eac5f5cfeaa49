//! The database, the hand that prepares each scene and brings it to its end, and the actors.

use super::{
    scene::{Deed, Scene},
    turnstile::Turnstile,
};
use crate::{
    invariants::violations,
    model::{Outcome, Real, Run, Told, Turn},
};
use anyhow::{Context as _, Result, bail, ensure};
use std::{collections::HashSet, sync::Arc};
use tasker_shared::storage;
use tokio::{sync::Notify, task::JoinHandle};

/// How an actor's deed ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Met {
    /// It was done and acknowledged.
    Done,
    /// It was refused, or broke.
    Refused,
    /// PostgreSQL ended it for the sake of another one.
    Lost,
}

/// The most actors of a scene.
const ACTORS: usize = 3;

/// Rounds in which every task of a scene must come to its end.
const ROUNDS: usize = 12;

/// How long PostgreSQL lets transactions wait for each other before it looks whether one must give up.
const QUICK: &str =
    "do $$ begin execute format('alter database %I set deadlock_timeout = ''20ms''', current_database()); end $$";

pub(super) struct Stage {
    hand: Real,
    actors: Vec<Arc<Real>>,
    turnstiles: Vec<Arc<Turnstile>>,
    moved: Arc<Notify>,
    template: String,
    runs: Vec<Run>,
}

impl Stage {
    pub(super) async fn start() -> Result<Self> {
        let hand = Real::start().await?;
        hand.run(QUICK).await?;
        let moved = Arc::new(Notify::new());
        let (mut actors, mut turnstiles) = (Vec::new(), Vec::new());
        for n in 0..ACTORS {
            let turnstile = Arc::new(Turnstile::new(Arc::clone(&moved)));
            actors.push(Arc::new(hand.other(&format!("actor{n}"), Arc::<Turnstile>::clone(&turnstile))?));
            turnstiles.push(turnstile);
        }
        Ok(Self { hand, actors, turnstiles, moved, template: String::new(), runs: Vec::new() })
    }

    /// Ends everything; answers with the deadlocks that PostgreSQL counted, those after which work was repeated too.
    pub(super) async fn close(self) -> Result<usize> {
        for actor in &self.actors {
            actor.disconnect().await;
        }
        let deadlocks = "select deadlocks from pg_stat_database where datname = current_database()";
        let deadlocks: i64 = sqlx::query_scalar(deadlocks).fetch_one(self.hand.pool()).await?;
        self.hand.close().await?;
        Ok(usize::try_from(deadlocks)?)
    }

    pub(super) fn moved(&self) -> Arc<Notify> {
        Arc::clone(&self.moved)
    }

    pub(super) fn turnstiles(&self) -> &[Arc<Turnstile>] {
        &self.turnstiles
    }

    /// Makes what was before.
    pub(super) async fn set(&mut self, scene: &Scene) -> Result<()> {
        self.template = scene.name.replace(' ', "_").replace(',', "");
        self.hand.begin(&scene.shape.versions(&self.template)).await?;
        self.runs.clear();
        for deed in &scene.before {
            match deed {
                Deed::Claim(limit) => self.runs.extend(self.hand.claim_runs(*limit).await?),
                Deed::Expire => self.hand.expire_all().await?,
                Deed::Due => self.hand.due_all().await?,
                Deed::Lose(queue) => self.hand.lose_all(*queue).await?,
                deed => drop(act(&self.hand, *deed, &self.template, &self.runs, 0).await?),
            }
        }
        Ok(())
    }

    /// Lets the actors of the scene come.
    pub(super) fn enter(&self, scene: &Scene) -> Vec<JoinHandle<Result<Met>>> {
        let come = |(n, deed): (usize, &Deed)| {
            let (actor, stile, deed) = (Arc::clone(&self.actors[n]), Arc::clone(&self.turnstiles[n]), *deed);
            let (template, runs) = (self.template.clone(), self.runs.clone());
            stile.begin();
            tokio::spawn(async move {
                let done = act(&actor, deed, &template, &runs, n + 1).await;
                stile.end();
                match done {
                    Ok(Told::Answer(Ok(_))) => Ok(Met::Done),
                    Ok(_) => Ok(Met::Refused),
                    Err(error) if is_lost_race(&error) => Ok(Met::Lost),
                    Err(error) => Err(error),
                }
            })
        };
        scene.actors.iter().enumerate().map(come).collect()
    }

    /// Which actors wait for a lock that another holds.
    pub(super) async fn waiting_for_locks(&self) -> Result<HashSet<usize>> {
        let names: Vec<String> = sqlx::query_scalar(
            "select application_name from pg_stat_activity
              where datname = current_database() and application_name like 'actor%' and cardinality(pg_blocking_pids(pid)) > 0",
        )
        .fetch_all(self.hand.pool())
        .await?;
        Ok(names.iter().filter_map(|name| name.strip_prefix("actor")?.parse().ok()).collect())
    }

    /// What an operator did to a step and what was acknowledged stands in the step's history.
    pub(super) async fn check_acknowledged(&self, scene: &Scene, met: &[Met]) -> Result<()> {
        for (deed, _) in scene.actors.iter().zip(met).filter(|(_, met)| **met == Met::Done) {
            let Deed::Step(step, _) = deed else { continue };
            let lines = sqlx::query_scalar::<_, i64>(
                "select count(*) from tasker.step_transitions t join tasker.steps s on s.id = t.step_id
                  where s.name = $1 and t.actor like 'operator:%'",
            )
            .bind(format!("s{step}"))
            .fetch_one(self.hand.pool())
            .await?;
            ensure!(lines > 0, "{deed:?} was acknowledged and not done:\n{}", self.hand.lines().await?.join("\n"));
        }
        Ok(())
    }

    /// Checks what must hold, brings everything to its end, and checks again.
    pub(super) async fn check(&self, scene: &Scene) -> Result<()> {
        self.hold().await.context("when the actors had met")?;
        if scene.is_untouched() {
            let still = self.hand.standing_still().await?;
            ensure!(still.is_empty(), "without a wake-up: {still:?}\n{}", self.hand.lines().await?.join("\n"));
            let hidden = self.hand.hidden().await?;
            ensure!(
                hidden == 0,
                "{hidden} steps wait whose messages are hidden:\n{}",
                self.hand.lines().await?.join("\n")
            );
        }
        for _ in 0..ROUNDS {
            if self.hand.open().await? == 0 {
                return self.hold().await.context("in the end");
            }
            self.round(scene).await.context("on the way to the end")?;
        }
        bail!("it does not end:\n{}", self.hand.lines().await?.join("\n"))
    }

    async fn hold(&self) -> Result<()> {
        let found = violations(self.hand.pool()).await?;
        ensure!(found.is_empty(), "{}\n{}", found.join("\n"), self.hand.lines().await?.join("\n"));
        Ok(())
    }

    /// Everything that goes on by itself, once; paused tasks are resumed, and what was deleted by hand is mended.
    async fn round(&self, scene: &Scene) -> Result<()> {
        self.hand.resume_all().await?;
        if !scene.is_untouched() {
            self.hand.turn(Turn::Repair).await?;
        }
        self.hand.expire_all().await?;
        self.hand.due_all().await?;
        for turn in [Turn::Initialize, Turn::Timers] {
            self.hand.turn(turn).await?;
        }
        for run in self.hand.claim_runs(100).await? {
            self.hand.report(run, Outcome::Success).await?;
        }
        self.hand.turn(Turn::Process).await.map(drop)
    }
}

async fn act(real: &Real, deed: Deed, template: &str, runs: &[Run], actor: usize) -> Result<Told> {
    let run = |n: usize| runs.get(n).copied().context("the scene has such a run");
    match deed {
        Deed::Submit(submit) => real.submit(&submit, template, actor).await,
        Deed::SubmitBoth(keys) => real.submit_both(keys, template, actor).await,
        Deed::Claim(limit) => real.claim(limit).await,
        Deed::Report(n, outcome) => real.report(run(n)?, outcome).await,
        Deed::ReportBoth([one, other]) => real.report_all(&[run(one)?, run(other)?], Outcome::Success).await,
        Deed::Extend(n) => real.extend(run(n)?).await,
        Deed::Release(n) => real.release(run(n)?).await,
        Deed::Turn(turn) => real.turn(turn).await,
        Deed::Task(action) => real.operate(0, action).await,
        Deed::Step(step, action) => real.operate_step(0, step, action).await,
        Deed::Hold(step) => real.hold_step(0, step).await,
        Deed::Expire | Deed::Due | Deed::Lose(_) => bail!("{deed:?} is done before, not by an actor"),
    }
}

fn is_lost_race(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let stored = cause.downcast_ref::<storage::Error>();
        let asked = cause.downcast_ref::<tasker_orchestration::Error>();
        stored.is_some_and(storage::Error::is_lost_race)
            || matches!(asked, Some(tasker_orchestration::Error::Storage(error)) if error.is_lost_race())
    })
}
