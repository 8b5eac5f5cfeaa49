//! The retention sweep: removes what is old, a small transaction at a time, in one process for all.
//!
//! A turn is one transaction on tasks, or one on each other table. While there is more it rests as long as it worked, so
//! that it never takes more than half the time of one connection.

use crate::Orchestration;
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};
use tasker_shared::{
    config,
    metrics::{Pruned, labels::PrunedKind, probe::Leadership as _},
    storage::{
        Duty, Error, Leader,
        retention::{self, Aged, Ended, Place, Rule},
    },
};
use tokio::sync::Mutex;

/// How long a walk goes on from where it was. Then it begins anew, for tasks that it passed by.
const WALK: Duration = Duration::from_secs(3600);

/// The shortest and the longest rest while there is more to do.
const REST: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(5));

/// So many removed tasks, and a tenth of all, change what the planner should believe.
const MUCH: u64 = 1_000;

/// Who may sweep, and how far the sweep has come.
#[derive(Debug)]
pub(crate) struct Retention {
    leader: Leader,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Each rule has one of its own: it stops at tasks that are too young for it.
    walks: HashMap<Rule, Walk>,
    /// Tasks removed since the planner was told.
    removed: u64,
}

#[derive(Debug)]
struct Walk {
    place: Option<Place>,
    begun: Instant,
}

/// What a turn did.
#[derive(Debug, Default)]
struct Done {
    overdue: Duration,
    removed: u64,
    more: bool,
}

impl Retention {
    pub(crate) fn new(orchestration: &Orchestration) -> Self {
        let leader = Leader::candidate(orchestration.database().pool(), Duty::Retain);
        Self { leader, state: Mutex::new(State { walks: HashMap::new(), removed: 0 }) }
    }

    /// Removes something old; answers with the time until the next turn.
    pub(crate) async fn turn(&self, orchestration: &Orchestration) -> Result<Duration, Error> {
        let settings = &orchestration.settings().retention;
        if !self.leader.leads().await {
            orchestration.metrics().retention_overdue.clear();
            return Ok(settings.sweep_interval);
        }
        let started = Instant::now();
        let done = self.state.lock().await.work(orchestration, settings).await?;
        let metrics = orchestration.metrics();
        metrics.retention_overdue.set(done.overdue.as_secs_f64(), ());
        if done.removed > 0 {
            metrics.retention_duration.record_since(started, ());
        }
        let rest = started.elapsed().clamp(REST.0, REST.1);
        Ok(if done.more { rest } else { settings.sweep_interval })
    }
}

impl State {
    async fn work(&mut self, orchestration: &Orchestration, settings: &config::Retention) -> Result<Done, Error> {
        let mut done = Done::default();
        let rules = rules(orchestration, settings).await?;
        self.walks.retain(|rule, _| rules.contains(rule));
        for rule in rules {
            let walk = self.walks.entry(rule).or_insert_with(Walk::new);
            let walked = walk.step(orchestration, settings, rule).await?;
            self.removed += walked.removed;
            done.add(&walked);
        }
        if !done.more {
            for (aged, age) in aged(orchestration, settings).await? {
                done.add(&prune(orchestration, &aged, age, settings.batch_size).await?);
            }
        }
        if !done.more && self.removed >= MUCH {
            let mut session = orchestration.database().session("retention_analyze").await?;
            if self.removed * 10 >= retention::estimate(&mut session).await?.unsigned_abs() {
                retention::analyze(&mut session).await?;
                self.removed = 0;
            }
        }
        Ok(done)
    }
}

impl Walk {
    fn new() -> Self {
        Self { place: None, begun: Instant::now() }
    }

    /// Removes the next old tasks.
    async fn step(
        &mut self,
        orchestration: &Orchestration,
        settings: &config::Retention,
        rule: Rule,
    ) -> Result<Done, Error> {
        if self.begun.elapsed() > WALK {
            *self = Self::new();
        }
        let mut session = orchestration.database().begin("retention").await?;
        let found = retention::find(&mut session, rule, self.place, settings.batch_size).await?;
        if found.tasks.is_empty() {
            session.rollback().await?;
        } else {
            if settings.archive {
                retention::archive(&mut session, &found.tasks).await?;
            }
            retention::delete(&mut session, &found.tasks).await?;
            session.commit().await?;
        }
        self.place = found.place.or(self.place);
        let removed = found.tasks.len() as u64;
        count(orchestration, Pruned::Task, removed);
        count(orchestration, Pruned::Step, found.steps.unsigned_abs());
        Ok(Done { overdue: found.overdue, removed, more: found.more })
    }
}

impl Done {
    fn add(&mut self, other: &Self) {
        self.overdue = self.overdue.max(other.overdue);
        self.removed += other.removed;
        self.more |= other.more;
    }
}

/// What the settings and the templates say.
async fn rules(orchestration: &Orchestration, settings: &config::Retention) -> Result<Vec<Rule>, Error> {
    let said = retention::of_templates(&mut orchestration.database().session("retention_look").await?).await?;
    let set = [(Ended::Complete, settings.complete_after), (Ended::Otherwise, settings.failed_after)];
    let set = set.into_iter().filter_map(|(ended, age)| Some((ended, age?, false)));
    let all = set.chain(said.into_iter().map(|(ended, age)| (ended, age, true)));
    let identity = settings.identity_after;
    Ok(all.flat_map(|(ended, age, of_template)| Rule::keeping(ended, age, of_template, identity)).collect())
}

/// The tables whose rows are removed one by one, with the age of their rows.
async fn aged(orchestration: &Orchestration, settings: &config::Retention) -> Result<Vec<(Aged, Duration)>, Error> {
    let mut all = vec![
        (Aged::dead_letters(), settings.dead_letters_after),
        (Aged::archived_tasks(), settings.archived_after),
        (Aged::workers(), settings.workers_after),
    ];
    if settings.audit_after.is_some() {
        let audit = retention::audit(&mut orchestration.database().session("retention_look").await?).await?;
        all.extend(audit.into_iter().map(|audit| (audit, settings.audit_after)));
    }
    if settings.queue_archives_after.is_some() {
        let archives = retention::archives(&mut orchestration.database().session("retention_look").await?).await?;
        all.extend(archives.into_iter().map(|archive| (archive, settings.queue_archives_after)));
    }
    Ok(all.into_iter().filter_map(|(aged, age)| Some((aged, age?))).collect())
}

async fn prune(orchestration: &Orchestration, aged: &Aged, age: Duration, limit: i64) -> Result<Done, Error> {
    let mut session = orchestration.database().session("retention_prune").await?;
    let (removed, overdue) = retention::prune(&mut session, aged, age, limit).await?;
    count(orchestration, aged.kind, removed);
    Ok(Done { overdue, removed, more: removed >= limit.unsigned_abs() })
}

fn count(orchestration: &Orchestration, kind: Pruned, removed: u64) {
    if removed > 0 {
        orchestration.metrics().retention_pruned.add(removed, PrunedKind { kind });
    }
}
