//! Station *submit*: accepts tasks, makes their steps and enqueues the first ones, all in one transaction.

use crate::{
    Error, Orchestration,
    committed::{Committed, TaskInfo},
    initialize,
};
use chrono::{DateTime, Datelike as _, Utc};
use serde_json::Value;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};
use tasker_shared::{
    api::{SubmitTask, Submitted},
    id::{CorrelationId, TaskId, TemplateId},
    runtime::Topic,
    storage::{
        self, Session,
        tasks::{self, NewTask},
        templates,
    },
    task::{IdentityStrategy, Submission, TaskState},
    telemetry::TraceParent,
    template::{Compiled, nearest},
};

/// The longest text in a field of a submission, in bytes.
const LONGEST_TEXT: usize = 1024;

/// How often a submission begins anew that others got in the way of.
const MOST_RACES: usize = 5;

/// The most tags of a task.
const MOST_TAGS: usize = 50;

/// Accepts tasks, all in one transaction; each is answered by itself, in order. A refused one does not hold back the others.
///
/// # Errors
/// The outer error is a failure of the database: nothing was accepted.
pub async fn submit(
    orchestration: &Orchestration,
    asked: Vec<SubmitTask>,
) -> Result<Vec<Result<Submitted, Error>>, Error> {
    let limit = orchestration.settings().max_batch_submit;
    if asked.len() > limit {
        let reason = format!("{} tasks in one request; at most {limit} are allowed", asked.len());
        return Err(Error::Invalid { field: "tasks", reason });
    }
    let mut attempt = 0;
    loop {
        match submit_once(orchestration, asked.clone()).await {
            // two submissions that carry the same identities in another order may wait for each other
            Err(Error::Storage(error)) if error.is_lost_race() && attempt < MOST_RACES => attempt += 1,
            // the template was replaced at that moment
            Err(Error::Storage(error)) if error.breaks_reference() && attempt < MOST_RACES => attempt += 1,
            Err(error) => return Err(error),
            Ok(answers) if attempt < MOST_RACES && answers.iter().any(Option::is_none) => attempt += 1,
            Ok(answers) => {
                let vanished = "the task with this identity is being deleted again and again; submit it later";
                let unanswered = || Err(Error::Illegal(vanished.to_owned()));
                return Ok(answers.into_iter().map(|answer| answer.unwrap_or_else(unanswered)).collect());
            }
        }
    }
}

/// Answers with nothing where a task neither is new nor exists: what it met was removed at that moment. Then nothing is stored.
async fn submit_once(orchestration: &Orchestration, asked: Vec<SubmitTask>) -> Result<Answers, Error> {
    let mut committed = Committed::new();
    let mut session = orchestration.database().begin("submit").await?;
    let Checked { mut answers, accepted, outgrown } = accept(orchestration, &mut session, asked).await?;
    let created: HashSet<TaskId> = match accepted.as_slice() {
        [] => HashSet::new(),
        _ => {
            let new: Vec<NewTask> = accepted.iter().map(|(_, task, _)| task.clone()).collect();
            tasks::insert(&mut session, &new).await?.into_iter().collect()
        }
    };
    let repeats =
        accepted.iter().filter(|(_, task, _)| !created.contains(&task.id)).map(|(place, task, _)| (*place, task));
    let perhaps = outgrown.iter().map(|(place, task, _)| (*place, task));
    let (places, questions): (Vec<usize>, Vec<&NewTask>) = repeats.chain(perhaps).unzip();
    if !questions.is_empty() {
        let refused: HashSet<usize> = outgrown.iter().map(|(place, ..)| *place).collect();
        for existing in tasks::existing(&mut session, &questions).await? {
            let Some(place) = usize::try_from(existing.question - 1).ok().and_then(|i| places.get(i)) else {
                continue;
            };
            if existing.same_input || !refused.contains(place) {
                answers[*place] = Some(Ok(Submitted {
                    task_id: existing.id,
                    correlation_id: existing.correlation_id,
                    created: false,
                    state: existing.state,
                }));
            }
        }
        for (place, _, refusal) in outgrown {
            answers[place].get_or_insert(Err(refusal));
        }
        if places.iter().any(|place| answers[*place].is_none()) {
            session.rollback().await?;
            return Ok(answers);
        }
    }
    let mut now = Vec::new();
    for (place, task, template) in &accepted {
        if !created.contains(&task.id) {
            continue;
        }
        let info = info(task);
        let delayed = task.submission.run_at.is_some();
        if delayed {
            committed.rings.insert(Topic::Timers);
        } else {
            now.push((info.clone(), Arc::clone(template)));
        }
        committed.submitted.push(info.clone());
        answers[*place] = Some(Ok(Submitted {
            task_id: task.id,
            correlation_id: info.correlation_id,
            created: true,
            state: if delayed { TaskState::Pending } else { TaskState::InProgress },
        }));
        committed.requested.push(info);
    }
    initialize::initialize(orchestration, &mut session, now, &mut committed).await?;
    committed.transaction = Some(session.commit().await?);
    committed.tell(orchestration);
    Ok(answers)
}

type Answers = Vec<Option<Result<Submitted, Error>>>;

/// What becomes of each submission, by its place among those asked.
struct Checked {
    answers: Answers,
    accepted: Vec<(usize, NewTask, Arc<Compiled>)>,
    /// Those with a key whose input the template refuses. What repeats a task of another version, which took that input, is no
    /// less a repeat.
    outgrown: Vec<(usize, NewTask, Error)>,
}

/// Checks each submission against its template.
async fn accept(
    orchestration: &Orchestration,
    session: &mut Session,
    asked: Vec<SubmitTask>,
) -> Result<Checked, Error> {
    let questions: Vec<_> =
        asked.iter().map(|task| (task.namespace.clone(), task.name.clone(), task.version.clone())).collect();
    let distinct: Vec<_> =
        questions.iter().filter(|q| is_storable(q)).cloned().collect::<HashSet<_>>().into_iter().collect();
    let resolved = templates::resolve(session, &distinct).await?;
    let ids: HashMap<_, TemplateId> = resolved
        .into_iter()
        .filter_map(|r| Some((distinct.get(usize::try_from(r.question - 1).ok()?)?.clone(), r.id)))
        .collect();
    let compiled = orchestration.compiled(session, ids.values().copied().collect()).await?;
    let now =
        if asked.iter().any(|task| task.run_at.is_some()) { Some(storage::tasks::now(session).await?) } else { None };
    let mut answers: Answers = Vec::with_capacity(asked.len());
    let (mut accepted, mut outgrown) = (Vec::with_capacity(asked.len()), Vec::new());
    let mut registered = None;
    for (place, (task, question)) in asked.into_iter().map(with_input).zip(questions).enumerate() {
        let found = ids.get(&question).and_then(|id| Some((*id, compiled.get(id)?)));
        let checked = match found {
            Some((id, template)) => {
                check(orchestration, task, id, template, now).map(|task| (task, Arc::clone(template)))
            }
            None => {
                if registered.is_none() {
                    registered = Some(templates::list(session).await?);
                }
                Err(not_found(&question, registered.as_deref().unwrap_or_default()))
            }
        };
        match checked {
            Ok((task, template)) => match check_input(&task, &template) {
                Ok(()) => {
                    accepted.push((place, task, template));
                    answers.push(None);
                }
                Err(refusal) if task.submission.idempotency_key.is_some() => {
                    outgrown.push((place, task, refusal));
                    answers.push(None);
                }
                Err(refusal) => answers.push(Some(Err(refusal))),
            },
            Err(refusal) => answers.push(Some(Err(refusal))),
        }
    }
    Ok(Checked { answers, accepted, outgrown })
}

fn check_input(task: &NewTask, compiled: &Compiled) -> Result<(), Error> {
    let template = compiled.template();
    compiled.validate_input(&task.submission.input).map_err(|violation| Error::InputInvalid {
        template: format!("{}/{}@{}", template.namespace, template.name, template.version),
        violations: violation.violations.iter().map(ToString::to_string).collect(),
    })
}

/// Nothing given is the empty object, as for `tasker.submit` in SQL: most schemas ask for an object.
fn with_input(mut task: SubmitTask) -> SubmitTask {
    if task.input.is_null() {
        task.input = Value::Object(serde_json::Map::new());
    }
    task
}

fn check(
    orchestration: &Orchestration,
    task: SubmitTask,
    template_id: TemplateId,
    compiled: &Compiled,
    now: Option<DateTime<Utc>>,
) -> Result<NewTask, Error> {
    let template = compiled.template();
    let (bytes, limit) = (json_bytes(&task.input), orchestration.settings().max_input_bytes);
    if bytes > limit {
        return Err(Error::TooLarge { field: "input", size: bytes, limit });
    }
    let invalid = |field, reason: String| Err(Error::Invalid { field, reason });
    if has_nul(&task.input) {
        return invalid("input", "contains the character \\u0000, which PostgreSQL cannot store".to_owned());
    }
    if let Some(at) = task.run_at {
        check_time("run_at", at)?;
    }
    if !(-100..=100).contains(&task.priority) {
        return invalid("priority", format!("{} is not between -100 and 100", task.priority));
    }
    if task.tags.len() > MOST_TAGS {
        return invalid("tags", format!("{} tags; at most {MOST_TAGS} are allowed", task.tags.len()));
    }
    let texts = [
        ("idempotency_key", &task.idempotency_key),
        ("initiator", &task.initiator),
        ("source_system", &task.source_system),
        ("reason", &task.reason),
    ];
    let texts = texts.into_iter().filter_map(|(field, text)| text.as_ref().map(|text| (field, text)));
    for (field, text) in texts.chain(task.tags.iter().map(|tag| ("tags", tag))) {
        if text.is_empty() || text.len() > LONGEST_TEXT || text.contains('\0') {
            return invalid(field, format!("must have 1 to {LONGEST_TEXT} bytes and no \\u0000"));
        }
    }
    if template.identity_strategy == IdentityStrategy::CallerProvided && task.idempotency_key.is_none() {
        let reason = "the template's identity_strategy is caller_provided; give a key".to_owned();
        return invalid("idempotency_key", reason);
    }
    let caller: Option<TraceParent> = task.traceparent.as_deref().and_then(|text| text.parse().ok());
    let correlation_id =
        task.correlation_id.or(caller.map(|c| c.correlation_id)).unwrap_or_else(CorrelationId::generate);
    Ok(NewTask {
        id: TaskId::generate(),
        template_id,
        version: template.version.clone(),
        submission: Submission {
            namespace: template.namespace.clone(),
            name: template.name.clone(),
            version: task.version,
            input: task.input,
            idempotency_key: task.idempotency_key,
            priority: task.priority,
            tags: task.tags,
            // what is due already starts at once
            run_at: task.run_at.filter(|at| now.is_none_or(|now| *at > now)),
            correlation_id,
            parent_correlation_id: task.parent_correlation_id,
            // a caller's context of another trace would tear the task's trace apart
            traceparent: caller.filter(|c| c.correlation_id == correlation_id).map(|c| c.to_string()),
            initiator: task.initiator,
            source_system: task.source_system,
            reason: task.reason,
        },
    })
}

fn not_found(question: &(String, String, Option<String>), registered: &[templates::Row]) -> Error {
    let (namespace, name, version) = question;
    let version = version.as_ref().map(|v| format!("@{v}")).unwrap_or_default();
    let template = format!("{namespace}/{name}{version}");
    let names: Vec<String> = registered
        .iter()
        .flat_map(|row| {
            [format!("{}/{}", row.namespace, row.name), format!("{}/{}@{}", row.namespace, row.name, row.version)]
        })
        .collect();
    Error::TemplateNotFound { nearest: nearest(&template, names.iter().map(String::as_str)), template }
}

fn is_storable((namespace, name, version): &(String, String, Option<String>)) -> bool {
    !namespace.contains('\0') && !name.contains('\0') && !version.as_ref().is_some_and(|v| v.contains('\0'))
}

fn info(task: &NewTask) -> TaskInfo {
    TaskInfo {
        id: task.id,
        namespace: task.submission.namespace.clone(),
        name: task.submission.name.clone(),
        priority: task.submission.priority,
        correlation_id: task.submission.correlation_id,
        traceparent: task.submission.traceparent.clone(),
    }
}

/// Refuses a time that PostgreSQL or a program does not take.
pub(crate) fn check_time(field: &'static str, at: DateTime<Utc>) -> Result<(), Error> {
    let reason = || "must be a time between the years 1 and 9999".to_owned();
    (1..=9999).contains(&at.year()).then_some(()).ok_or_else(|| Error::Invalid { field, reason: reason() })
}

/// Whether a text or key in `value` has the character that PostgreSQL's `jsonb` refuses.
pub(crate) fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(fields) => fields.iter().any(|(key, value)| key.contains('\0') || has_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// The size of `value` as JSON text.
pub(crate) fn json_bytes(value: &Value) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // counting cannot fail
    let _ = serde_json::to_writer(&mut count, value);
    count.0
}
