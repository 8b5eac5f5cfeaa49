//! The scenarios: which faults, how often, and on which machines. Names are those of public comparisons where these have one.

use super::plan::Fault::{self, *};
use std::time::Duration;

/// One scenario.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// What it does, in a sentence.
    pub about: &'static str,
    /// The faults it chooses from, each with the shortest and longest time it lasts, in milliseconds.
    pub faults: &'static [(Fault, usize, usize)],
    /// The shortest and longest time between two of these, in milliseconds.
    pub every_ms: Option<(usize, usize)>,
    /// Faults that begin at once; until the end, or for so many milliseconds.
    pub throughout: &'static [(Fault, Option<u64>)],
    /// What the machines must be like.
    pub needs: Needs,
    /// How many tasks a second are submitted, unless the caller says otherwise.
    pub tasks_per_second: f64,
    /// As many times what the machines can do, which is measured first, are submitted instead.
    pub overload: Option<f64>,
    /// Whether processes end only when they are told to, so that what they counted can be compared with the database.
    pub counts: Counts,
    /// How long finished tasks are kept, where they are archived while others run.
    pub keeps: Option<Duration>,
}

/// What the machines of a scenario must be like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Nothing special.
    Nothing,
    /// PostgreSQL waits for its disk, which can be slow.
    SlowDisk,
    /// PostgreSQL's data on a small file system of its own.
    SmallDisk,
    /// PostgreSQL has few connections.
    FewConnections,
    /// Services have clocks of their own.
    Clocks,
}

/// What can be said of the services' own counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counts {
    /// They agree with the database.
    Exact,
    /// A process was killed, or never learnt that it had committed: they are not more than the database's.
    AtMost,
}

const NONE: Scenario = Scenario {
    name: "",
    about: "",
    faults: &[],
    every_ms: None,
    throughout: &[],
    needs: Needs::Nothing,
    tasks_per_second: 6.0,
    overload: None,
    counts: Counts::AtMost,
    keeps: None,
};

/// Every scenario.
pub const SCENARIOS: &[Scenario] = &[
    Scenario { name: "baseline", about: "no faults", counts: Counts::Exact, ..NONE },
    Scenario {
        name: "chaos_crash_recovery",
        about: "kill -9 of single workers and orchestrations, with time to recover",
        faults: &[(KillWorker, 200, 2000), (KillOrchestration, 200, 2000)],
        every_ms: Some((3000, 6000)),
        ..NONE
    },
    Scenario {
        name: "chaos_repeated_kills",
        about: "kill -9, SIGTERM and SIGSTOP of services, one after the other",
        faults: &[
            (KillWorker, 0, 500),
            (KillOrchestration, 0, 500),
            (StopWorker, 0, 500),
            (StopOrchestration, 0, 500),
            (FreezeWorker, 200, 2000),
            (FreezeOrchestration, 200, 4000),
        ],
        every_ms: Some((400, 1500)),
        ..NONE
    },
    Scenario {
        name: "chaos_postgres_restart",
        about: "PostgreSQL is killed, shut down at once, restarted and frozen, as a whole or one of its processes",
        faults: &[
            (CrashPostgres, 0, 3000),
            (QuitPostgres, 0, 3000),
            (KillBackend, 0, 0),
            (FreezeBackend, 1000, 6000),
            (RestartPostgres, 0, 1000),
            (FreezePostgres, 500, 3000),
        ],
        every_ms: Some((5000, 9000)),
        ..NONE
    },
    Scenario {
        name: "chaos_pg_backend_kill",
        about: "pg_terminate_backend of half the connections",
        faults: &[(Terminate, 0, 0)],
        every_ms: Some((500, 2000)),
        ..NONE
    },
    Scenario {
        name: "chaos_pool_exhaustion",
        about: "others take PostgreSQL's connections, on a server that has few",
        faults: &[(Exhaust, 1000, 6000), (Terminate, 0, 0), (KillWorker, 0, 500)],
        every_ms: Some((2000, 6000)),
        needs: Needs::FewConnections,
        ..NONE
    },
    Scenario {
        name: "idle_in_tx_saturation",
        about: "transactions that do nothing hold snapshots, and vacuum back; some hold locks of tasks",
        faults: &[(PinSnapshot, 5000, 20000), (HoldLocks, 200, 3000)],
        every_ms: Some((2000, 5000)),
        throughout: &[(PinSnapshot, None)],
        ..NONE
    },
    Scenario {
        name: "active_readers",
        about: "others read whole tables all the time",
        throughout: &[(Readers, None)],
        counts: Counts::Exact,
        ..NONE
    },
    Scenario {
        name: "sustained_high_load",
        about: "one and a half times as many tasks as the machines can do, which is measured first",
        overload: Some(1.5),
        counts: Counts::Exact,
        ..NONE
    },
    Scenario {
        name: "lost_commit_ack",
        about: "commits succeed, and their acknowledgement is lost",
        faults: &[(LoseAnswers, 0, 0)],
        every_ms: Some((200, 800)),
        ..NONE
    },
    Scenario {
        name: "zombie_worker",
        about: "workers are frozen for twice their lease and then go on",
        faults: &[(Zombie, 6000, 7000)],
        every_ms: Some((3000, 8000)),
        ..NONE
    },
    Scenario {
        name: "network",
        about: "between services and PostgreSQL: slow, silent, refused, cut, half closed, dead without a word",
        faults: &[
            (Cut, 0, 0),
            (HalfClose, 0, 0),
            (Deafen, 0, 0),
            (Silence, 500, 8000),
            (Refuse, 500, 5000),
            (Delay, 1000, 5000),
            (LoseAnswers, 0, 0),
        ],
        every_ms: Some((1000, 3000)),
        ..NONE
    },
    Scenario {
        name: "clock_step",
        about: "wall clocks of services jump by up to a day, in both directions",
        faults: &[(StepClock, 1000, 6000), (KillWorker, 0, 500)],
        every_ms: Some((1000, 3000)),
        needs: Needs::Clocks,
        ..NONE
    },
    Scenario {
        name: "duplicate_delivery",
        about: "messages are there twice, and hidden ones become visible",
        faults: &[(Duplicate, 0, 0), (Reorder, 0, 0)],
        every_ms: Some((300, 1500)),
        counts: Counts::Exact,
        ..NONE
    },
    Scenario {
        name: "full_disk",
        about: "the disk of PostgreSQL is full, and then has room again",
        faults: &[(FillDisk, 2000, 6000)],
        every_ms: Some((10000, 15000)),
        needs: Needs::SmallDisk,
        ..NONE
    },
    Scenario {
        name: "slow_disk",
        about: "PostgreSQL's disk is slow at times, hangs at others, and PostgreSQL is killed in between",
        faults: &[
            (SlowDisk, 1000, 4000),
            (SlowDisk, 1000, 4000),
            (SlowDisk, 1000, 4000),
            (FreezePostgres, 500, 4000),
            (CrashPostgres, 0, 1000),
        ],
        every_ms: Some((4000, 8000)),
        needs: Needs::SlowDisk,
        ..NONE
    },
    Scenario {
        name: "power_loss",
        about: "everything of a kind dies at once, while it starts, while it stops, and twice in a row",
        faults: &[
            (KillAll, 0, 2000),
            (KillAll, 0, 2000),
            (QuitTwice, 0, 1000),
            (KillOrchestrations, 500, 4000),
            (KillWorkers, 500, 4000),
            (KillStarting, 0, 0),
            (KillStopping, 0, 1000),
            (FreezeOrchestration, 6000, 12000),
        ],
        every_ms: Some((4000, 9000)),
        ..NONE
    },
    Scenario {
        name: "poison_messages",
        about: "messages that nobody understands come between the others, and some of those come twice",
        faults: &[(Garbage, 0, 0), (Garbage, 0, 0), (Duplicate, 0, 0)],
        every_ms: Some((300, 1500)),
        counts: Counts::Exact,
        ..NONE
    },
    Scenario {
        name: "retention",
        about: "tasks are archived soon after their end, while whoever does that is killed and cut off and rows are locked",
        faults: &[
            (KillOrchestration, 0, 2000),
            (StopOrchestration, 0, 500),
            (FreezeOrchestration, 500, 8000),
            (KillWorker, 0, 1000),
            (CrashPostgres, 0, 1000),
            (Terminate, 0, 0),
            (LoseAnswers, 0, 0),
            (Cut, 0, 0),
            (HoldLocks, 200, 3000),
            (LockTables, 200, 2000),
            (KillAll, 0, 1000),
        ],
        every_ms: Some((1000, 3000)),
        // longer than any caller tries again with the key of a task that has ended
        keeps: Some(Duration::from_secs(20)),
        ..NONE
    },
    Scenario {
        name: "soak",
        about: "everything that needs nothing special, with time between",
        faults: &[
            (KillWorker, 200, 2000),
            (KillOrchestration, 200, 2000),
            (StopWorker, 0, 1000),
            (StopOrchestration, 0, 1000),
            (FreezeWorker, 200, 2000),
            (FreezeOrchestration, 200, 4000),
            (Zombie, 6000, 7000),
            (CrashPostgres, 0, 2000),
            (QuitPostgres, 0, 2000),
            (RestartPostgres, 0, 1000),
            (FreezePostgres, 500, 2000),
            (Terminate, 0, 0),
            (Cut, 0, 0),
            (HalfClose, 0, 0),
            (Deafen, 0, 0),
            (Silence, 500, 6000),
            (Refuse, 500, 4000),
            (Delay, 500, 4000),
            (LoseAnswers, 0, 0),
            (Duplicate, 0, 0),
            (Reorder, 0, 0),
            (PinSnapshot, 2000, 8000),
            (HoldLocks, 200, 2000),
            (LockTables, 200, 2000),
            (KillBackend, 0, 0),
            (FreezeBackend, 1000, 5000),
            (Exhaust, 1000, 4000),
            (KillAll, 0, 2000),
            (QuitTwice, 0, 1000),
            (KillStarting, 0, 0),
            (KillStopping, 0, 1000),
            (Garbage, 0, 0),
        ],
        every_ms: Some((2000, 7000)),
        ..NONE
    },
];

/// The scenario of that name.
pub fn named(name: &str) -> Option<Scenario> {
    SCENARIOS.iter().find(|scenario| scenario.name == name).copied()
}
