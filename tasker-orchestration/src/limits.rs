//! How many steps run at once: operators' limits, and the sweep that keeps permits true.

use crate::{Error, Orchestration, operate};
use std::time::Duration;
use tasker_shared::{
    api::{Action, LimitList, LimitSummary, SetLimit, WhichLimit},
    id::StepId,
    name::Name,
    queue::QueueName,
    runtime::Topic,
    storage::{self, Session, concurrency, operations, templates},
    template::nearest,
};

/// The largest limit.
const LARGEST: u32 = 100_000;

/// The longest name of a handler, in bytes.
const LONGEST_HANDLER: usize = 1024;

/// The time between two looks at the permits. What frees one wakes who waits for it; this finds what was missed because
/// a process died in between.
const EVERY: Duration = Duration::from_secs(1);

/// Frees permits whose step does not run any more, and wakes who waits for free ones.
pub(crate) async fn turn(orchestration: &Orchestration) -> Result<Duration, storage::Error> {
    let mut session = orchestration.database().session("permits").await?;
    concurrency::free_unused(&mut session, None).await?;
    for namespace in templates::namespaces(&mut session).await? {
        wake(orchestration, &mut session, &namespace).await?;
    }
    Ok(EVERY)
}

async fn wake(orchestration: &Orchestration, session: &mut Session, namespace: &Name) -> Result<(), storage::Error> {
    let scopes = concurrency::waited_for(session, namespace).await?;
    let queue = QueueName::of_namespace(namespace);
    if !scopes.is_empty() && concurrency::wake(session, &queue, &scopes).await? > 0 {
        orchestration.bell().ring(Topic::Steps(namespace.clone()));
    }
    Ok(())
}

/// Takes the messages of steps that were stopped off their queue, also of those that waited for a permit. What runs keeps its
/// message, by which its worker hears of it.
pub(crate) async fn clear(session: &mut Session, namespace: &Name, steps: &[StepId]) -> Result<(), storage::Error> {
    if !steps.is_empty() {
        let queue = QueueName::of_namespace(namespace);
        concurrency::give_up(session, &queue, steps).await?;
        operations::delete_messages(session, &queue, steps).await?;
    }
    Ok(())
}

/// Every limit of operators and templates, and how much of it is used.
///
/// # Errors
/// [`Error::Storage`].
pub async fn list(orchestration: &Orchestration) -> Result<LimitList, Error> {
    let mut session = orchestration.database().session("list_limits").await?;
    Ok(LimitList { limits: concurrency::list(&mut session).await? })
}

/// Sets how many steps of a namespace, or of one of its handlers, run at once.
///
/// # Errors
/// [`Error::NamespaceNotFound`], [`Error::Invalid`], [`Error::Storage`].
pub async fn set(orchestration: &Orchestration, namespace: &str, limit: &SetLimit) -> Result<LimitSummary, Error> {
    if limit.max > LARGEST {
        let reason = format!("{} is more than {LARGEST}", limit.max);
        return Err(Error::Invalid { field: "max", reason });
    }
    let scope = scope(limit.handler.as_deref())?;
    let action = Action { reason: limit.reason.clone(), by: limit.by.clone() };
    let mut session = operate::begin(orchestration, &action).await?;
    let namespace = known(&mut session, namespace).await?;
    let max = i32::try_from(limit.max).unwrap_or(i32::MAX);
    let actor = operate::actor(&action);
    concurrency::set(&mut session, &namespace, &scope, max, &actor, action.reason.as_deref()).await?;
    let all = concurrency::list(&mut session).await?;
    session.commit().await?;
    tracing::info!(%namespace, scope, max, by = actor, "a limit was set");
    wake(orchestration, &mut orchestration.database().session("permits").await?, &namespace).await?;
    let own = all.into_iter().find(|l| l.namespace == *namespace && l.scope == scope);
    own.ok_or_else(|| Error::LimitNotFound(format!("{namespace} {scope}")))
}

/// Removes an operator's limit.
///
/// # Errors
/// [`Error::NamespaceNotFound`], [`Error::LimitNotFound`], [`Error::Storage`].
pub async fn remove(
    orchestration: &Orchestration,
    namespace: &str,
    which: &WhichLimit,
    action: &Action,
) -> Result<LimitList, Error> {
    let scope = scope(which.handler.as_deref())?;
    let mut session = operate::begin(orchestration, action).await?;
    let namespace = known(&mut session, namespace).await?;
    if !concurrency::remove(&mut session, &namespace, &scope).await? {
        return Err(Error::LimitNotFound(format!("{namespace} {scope}")));
    }
    session.commit().await?;
    tracing::info!(%namespace, scope, by = operate::actor(action), "a limit was removed");
    wake(orchestration, &mut orchestration.database().session("permits").await?, &namespace).await?;
    list(orchestration).await
}

fn scope(handler: Option<&str>) -> Result<String, Error> {
    match handler {
        None => Ok("namespace".to_owned()),
        Some(handler) if handler.is_empty() || handler.len() > LONGEST_HANDLER || handler.contains('\0') => {
            let reason = format!("expected the name of a handler, of 1 to {LONGEST_HANDLER} bytes");
            Err(Error::Invalid { field: "handler", reason })
        }
        Some(handler) => Ok(format!("handler:{handler}")),
    }
}

async fn known(session: &mut Session, namespace: &str) -> Result<Name, Error> {
    let mut all = templates::namespaces(session).await?;
    match all.iter().position(|known| **known == *namespace) {
        Some(place) => Ok(all.swap_remove(place)),
        None => Err(Error::NamespaceNotFound {
            namespace: namespace.to_owned(),
            nearest: nearest(namespace, all.iter().map(|name| name.as_str())),
        }),
    }
}
