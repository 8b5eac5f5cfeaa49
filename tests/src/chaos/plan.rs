//! What a run does, all of it thrown from the seed: which workflows, which submissions, what operators do, which faults.

use super::{
    dice::Dice,
    graph::{Fate, Graph, NAMESPACES},
    scenario::Scenario,
};
use std::{fmt, time::Duration};

/// How many different workflows a run has.
const GRAPHS: usize = 28;

/// A plan.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The seed that it was thrown from.
    pub seed: u64,
    /// Which faults it has.
    pub scenario: Scenario,
    /// How long tasks are submitted and faults happen.
    pub lasts: Duration,
    /// The workflows.
    pub graphs: Vec<Graph>,
    /// The submissions, in order of time.
    pub submissions: Vec<Submission>,
    /// The faults, in order of time.
    pub faults: Vec<Planned>,
}

/// How a task is submitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// By HTTP.
    Http,
    /// By HTTP, to two orchestrations at the same time.
    HttpTwice,
    /// By SQL, in a transaction that also writes a row of the caller's.
    Sql,
    /// The same, and the transaction is rolled back.
    SqlRolledBack,
}

/// One submission.
#[derive(Debug, Clone)]
pub struct Submission {
    /// When.
    pub at: Duration,
    /// The place of its workflow.
    pub graph: usize,
    /// How.
    pub way: Way,
    /// How much later it is to start.
    pub delayed: Option<Duration>,
    /// How urgent it is.
    pub priority: i16,
    /// What operators do with it, and how long after it was accepted.
    pub operations: Vec<(Duration, Operation)>,
}

/// What an operator does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Stops the task.
    Cancel,
    /// Holds it.
    Pause,
    /// Lets it go on.
    Resume,
    /// Runs its failed steps again.
    Retry,
    /// Declares it settled.
    Resolve,
    /// Stops one step.
    CancelStep(usize),
    /// Gives one step its result.
    ResolveStep(usize),
    /// Puts one step aside as a dead letter.
    ParkStep(usize),
    /// Puts one step that is a dead letter back.
    Redrive(usize),
    /// Limits how many steps of the namespace run at once by the suite's handler.
    Limit(u32),
    /// Takes that limit away.
    Unlimit,
}

/// A fault that is to happen.
#[derive(Debug, Clone)]
pub struct Planned {
    /// When.
    pub at: Duration,
    /// To which service or how much; each fault takes from it what it needs.
    pub whom: usize,
    /// How long.
    pub lasts: Duration,
    /// What.
    pub fault: Fault,
}

macro_rules! faults {
    ($($(#[doc = $doc:literal])* $fault:ident = $name:literal,)*) => {
        /// What can happen.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Fault { $($(#[doc = $doc])* $fault,)* }

        impl Fault {
            /// Every fault.
            pub const ALL: &'static [Self] = &[$(Self::$fault),*];

            /// Its name in reports.
            pub const fn name(self) -> &'static str { match self { $(Self::$fault => $name),* } }
        }
    };
}

faults! {
    /// `kill -9` of a worker.
    KillWorker = "worker SIGKILL",
    /// `kill -9` of an orchestration.
    KillOrchestration = "orchestration SIGKILL",
    /// SIGTERM of a worker.
    StopWorker = "worker SIGTERM",
    /// SIGTERM of an orchestration.
    StopOrchestration = "orchestration SIGTERM",
    /// SIGSTOP of a worker for less than its lease, then SIGCONT.
    FreezeWorker = "worker SIGSTOP",
    /// SIGSTOP of a worker for twice its lease, then SIGCONT.
    Zombie = "worker SIGSTOP for twice the lease",
    /// SIGSTOP of an orchestration, then SIGCONT.
    FreezeOrchestration = "orchestration SIGSTOP",
    /// `kill -9` of PostgreSQL, then crash recovery.
    CrashPostgres = "PostgreSQL SIGKILL",
    /// Immediate shutdown of PostgreSQL, then crash recovery.
    QuitPostgres = "PostgreSQL immediate shutdown",
    /// Restart of PostgreSQL.
    RestartPostgres = "PostgreSQL restart",
    /// SIGSTOP of all of PostgreSQL, then SIGCONT: the disk hangs.
    FreezePostgres = "PostgreSQL SIGSTOP",
    /// `kill -9` of one of PostgreSQL's processes that serve connections: it ends all others and recovers by itself.
    KillBackend = "backend SIGKILL",
    /// SIGSTOP of one of these, whatever locks it holds, then SIGCONT.
    FreezeBackend = "backend SIGSTOP",
    /// `pg_terminate_backend` of half the connections.
    Terminate = "pg_terminate_backend",
    /// The connections of a service are cut.
    Cut = "connections cut",
    /// PostgreSQL sees the end of a service's connections.
    HalfClose = "connections half closed",
    /// A service's connections never carry anything again; new ones work.
    Deafen = "connections dead without a word",
    /// Nothing passes between a service and PostgreSQL for a while.
    Silence = "network silent",
    /// A service cannot connect for a while.
    Refuse = "network refuses",
    /// Everything that a service hears from PostgreSQL comes late for a while.
    Delay = "network slow",
    /// Answers after commits are swallowed, and the connection is cut.
    LoseAnswers = "commit acknowledgement lost",
    /// A service's wall clock jumps.
    StepClock = "clock step",
    /// Messages are delivered twice.
    Duplicate = "messages duplicated",
    /// Hidden messages become visible: leases end early, the order changes.
    Reorder = "messages made visible early",
    /// Others take most of PostgreSQL's connections.
    Exhaust = "connections exhausted",
    /// A transaction holds a snapshot.
    PinSnapshot = "idle in transaction",
    /// Others read whole tables all the time.
    Readers = "active readers",
    /// Whatever PostgreSQL syncs and writes takes long.
    SlowDisk = "slow disk",
    /// The disk is full.
    FillDisk = "full disk",
    /// Somebody holds the locks of running tasks.
    HoldLocks = "rows locked",
    /// Somebody holds whole tables, as `vacuum full` and some migrations do.
    LockTables = "tables locked",
    /// `kill -9` of PostgreSQL and of every service at once.
    KillAll = "everything SIGKILL",
    /// Immediate shutdown of PostgreSQL, and again as soon as it is back.
    QuitTwice = "PostgreSQL immediate shutdown twice",
    /// `kill -9` of a service, and three times again while it starts.
    KillStarting = "service SIGKILL while it starts",
    /// SIGTERM of a service, and `kill -9` while it stops.
    KillStopping = "service SIGKILL while it stops",
    /// `kill -9` of all orchestrations: only SQL takes tasks.
    KillOrchestrations = "all orchestrations SIGKILL",
    /// `kill -9` of all workers.
    KillWorkers = "all workers SIGKILL",
    /// Messages that nobody understands, on every queue.
    Garbage = "messages unreadable",
}

impl Plan {
    /// Throws a plan. `tasks` are spread over the time.
    pub fn throw(seed: u64, scenario: Scenario, lasts: Duration, tasks: usize) -> Self {
        let mut dice = Dice::new(seed, "graphs");
        let mut graphs: Vec<Graph> = (0..GRAPHS).map(|number| Graph::random(&mut dice, number)).collect();
        // how much the machines can do is measured without
        if scenario.overload.is_none() {
            let mut dice = Dice::new(seed, "limits");
            graphs.iter_mut().for_each(|graph| graph.limit(&mut dice));
        }
        let mut dice = Dice::new(seed, "submissions");
        let span = usize::try_from(lasts.as_millis()).unwrap_or(usize::MAX);
        let mut submissions: Vec<Submission> = (0..tasks).map(|_| submission(&mut dice, &graphs, span)).collect();
        submissions.sort_by_key(|submission| submission.at);
        let mut dice = Dice::new(seed, "more operations");
        for submission in submissions.iter_mut().filter(|submission| submission.operations.is_empty()) {
            submission.operations = more_operations(&mut dice, &graphs[submission.graph]);
        }
        let faults = faults(&mut Dice::new(seed, scenario.name), scenario, lasts);
        Self { seed, scenario, lasts, graphs, submissions, faults }
    }

    /// The namespaces of its workflows.
    pub fn namespaces() -> [&'static str; 2] {
        NAMESPACES
    }
}

fn submission(dice: &mut Dice, graphs: &[Graph], span: usize) -> Submission {
    let way = match dice.below(100) {
        0..60 => Way::Http,
        60..68 => Way::HttpTwice,
        68..95 => Way::Sql,
        _ => Way::SqlRolledBack,
    };
    let graph = dice.below(graphs.len());
    Submission {
        at: dice.pause(0, span.saturating_sub(500)),
        graph,
        way,
        delayed: dice.percent(10).then(|| dice.pause(100, 4000)),
        priority: *dice.pick(&[0, 0, 0, 0, -100, -1, 5, 100]),
        operations: if dice.percent(15) { operations(dice, graphs[graph].steps.len()) } else { Vec::new() },
    }
}

fn operations(dice: &mut Dice, steps: usize) -> Vec<(Duration, Operation)> {
    let at = dice.pause(0, 2000);
    let step = dice.below(steps);
    match dice.below(7) {
        6 => vec![(at, Operation::ParkStep(step))],
        0 => vec![(at, Operation::Cancel)],
        1 | 2 => vec![(at, Operation::Pause), (dice.pause(200, 3000), Operation::Resume)],
        3 => vec![(at, Operation::CancelStep(step)), (dice.pause(500, 4000), Operation::ResolveStep(step))],
        4 => vec![(at, Operation::ResolveStep(step)), (dice.pause(1000, 5000), Operation::Retry)],
        _ => vec![(dice.pause(1000, 6000), Operation::Retry), (dice.pause(1000, 6000), Operation::Resolve)],
    }
}

fn more_operations(dice: &mut Dice, graph: &Graph) -> Vec<(Duration, Operation)> {
    let missing = graph.steps.iter().position(|step| step.fate == Fate::Missing);
    let step = dice.below(graph.steps.len());
    match (dice.below(100), missing) {
        (0..50, Some(step)) => vec![(dice.pause(4000, 8000), Operation::Redrive(step))],
        (0..6, None) => {
            vec![(dice.pause(0, 1500), Operation::ParkStep(step)), (dice.pause(300, 4000), Operation::Redrive(step))]
        }
        (6..9, None) => {
            let limit = u32::try_from(dice.between(3, 12)).unwrap_or(3);
            vec![(Duration::ZERO, Operation::Limit(limit)), (dice.pause(300, 3000), Operation::Unlimit)]
        }
        _ => Vec::new(),
    }
}

fn faults(dice: &mut Dice, scenario: Scenario, lasts: Duration) -> Vec<Planned> {
    let mut planned = Vec::new();
    for (fault, length) in scenario.throughout {
        let lasts = length.map_or(lasts, Duration::from_millis);
        planned.push(Planned { at: Duration::from_millis(500), whom: dice.below(1000), lasts, fault: *fault });
    }
    let Some((least, most)) = scenario.every_ms else { return planned };
    // the first faults come when there is work, the last ones while there still is
    let mut at = dice.pause(least.min(1500), most.min(3000));
    while at + Duration::from_millis(300) < lasts {
        let (fault, shortest, longest) = *dice.pick(scenario.faults);
        planned.push(Planned { at, whom: dice.below(1000), lasts: dice.pause(shortest, longest), fault });
        at += dice.pause(least, most);
    }
    planned.sort_by_key(|fault| fault.at);
    planned
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.lasts.as_secs();
        writeln!(
            f,
            "plan of seed {}: scenario {}, {} tasks of {} workflows in {seconds} s, {} operations, {} faults",
            self.seed,
            self.scenario.name,
            self.submissions.len(),
            self.graphs.len(),
            self.submissions.iter().map(|submission| submission.operations.len()).sum::<usize>(),
            self.faults.len()
        )?;
        for planned in &self.faults {
            let (at, lasts) = (planned.at.as_secs_f64(), planned.lasts.as_secs_f64());
            writeln!(f, "  at {at:>7.2} s for {lasts:>6.2} s: {} ({})", planned.fault.name(), planned.whom)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Plan;
    use crate::chaos::scenario::{SCENARIOS, named};
    use std::time::Duration;

    #[test]
    fn the_same_seed_gives_the_same_plan() {
        let lasts = Duration::from_secs(60);
        for scenario in SCENARIOS {
            let throw = |seed| format!("{:?}", Plan::throw(seed, *scenario, lasts, 50));
            assert_eq!(throw(5), throw(5), "{}", scenario.name);
            assert_ne!(throw(5), throw(6), "{}", scenario.name);
        }
    }

    #[test]
    fn every_scenario_is_found_by_its_name_and_has_faults() {
        for scenario in SCENARIOS {
            let plan = Plan::throw(1, named(scenario.name).expect("it is there"), Duration::from_secs(60), 10);
            let quiet = ["sustained_high_load", "baseline"].contains(&scenario.name);
            assert_eq!(plan.faults.is_empty(), quiet, "{}", scenario.name);
        }
    }
}
