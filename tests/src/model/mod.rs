//! Random stories, told to the system and to an oracle: after each operation both must show the same.
//!
//! A story that makes them part is cut down to the operations that it takes, and shown with its seed.

mod operation;
mod oracle;
pub mod random;
mod real;
mod shape;
mod story;
mod view;

pub(crate) use operation::{Outcome, Queue, StepAction, Submit, TaskAction, Turn};
pub(crate) use oracle::Run;
pub(crate) use real::{Real, Told};
pub(crate) use shape::{Shape, StepShape};

use anyhow::{Result, bail};
use std::{
    fmt,
    time::{Duration, Instant},
};
use story::{Parted, Seen, Story};
use tasker_shared::{
    step::{Edge, StepEvent},
    task::TaskState,
};

/// What no station does: nothing skips a step.
const UNUSED: [StepEvent; 1] = [StepEvent::Skip];

/// How many stories are told.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// How many stories.
    #[arg(long, default_value_t = 1000)]
    pub cases: u64,
    /// The seed of the first story; the others follow.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How many operations a story has.
    #[arg(long, default_value_t = 60)]
    pub operations: usize,
    /// Ends earlier, after so many seconds.
    #[arg(long)]
    pub seconds: Option<u64>,
    /// Ends after so many stories, or later when every transition was taken.
    #[arg(long)]
    pub until_covered: Option<u64>,
}

/// What a run showed.
#[derive(Debug, Default)]
pub struct Report {
    cases: u64,
    seen: Seen,
    took: Duration,
}

impl Report {
    /// Transitions of the two state machines that no story took.
    pub fn uncovered(&self) -> Vec<String> {
        let steps = Edge::all().filter(|edge| !UNUSED.contains(&edge.event));
        let steps = steps.filter(|edge| !self.seen.steps.contains(&(edge.from, edge.to)));
        let tasks = TaskState::edges().filter(|(from, _, to)| !self.seen.tasks.contains(&(Some(*from), *to)));
        let steps = steps.map(|edge| format!("step {} {}", edge.from, edge.event));
        steps.chain(tasks.map(|(from, event, _)| format!("task {from} {event}"))).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Seen { operations, idle, crashes, steps, tasks } = &self.seen;
        let all = Edge::all().count() + TaskState::edges().count();
        write!(
            f,
            "{} stories, {operations} operations compared, {crashes} crashes between statements, {idle} idle; \
             {} of {all} transitions, {} of them by nobody; {:.0} s",
            self.cases,
            steps.len() + tasks.iter().filter(|(from, _)| from.is_some()).count(),
            UNUSED.len(),
            self.took.as_secs_f64()
        )
    }
}

/// Tells stories.
///
/// # Errors
/// Oracle and system part; the message has the shortest story found that makes them.
pub async fn run(options: &Options) -> Result<Report> {
    let (started, mut report, mut real) = (Instant::now(), Report::default(), Real::start().await?);
    for seed in options.seed..options.seed.saturating_add(options.cases) {
        let late = options.seconds.is_some_and(|seconds| started.elapsed() > Duration::from_secs(seconds));
        let enough = options.until_covered.is_some_and(|least| report.cases >= least);
        if late || enough && report.uncovered().is_empty() {
            break;
        }
        let story = Story::random(seed, options.operations);
        match story.tell(&mut real).await? {
            Ok(seen) => report.add(seen),
            Err(parted) => {
                let (story, parted) = shrunk(story, parted, &mut real).await?;
                bail!("seed {seed} at operation {}:\n{}\n{}", parted.at, parted.why, story.text());
            }
        }
    }
    real.close().await?;
    report.took = started.elapsed();
    Ok(report)
}

impl Report {
    fn add(&mut self, seen: Seen) {
        self.cases += 1;
        self.seen.operations += seen.operations;
        self.seen.idle += seen.idle;
        self.seen.crashes += seen.crashes;
        self.seen.steps.extend(seen.steps);
        self.seen.tasks.extend(seen.tasks);
    }
}

/// Takes operations out, many at once and then one by one, as long as the two still part.
async fn shrunk(mut story: Story, mut parted: Parted, real: &mut Real) -> Result<(Story, Parted)> {
    story.operations.truncate(parted.at + 1);
    let mut size = story.operations.len() / 2;
    while size > 0 {
        let (mut at, mut took) = (0, false);
        while at < story.operations.len() {
            let mut shorter = story.clone();
            shorter.operations.drain(at..(at + size).min(story.operations.len()));
            match shorter.tell(real).await? {
                Err(again) => {
                    shorter.operations.truncate(again.at + 1);
                    (story, parted, took) = (shorter, again, true);
                }
                Ok(_) => at += size,
            }
        }
        if !took || size > 1 {
            size /= 2;
        }
    }
    Ok((story, parted))
}
