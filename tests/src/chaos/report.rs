//! What a run showed, for people and for programs.

use super::{
    checker::{Promise, Violation, facts::Facts},
    faults::Happened,
    ledger::Entries,
    plan::Plan,
};
use crate::median::median;
use serde::Serialize;
use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tasker_shared::task::TaskState;

/// One run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The scenario.
    pub scenario: String,
    /// The seed.
    pub seed: u64,
    /// The arguments that repeat it.
    pub replay: String,
    /// Why it was not run, where it could not be.
    pub skipped: Option<String>,
    /// Tasks that were accepted.
    pub tasks: usize,
    /// Their steps.
    pub steps: usize,
    /// Moves in the history.
    pub transitions: usize,
    /// From the first submission until everything had ended, in seconds.
    pub seconds: f64,
    /// Completed steps in a second, over that time.
    pub steps_per_second: f64,
    /// Tasks that ended in a second, without the first and the last fifth of them.
    pub tasks_per_second: f64,
    /// What that was with as much work as possible, where it was measured first.
    pub capacity: Option<f64>,
    /// Tasks that were archived meanwhile.
    pub archived: u64,
    /// Faults by kind.
    pub faults: BTreeMap<&'static str, usize>,
    /// Accepted tasks that are gone or stand still.
    pub tasks_lost: usize,
    /// Outcomes counted twice, or from a lease that was lost.
    pub counted_twice: usize,
    /// Moves that are not legal.
    pub illegal_transitions: usize,
    /// Leases that ran out and were taken again.
    pub leases_lost: usize,
    /// Leases that workers gave back.
    pub leases_given_back: usize,
    /// Submissions that were tried more than once before they were answered.
    pub requests_held: usize,
    /// How long it took until a step completed, by kind of fault, in seconds.
    pub recovery: BTreeMap<&'static str, Recovery>,
    /// Everything that was wrong.
    pub violations: Vec<String>,
}

/// Times in seconds.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Recovery {
    /// How many were measured.
    pub faults: usize,
    /// From the fault until a step completed anywhere: half of them were quicker.
    pub median: f64,
    /// The slowest one.
    pub worst: f64,
    /// From the end of the fault, such as when PostgreSQL accepts connections again, until a step completed: half of them were
    /// quicker.
    pub over_median: f64,
    /// The slowest one.
    pub over_worst: f64,
    /// From a kill until the victim's own steps were taken by others: half of them were quicker. Zero where it had none.
    pub victims_median: f64,
    /// The slowest one.
    pub victims_worst: f64,
}

impl Report {
    /// A run that cannot be made here.
    pub fn skipped(scenario: &str, seed: u64, why: String) -> Self {
        Self { skipped: Some(why), ..Self::empty(scenario, seed) }
    }

    fn empty(scenario: &str, seed: u64) -> Self {
        Self {
            scenario: scenario.to_owned(),
            seed,
            replay: String::new(),
            skipped: None,
            tasks: 0,
            steps: 0,
            transitions: 0,
            seconds: 0.0,
            steps_per_second: 0.0,
            tasks_per_second: 0.0,
            capacity: None,
            archived: 0,
            faults: BTreeMap::new(),
            tasks_lost: 0,
            counted_twice: 0,
            illegal_transitions: 0,
            leases_lost: 0,
            leases_given_back: 0,
            requests_held: 0,
            recovery: BTreeMap::new(),
            violations: Vec::new(),
        }
    }

    /// Sums a run up.
    pub fn of(
        plan: &Plan,
        replay: String,
        took: Duration,
        facts: &Facts,
        ledger: &Entries,
        happened: &[Happened],
        violations: &[Violation],
    ) -> Self {
        let mut faults = BTreeMap::new();
        for fault in happened {
            *faults.entry(fault.fault.name()).or_insert(0) += 1;
        }
        let broken = |promise| violations.iter().filter(|violation| violation.promise == promise).count();
        let because = |reason: &str| facts.history.iter().filter(|line| line.reason.as_deref() == Some(reason)).count();
        let done = facts.history.iter().filter(|l| l.step_id.is_some() && l.to_state == "complete").count();
        Self {
            replay,
            tasks: facts.tasks.len(),
            steps: facts.steps.len(),
            transitions: facts.history.len(),
            seconds: took.as_secs_f64(),
            steps_per_second: done as f64 / took.as_secs_f64().max(0.001),
            tasks_per_second: tasks_per_second(facts),
            faults,
            tasks_lost: broken(Promise::NothingLost),
            counted_twice: broken(Promise::CountedOnce),
            illegal_transitions: broken(Promise::LegalHistory),
            leases_lost: because("the lease ran out"),
            leases_given_back: because("the worker stops"),
            requests_held: ledger.submissions.values().filter(|s| s.tries > 1 && !s.rolled_back).count(),
            recovery: recovery(facts, happened),
            violations: violations.iter().map(ToString::to_string).collect(),
            ..Self::empty(plan.scenario.name, plan.seed)
        }
    }

    /// Whether all promises were kept.
    pub fn is_well(&self) -> bool {
        self.violations.is_empty()
    }
}

fn tasks_per_second(facts: &Facts) -> f64 {
    let ends = facts
        .history
        .iter()
        .filter(|line| line.step_id.is_none() && line.to_state.parse::<TaskState>().is_ok_and(TaskState::is_final));
    let mut ends: Vec<f64> = ends.map(|line| line.at).collect();
    ends.sort_by(f64::total_cmp);
    let (first, last) = (ends.len() / 5, ends.len() * 4 / 5);
    match (ends.get(first), ends.get(last)) {
        (Some(from), Some(to)) if to > from => (last - first) as f64 / (to - from),
        _ => 0.0,
    }
}

fn recovery(facts: &Facts, happened: &[Happened]) -> BTreeMap<&'static str, Recovery> {
    let mut done: Vec<f64> =
        facts.history.iter().filter(|l| l.step_id.is_some() && l.to_state == "complete").map(|l| l.at).collect();
    done.sort_by(f64::total_cmp);
    // after the last step of the run there is nothing to wait for
    let next = |at: f64| Some(done.get(done.partition_point(|done| *done <= at))? - at);
    let mut any: BTreeMap<&'static str, [Vec<f64>; 3]> = BTreeMap::new();
    for fault in happened {
        let at = seconds(fault.began);
        let times = any.entry(fault.fault.name()).or_default();
        times[0].extend(next(at));
        times[1].extend(next(seconds(fault.over)));
        times[2].extend(victims(facts, &fault.whom, at));
    }
    let summed = |(kind, [mut first, mut over, mut victims]): (_, [Vec<f64>; 3])| {
        let summary = Recovery {
            faults: first.len(),
            median: median(&mut first),
            worst: first.last().copied().unwrap_or(0.0),
            over_median: median(&mut over),
            over_worst: over.last().copied().unwrap_or(0.0),
            victims_median: median(&mut victims),
            victims_worst: victims.last().copied().unwrap_or(0.0),
        };
        (kind, summary)
    };
    any.into_iter().map(summed).collect()
}

/// How long it took until others took the steps that a worker held.
fn victims(facts: &Facts, worker: &str, at: f64) -> Vec<f64> {
    let Some(worker) = facts.workers.get(worker).map(|id| format!("worker:{id}")) else { return Vec::new() };
    let mut held = HashMap::new();
    let mut taken = Vec::new();
    for line in facts.history.iter().filter(|line| line.step_id.is_some()) {
        if line.at <= at {
            held.insert(line.step_id, line.to_state == "in_progress" && line.actor == worker);
        } else if held.remove(&line.step_id) == Some(true) && line.to_state == "in_progress" {
            taken.push(line.at - at);
        }
    }
    taken
}

fn seconds(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scenario, seed, .. } = self;
        if let Some(why) = &self.skipped {
            return writeln!(f, "{scenario}, seed {seed}: skipped: {why}");
        }
        let verdict = if self.is_well() { "all promises kept" } else { "PROMISES BROKEN" };
        writeln!(f, "{scenario}, seed {seed}: {verdict}")?;
        writeln!(
            f,
            "  {} tasks, {} steps, {} transitions in {:.1} s: {:.1} steps/s",
            self.tasks, self.steps, self.transitions, self.seconds, self.steps_per_second
        )?;
        writeln!(
            f,
            "  lost {}, counted twice {}, illegal {}; leases lost {}, given back {}; requests held {}",
            self.tasks_lost,
            self.counted_twice,
            self.illegal_transitions,
            self.leases_lost,
            self.leases_given_back,
            self.requests_held
        )?;
        if let Some(capacity) = self.capacity {
            let rate = self.tasks_per_second;
            writeln!(f, "  capacity {capacity:.1} tasks/s; under overload {rate:.1} tasks/s ended")?;
        }
        if self.archived > 0 {
            writeln!(f, "  {} tasks were archived meanwhile", self.archived)?;
        }
        for (kind, count) in &self.faults {
            let Some(time) = self.recovery.get(kind) else { continue };
            write!(f, "  {count:>4} {kind}: next step after {:.2} s (worst {:.2})", time.median, time.worst)?;
            write!(f, ", once it was over {:.2} s (worst {:.2})", time.over_median, time.over_worst)?;
            if time.victims_worst > 0.0 {
                write!(f, "; its steps taken after {:.2} s (worst {:.2})", time.victims_median, time.victims_worst)?;
            }
            writeln!(f)?;
        }
        self.violations.iter().take(30).try_for_each(|violation| writeln!(f, "  BROKEN {violation}"))?;
        if self.violations.len() > 30 {
            writeln!(f, "  … and {} more", self.violations.len() - 30)?;
        }
        if !self.is_well() {
            writeln!(f, "  replay: {}", self.replay)?;
        }
        Ok(())
    }
}
