//! What the drawings look like.

use crate::template::{graph, parse};

const DIAMOND: &str = "
name: diamond
namespace_name: n
steps:
  - {name: start, handler: {callable: c}}
  - {name: left, dependencies: [start], handler: {callable: c}}
  - {name: right, dependencies: [start], handler: {callable: c}}
  - {name: end, dependencies: [left, right], handler: {callable: c}}
";

#[test]
fn the_text_shows_levels_and_what_each_step_waits_for() {
    let drawing = graph::text(&parse(DIAMOND, None).unwrap());
    let expected = "\
n/diamond 1.0.0: 4 steps in 3 levels

  ● start
  │
  ┌ left   ← start
  └ right  ← start
  │
  ● end    ← left, right
";
    assert_eq!(drawing, expected);
}

#[test]
fn mermaid_keeps_names_in_quotes() {
    let source = DIAMOND.replace("name: end", "name: end:of.the-line");
    let expected = "\
flowchart TD
    s0[\"start\"]
    s1[\"left\"]
    s2[\"right\"]
    s3[\"end:of.the-line\"]
    s0 --> s1
    s0 --> s2
    s1 --> s3
    s2 --> s3
";
    assert_eq!(graph::mermaid(&parse(&source, None).unwrap()), expected);
}

#[test]
fn a_step_that_waits_for_many_names_the_first_of_them() {
    let names: Vec<String> = (0..12).map(|at| format!("s{at}")).collect();
    let steps: String = names.iter().map(|name| format!("  - {{name: {name}, handler: {{callable: c}}}}\n")).collect();
    let join = format!("  - {{name: join, dependencies: [{}], handler: {{callable: c}}}}\n", names.join(", "));
    let source = format!("name: t\nnamespace_name: n\nsteps:\n{steps}{join}");
    let drawing = graph::text(&parse(&source, None).unwrap());
    assert!(drawing.ends_with("  ● join  ← s0, s1, s2, s3, s4, s5, s6, s7 and 4 more\n"), "{drawing}");
}
