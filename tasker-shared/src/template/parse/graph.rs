//! The checks between steps: names are unique, dependencies exist, and nothing waits for itself.

use super::step::{Read, with_path};
use crate::{
    name::Name,
    template::{
        dag::{Cycle, Dag},
        problem::{Path, Problems, nearest},
    },
};
use std::collections::HashMap;

/// Checks `steps`, which stand at `path`.
pub(super) fn check(steps: &[Read], path: &Path<'_>, problems: &mut Problems) {
    let index = unique_names(steps, path, problems);
    let parents = steps.iter().enumerate().map(|(at, step)| parents(at, step, &index, path, problems)).collect();
    for cycle in Dag::from_parents(parents).err().unwrap_or_default() {
        report_cycle(&cycle, steps, path, problems);
    }
}

/// The index of each name; of two steps with the same name the first.
fn unique_names<'a>(steps: &'a [Read], path: &Path<'_>, problems: &mut Problems) -> HashMap<&'a str, usize> {
    let mut index: HashMap<&str, usize> = HashMap::with_capacity(steps.len());
    for (at, step) in steps.iter().enumerate() {
        let Some((name, place)) = &step.name else { continue };
        if let Some(first) = index.get(name.as_str()) {
            let line = steps[*first].place.line;
            let reason = format!("`{name}` is already the name of steps[{first}] (line {line})");
            with_path(path, at, "name", |path| problems.add(*place, path, reason));
        } else {
            index.insert(name.as_str(), at);
        }
    }
    index
}

fn parents(
    at: usize,
    step: &Read,
    index: &HashMap<&str, usize>,
    path: &Path<'_>,
    problems: &mut Problems,
) -> Vec<usize> {
    let mut parents = Vec::with_capacity(step.dependencies.len());
    for dependency in &step.dependencies {
        let name = &dependency.name;
        with_path(path, at, "dependencies", |list| {
            let path = Path::Index(list, dependency.index);
            match index.get(name.as_str()) {
                _ if step.name.as_ref().is_some_and(|(own, _)| own == name) => {
                    problems.add(dependency.place, &path, format!("step `{name}` depends on itself"));
                }
                Some(parent) => parents.push(*parent),
                None => problems.add_with(dependency.place, &path, format!("there is no step `{name}`"), || {
                    let mut names: Vec<&str> = index.keys().copied().collect();
                    names.sort_unstable();
                    nearest(name, names)
                }),
            }
        });
    }
    parents
}

fn report_cycle(cycle: &[usize], steps: &[Read], path: &Path<'_>, problems: &mut Problems) {
    let name = |at: &usize| steps[*at].name.as_ref().map(|(name, _)| name.clone());
    let names: Vec<Name> = cycle.iter().filter_map(name).collect();
    let (Some(first), Some(next)) = (cycle.first(), names.get(1 % names.len().max(1))) else { return };
    let Some(dependency) = steps[*first].dependencies.iter().find(|dependency| dependency.name == *next) else {
        return;
    };
    with_path(path, *first, "dependencies", |list| {
        let path = Path::Index(list, dependency.index);
        let cycle = Cycle(names.clone());
        problems.add(
            dependency.place,
            &path,
            format!("the dependencies form a cycle: {cycle} (each waits for the next)"),
        );
    });
}
