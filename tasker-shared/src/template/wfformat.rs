//! Workflows in WfFormat (the JSON of WfCommons) as templates: each task a step that sleeps as long as the task ran.
//!
//! Version 1.5 keeps `workflow.specification.tasks` and `workflow.execution.tasks` apart; versions up to 1.4 have one list,
//! `workflow.tasks` or `workflow.jobs`. Both are read.

use super::{
    Handler, Lifecycle, Limits, Retention, StepTemplate, Template,
    dag::{self, Dag},
    model::DEFAULT_TIMEOUT,
    parse::{DEFAULT_VERSION, LONGEST},
};
use crate::{name::Name, step::RetryPolicy, task::IdentityStrategy};
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    time::Duration,
};

/// How a workflow is turned into a template.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// The template's namespace.
    pub namespace: String,
    /// The template's name; made from the workflow's name when not given.
    pub name: Option<String>,
    /// Seconds a step sleeps per second that the task ran; 0 or more.
    pub time_scale: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { namespace: "wfformat".to_owned(), name: None, time_scale: 0.0 }
    }
}

/// Why a file cannot be imported.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not JSON.
    #[error("the file is not JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// JSON, but not a workflow.
    #[error("the file is not WfFormat: {path}: {reason}")]
    Shape {
        /// Where in the file.
        path: String,
        /// What is missing or wrong.
        reason: String,
    },
    /// A parent or child that is no task.
    #[error("task `{task}` names `{reference}` among its {list}, but there is no such task")]
    UnknownTask {
        /// Who names it.
        task: String,
        /// `parents` or `children`.
        list: &'static str,
        /// What is named.
        reference: String,
    },
    /// A name or number that a template cannot have.
    #[error("{option}: {reason}")]
    Option {
        /// Which option.
        option: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The tasks wait for each other.
    #[error("the tasks cannot be steps: {0}")]
    Dag(#[from] dag::Error),
}

/// Turns the WfFormat document `json` into a template. Steps are named by the tasks' ids, made into valid, unique names.
///
/// # Errors
/// [`Error`] says where the document or the options are wrong.
pub fn import(json: &str, options: &Options) -> Result<Template, Error> {
    if !(options.time_scale.is_finite() && options.time_scale >= 0.0) {
        let reason = format!("expected a number from 0, found {}", options.time_scale);
        return Err(Error::Option { option: "time scale", reason });
    }
    let document: Value = serde_json::from_str(json.trim_start_matches('\u{feff}'))?;
    let workflow = document.get("workflow").filter(|workflow| workflow.is_object());
    let workflow = workflow.ok_or_else(|| shape("workflow", "expected an object"))?;
    let tasks = tasks(workflow)?;
    let seconds = runtimes(workflow)?;
    let parents = edges(&tasks)?;
    let names = unique_names(tasks.iter().map(|task| task.id.as_str()));
    let steps = tasks.iter().zip(&names).zip(&parents).map(|((task, name), parents)| {
        let seconds =
            task.seconds.or_else(|| seconds.get(task.id.as_str()).copied()).unwrap_or(0.0) * options.time_scale;
        let dependencies = parents.iter().map(|&parent| names[parent].clone()).collect();
        step(task, name.clone(), dependencies, seconds)
    });
    let steps = steps.collect::<Result<Vec<_>, _>>()?;
    Dag::new(&steps)?;
    template(&document, options, steps)
}

fn template(document: &Value, options: &Options, steps: Vec<StepTemplate>) -> Result<Template, Error> {
    let own_name = document.get("name").and_then(Value::as_str).unwrap_or("workflow");
    let name = match &options.name {
        Some(name) => option_name("name", name)?,
        None => unique_names([own_name]).swap_remove(0),
    };
    let mut source = Map::from_iter([("name".to_owned(), json!(own_name))]);
    for key in ["schemaVersion", "createdAt"] {
        source.extend(document.get(key).filter(|value| value.is_string()).map(|value| (key.to_owned(), value.clone())));
    }
    Ok(Template {
        namespace: option_name("namespace", &options.namespace)?,
        name,
        version: DEFAULT_VERSION.to_owned(),
        description: document.get("description").and_then(Value::as_str).map(str::to_owned),
        metadata: Map::from_iter([("wfformat".to_owned(), Value::Object(source))]),
        input_schema: None,
        identity_strategy: IdentityStrategy::AlwaysUnique,
        lifecycle: Lifecycle::default(),
        retention: Retention::default(),
        steps,
        environments: BTreeMap::new(),
    })
}

fn option_name(option: &'static str, text: &str) -> Result<Name, Error> {
    Name::new(text).map_err(|invalid| Error::Option { option, reason: invalid.to_string() })
}

fn step(task: &Task<'_>, name: Name, dependencies: Vec<Name>, seconds: f64) -> Result<StepTemplate, Error> {
    let timeout = DEFAULT_TIMEOUT.as_secs_f64().max((seconds * 2.0).ceil());
    if !timeout.is_finite() || timeout > LONGEST.as_secs_f64() {
        let reason = format!("task `{}` would sleep {seconds} seconds, longer than a step may run", task.id);
        return Err(Error::Option { option: "time scale", reason });
    }
    let handler = Handler {
        callable: "sleep".to_owned(),
        method: None,
        initialization: Map::from_iter([("seconds".to_owned(), json!(seconds))]),
    };
    Ok(StepTemplate {
        name,
        description: task.name.filter(|name| *name != task.id).map(str::to_owned),
        dependencies,
        handler,
        retry: RetryPolicy::default(),
        timeout: Duration::from_secs(timeout as u64),
        result_schema: None,
        concurrency: None,
    })
}

/// A task as far as it is needed.
struct Task<'a> {
    id: String,
    name: Option<&'a str>,
    parents: Vec<&'a str>,
    children: Vec<&'a str>,
    /// Where versions up to 1.4 keep the run time.
    seconds: Option<f64>,
}

fn tasks(workflow: &Value) -> Result<Vec<Task<'_>>, Error> {
    let places = [
        ("/specification/tasks", "workflow.specification.tasks"),
        ("/tasks", "workflow.tasks"),
        ("/jobs", "workflow.jobs"),
    ];
    let found = places.iter().find_map(|(pointer, path)| workflow.pointer(pointer).map(|list| (list, *path)));
    let (list, path) = found.ok_or_else(|| {
        shape("workflow.specification.tasks", "missing (nor are there `workflow.tasks` of older versions)")
    })?;
    let list = list.as_array().ok_or_else(|| shape(path, "expected a list"))?;
    let most = Limits::default().steps;
    if list.is_empty() || list.len() > most {
        return Err(shape(path, &format!("expected 1 to {most} tasks, found {}", list.len())));
    }
    let mut seen = HashSet::new();
    let mut tasks = Vec::with_capacity(list.len());
    for (index, entry) in list.iter().enumerate() {
        let task = task(entry, &format!("{path}[{index}]"))?;
        if !seen.insert(task.id.clone()) {
            return Err(shape(&format!("{path}[{index}]"), &format!("the id `{}` is used twice", task.id)));
        }
        tasks.push(task);
    }
    Ok(tasks)
}

fn task<'a>(entry: &'a Value, path: &str) -> Result<Task<'a>, Error> {
    if !entry.is_object() {
        return Err(shape(path, "expected an object"));
    }
    let name = entry.get("name").and_then(Value::as_str);
    let id = match entry.get("id") {
        Some(Value::String(id)) if !id.is_empty() => id.clone(),
        Some(Value::Number(id)) => id.to_string(),
        None | Some(Value::Null) => name
            .filter(|name| !name.is_empty())
            .ok_or_else(|| shape(path, "neither `id` nor `name` is given"))?
            .to_owned(),
        Some(_) => return Err(shape(&format!("{path}.id"), "expected text")),
    };
    let seconds = seconds_of(entry, path)?;
    Ok(Task { id, name, parents: texts(entry, "parents", path)?, children: texts(entry, "children", path)?, seconds })
}

fn texts<'a>(entry: &'a Value, key: &str, path: &str) -> Result<Vec<&'a str>, Error> {
    let wrong = || shape(&format!("{path}.{key}"), "expected a list of task ids");
    match entry.get(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(list) => list.as_array().ok_or_else(wrong)?.iter().map(|item| item.as_str().ok_or_else(wrong)).collect(),
    }
}

/// By task id, what `workflow.execution` tells; nothing when it is missing.
fn runtimes(workflow: &Value) -> Result<HashMap<&str, f64>, Error> {
    const PATH: &str = "workflow.execution.tasks";
    let Some(list) = workflow.pointer("/execution/tasks") else { return Ok(HashMap::new()) };
    let mut seconds = HashMap::new();
    for (index, entry) in list.as_array().ok_or_else(|| shape(PATH, "expected a list"))?.iter().enumerate() {
        let ran = seconds_of(entry, &format!("{PATH}[{index}]"))?;
        if let (Some(id), Some(ran)) = (entry.get("id").and_then(Value::as_str), ran) {
            seconds.insert(id, ran);
        }
    }
    Ok(seconds)
}

fn seconds_of(entry: &Value, path: &str) -> Result<Option<f64>, Error> {
    let given = ["runtimeInSeconds", "runtime"].into_iter().find_map(|key| Some((key, entry.get(key)?)));
    let Some((key, value)) = given.filter(|(_, value)| !value.is_null()) else { return Ok(None) };
    let seconds = value.as_f64().filter(|seconds| *seconds >= 0.0);
    seconds.map(Some).ok_or_else(|| shape(&format!("{path}.{key}"), "expected a number of seconds from 0"))
}

/// Each task's parents, from both sides: who names a parent, and who is named as a child.
fn edges(tasks: &[Task<'_>]) -> Result<Vec<BTreeSet<usize>>, Error> {
    let by_id: HashMap<&str, usize> = tasks.iter().enumerate().map(|(index, task)| (task.id.as_str(), index)).collect();
    // Versions up to 1.4 may give ids and still refer to tasks by name. A name that two tasks share says nothing.
    let mut by_name: HashMap<&str, Option<usize>> = HashMap::new();
    for (index, task) in tasks.iter().enumerate() {
        if let Some(name) = task.name {
            by_name.entry(name).and_modify(|shared| *shared = None).or_insert(Some(index));
        }
    }
    let find = |task: &Task<'_>, list, reference: &str| {
        let found = by_id.get(reference).copied().or_else(|| by_name.get(reference).copied().flatten());
        found.ok_or_else(|| Error::UnknownTask { task: task.id.clone(), list, reference: reference.to_owned() })
    };
    let mut parents = vec![BTreeSet::new(); tasks.len()];
    for (index, task) in tasks.iter().enumerate() {
        for reference in &task.parents {
            parents[index].insert(find(task, "parents", reference)?);
        }
        for reference in &task.children {
            parents[find(task, "children", reference)?].insert(index);
        }
    }
    Ok(parents)
}

/// A valid name for each text, none twice.
fn unique_names<'a>(texts: impl IntoIterator<Item = &'a str>) -> Vec<Name> {
    let mut taken: HashSet<Name> = HashSet::new();
    // The next number to try for each name, so that many equal ones do not each count from the start.
    let mut numbers: HashMap<String, usize> = HashMap::new();
    let mut names = Vec::new();
    for text in texts {
        let letters = valid_letters(text);
        let mut candidate = letters.clone();
        let number = numbers.entry(letters.clone()).or_insert(2);
        while taken.contains(candidate.as_str()) {
            candidate = format!("{letters}_{number}");
            *number += 1;
        }
        if let Ok(name) = Name::new(&candidate) {
            taken.insert(name.clone());
            names.push(name);
        }
    }
    names
}

/// `text` with what a name cannot have replaced, and cut so that a number still fits behind it. Always a valid name.
fn valid_letters(text: &str) -> String {
    let valid = |c: char| if c.is_ascii_alphanumeric() || "_-.:".contains(c) { c } else { '_' };
    let mut letters: String = text.chars().map(valid).collect();
    if !letters.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_') {
        letters.insert(0, '_');
    }
    letters.truncate(crate::name::MAX_LENGTH - 8);
    letters
}

fn shape(path: &str, reason: &str) -> Error {
    Error::Shape { path: path.to_owned(), reason: reason.to_owned() }
}
