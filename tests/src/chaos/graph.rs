//! The workflows of a run: random graphs of several shapes, what their handlers do, and how each must end.

use super::dice::Dice;
use std::{fmt::Write as _, time::Duration};
use tasker_shared::step::StepState;

/// How often a step may fail.
pub const MAX_ATTEMPTS: usize = 3;

/// Who does the work of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// A handler in the worker's process.
    Function,
    /// A call of the outside service.
    Http,
    /// A program.
    Command,
}

/// What becomes of a step, whatever else happens to its workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It succeeds.
    Succeeds,
    /// It fails so often before it succeeds; with three it never does.
    Fails(usize),
    /// It panics once.
    Panics,
    /// It fails for good.
    Refuses,
    /// It lasts longer than it may, each time.
    Hangs,
    /// No worker has its handler.
    Missing,
}

impl Fate {
    fn failures_before_success(self) -> usize {
        match self {
            Self::Fails(times) => times,
            Self::Panics => 1,
            Self::Succeeds | Self::Refuses | Self::Hangs | Self::Missing => 0,
        }
    }
}

/// One step.
#[derive(Debug, Clone)]
pub struct StepPlan {
    /// The places of earlier steps that it waits for.
    pub parents: Vec<usize>,
    /// Who does it.
    pub work: Work,
    /// What becomes of it.
    pub fate: Fate,
    /// How long it works.
    pub works_ms: usize,
}

/// So many steps of workflows with [`Limits::scarce`] run at once in a namespace.
pub const SCARCE: usize = 5;

/// A wait that is shorter than the one before any retry.
const BRIEF: Duration = Duration::from_millis(50);

/// Limits of a workflow.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limits {
    /// The longest time of a task from its acceptance to its end.
    pub duration: Option<Duration>,
    /// The longest time of a step on its queue.
    pub queued: Option<Duration>,
    /// The longest wait for a retry, which is shorter than any, so that the first failure is the last.
    pub retry_wait: Option<Duration>,
    /// The most retries of all its steps together. Only where one step comes after the other: else nobody knows whose are the last.
    pub retries: Option<usize>,
    /// Whether its steps share [`SCARCE`] permits with all such workflows of the namespace.
    pub scarce: bool,
}

/// One workflow.
#[derive(Debug, Clone)]
pub struct Graph {
    /// The template's name, which tells its shape.
    pub name: String,
    /// The namespace.
    pub namespace: &'static str,
    /// The steps; their names are `s0`, `s1`, ….
    pub steps: Vec<StepPlan>,
    /// Its limits.
    pub limits: Limits,
}

/// The namespaces of a run; the second has a name that PGMQ does not take.
pub const NAMESPACES: [&str; 2] = ["chaos", "Chaos-2"];

const SHAPES: [&str; 14] = [
    "single", "chain", "diamond", "fan", "tree", "funnel", "mesh", "single", "chain", "diamond", "wide", "deep",
    "funnel", "mesh",
];

impl Graph {
    /// A random workflow; `number` makes its name unique.
    pub fn random(dice: &mut Dice, number: usize) -> Self {
        let shape = SHAPES[number % SHAPES.len()];
        let parents = parents(dice, shape);
        let mut steps: Vec<StepPlan> = parents.into_iter().map(|parents| step(dice, parents)).collect();
        if steps.len() > 16 {
            steps.iter_mut().for_each(StepPlan::lighten);
        }
        let (name, namespace) = (format!("{shape}_{number}"), NAMESPACES[usize::from(number % 4 == 3)]);
        Self { name, namespace, steps, limits: Limits::default() }
    }

    /// Gives it random limits.
    pub fn limit(&mut self, dice: &mut Dice) {
        let in_line =
            self.steps.iter().enumerate().all(|(place, step)| step.parents.iter().copied().eq(place.checked_sub(1)));
        self.limits = Limits {
            duration: dice.percent(20).then(|| dice.pause(1500, 6000)),
            retries: (in_line && dice.percent(50)).then(|| dice.below(3)),
            scarce: dice.percent(35),
            queued: dice.percent(10).then(|| dice.pause(2500, 6000)),
            retry_wait: dice.percent(10).then_some(BRIEF),
        };
    }

    /// Its template. Programs write what they did into a file of `effects`, calls go to `outside`.
    pub fn template(&self, effects: &str, outside: &str) -> String {
        let mut source = format!("name: {}\nnamespace_name: {}\nversion: 1.0.0\n", self.name, self.namespace);
        let Limits { duration, queued, retry_wait, retries, scarce } = self.limits;
        let times = [("max_duration", duration), ("max_queued", queued), ("max_retry_wait", retry_wait)];
        let times =
            times.into_iter().filter_map(|(limit, most)| Some(format!("{limit}_seconds: {}", most?.as_secs_f64())));
        let retries = retries.map(|most| format!("max_retries: {most}"));
        let lifecycle: Vec<String> = times.chain(retries).collect();
        if !lifecycle.is_empty() {
            let _ = writeln!(source, "lifecycle: {{{}}}", lifecycle.join(", "));
        }
        source.push_str("steps:\n");
        let concurrency =
            if scarce { format!("concurrency: {{limit: {SCARCE}, key: scarce}}, ") } else { String::new() };
        for (place, step) in self.steps.iter().enumerate() {
            let parents: Vec<String> = step.parents.iter().map(|p| format!("s{p}")).collect();
            let timeout = if step.fate == Fate::Hangs { 0.3 } else { 120.0 };
            let backoff = if step.works_ms % 3 == 0 { "exponential" } else { "constant" };
            let _ = writeln!(
                source,
                "  - {{name: s{place}, dependencies: [{}], {concurrency}timeout_seconds: {timeout}, retry: {{max_attempts: \
                 {MAX_ATTEMPTS}, backoff: {backoff}, backoff_base_ms: 200}}, handler: {}}}",
                parents.join(", "),
                step.handler(effects, outside)
            );
        }
        source
    }

    /// How each step ends when no operator acts on the task.
    pub fn model(&self) -> Vec<StepState> {
        let mut ends: Vec<StepState> = Vec::new();
        let mut retries = if self.limits.retry_wait.is_some() { 0 } else { self.limits.retries.unwrap_or(usize::MAX) };
        for step in &self.steps {
            let ready = step.parents.iter().all(|parent| ends[*parent] == StepState::Complete);
            let failures = step.fate.failures_before_success();
            ends.push(match step.fate {
                _ if !ready => StepState::Pending,
                Fate::Succeeds | Fate::Panics | Fate::Fails(_) if failures < MAX_ATTEMPTS && failures <= retries => {
                    retries -= failures;
                    StepState::Complete
                }
                _ => StepState::Error,
            });
        }
        ends
    }
}

impl StepPlan {
    /// For workflows of many steps: quick, and rarely anything but well.
    fn lighten(&mut self) {
        self.works_ms = if self.works_ms > 60 { self.works_ms % 60 } else { self.works_ms };
        if !matches!(self.fate, Fate::Succeeds | Fate::Fails(1 | 2) | Fate::Panics) {
            self.fate = Fate::Succeeds;
        }
        if self.fate == Fate::Succeeds && self.work == Work::Command {
            self.work = Work::Http;
        }
    }

    fn handler(&self, effects: &str, outside: &str) -> String {
        match self.work {
            Work::Function if self.fate == Fate::Missing => "{callable: chaos.nobody}".to_owned(),
            Work::Function => {
                let fate = match self.fate {
                    Fate::Succeeds => "succeeds".to_owned(),
                    Fate::Fails(times) => format!("fails:{times}"),
                    Fate::Panics => "panics".to_owned(),
                    Fate::Refuses => "refuses".to_owned(),
                    Fate::Hangs | Fate::Missing => "hangs".to_owned(),
                };
                let ms = self.works_ms;
                format!("{{callable: chaos.work, initialization: {{fate: \"{fate}\", works_ms: {ms}}}}}")
            }
            Work::Http => {
                let page = if self.fate == Fate::Refuses { "refuse" } else { "work" };
                let ms = self.works_ms;
                format!(
                    "{{callable: http, initialization: {{url: \"{outside}/{page}/{ms}\", method: POST, result: body}}}}"
                )
            }
            Work::Command => {
                let code = if self.fate == Fate::Refuses { 3 } else { 0 };
                let seconds = self.works_ms as f64 / 1000.0;
                format!(
                    "{{callable: command, initialization: {{permanent_exit_codes: [3], argv: [sh, \"-c\", \
                     'printf \"%s %s begin\\n\" \"$TASKER_STEP_ID\" \"$TASKER_ATTEMPT\" >> \"$1\"; sleep {seconds}; \
                     printf \"%s %s end\\n\" \"$TASKER_STEP_ID\" \"$TASKER_ATTEMPT\" >> \"$1\"; \
                     echo \"{{\\\"attempt\\\": $TASKER_ATTEMPT}}\"; exit {code}', sh, \"{effects}/programs.effects\"]}}}}"
                )
            }
        }
    }
}

/// The parents of each step.
fn parents(dice: &mut Dice, shape: &str) -> Vec<Vec<usize>> {
    match shape {
        "single" => vec![vec![]],
        "chain" => (0..dice.between(2, 8)).map(|n: usize| n.checked_sub(1).into_iter().collect()).collect(),
        "diamond" => vec![vec![], vec![0], vec![0], vec![1, 2]],
        "fan" => {
            let width = dice.between(3, 15);
            let mut steps = vec![vec![]];
            steps.extend((0..width).map(|_| vec![0]));
            steps.push((1..=width).collect());
            steps
        }
        "tree" => {
            (0..dice.between(5, 12)).map(|n: usize| n.checked_sub(1).map(|p| p / 2).into_iter().collect()).collect()
        }
        // more than one batch of results, and more than a worker has slots
        "wide" => {
            let width = dice.between(40, 300);
            let mut steps = vec![vec![]];
            steps.extend((0..width).map(|_| vec![0]));
            steps.push((1..=width).collect());
            steps
        }
        "deep" => (0..dice.between(30, 60)).map(|n: usize| n.checked_sub(1).into_iter().collect()).collect(),
        "funnel" => {
            let width = dice.between(2, 6);
            let mut steps: Vec<Vec<usize>> = vec![Vec::new(); width];
            steps.push((0..width).collect());
            steps
        }
        _ => {
            (0..dice.between(4, 14)).map(|n| (n.saturating_sub(5)..n).filter(|_| dice.percent(35)).collect()).collect()
        }
    }
}

fn step(dice: &mut Dice, parents: Vec<usize>) -> StepPlan {
    let work = match dice.below(100) {
        0..85 => Work::Function,
        85..95 => Work::Http,
        _ => Work::Command,
    };
    let fate = match (dice.below(100), work) {
        (0..2, _) => Fate::Refuses,
        (2..8, Work::Function) => Fate::Fails(dice.between(1, 2)),
        (8..10, Work::Function) => Fate::Fails(MAX_ATTEMPTS),
        (10..12, Work::Function) => Fate::Panics,
        (12..13, Work::Function) => Fate::Hangs,
        (13..14, Work::Function) => Fate::Missing,
        _ => Fate::Succeeds,
    };
    let works_ms = match dice.below(100) {
        0..40 => 0,
        40..90 => dice.between(1, 60),
        90..98 => dice.between(200, 1500),
        // longer than a lease
        _ => dice.between(3500, 5500),
    };
    StepPlan { parents, work, fate, works_ms }
}

#[cfg(test)]
mod tests {
    use super::{BRIEF, Fate, Graph, Limits, SHAPES};
    use crate::chaos::dice::Dice;
    use tasker_shared::{step::StepState, template};

    #[test]
    fn every_random_workflow_is_a_template_that_is_accepted() {
        let mut dice = Dice::new(3, "graphs");
        for number in 0..SHAPES.len() * 20 {
            let mut graph = Graph::random(&mut dice, number);
            graph.limit(&mut dice);
            let source = graph.template("/tmp/effects", "http://127.0.0.1:1");
            let read = template::parse(&source, None);
            assert!(read.is_ok(), "{source}\n{read:?}");
            assert_eq!(graph.model().len(), graph.steps.len());
        }
    }

    #[test]
    fn what_waits_for_a_failed_step_stays_pending_in_the_model() {
        let mut dice = Dice::new(3, "graphs");
        let mut pending = 0;
        for number in 0..300 {
            let graph = Graph::random(&mut dice, number);
            let ends = graph.model();
            for (step, end) in graph.steps.iter().zip(&ends) {
                let held = step.parents.iter().any(|parent| ends[*parent] != StepState::Complete);
                assert_eq!(held, *end == StepState::Pending);
                pending += usize::from(held);
            }
        }
        assert!(pending > 10, "the graphs show too little: {pending}");
    }

    #[test]
    fn retries_are_used_up_from_the_first_step_to_the_last_in_the_model() {
        let mut dice = Dice::new(3, "graphs");
        let mut chain =
            std::iter::repeat_with(|| Graph::random(&mut dice, 1)).find(|g| g.steps.len() == 4).expect("a chain");
        for (step, fate) in chain.steps.iter_mut().zip([Fate::Fails(2), Fate::Panics, Fate::Succeeds, Fate::Succeeds]) {
            step.fate = fate;
        }
        for (retries, retry_wait, done) in
            [(None, None, 4), (Some(3), None, 4), (Some(2), None, 1), (Some(1), None, 0), (None, Some(BRIEF), 0)]
        {
            chain.limits = Limits { retries, retry_wait, ..Limits::default() };
            let ends = chain.model();
            assert_eq!(ends.iter().filter(|end| **end == StepState::Complete).count(), done, "{retries:?}");
            assert!(
                done == 4
                    || ends[done] == StepState::Error && ends[done + 1..].iter().all(|end| *end == StepState::Pending)
            );
        }
    }
}
