//! A module of `tasker-shared` uses its own layer and those below it; the services do not use each other.

use std::{collections::BTreeSet, fs, path::Path};

/// The modules of `tasker-shared`, from the lowest layer up.
const LAYERS: &[&[&str]] = &[
    &["id", "name", "text_enum", "url"],
    &["access", "template", "task", "step"],
    &["metrics", "config", "api", "breaker"],
    &["storage", "queue"],
    &["runtime", "telemetry"],
];

/// What layers 0 and 1 must not know, as it is written in a path.
const MACHINERY: &[&str] = &["tokio::", "opentelemetry::", "tracing::", "axum::", "std::time::SystemTime", "std::env"];

#[test]
fn a_module_uses_only_its_own_layer_and_those_below() {
    let layer = |module: &str| LAYERS.iter().position(|modules| modules.contains(&module));
    let mut seen = BTreeSet::new();
    for (file, module, source) in sources() {
        let own = layer(&module).unwrap_or_else(|| panic!("{file}: module `{module}` has no layer"));
        for used in used_modules(&source) {
            let other = layer(&used).unwrap_or_else(|| panic!("{file}: `crate::{used}` has no layer"));
            assert!(other <= own, "{file} is in layer {own} and uses `{used}` of layer {other}");
        }
        seen.insert(module);
    }
    assert_eq!(seen.len(), LAYERS.iter().map(|modules| modules.len()).sum::<usize>(), "{seen:?}");
}

#[test]
fn decisions_know_neither_runtime_nor_telemetry() {
    for (file, module, source) in sources() {
        if LAYERS[..2].concat().contains(&module.as_str()) && !file.contains("tests") {
            for machinery in MACHINERY {
                assert!(!source.contains(machinery), "{file} uses {machinery}");
            }
        }
    }
}

#[test]
fn the_services_know_nothing_of_each_other() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for (service, other) in [("tasker-orchestration", "tasker-worker"), ("tasker-worker", "tasker-orchestration")] {
        let manifest = fs::read_to_string(root.join(service).join("Cargo.toml")).unwrap();
        assert!(!manifest.contains(other), "{service} depends on {other}");
    }
}

#[test]
fn modules_are_found_in_every_form_of_path() {
    let used = used_modules("use crate::{a::{b, c::{d}}, e, f as g};\nuse crate::h::i;\nlet j = crate::k();");
    assert_eq!(used.into_iter().collect::<Vec<_>>(), ["a", "e", "f", "h", "k"]);
}

/// The sources of `tasker-shared`: file, top-level module, and text without comments.
fn sources() -> Vec<(String, String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tasker-shared/src");
    let (mut found, mut open) = (Vec::new(), vec![root.clone()]);
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("a file").path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let file = path.strip_prefix(&root).expect("below it").to_str().expect("UTF-8").to_owned();
            let module = file.split('/').next().expect("a part").trim_end_matches(".rs").to_owned();
            if file.ends_with(".rs") && module != "lib" {
                let text = fs::read_to_string(&path).expect("a source");
                let code: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
                found.push((file, module, code.join("\n")));
            }
        }
    }
    found
}

/// The modules behind `crate::` and `crate::{…}`.
fn used_modules(source: &str) -> BTreeSet<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut used = BTreeSet::new();
    for rest in source.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            None => drop(used.insert(word(rest))),
            Some(group) => {
                let (mut depth, mut fresh) = (0, true);
                for (at, c) in group.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => fresh = true,
                        c if fresh && c.is_alphabetic() => {
                            used.insert(word(&group[at..]));
                            fresh = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    // a macro, not a module
    used.retain(|name| !name.is_empty());
    used
}
