//! The views tell the truth: dashboards are made from their descriptions, rules name metrics that exist, and every alert
//! has its runbook and its tests. `TASKER_UPDATE_DOCS=1` writes the dashboards.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use tasker_shared::metrics::{CATALOG, Kind};

/// Series that every scrape or export brings along.
const OF_PROMETHEUS: [&str; 2] = ["up", "target_info"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// One rule of a rule file.
#[derive(Debug, Default)]
pub(crate) struct Rule {
    pub(crate) name: String,
    expr: String,
    lines: Vec<String>,
}

impl Rule {
    fn value(&self, key: &str) -> &str {
        let line = self.lines.iter().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix(':'));
        line.unwrap_or_default().trim().trim_matches('"')
    }
}

/// The rules of a file in the layout that the project writes: a list item for each, `expr` on one line or as a block.
pub(crate) fn rules(file: &str) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    for line in read(file).lines() {
        let text = line.trim();
        if let Some(name) = text.strip_prefix("- alert: ").or_else(|| text.strip_prefix("- record: ")) {
            rules.push(Rule { name: name.to_owned(), ..Rule::default() });
        } else if let Some(rule) = rules.last_mut() {
            rule.lines.push(line.to_owned());
        }
    }
    for rule in &mut rules {
        let start =
            rule.lines.iter().position(|line| line.trim().starts_with("expr:")).expect("a rule has an expression");
        let indent = |line: &str| line.len() - line.trim_start().len();
        let own = indent(&rule.lines[start]);
        let more = rule.lines[start + 1..].iter().take_while(|line| indent(line) > own);
        let first = rule.lines[start].trim().trim_start_matches("expr:").trim().trim_start_matches(['|', '>', '-']);
        rule.expr = [first].into_iter().chain(more.map(|line| line.trim())).collect::<Vec<_>>().join(" ");
    }
    rules
}

/// The names of metrics in a query: words that are not functions, keywords, labels, texts or durations.
fn metrics_of(query: &str) -> BTreeSet<String> {
    const WORDS: [&str; 14] = [
        "and",
        "or",
        "unless",
        "by",
        "without",
        "on",
        "ignoring",
        "group_left",
        "group_right",
        "bool",
        "offset",
        "inf",
        "nan",
        "le",
    ];
    let unquoted: String = query.split('"').step_by(2).collect();
    let (mut found, mut rest) = (BTreeSet::new(), unquoted.as_str());
    while let Some(first) = rest.chars().next() {
        if let Some(end) = match first {
            '{' => rest.find('}'),
            '[' => rest.find(']'),
            _ => None,
        } {
            rest = &rest[end + 1..];
            continue;
        }
        let word = rest.find(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '_' | ':')).unwrap_or(rest.len());
        if word == 0 {
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let (name, after) = rest.split_at(word);
        rest = after;
        let called = ["(", "by ", "without "].iter().any(|next| after.trim_start().starts_with(next));
        if ["by", "without", "on", "ignoring", "group_left", "group_right"].contains(&name) && called {
            rest = &after[after.find(')').expect("a list of labels ends") + 1..];
        } else if !called && !first.is_ascii_digit() && !WORDS.contains(&name) {
            found.insert(name.to_owned());
        }
    }
    found
}

/// The dashboard's variables in a query, without those that Grafana provides.
fn variables_of(query: &str) -> BTreeSet<&str> {
    let names = query.split('$').skip(1).map(|text| {
        let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
        &text[..end]
    });
    names.filter(|name| !name.starts_with("__")).collect()
}

/// Every name under which Prometheus knows something.
fn known() -> BTreeSet<String> {
    let mut names: BTreeSet<String> = OF_PROMETHEUS.map(str::to_owned).into();
    for spec in CATALOG {
        let name = spec.prometheus_name();
        if spec.kind == Kind::Histogram {
            names.extend(["_bucket", "_sum", "_count"].map(|suffix| format!("{name}{suffix}")));
        } else {
            names.insert(name);
        }
    }
    names.extend(rules("observability/prometheus/recording-rules.yaml").into_iter().map(|rule| rule.name));
    names
}

#[test]
fn the_names_of_metrics_are_found_in_a_query() {
    let query = "sum by (le, http_route) (rate(a_total{x=\"/{b_total}/c\"}[5m])) / on (c) d:e > 1e3 or vector(0)";
    assert_eq!(metrics_of(query), ["a_total", "d:e"].map(str::to_owned).into());
}

#[test]
fn the_dashboards_are_current() {
    for dashboard in tasker_observability::dashboards() {
        let path = root().join("observability/dashboards").join(dashboard.file());
        if std::env::var_os("TASKER_UPDATE_DOCS").is_some() {
            fs::write(&path, dashboard.text()).expect("the dashboard is written");
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == dashboard.text(),
            "{} is not current; run: TASKER_UPDATE_DOCS=1 cargo test --workspace dashboards",
            path.display()
        );
    }
    let files = fs::read_dir(root().join("observability/dashboards")).expect("the dashboards").count();
    assert_eq!(files, tasker_observability::dashboards().len(), "a file has no description");
}

#[test]
fn dashboards_query_only_metrics_that_exist_and_every_panel_is_described() {
    let known = known();
    for dashboard in tasker_observability::dashboards() {
        let json = dashboard.json();
        let variables = json["templating"]["list"].as_array().expect("variables").iter();
        let offered: BTreeSet<&str> = variables.filter_map(|variable| variable["name"].as_str()).collect();
        for panel in json["panels"].as_array().expect("panels").iter().filter(|panel| panel["type"] != "row") {
            assert!(panel["description"].as_str().is_some_and(|text| text.len() > 5), "{}", panel["title"]);
            for target in panel["targets"].as_array().expect("targets") {
                if panel["datasource"]["uid"] == "prometheus" {
                    let query = target["expr"].as_str().expect("a query");
                    let unknown: Vec<_> = metrics_of(query).into_iter().filter(|name| !known.contains(name)).collect();
                    assert!(unknown.is_empty(), "{}: {unknown:?}", panel["title"]);
                    let lacking: Vec<_> =
                        variables_of(query).into_iter().filter(|name| !offered.contains(name)).collect();
                    assert!(lacking.is_empty(), "{}: the dashboard has no variable {lacking:?}", panel["title"]);
                }
            }
        }
    }
}

#[test]
fn every_metric_of_the_catalogue_is_on_a_dashboard() {
    let shown: BTreeSet<&str> =
        tasker_observability::dashboards().iter().flat_map(tasker_observability::Dashboard::fields).collect();
    let hidden: Vec<&str> = CATALOG.iter().map(|spec| spec.field).filter(|field| !shown.contains(field)).collect();
    assert!(hidden.is_empty(), "add a panel in observability/src for {hidden:?}");
}

#[test]
fn rules_query_only_metrics_that_exist() {
    let known = known();
    for file in ["recording-rules", "alert-rules"] {
        for rule in rules(&format!("observability/prometheus/{file}.yaml")) {
            let unknown: Vec<_> = metrics_of(&rule.expr).into_iter().filter(|name| !known.contains(name)).collect();
            assert!(unknown.is_empty(), "{}: {unknown:?}", rule.name);
        }
    }
}

#[test]
fn every_alert_has_a_runbook_and_a_test_in_which_it_fires_and_one_in_which_it_does_not() {
    let tests = read("observability/prometheus/alert-tests.yaml");
    let mut cases: BTreeMap<&str, Vec<bool>> = BTreeMap::new();
    let mut asked = None;
    for line in tests.lines().map(str::trim) {
        if let Some((_, name)) = line.strip_prefix("- expr: ").and_then(|expr| expr.split_once("alertname=\"")) {
            asked = name.split('"').next();
        } else if let Some(samples) = line.strip_prefix("exp_samples:") {
            let fires = samples.trim() != "[]";
            cases.entry(asked.take().expect("a case names its alert")).or_default().push(fires);
        }
    }
    let runbook = read("docs/operations.md");
    let headings: BTreeSet<&str> = runbook.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    let alerts = rules("observability/prometheus/alert-rules.yaml");
    for alert in &alerts {
        let name = alert.name.as_str();
        assert!(headings.contains(name), "docs/operations.md has no heading `### {name}`");
        let link = format!("docs/operations.md#{}", name.to_lowercase());
        assert!(alert.value("runbook_url").ends_with(&link), "{name}: the runbook is not {link}");
        for key in ["severity", "summary", "description"] {
            assert!(!alert.value(key).is_empty(), "{name} has no {key}");
        }
        let cases = cases.get(name).unwrap_or_else(|| panic!("{name} has no tests"));
        assert!(cases.contains(&true) && cases.contains(&false), "{name}: fires and is quiet: {cases:?}");
    }
    let names: BTreeSet<&str> = alerts.iter().map(|alert| alert.name.as_str()).collect();
    let stray: Vec<_> = cases.keys().filter(|name| !names.contains(*name)).collect();
    assert!(stray.is_empty(), "tests of alerts that do not exist: {stray:?}");
}

#[test]
fn promtool_accepts_the_configuration_and_every_alert_test() {
    if Command::new("promtool").arg("--version").output().is_err() {
        eprintln!("skipped: promtool is not installed (Debian package `prometheus`)");
        return;
    }
    let directory = root().join("observability/prometheus");
    for arguments in [
        &["check", "config", "prometheus.yaml"][..],
        &["check", "rules", "recording-rules.yaml", "alert-rules.yaml"],
        &["test", "rules", "alert-tests.yaml"],
    ] {
        let output = Command::new("promtool").args(arguments).current_dir(&directory).output().expect("promtool runs");
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "promtool {arguments:?}: {}", String::from_utf8_lossy(&said));
    }
}
