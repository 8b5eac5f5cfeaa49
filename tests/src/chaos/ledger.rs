//! What the system has promised: submissions that were acknowledged, and actions of operators that were.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tasker_shared::id::TaskId;

/// What was asked for, and what was answered.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<Entries>);

/// See [`Ledger`].
#[derive(Debug, Clone, Default)]
pub struct Entries {
    /// Submissions by number.
    pub submissions: BTreeMap<usize, Submitted>,
    /// Actions by the name of their operator, which is unique.
    pub actions: BTreeMap<String, Action>,
    /// Messages that nobody understands, by what they say; whether it is known that they were sent.
    pub garbage: BTreeMap<String, bool>,
}

/// One submission, however often it was tried.
#[derive(Debug, Clone, Default)]
pub struct Submitted {
    /// The place of its workflow.
    pub graph: usize,
    /// How urgent it is.
    pub priority: i16,
    /// Every id that it was acknowledged with.
    pub acknowledged: Vec<TaskId>,
    /// Its transaction was rolled back: there must be no task.
    pub rolled_back: bool,
    /// How often it was tried.
    pub tries: u32,
    /// It was refused as if it were wrong.
    pub refused: Option<String>,
}

/// One action of an operator.
#[derive(Debug, Clone)]
pub struct Action {
    /// The task.
    pub task: TaskId,
    /// The step, where it is about one.
    pub step: Option<usize>,
    /// The action, such as `cancel`.
    pub verb: &'static str,
    /// It was acknowledged; otherwise nobody knows.
    pub acknowledged: bool,
}

impl Ledger {
    /// A submission was tried.
    pub fn tried(&self, number: usize, graph: usize, priority: i16) {
        let mut entries = self.locked();
        let entry = entries.submissions.entry(number).or_default();
        (entry.graph, entry.priority) = (graph, priority);
        entry.tries += 1;
    }

    /// It was acknowledged.
    pub fn acknowledged(&self, number: usize, task: TaskId) {
        self.locked().submissions.entry(number).or_default().acknowledged.push(task);
    }

    /// It was rolled back.
    pub fn rolled_back(&self, number: usize) {
        self.locked().submissions.entry(number).or_default().rolled_back = true;
    }

    /// It was refused.
    pub fn refused(&self, number: usize, why: String) {
        self.locked().submissions.entry(number).or_default().refused = Some(why);
    }

    /// An operator acted, or may have.
    pub fn acted(&self, operator: String, action: Action) {
        self.locked().actions.insert(operator, action);
    }

    /// A message that nobody understands is sent, or was.
    pub fn garbage(&self, says: &str, sent: bool) {
        self.locked().garbage.insert(says.to_owned(), sent);
    }

    /// The task of a submission, once that is known.
    pub fn task(&self, number: usize) -> Option<TaskId> {
        self.locked().submissions.get(&number)?.acknowledged.first().copied()
    }

    /// All of it.
    pub fn entries(&self) -> Entries {
        self.locked().clone()
    }

    fn locked(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
