//! The scenes: who meets, and what was before.

use crate::model::{Outcome, Queue, Shape, StepAction, StepShape, Submit, TaskAction, Turn};

/// What an actor does, or what was done before the actors come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    Submit(Submit),
    /// Two keys in one request, in this order.
    SubmitBoth([usize; 2]),
    Claim(usize),
    /// Reports on the run of this number.
    Report(usize, Outcome),
    /// One report on two runs.
    ReportBoth([usize; 2]),
    Extend(usize),
    Release(usize),
    Expire,
    Due,
    Turn(Turn),
    Task(TaskAction),
    Step(usize, StepAction),
    Lose(Queue),
    /// Locks the row of a step, as whatever else holds it for a moment, and lets it go.
    Hold(usize),
}

/// Actors who meet.
#[derive(Debug, Clone)]
pub(super) struct Scene {
    pub(super) name: &'static str,
    pub(super) shape: Shape,
    pub(super) before: Vec<Deed>,
    pub(super) actors: Vec<Deed>,
}

impl Scene {
    /// Whether nothing was deleted by hand, so that nothing may lack its wake-up.
    pub(super) fn is_untouched(&self) -> bool {
        !self.before.iter().any(|deed| matches!(deed, Deed::Lose(_)))
    }
}

const SUBMIT: Deed = Deed::Submit(Submit::plain(0));
const DELAYED: Deed = Deed::Submit(Submit { delayed: true, ..Submit::plain(0) });
const BY_SQL: Deed = Deed::Submit(Submit { by_sql: true, ..Submit::plain(0) });
const KEYED: Deed = Deed::Submit(Submit { key: Some(0), ..Submit::plain(0) });
const KEYED_BY_SQL: Deed = Deed::Submit(Submit { key: Some(0), by_sql: true, ..Submit::plain(0) });
const CLAIM: Deed = Deed::Claim(10);
const PROCESS: Deed = Deed::Turn(Turn::Process);
const INITIALIZE: Deed = Deed::Turn(Turn::Initialize);
const TIMERS: Deed = Deed::Turn(Turn::Timers);
const REPAIR: Deed = Deed::Turn(Turn::Repair);
const HASTEN: Deed = Deed::Turn(Turn::ExpiredLeases);
const CANCEL: Deed = Deed::Task(TaskAction::Cancel);
const PAUSE: Deed = Deed::Task(TaskAction::Pause);
const RESUME: Deed = Deed::Task(TaskAction::Resume);
const RETRY: Deed = Deed::Task(TaskAction::Retry);
const RESOLVE: Deed = Deed::Task(TaskAction::Resolve);

const fn success(run: usize) -> Deed {
    Deed::Report(run, Outcome::Success)
}

/// Steps by their parents; each may fail twice.
fn graph(steps: &[&[usize]], deadline: bool) -> Shape {
    let step = |parents: &&[usize]| StepShape { parents: parents.to_vec(), max_attempts: 2, retryable: true };
    Shape { steps: steps.iter().map(step).collect(), deadline }
}

/// Every scene.
pub(super) fn all() -> Vec<Scene> {
    let one = || graph(&[&[]], false);
    let two = || graph(&[&[], &[]], false);
    let chain = || graph(&[&[], &[0]], false);
    let join = || graph(&[&[], &[], &[0, 1]], false);
    let limited = || graph(&[&[]], true);
    let scene = |name, shape, before: &[Deed], actors: &[Deed]| Scene {
        name,
        shape,
        before: before.to_vec(),
        actors: actors.to_vec(),
    };
    let failed = [SUBMIT, CLAIM, Deed::Report(0, Outcome::Permanent), PROCESS];
    let resting = [SUBMIT, CLAIM, Deed::Report(0, Outcome::Retry), PROCESS];
    let reported = [SUBMIT, CLAIM, success(0)];
    vec![
        scene("two workers claim", two(), &[SUBMIT], &[Deed::Claim(1), Deed::Claim(2), Deed::Hold(0)]),
        scene(
            "a late report meets a reclaim",
            one(),
            &[SUBMIT, CLAIM, Deed::Expire],
            &[Deed::Hold(0), success(0), CLAIM],
        ),
        scene(
            "a late report of two meets a reclaim",
            two(),
            &[SUBMIT, CLAIM, Deed::Expire],
            &[Deed::Hold(1), Deed::ReportBoth([1, 0]), CLAIM],
        ),
        scene(
            "a late report meets the report of the next attempt",
            two(),
            &[SUBMIT, CLAIM, Deed::Expire, CLAIM],
            &[Deed::Hold(0), Deed::ReportBoth([0, 1]), Deed::ReportBoth([3, 2])],
        ),
        scene("a report comes twice", one(), &[SUBMIT, CLAIM], &[Deed::Hold(0), success(0), success(0)]),
        scene(
            "a release meets a reclaim",
            one(),
            &[SUBMIT, CLAIM, Deed::Expire],
            &[Deed::Hold(0), Deed::Release(0), CLAIM],
        ),
        scene(
            "a heartbeat meets a reclaim",
            one(),
            &[SUBMIT, CLAIM, Deed::Expire],
            &[Deed::Hold(0), Deed::Extend(0), CLAIM],
        ),
        scene(
            "a heartbeat meets a release",
            one(),
            &[SUBMIT, CLAIM],
            &[Deed::Hold(0), Deed::Extend(0), Deed::Release(0)],
        ),
        scene("a heartbeat meets a report", one(), &[SUBMIT, CLAIM], &[Deed::Hold(0), Deed::Extend(0), success(0)]),
        scene("a release meets a late report", one(), &[SUBMIT, CLAIM], &[Deed::Hold(0), Deed::Release(0), success(0)]),
        scene(
            "a report of two meets a cancel",
            two(),
            &[SUBMIT, CLAIM],
            &[Deed::Hold(0), Deed::ReportBoth([1, 0]), CANCEL],
        ),
        scene("a reclaim meets a cancel", two(), &[SUBMIT, CLAIM, Deed::Expire], &[Deed::Hold(0), CLAIM, CANCEL]),
        scene("a claim meets a cancel", two(), &[SUBMIT], &[Deed::Hold(1), CLAIM, CANCEL]),
        scene("a claim meets a pause", two(), &[SUBMIT], &[CLAIM, PAUSE]),
        scene("a claim of a paused task meets a resume", two(), &[SUBMIT, PAUSE], &[Deed::Hold(0), CLAIM, RESUME]),
        scene(
            "a reclaim and a withdrawal meet a cancel",
            two(),
            &[SUBMIT, Deed::Claim(1), Deed::Expire, PAUSE],
            &[Deed::Hold(0), CLAIM, CANCEL],
        ),
        scene(
            "a reclaim and a withdrawal meet a resume",
            two(),
            &[SUBMIT, Deed::Claim(1), Deed::Expire, PAUSE],
            &[Deed::Hold(1), CLAIM, RESUME],
        ),
        scene("a report meets a cancel", chain(), &[SUBMIT, CLAIM], &[success(0), CANCEL]),
        scene("a report meets a resolve", chain(), &[SUBMIT, CLAIM], &[success(0), Deed::Step(0, StepAction::Resolve)]),
        scene(
            "a report meets the cancel of its step",
            chain(),
            &[SUBMIT, CLAIM],
            &[success(0), Deed::Step(0, StepAction::Cancel)],
        ),
        scene(
            "a report meets the parking of its step",
            chain(),
            &[SUBMIT, CLAIM],
            &[success(0), Deed::Step(0, StepAction::Park)],
        ),
        scene("a claim meets a resolve", chain(), &[SUBMIT], &[CLAIM, Deed::Step(0, StepAction::Resolve)]),
        scene("an outcome meets a cancel", chain(), &reported, &[PROCESS, CANCEL]),
        scene("an outcome meets a pause", chain(), &reported, &[PROCESS, PAUSE]),
        scene(
            "an outcome meets the cancel of its step",
            chain(),
            &reported,
            &[PROCESS, Deed::Step(0, StepAction::Cancel)],
        ),
        scene(
            "an outcome meets the resolve of the next step",
            chain(),
            &reported,
            &[PROCESS, Deed::Step(1, StepAction::Resolve)],
        ),
        scene("an outcome meets a resume", chain(), &[SUBMIT, CLAIM, PAUSE, success(0)], &[PROCESS, RESUME]),
        scene("two outcomes of a join meet", join(), &[SUBMIT, CLAIM, success(0), success(1)], &[PROCESS, PROCESS]),
        scene(
            "an outcome of a join meets the resolve of the other parent",
            join(),
            &[SUBMIT, CLAIM, success(0)],
            &[PROCESS, Deed::Step(1, StepAction::Resolve)],
        ),
        scene("a failure meets a pause", chain(), &[SUBMIT, CLAIM, Deed::Report(0, Outcome::Retry)], &[PROCESS, PAUSE]),
        scene(
            "a failure meets a cancel",
            chain(),
            &[SUBMIT, CLAIM, Deed::Report(0, Outcome::Permanent)],
            &[PROCESS, CANCEL],
        ),
        scene("two sweeps find one timer", one(), &resting, &[TIMERS, TIMERS]),
        scene("a retry that is due meets a pause", one(), &resting, &[TIMERS, PAUSE]),
        scene("a retry that is due meets a cancel", one(), &resting, &[TIMERS, CANCEL]),
        scene("a retry that is due meets a resolve", chain(), &resting, &[TIMERS, Deed::Step(0, StepAction::Resolve)]),
        scene("a pause meets a resume while a retry is due", one(), &resting, &[PAUSE, RESUME, TIMERS]),
        scene("a deadline meets an outcome", limited(), &[SUBMIT, CLAIM, Deed::Due, success(0)], &[TIMERS, PROCESS]),
        scene(
            "a deadline meets a report",
            limited(),
            &[SUBMIT, CLAIM, Deed::Due],
            &[Deed::Hold(0), TIMERS, success(0)],
        ),
        scene("a start meets a cancel", one(), &[DELAYED, Deed::Due], &[TIMERS, CANCEL]),
        scene(
            "a start meets its own request",
            one(),
            &[Deed::Submit(Submit { by_sql: true, delayed: true, ..Submit::plain(0) }), INITIALIZE, Deed::Due],
            &[TIMERS, REPAIR, INITIALIZE],
        ),
        scene("a request meets a cancel", one(), &[BY_SQL], &[INITIALIZE, CANCEL]),
        scene("two loops take one request", one(), &[BY_SQL], &[INITIALIZE, INITIALIZE]),
        scene("one key is submitted twice", one(), &[], &[KEYED, KEYED]),
        scene("one key is submitted by HTTP and by SQL", one(), &[], &[KEYED, KEYED_BY_SQL, INITIALIZE]),
        scene(
            "two keys are submitted in two orders",
            one(),
            &[],
            &[Deed::SubmitBoth([0, 1]), Deed::SubmitBoth([1, 0])],
        ),
        scene("a retry meets a settlement", one(), &failed, &[RETRY, RESOLVE]),
        scene("two retries of one step meet", one(), &failed, &[Deed::Step(0, StepAction::Retry), RETRY]),
        scene("a retry meets the resolve of its step", chain(), &failed, &[RETRY, Deed::Step(0, StepAction::Resolve)]),
        scene("two cancels meet", two(), &[SUBMIT, CLAIM], &[CANCEL, CANCEL]),
        scene("a pause meets a cancel", two(), &[SUBMIT, Deed::Claim(1)], &[PAUSE, CANCEL]),
        scene(
            "a repair meets a late report",
            one(),
            &[SUBMIT, CLAIM, Deed::Lose(Queue::Steps)],
            &[Deed::Hold(0), REPAIR, success(0)],
        ),
        scene("a repair meets a claim", two(), &[SUBMIT, Deed::Claim(1), Deed::Lose(Queue::Steps)], &[REPAIR, CLAIM]),
        scene("a repair meets a cancel", one(), &[SUBMIT, Deed::Lose(Queue::Steps)], &[REPAIR, CANCEL]),
        scene("two repairs meet", one(), &[SUBMIT, Deed::Lose(Queue::Steps)], &[REPAIR, REPAIR]),
        scene(
            "a repair of a result meets another",
            chain(),
            &[SUBMIT, CLAIM, success(0), Deed::Lose(Queue::Results)],
            &[REPAIR, REPAIR, PROCESS],
        ),
        scene("a repair that finds nothing meets the line", chain(), &reported, &[REPAIR, PROCESS, CLAIM]),
        scene(
            "leases that ran out are hastened while they are claimed",
            two(),
            &[SUBMIT, CLAIM, Deed::Expire],
            &[HASTEN, CLAIM, Deed::Extend(0)],
        ),
        scene("a claim, a report and a cancel meet", two(), &[SUBMIT, Deed::Claim(1)], &[CLAIM, success(0), CANCEL]),
        scene("an outcome, a claim and a pause meet", chain(), &reported, &[PROCESS, CLAIM, PAUSE]),
        scene(
            "an outcome, a cancel and a report meet",
            two(),
            &[SUBMIT, CLAIM, success(0)],
            &[PROCESS, CANCEL, success(1)],
        ),
    ]
}
