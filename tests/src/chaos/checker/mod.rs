//! The judge: reads what a run left behind, and says which promises were broken.
//!
//! `facts` reads the database, `histories` follows every history through the two machines, `promises` compares what
//! stands with what was acknowledged, with what the model says and with what handlers did, `letters` dead letters with
//! what had to be parked, `limits` how much ran at once and how long tasks lasted with what their templates
//! allow. All of it is plain Rust over plain data; [`sql`] asks the database itself once more.

pub mod facts;
mod histories;
pub mod letters;
mod limits;
mod promises;
pub mod sql;

use super::{effects::Effects, graph::Graph, ledger::Entries};
use facts::Facts;
use std::fmt;

/// Which promise was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Promise {
    /// An accepted task is there and comes to its end.
    NothingLost,
    /// Whoever asks again is accepted, soon after the faults are over.
    Accepted,
    /// One submission is one task.
    OneTask,
    /// A step's outcome counts once, and only from the lease that holds.
    CountedOnce,
    /// Every move is legal, in order, by the right actor.
    LegalHistory,
    /// A handler runs at least once, and again only for a reason.
    AtLeastOnce,
    /// A step starts after its parents, with their results.
    Order,
    /// What stands agrees with the history, the counters and the model.
    Agreement,
    /// Nothing is left over: messages, timers, permits.
    NothingLeft,
    /// No more run at once than a limit allows, a task lasts no longer than its own, and starts not before its time.
    Limits,
    /// What cannot be dealt with is parked with reason and snapshot, and nothing else is.
    Parked,
    /// The services keep running, end when told, and mend nothing that the line should have done.
    Services,
    /// What services count agrees with the database.
    Counts,
}

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub promise: Promise,
    /// Where and how.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.promise, self.detail)
    }
}

/// Collects violations.
#[derive(Debug, Default)]
pub struct Violations(pub Vec<Violation>);

impl Violations {
    /// Notes one unless `holds`.
    pub fn unless(&mut self, holds: bool, promise: Promise, detail: impl FnOnce() -> String) {
        if !holds {
            self.0.push(Violation { promise, detail: detail() });
        }
    }
}

/// Judges a run that has ended.
pub fn judge(facts: &Facts, ledger: &Entries, graphs: &[Graph], effects: &Effects) -> Vec<Violation> {
    let mut found = Violations::default();
    histories::check(facts, &mut found);
    promises::check(facts, ledger, graphs, effects, &mut found);
    letters::check(facts, ledger, graphs, &mut found);
    limits::check(facts, ledger, graphs, &mut found);
    found.0
}
