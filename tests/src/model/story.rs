//! A story: templates and operations, told to the oracle and to the real system at once.

use super::{
    operation::{Operation, Queue},
    oracle::{Answer, Oracle, Timer},
    random::Random,
    real::{Real, Told},
    shape::Shape,
    view::difference,
};
use anyhow::{Result, anyhow};
use std::{collections::BTreeSet, fmt::Write as _};
use tasker_shared::{step::StepState, task::TaskState};

/// See above.
#[derive(Debug, Clone)]
pub(super) struct Story {
    pub(super) shapes: Vec<Shape>,
    pub(super) operations: Vec<Operation>,
}

/// What was seen on the way.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    pub(super) operations: usize,
    /// Operations that found nothing to work on.
    pub(super) idle: usize,
    pub(super) crashes: usize,
    pub(super) steps: BTreeSet<(StepState, StepState)>,
    pub(super) tasks: BTreeSet<(Option<TaskState>, TaskState)>,
}

/// Where oracle and system parted.
#[derive(Debug)]
pub(super) struct Parted {
    /// The number of the operation.
    pub(super) at: usize,
    pub(super) why: String,
}

impl Story {
    pub(super) fn random(seed: u64, length: usize) -> Self {
        let mut random = Random::new(seed);
        let templates = 1 + random.below(2);
        let shapes = (0..templates).map(|_| Shape::random(&mut random)).collect();
        let mut operations = vec![Operation::Submit(super::operation::Submit::plain(0))];
        operations.extend((1..length).map(|_| Operation::random(&mut random, templates)));
        Self { shapes, operations }
    }

    /// Tells the story. The outer error is one of the test itself.
    pub(super) async fn tell(&self, real: &mut Real) -> Result<Result<Seen, Parted>> {
        let names: Vec<String> = (0..self.shapes.len()).map(|n| format!("m{}_{n}", real.story())).collect();
        let templates = self.shapes.iter().zip(&names).flat_map(|(shape, name)| shape.versions(name));
        let templates: Vec<String> = templates.collect();
        real.begin(&templates).await?;
        let (mut oracle, mut seen, mut crash) = (Oracle::new(self.shapes.clone()), Seen::default(), None);
        for (at, operation) in self.operations.iter().enumerate() {
            if let Operation::Crash { statement } = operation {
                crash = Some(*statement);
                continue;
            }
            let mut telling = Telling { oracle: &mut oracle, real, names: &names, crash: crash.take() };
            match telling.tell(*operation).await {
                Ok(Happened::Nothing) => seen.idle += 1,
                Ok(Happened::Something) => seen.operations += 1,
                Ok(Happened::Crash) => seen.crashes += 1,
                Err(error) => return Ok(Err(Parted { at, why: format!("{error:#}") })),
            }
            real.rolled_back().await?;
            let found = difference(&oracle.lines(), &real.lines().await?);
            if !found.is_empty() {
                return Ok(Err(Parted { at, why: found.join("\n") }));
            }
        }
        for task in &oracle.tasks {
            seen.tasks.extend(&task.history);
            seen.steps.extend(task.steps.iter().flat_map(|step| &step.history).map(|(from, to, _)| (*from, *to)));
        }
        Ok(Ok(seen))
    }

    /// The story as a person reads it.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for (n, shape) in self.shapes.iter().enumerate() {
            let _ = writeln!(text, "template {n}{}", if shape.deadline { ", an hour at most" } else { "" });
            for (m, step) in shape.steps.iter().enumerate() {
                let (tries, retryable) = (step.max_attempts, step.retryable);
                let _ = writeln!(text, "  s{m} after {:?}, {tries} attempts, retryable: {retryable}", step.parents);
            }
        }
        for (n, operation) in self.operations.iter().enumerate() {
            let _ = writeln!(text, "{n:3} {operation:?}");
        }
        text
    }
}

enum Happened {
    Nothing,
    Something,
    Crash,
}

/// One operation, told to both.
struct Telling<'a> {
    oracle: &'a mut Oracle,
    real: &'a Real,
    names: &'a [String],
    crash: Option<usize>,
}

impl Telling<'_> {
    async fn tell(&mut self, operation: Operation) -> Result<Happened> {
        self.oracle.tick();
        match operation {
            Operation::Submit(submit) => {
                // submissions by SQL are the caller's own transaction: there is no station to break
                let template = &self.names[submit.template % self.names.len()];
                self.arm(!submit.by_sql);
                let told = self.real.submit(&submit, template, self.oracle.tasks.len()).await?;
                self.both(told, |oracle| oracle.submit(&submit))
            }
            Operation::Claim { limit } => self.claim(limit).await,
            Operation::Report { run, outcome } => {
                let Some(run) = self.run(run) else { return Ok(Happened::Nothing) };
                self.arm(true);
                let told = self.real.report(run, outcome).await?;
                self.both(told, |oracle| oracle.report(run, outcome))
            }
            Operation::Extend { run } => {
                let Some(run) = self.run(run) else { return Ok(Happened::Nothing) };
                self.arm(true);
                let told = self.real.extend(run).await?;
                self.both(told, |oracle| oracle.extend(run))
            }
            Operation::Release { run } => {
                let Some(run) = self.run(run) else { return Ok(Happened::Nothing) };
                self.arm(true);
                let told = self.real.release(run).await?;
                self.both(told, |oracle| oracle.release(run))
            }
            Operation::Turn(turn) => {
                // the sweep for repair is a transaction for each task
                self.arm(turn != super::operation::Turn::Repair);
                let told = self.real.turn(turn).await?;
                self.both(told, |oracle| oracle.turn(turn))
            }
            Operation::Task { task, action } => {
                let Some(task) = pick(task, self.oracle.tasks.len()) else { return Ok(Happened::Nothing) };
                self.arm(true);
                let told = self.real.operate(task, action).await?;
                self.both(told, |oracle| oracle.operate(task, action))
            }
            Operation::Step { task, step, action } => {
                let Some(task) = pick(task, self.oracle.tasks.len()) else { return Ok(Happened::Nothing) };
                let step = pick(step, self.oracle.tasks[task].steps.len()).unwrap_or(0);
                self.arm(true);
                let told = self.real.operate_step(task, step, action).await?;
                self.both(told, |oracle| oracle.operate_step(task, step, action))
            }
            Operation::Expire { message } => {
                let leased = |m: &super::oracle::Message| m.queue == Queue::Steps && !m.visible;
                let Some((place, id)) = self.message(message, leased).await? else { return Ok(Happened::Nothing) };
                self.real.expire(id).await?;
                self.oracle.expire(place);
                Ok(Happened::Something)
            }
            Operation::Duplicate { message } => {
                let Some((place, id)) = self.message(message, |_| true).await? else { return Ok(Happened::Nothing) };
                self.real.duplicate(self.oracle.messages[place].queue, id).await?;
                self.oracle.duplicate(place);
                Ok(Happened::Something)
            }
            Operation::Lose { message } => {
                let Some((place, id)) = self.message(message, |_| true).await? else { return Ok(Happened::Nothing) };
                self.real.lose(self.oracle.messages[place].queue, id).await?;
                self.oracle.lose(place);
                Ok(Happened::Something)
            }
            Operation::Due { timer } => {
                let Some((place, timer)) = self.timer(timer, |timer| !timer.held) else {
                    return Ok(Happened::Nothing);
                };
                self.real.due(timer.task, timer.of).await?;
                self.oracle.due(place);
                Ok(Happened::Something)
            }
            Operation::LoseTimer { timer } => {
                let Some((place, timer)) = self.timer(timer, |_| true) else { return Ok(Happened::Nothing) };
                self.real.lose_timer(timer.task, timer.of).await?;
                self.oracle.lose_timer(place);
                Ok(Happened::Something)
            }
            Operation::Garbage { queue } => {
                self.real.garbage(queue).await?;
                self.oracle.garbage(queue);
                Ok(Happened::Something)
            }
            Operation::Crash { .. } => Ok(Happened::Nothing),
        }
    }

    async fn claim(&mut self, limit: usize) -> Result<Happened> {
        let read = self.real.visible(limit).await?;
        self.arm(true);
        let told = self.real.claim(limit).await?;
        self.real.arm(None);
        match told {
            Told::Broken => Ok(Happened::Crash),
            Told::Answer(answer) => {
                let expected = self.oracle.claim(limit, &read).map_err(|why| anyhow!("{why}"))?;
                agree(&Ok(expected), &answer)
            }
        }
    }

    fn arm(&mut self, can_break: bool) {
        self.real.arm(self.crash.take().filter(|_| can_break));
    }

    fn both(&mut self, told: Told, ask: impl FnOnce(&mut Oracle) -> Answer) -> Result<Happened> {
        self.real.arm(None);
        match told {
            Told::Broken => Ok(Happened::Crash),
            Told::Answer(answer) => agree(&ask(self.oracle), &answer),
        }
    }

    /// One of the latest runs, most often; they are what workers hold.
    fn run(&self, n: usize) -> Option<super::oracle::Run> {
        let runs = &self.oracle.runs;
        let recent = if n.is_multiple_of(4) { runs.len() } else { runs.len().min(4) };
        pick(n, recent).map(|back| runs[runs.len() - 1 - back])
    }

    async fn message(&self, n: usize, fits: impl Fn(&super::oracle::Message) -> bool) -> Result<Option<(usize, i64)>> {
        let places: Vec<usize> = (0..self.oracle.messages.len()).filter(|m| fits(&self.oracle.messages[*m])).collect();
        let Some(n) = pick(n, places.len()) else { return Ok(None) };
        let place = self.oracle.first_like(places[n]);
        let message = &self.oracle.messages[place];
        let id = match message.id {
            Some(id) => id,
            None => self.real.message(message.queue, message.about, message.read, message.visible).await?,
        };
        Ok(Some((place, id)))
    }

    fn timer(&self, n: usize, fits: impl Fn(&Timer) -> bool) -> Option<(usize, Timer)> {
        let timers = &self.oracle.timers;
        let places: Vec<usize> = (0..timers.len()).filter(|place| fits(&timers[*place])).collect();
        pick(n, places.len()).map(|n| (places[n], timers[places[n]].clone()))
    }
}

fn pick(n: usize, of: usize) -> Option<usize> {
    n.checked_rem(of)
}

fn agree(oracle: &Answer, real: &Answer) -> Result<Happened> {
    anyhow::ensure!(oracle == real, "the oracle answers {oracle:?}, the system {real:?}");
    Ok(Happened::Something)
}

#[cfg(test)]
mod tests {
    use super::Story;
    use crate::model::{
        Real,
        operation::{Operation, Outcome, Queue, Submit, Turn},
        shape::{Shape, StepShape},
    };
    use anyhow::Result;

    /// A turn that comes at once after a crash finds what the crashed one had taken.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_a_crashed_turn_had_taken_is_back_before_the_story_goes_on() -> Result<()> {
        let step = StepShape { parents: Vec::new(), max_attempts: 1, retryable: true };
        let shapes = vec![Shape { steps: vec![step; 3], deadline: false }];
        let mut operations = vec![Operation::Submit(Submit::plain(0)), Operation::Claim { limit: 3 }];
        for run in 0..3 {
            operations.push(Operation::Report { run, outcome: Outcome::Success });
            operations.push(Operation::Garbage { queue: Queue::Results });
            // after the statement that takes the messages
            operations.push(Operation::Crash { statement: 2 });
            operations.extend([Operation::Turn(Turn::Process), Operation::Turn(Turn::Process)]);
        }
        let (story, mut real) = (Story { shapes, operations }, Real::start().await?);
        for _ in 0..100 {
            let told = story.tell(&mut real).await?;
            let seen = told.map_err(|parted| anyhow::anyhow!("{} at {}", parted.why, parted.at))?;
            assert_eq!(seen.crashes, 3);
        }
        real.close().await
    }
}
