//! The graph of a template's steps, by index: who waits for whom, in which order, and what makes a cycle.

use crate::{name::Name, template::StepTemplate};
use std::collections::{BTreeSet, HashMap};

/// The steps of a template as a directed acyclic graph. Indices are those of `Template::steps`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dag {
    parents: Vec<Vec<usize>>,
    children: Vec<Vec<usize>>,
    order: Vec<usize>,
}

/// Why steps are not a directed acyclic graph.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No steps.
    #[error("a template needs at least one step")]
    Empty,
    /// Two steps with one name.
    #[error("two steps have the name `{0}`")]
    DuplicateName(Name),
    /// A dependency that is no step.
    #[error("step `{step}` depends on `{dependency}`, which is not a step of this template")]
    UnknownDependency {
        /// Who depends.
        step: Name,
        /// On what.
        dependency: Name,
    },
    /// Steps that wait for each other.
    #[error("the dependencies form a cycle: {0}")]
    Cycle(Cycle),
}

/// Steps that wait for each other: each depends on the one after it, and the last on the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cycle(pub Vec<Name>);

impl std::fmt::Display for Cycle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        /// A longer cycle is cut in the middle.
        const MOST_SHOWN: usize = 20;
        for (index, name) in self.0.iter().enumerate() {
            if index >= MOST_SHOWN {
                write!(f, "… ({} more) -> ", self.0.len() - MOST_SHOWN)?;
                break;
            }
            write!(f, "{name} -> ")?;
        }
        f.write_str(self.0.first().map_or("", Name::as_str))
    }
}

impl Dag {
    /// The graph of `steps`.
    ///
    /// # Errors
    /// [`Error`] names the steps that make it impossible.
    pub fn new(steps: &[StepTemplate]) -> Result<Self, Error> {
        if steps.is_empty() {
            return Err(Error::Empty);
        }
        let mut index = HashMap::with_capacity(steps.len());
        for (position, step) in steps.iter().enumerate() {
            if index.insert(&step.name, position).is_some() {
                return Err(Error::DuplicateName(step.name.clone()));
            }
        }
        let mut parents = Vec::with_capacity(steps.len());
        for step in steps {
            let find = |dependency: &Name| {
                index
                    .get(dependency)
                    .copied()
                    .ok_or_else(|| Error::UnknownDependency { step: step.name.clone(), dependency: dependency.clone() })
            };
            parents.push(step.dependencies.iter().map(find).collect::<Result<BTreeSet<_>, _>>()?.into_iter().collect());
        }
        Self::from_parents(parents).map_err(|mut cycles| {
            let names = cycles.swap_remove(0).into_iter().filter_map(|at| steps.get(at)).map(|step| step.name.clone());
            Error::Cycle(Cycle(names.collect()))
        })
    }

    /// The graph of each step's parents, or the cycles in it (at least one; no step is in two of them).
    pub(super) fn from_parents(parents: Vec<Vec<usize>>) -> Result<Self, Vec<Vec<usize>>> {
        let mut children = vec![Vec::new(); parents.len()];
        for (step, its_parents) in parents.iter().enumerate() {
            for parent in its_parents {
                children[*parent].push(step);
            }
        }
        let order = order(&parents, &children);
        if order.len() < parents.len() { Err(cycles(&parents)) } else { Ok(Self { parents, children, order }) }
    }

    /// How many steps there are.
    pub fn len(&self) -> usize {
        self.parents.len()
    }

    /// Whether there is no step; never so for the graph of a template.
    pub fn is_empty(&self) -> bool {
        self.parents.is_empty()
    }

    /// The steps that `step` waits for, ascending, each once.
    pub fn parents(&self, step: usize) -> &[usize] {
        self.parents.get(step).map_or(&[], Vec::as_slice)
    }

    /// The steps that wait for `step`, ascending, each once.
    pub fn children(&self, step: usize) -> &[usize] {
        self.children.get(step).map_or(&[], Vec::as_slice)
    }

    /// All steps, each after the steps it waits for.
    pub fn order(&self) -> &[usize] {
        &self.order
    }

    /// For each step the length of the longest way to it from a step without parents.
    pub fn levels(&self) -> Vec<usize> {
        let mut levels = vec![0; self.len()];
        for &step in &self.order {
            levels[step] = self.parents[step].iter().map(|&parent| levels[parent] + 1).max().unwrap_or(0);
        }
        levels
    }
}

/// The steps in an order that respects `parents`; those in or behind a cycle are left out.
fn order(parents: &[Vec<usize>], children: &[Vec<usize>]) -> Vec<usize> {
    let mut waiting: Vec<usize> = parents.iter().map(Vec::len).collect();
    let mut order: Vec<usize> = (0..parents.len()).filter(|&step| waiting[step] == 0).collect();
    let mut next = 0;
    while let Some(&done) = order.get(next) {
        next += 1;
        for &child in &children[done] {
            waiting[child] -= 1;
            if waiting[child] == 0 {
                order.push(child);
            }
        }
    }
    order
}

#[derive(Clone, Copy, PartialEq)]
enum Mark {
    New,
    /// On the way that is being followed.
    Open,
    Done,
}

/// Cycles found by following parents depth first, at most one from each step where the search begins, so that the work
/// stays linear. Without recursion: a chain may be as long as a template.
fn cycles(parents: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let mut marks = vec![Mark::New; parents.len()];
    (0..parents.len()).filter_map(|start| cycle_from(start, parents, &mut marks)).collect()
}

fn cycle_from(start: usize, parents: &[Vec<usize>], marks: &mut [Mark]) -> Option<Vec<usize>> {
    if marks[start] != Mark::New {
        return None;
    }
    let mut found = None;
    let mut way = vec![(start, 0)];
    marks[start] = Mark::Open;
    while let Some((step, tried)) = way.last_mut() {
        let (step, parent) = (*step, parents[*step].get(*tried).copied());
        *tried += 1;
        match parent {
            None => {
                marks[step] = Mark::Done;
                way.pop();
            }
            Some(parent) if marks[parent] == Mark::New => {
                marks[parent] = Mark::Open;
                way.push((parent, 0));
            }
            Some(parent) if marks[parent] == Mark::Open && found.is_none() => {
                found =
                    Some(from_first(way.iter().map(|(step, _)| *step).skip_while(|step| *step != parent).collect()));
            }
            Some(_) => {}
        }
    }
    found
}

/// The same cycle, beginning with the step that stands first in the file.
fn from_first(mut cycle: Vec<usize>) -> Vec<usize> {
    let first = cycle.iter().enumerate().min_by_key(|(_, step)| **step).map_or(0, |(at, _)| at);
    cycle.rotate_left(first);
    cycle
}
