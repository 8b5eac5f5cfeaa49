//! The docs tell the truth where a machine can check it: generated parts are current, examples are accepted, names
//! exist. `TASKER_UPDATE_DOCS=1` writes the generated parts.

use clap::{CommandFactory as _, Parser as _};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};
use tasker_cli::{args::Args, exit};
use tasker_shared::{
    metrics,
    step::{Edge, StepState},
    task::TaskState,
    template,
};

const PAGES: &[&str] = &[
    "README.md",
    "CONTRIBUTING.md",
    "examples/README.md",
    "docs/architecture.md",
    "docs/cli.md",
    "docs/guarantees.md",
    "docs/handlers.md",
    "docs/http.md",
    "docs/metrics.md",
    "docs/operations.md",
    "docs/templates.md",
    "docs/decisions/README.md",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

fn read(page: &str) -> String {
    fs::read_to_string(root().join(page)).unwrap_or_else(|error| panic!("{page}: {error}"))
}

/// Compares a page with what it should be, or writes it.
fn expect(page: &str, wanted: &str) {
    let path = root().join(page);
    if std::env::var_os("TASKER_UPDATE_DOCS").is_some() {
        fs::write(path, wanted).expect("the page is written");
        return;
    }
    let current = fs::read_to_string(path).unwrap_or_default();
    assert!(current == wanted, "{page} is not current; run: TASKER_UPDATE_DOCS=1 cargo test --workspace docs");
}

/// Compares the generated part `name` of a page, or writes it.
fn expect_part(page: &str, name: &str, wanted: &str) {
    let text = read(page);
    let begin = format!("<!-- generated: {name} -->\n");
    let start = text.find(&begin).unwrap_or_else(|| panic!("{page} has no part `{name}`")) + begin.len();
    let end = start + text[start..].find("<!-- end -->").unwrap_or_else(|| panic!("{page}: `{name}` has no end"));
    expect(page, &format!("{}{wanted}{}", &text[..start], &text[end..]));
}

#[test]
fn the_metrics_page_is_current() {
    expect("docs/metrics.md", &metrics::reference_page());
}

#[test]
fn the_drawings_of_the_state_machines_are_current() {
    let step = Edge::all().map(|edge| (edge.from.as_str(), edge.to.as_str(), edge.event.as_str()));
    let done: Vec<&str> = StepState::ALL.iter().filter(|s| s.is_final()).map(|s| s.as_str()).collect();
    let steps = drawing(step.collect(), &done);
    let task = TaskState::edges().map(|(from, event, to)| (from.as_str(), to.as_str(), event.as_str()));
    let done: Vec<&str> = TaskState::ALL.iter().filter(|s| s.is_final()).map(|s| s.as_str()).collect();
    let tasks = drawing(task.collect(), &done);
    expect_part("docs/architecture.md", "task states", &tasks);
    expect_part("docs/architecture.md", "step states", &steps);
}

fn drawing(edges: Vec<(&str, &str, &str)>, done: &[&str]) -> String {
    let mut text = String::from("```mermaid\nstateDiagram-v2\n    [*] --> pending\n");
    for (from, to, event) in edges {
        text.push_str(&format!("    {from} --> {to}: {event}\n"));
    }
    for state in done {
        text.push_str(&format!("    {state} --> [*]\n"));
    }
    text + "```\n"
}

#[test]
fn the_page_of_the_command_line_is_current() {
    expect_part("docs/cli.md", "exit codes", &format!("```text\n{}\n```\n", exit::help()));
    let mut table = String::from("| command | does | options |\n|---|---|---|\n");
    commands(&Args::command(), "tasker", &mut table);
    expect_part("docs/cli.md", "commands", &table);
}

fn commands(command: &clap::Command, path: &str, table: &mut String) {
    let mut inner = command.get_subcommands().filter(|c| c.get_name() != "help").peekable();
    if inner.peek().is_some() {
        inner.for_each(|c| commands(c, &format!("{path} {}", c.get_name()), table));
        return;
    }
    let words = command.get_positionals().map(|arg| {
        let name = arg.get_value_names().and_then(|names| names.first()).map_or("VALUE", |name| name.as_str());
        if arg.is_required_set() { format!(" {name}") } else { format!(" [{name}]") }
    });
    let words: String = words.collect();
    let options = command.get_arguments().filter(|arg| !arg.is_global_set()).filter_map(|arg| arg.get_long());
    let options: Vec<String> =
        options.filter(|o| !["help", "version"].contains(o)).map(|option| format!("`--{option}`")).collect();
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    table.push_str(&format!("| `{path}{words}` | {about} | {} |\n", options.join(", ")));
}

#[test]
fn the_table_of_routes_is_current() {
    let api = serde_json::to_value(tasker_orchestration::web::openapi()).unwrap();
    let mut table = String::from("| route | does |\n|---|---|\n");
    for (path, methods) in api["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap().iter().filter(|(_, o)| o["responses"].is_object()) {
            let does = operation["summary"].as_str().unwrap_or_default().trim_end_matches('.');
            table.push_str(&format!("| `{} {path}` | {does} |\n", method.to_uppercase()));
        }
    }
    expect_part("docs/http.md", "routes", &table);
}

#[test]
fn every_template_in_the_docs_is_accepted() {
    let mut found = 0;
    for page in PAGES {
        for block in blocks(&read(page), "yaml").into_iter().filter(|block| block.contains("namespace_name:")) {
            template::parse(&block, Some(page)).unwrap_or_else(|error| panic!("{page}: {error}"));
            found += 1;
        }
    }
    assert!(found >= 2, "{found} templates");
}

#[test]
fn every_tasker_command_in_the_docs_is_understood() {
    let mut found = 0;
    for page in PAGES {
        let text = read(page);
        let fenced = blocks(&text, "sh").join("\n");
        let indented = text.lines().filter_map(|line| line.strip_prefix("    ")).collect::<Vec<_>>().join("\n");
        for line in format!("{fenced}\n{indented}").replace("\\\n", " ").lines() {
            let words = words(line);
            let command = words.iter().skip_while(|word| is_assignment(word)).cloned().collect::<Vec<_>>();
            let command = match command.iter().position(|word| word == "--") {
                Some(at) if command.starts_with(&["cargo".into(), "run".into()]) => {
                    [&["tasker".to_owned()], &command[at + 1..]].concat()
                }
                _ => command,
            };
            if command.first().is_some_and(|word| word == "tasker") {
                Args::try_parse_from(&command).unwrap_or_else(|error| panic!("{page}: {line}: {error}"));
                found += 1;
            }
        }
    }
    assert!(found >= 5, "{found} commands");
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'))
}

/// A line of shell as its words; quotes are all that is understood.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if open == c => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, ' ') => words.push(std::mem::take(&mut word)),
            (_, c) => word.push(c),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

/// The fenced blocks of a language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let open = format!("```{language}\n");
    text.split(&open).skip(1).filter_map(|rest| rest.split_once("```").map(|(block, _)| block.to_owned())).collect()
}

#[test]
fn every_link_between_pages_leads_somewhere() {
    for page in PAGES {
        let path = root().join(page);
        for target in
            read(page).split("](").skip(1).filter_map(|rest| rest.split_once(')').map(|(to, _)| to.to_owned()))
        {
            let file = target.split('#').next().unwrap_or_default();
            if !file.is_empty() && !file.contains("://") {
                assert!(path.parent().unwrap().join(file).exists(), "{page} links to {target}");
            }
        }
    }
}

#[test]
fn every_configuration_key_in_the_docs_exists() {
    let mut keys = BTreeSet::new();
    let mut section = String::new();
    for line in read("config/tasker/base.toml").lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.to_owned();
        } else if let Some((key, _)) = line.split_once(" = ").filter(|(key, _)| !key.starts_with('#')) {
            keys.insert(format!("{section}.{key}"));
        }
    }
    for page in PAGES {
        for word in read(page).split('`') {
            let section = ["database.", "orchestration.", "worker.", "breakers.", "telemetry."]
                .iter()
                .find(|s| word.starts_with(**s));
            if section.is_some() && word.bytes().all(|b| b.is_ascii_lowercase() || b"._".contains(&b)) {
                assert!(keys.contains(word), "{page} names the key `{word}`");
            }
        }
    }
}

#[test]
fn the_worker_of_the_readme_is_the_example() {
    let example = read("tasker-worker/examples/own_worker.rs");
    for block in blocks(&read("README.md"), "rust") {
        for part in block.split("\n\n") {
            assert!(example.contains(part.trim_end()), "not in the example:\n{part}");
        }
    }
}
