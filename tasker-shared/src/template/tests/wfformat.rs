//! WfFormat documents of several versions become templates, or are refused with a reason.

use crate::template::{Compiled, Template, parse, to_yaml, wfformat};
use serde_json::{Value, json};

fn import(document: &Value) -> Result<Template, String> {
    wfformat::import(&document.to_string(), &wfformat::Options::default()).map_err(|error| error.to_string())
}

fn with_tasks(tasks: Value) -> Value {
    json!({"name": "w", "schemaVersion": "1.5", "workflow": {"specification": {"tasks": tasks}}})
}

/// Each step with what it waits for.
fn edges(template: &Template) -> Vec<(String, Vec<String>)> {
    let names = |step: &crate::template::StepTemplate| step.dependencies.iter().map(ToString::to_string).collect();
    template.steps.iter().map(|step| (step.name.to_string(), names(step))).collect()
}

fn edge(step: &str, parents: &[&str]) -> (String, Vec<String>) {
    (step.to_owned(), parents.iter().map(|parent| (*parent).to_owned()).collect())
}

#[test]
fn tasks_become_steps_that_sleep_as_long_as_they_ran() {
    let document = json!({
        "name": "my workflow", "description": "d", "schemaVersion": "1.5",
        "workflow": {
            "specification": {"tasks": [
                {"name": "first", "id": "first_1", "parents": [], "children": ["second_2"], "inputFiles": []},
                {"name": "second", "id": "second_2", "parents": ["first_1"], "children": []},
            ]},
            "execution": {"tasks": [{"id": "first_1", "runtimeInSeconds": 400.5}]}
        }
    });
    let options = wfformat::Options { time_scale: 2.0, ..wfformat::Options::default() };
    let template = wfformat::import(&document.to_string(), &options).unwrap();
    assert_eq!((template.namespace.as_str(), template.name.as_str()), ("wfformat", "my_workflow"));
    assert_eq!(template.description.as_deref(), Some("d"));
    assert_eq!(edges(&template), [edge("first_1", &[]), edge("second_2", &["first_1"])]);
    let [first, second] = template.steps.as_slice() else { panic!("two steps") };
    assert_eq!(first.handler.callable, "sleep");
    assert_eq!(first.handler.initialization["seconds"], json!(801.0));
    assert_eq!(first.timeout.as_secs(), 1_602, "long enough for the sleep");
    assert_eq!(second.handler.initialization["seconds"], json!(0.0));
    assert_eq!(second.timeout.as_secs(), 300);
    assert_eq!(parse(&to_yaml(&template), None).unwrap(), template);
}

#[test]
fn an_edge_that_only_one_side_names_counts() {
    let template = import(&with_tasks(json!([
        {"id": "a", "children": ["b"]}, {"id": "b"}, {"id": "c", "parents": ["b", "a", "b"]}
    ])));
    assert_eq!(edges(&template.unwrap()), [edge("a", &[]), edge("b", &["a"]), edge("c", &["a", "b"])]);
}

#[test]
fn older_versions_with_one_list_of_tasks_or_jobs_are_read() {
    for key in ["tasks", "jobs"] {
        let tasks = json!([
            {"name": "split_1", "id": "ID01", "parents": [], "runtime": 3},
            {"name": "merge_2", "id": "ID02", "parents": ["split_1"], "runtimeInSeconds": 4.5},
        ]);
        let document = json!({"name": "w", "workflow": {key: tasks}});
        let options = wfformat::Options { time_scale: 1.0, ..wfformat::Options::default() };
        let template = wfformat::import(&document.to_string(), &options).unwrap();
        assert_eq!(edges(&template), [edge("ID01", &[]), edge("ID02", &["ID01"])]);
        assert_eq!(template.steps[0].handler.initialization["seconds"], json!(3.0));
        assert_eq!(template.steps[0].description.as_deref(), Some("split_1"));
    }
    let document = json!({"name": "w", "workflow": {"tasks": [{"name": "only"}]}});
    assert_eq!(edges(&import(&document).unwrap()), [edge("only", &[])]);
}

#[test]
fn ids_become_valid_names_of_which_none_repeats() {
    let template = import(&with_tasks(json!([
        {"id": "a b"}, {"id": "a/b"}, {"id": "-x", "parents": ["a b", "a/b"]}, {"id": "größe"}, {"id": "y".repeat(400)}, {"id": 7}
    ])))
    .unwrap();
    let names: Vec<String> = template.steps.iter().map(|step| step.name.to_string()).collect();
    assert_eq!(names[..4], ["a_b", "a_b_2", "_-x", "gr__e"]);
    assert_eq!((names[4].len(), names[5].as_str()), (247, "7"));
    assert_eq!(edges(&template)[2], edge("_-x", &["a_b", "a_b_2"]));
}

#[test]
fn what_is_no_workflow_is_refused_with_the_place() {
    for (document, expected) in [
        (json!([]), "the file is not WfFormat: workflow: expected an object"),
        (
            json!({"workflow": {}}),
            "the file is not WfFormat: workflow.specification.tasks: missing (nor are there `workflow.tasks` of older versions)",
        ),
        (with_tasks(json!({})), "the file is not WfFormat: workflow.specification.tasks: expected a list"),
        (
            with_tasks(json!([])),
            "the file is not WfFormat: workflow.specification.tasks: expected 1 to 10000 tasks, found 0",
        ),
        (with_tasks(json!([1])), "the file is not WfFormat: workflow.specification.tasks[0]: expected an object"),
        (
            with_tasks(json!([{}])),
            "the file is not WfFormat: workflow.specification.tasks[0]: neither `id` nor `name` is given",
        ),
        (
            with_tasks(json!([{"id": "a"}, {"id": "a"}])),
            "the file is not WfFormat: workflow.specification.tasks[1]: the id `a` is used twice",
        ),
        (
            with_tasks(json!([{"id": "a", "parents": "b"}])),
            "the file is not WfFormat: workflow.specification.tasks[0].parents: expected a list of task ids",
        ),
        (
            with_tasks(json!([{"id": "a", "runtime": -1}])),
            "the file is not WfFormat: workflow.specification.tasks[0].runtime: expected a number of seconds from 0",
        ),
        (
            with_tasks(json!([{"id": "a", "parents": ["b"]}])),
            "task `a` names `b` among its parents, but there is no such task",
        ),
        (
            with_tasks(json!([{"id": "a", "children": ["b"]}])),
            "task `a` names `b` among its children, but there is no such task",
        ),
        (
            with_tasks(json!([{"id": "a", "parents": ["b"]}, {"id": "b", "parents": ["a"]}])),
            "the tasks cannot be steps: the dependencies form a cycle: a -> b -> a",
        ),
        (
            with_tasks(json!([{"id": "a", "parents": ["a"]}])),
            "the tasks cannot be steps: the dependencies form a cycle: a -> a",
        ),
    ] {
        assert_eq!(import(&document).unwrap_err(), expected, "{document}");
    }
    let options =
        |time_scale, namespace: &str| wfformat::Options { time_scale, namespace: namespace.to_owned(), name: None };
    let good = with_tasks(json!([{"id": "a", "runtime": 1e9}])).to_string();
    for (options, expected) in [
        (options(-1.0, "n"), "time scale: expected a number from 0, found -1"),
        (options(f64::NAN, "n"), "time scale: expected a number from 0, found NaN"),
        (options(1.0, "n"), "time scale: task `a` would sleep 1000000000 seconds, longer than a step may run"),
        (options(0.0, ""), "namespace: a name must not be empty"),
    ] {
        assert_eq!(wfformat::import(&good, &options).unwrap_err().to_string(), expected);
    }
    let broken = wfformat::import("{", &wfformat::Options::default()).unwrap_err().to_string();
    assert_eq!(broken, "the file is not JSON: EOF while parsing an object at line 1 column 1");
}

#[test]
fn real_workflows_import_with_all_their_tasks_and_edges() {
    let Some(directory) = std::env::var_os("TASKER_WFINSTANCES") else {
        println!("skipped: TASKER_WFINSTANCES names no directory of WfFormat files");
        return;
    };
    let mut files = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let source = std::fs::read_to_string(&path).unwrap();
        let document: Value = serde_json::from_str(&source).unwrap();
        let tasks = document["workflow"]["specification"]["tasks"].as_array().unwrap();
        let parents: usize = tasks.iter().map(|task| task["parents"].as_array().unwrap().len()).sum();
        let template = import(&document).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(template.steps.len(), tasks.len(), "{}", path.display());
        assert_eq!(
            template.steps.iter().map(|step| step.dependencies.len()).sum::<usize>(),
            parents,
            "{}",
            path.display()
        );
        for (step, task) in template.steps.iter().zip(tasks) {
            assert_eq!(step.name.as_str(), task["id"].as_str().unwrap());
        }
        assert_eq!(parse(&to_yaml(&template), None).unwrap(), template, "{}", path.display());
        Compiled::new(template).unwrap();
        files += 1;
    }
    assert!(files > 0, "the directory of TASKER_WFINSTANCES has no JSON files");
}
