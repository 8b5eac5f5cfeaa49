//! What can happen to the system, as a story tells it.
//!
//! An operation that picks one of several things has a number instead of a name: it is taken modulo the number of
//! things there are, so that a story stays a story when others of its operations are taken out.

use super::random::Random;

/// One thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// A task is submitted.
    Submit(Submit),
    /// A worker claims so many steps.
    Claim { limit: usize },
    /// A worker reports on a run that it once claimed; it may be late.
    Report { run: usize, outcome: Outcome },
    /// A worker extends a lease that it once had.
    Extend { run: usize },
    /// A worker gives a lease back that it once had.
    Release { run: usize },
    /// A lease runs out.
    Expire { message: usize },
    /// A loop of the orchestration has a turn.
    Turn(Turn),
    /// A time comes.
    Due { timer: usize },
    /// An operator acts on a task.
    Task { task: usize, action: TaskAction },
    /// An operator acts on a step.
    Step { task: usize, step: usize, action: StepAction },
    /// A message is there twice.
    Duplicate { message: usize },
    /// A hand deletes a message.
    Lose { message: usize },
    /// A hand deletes a timer.
    LoseTimer { timer: usize },
    /// A message that nobody understands.
    Garbage { queue: Queue },
    /// The next operation breaks before its statement of this number, and its process is gone.
    Crash { statement: usize },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Submit {
    pub(crate) template: usize,
    /// To the version before the newest.
    pub(crate) older: bool,
    pub(crate) by_sql: bool,
    pub(crate) key: Option<usize>,
    pub(crate) delayed: bool,
    pub(crate) priority: i16,
    pub(crate) bad: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Success,
    /// To be tried again at once.
    Retry,
    /// To be tried again after an hour.
    RetryLater,
    /// It did not begin, and is to be tried again after an hour.
    NotTried,
    Timeout,
    Permanent,
    /// The worker found that the step takes its workers down.
    Poison,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    Process,
    Initialize,
    Timers,
    ExpiredLeases,
    Repair,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TaskAction {
    Cancel,
    Pause,
    Resume,
    Retry,
    Resolve,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StepAction {
    Retry,
    Cancel,
    Resolve,
    Park,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Queue {
    Steps,
    Results,
    Requests,
}

impl Operation {
    /// The next operation of a story; what moves tasks on is more frequent than what disturbs them.
    pub(crate) fn random(random: &mut Random, templates: usize) -> Self {
        let n = random.below(usize::MAX);
        match random.below(100) {
            0..10 => Self::Submit(Submit::random(random, templates)),
            10..26 => Self::Claim { limit: 1 + random.below(4) },
            26..47 => Self::Report { run: n, outcome: Outcome::random(random) },
            47..61 => Self::Turn(Turn::Process),
            61..64 => Self::Turn(Turn::Initialize),
            64..68 => Self::Turn(Turn::Timers),
            68..70 => Self::Turn(random.of(&[Turn::ExpiredLeases, Turn::Repair])),
            70..73 => Self::Due { timer: n },
            73..77 => Self::Expire { message: n },
            77..79 => Self::Extend { run: n },
            79..81 => Self::Release { run: n },
            81..87 => Self::Task {
                task: n,
                action: random.of(&[
                    TaskAction::Cancel,
                    TaskAction::Pause,
                    TaskAction::Pause,
                    TaskAction::Resume,
                    TaskAction::Resume,
                    TaskAction::Retry,
                    TaskAction::Resolve,
                ]),
            },
            87..91 => Self::Step {
                task: n,
                step: random.below(usize::MAX),
                action: random.of(&[
                    StepAction::Retry,
                    StepAction::Retry,
                    StepAction::Cancel,
                    StepAction::Resolve,
                    StepAction::Resolve,
                    StepAction::Park,
                    StepAction::Park,
                ]),
            },
            91 => Self::Duplicate { message: n },
            92 => Self::Lose { message: n },
            93 => Self::LoseTimer { timer: n },
            94 => Self::Garbage { queue: random.of(&[Queue::Steps, Queue::Results, Queue::Requests]) },
            _ => Self::Crash { statement: random.below(6) },
        }
    }
}

impl Submit {
    /// A task that starts at once.
    pub(crate) const fn plain(template: usize) -> Self {
        Self { template, older: false, by_sql: false, key: None, delayed: false, priority: 0, bad: false }
    }

    fn random(random: &mut Random, templates: usize) -> Self {
        Self {
            template: random.below(templates),
            older: random.one_in(3),
            by_sql: random.one_in(3),
            key: random.one_in(3).then(|| random.below(2)),
            delayed: random.one_in(5),
            priority: random.of(&[0, 0, 0, 100, -100, 7]),
            bad: random.one_in(10),
        }
    }
}

impl Outcome {
    fn random(random: &mut Random) -> Self {
        match random.below(16) {
            0..7 => Self::Success,
            7..10 => Self::Retry,
            10..12 => Self::RetryLater,
            12 => Self::NotTried,
            13 => Self::Timeout,
            14 => Self::Permanent,
            _ => Self::Poison,
        }
    }
}
