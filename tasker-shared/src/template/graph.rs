//! Drawings of a template's graph: for a terminal, and as Mermaid.

use super::{Dag, Template};
use std::fmt::Write;

/// A drawing for a terminal: the steps by level (a step stands one level below the last step it waits for), each with the
/// steps it waits for. Ends with a line break.
pub fn text(template: &Template) -> String {
    let Ok(dag) = Dag::new(&template.steps) else { return no_graph(template) };
    let levels = dag.levels();
    let depth = levels.iter().max().map_or(0, |deepest| deepest + 1);
    let width = template.steps.iter().map(|step| step.name.len()).max().unwrap_or(0).min(MAX_COLUMN);
    let mut drawing = format!(
        "{}/{} {}: {} in {}\n",
        template.namespace,
        template.name,
        template.version,
        counted(dag.len(), "step"),
        counted(depth, "level"),
    );
    let mut by_level = vec![Vec::new(); depth];
    for &step in dag.order() {
        by_level[levels[step]].push(step);
    }
    for (level, mut steps) in by_level.into_iter().enumerate() {
        steps.sort_unstable();
        let _ = writeln!(drawing, "{}", if level == 0 { "" } else { "  │" });
        for (position, &step) in steps.iter().enumerate() {
            let name = &template.steps[step].name;
            let line =
                format!("  {} {name:width$}  {}", branch(position, steps.len()), waits_for(template, &dag, step));
            let _ = writeln!(drawing, "{}", line.trim_end());
        }
    }
    drawing
}

/// The widest column of names.
const MAX_COLUMN: usize = 60;

/// A Mermaid flow chart, for Markdown. Names are labels in quotes, never ids, so that every name can be drawn.
pub fn mermaid(template: &Template) -> String {
    let Ok(dag) = Dag::new(&template.steps) else { return "flowchart TD\n".to_owned() };
    let mut chart = String::from("flowchart TD\n");
    for (index, step) in template.steps.iter().enumerate() {
        let _ = writeln!(chart, "    s{index}[\"{}\"]", step.name);
    }
    for child in 0..dag.len() {
        for parent in dag.parents(child) {
            let _ = writeln!(chart, "    s{parent} --> s{child}");
        }
    }
    chart
}

fn branch(position: usize, count: usize) -> &'static str {
    match (position, count) {
        (_, 1) => "●",
        (0, _) => "┌",
        (last, count) if last + 1 == count => "└",
        _ => "├",
    }
}

/// The most parents that are named behind a step.
const MAX_NAMED: usize = 8;

fn waits_for(template: &Template, dag: &Dag, step: usize) -> String {
    let parents = dag.parents(step);
    let named: Vec<&str> = parents.iter().take(MAX_NAMED).map(|&parent| template.steps[parent].name.as_str()).collect();
    match (parents.len(), parents.len().saturating_sub(MAX_NAMED)) {
        (0, _) => String::new(),
        (_, 0) => format!("← {}", named.join(", ")),
        (_, more) => format!("← {} and {more} more", named.join(", ")),
    }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn no_graph(template: &Template) -> String {
    format!("{}/{} {}: not a graph that can be drawn\n", template.namespace, template.name, template.version)
}
