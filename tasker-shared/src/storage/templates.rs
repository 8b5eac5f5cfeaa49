//! Table `templates`, and the namespaces that they open.

use super::{Error, Session};
use crate::{
    api::{TemplateDetail, TemplateSummary},
    id::TemplateId,
    name::Name,
    queue::{self, QueueName},
    task::IdentityStrategy,
    template::Template,
};
use chrono::{DateTime, Utc};
use sqlx::types::Json;

/// A registered template, whole.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Row {
    /// This definition.
    pub id: TemplateId,
    /// Its namespace.
    pub namespace: Name,
    /// Its name.
    pub name: Name,
    /// Its version.
    pub version: String,
    /// The normalized definition.
    pub definition: Json<Template>,
    /// The text as it was registered.
    pub source: String,
    /// SHA-256 of the normalized definition.
    pub checksum: String,
    /// When two submissions are the same task.
    pub identity_strategy: IdentityStrategy,
    /// When it was registered.
    pub created_at: DateTime<Utc>,
}

const COLUMNS: &str = "id, namespace, name, version, definition, source, checksum, identity_strategy, created_at";

impl Row {
    /// What lists show.
    pub fn summary(&self) -> TemplateSummary {
        TemplateSummary {
            template_id: self.id,
            namespace: self.namespace.to_string(),
            name: self.name.to_string(),
            version: self.version.clone(),
            description: self.definition.description.clone(),
            steps: self.definition.steps.len(),
            identity_strategy: self.identity_strategy,
            checksum: self.checksum.clone(),
            created_at: self.created_at,
        }
    }

    /// Everything.
    pub fn detail(self) -> Result<TemplateDetail, Error> {
        let definition = serde_json::to_value(&self.definition.0).map_err(|e| Error::Inconsistent {
            table: "templates",
            column: "definition",
            row: self.id.to_string(),
            reason: e.to_string(),
        })?;
        Ok(TemplateDetail { summary: self.summary(), definition, source: self.source })
    }
}

/// Opens a namespace: its row and its queue. An open one stays.
///
/// # Errors
/// [`Error::Statement`].
pub async fn open_namespace(session: &mut Session, namespace: &str) -> Result<QueueName, Error> {
    let name = QueueName::of_namespace(namespace);
    let query = sqlx::query(
        "-- open_namespace
         -- whichever of the two unique columns meets the other service's row first
         insert into tasker.namespaces (name, queue) values ($1, $2) on conflict do nothing",
    );
    if session.execute("open_namespace", query.bind(namespace).bind(name.as_str())).await? > 0 {
        queue::create(session.connection(), name.as_str()).await?;
    }
    Ok(name)
}

/// The namespaces that are open.
///
/// # Errors
/// [`Error::Statement`].
pub async fn namespaces(session: &mut Session) -> Result<Vec<Name>, Error> {
    let query = sqlx::query_as("-- list_namespaces\nselect name from tasker.namespaces order by name");
    let rows: Vec<(Name,)> = session.fetch("list_namespaces", query).await?;
    Ok(rows.into_iter().map(|(name,)| name).collect())
}

/// Lets registrations of one template take turns while the transaction lasts.
///
/// # Errors
/// [`Error::Statement`].
pub async fn lock(session: &mut Session, namespace: &str, name: &str) -> Result<(), Error> {
    let query = sqlx::query("-- lock_template\nselect pg_advisory_xact_lock(hashtextextended($1 || '/' || $2, 0))");
    session.execute("lock_template", query.bind(namespace).bind(name)).await.map(drop)
}

/// Registers a definition that is not there.
///
/// # Errors
/// [`Error::Statement`].
pub async fn insert(
    session: &mut Session,
    id: TemplateId,
    template: &Template,
    source: &str,
    checksum: &str,
) -> Result<(), Error> {
    let query = sqlx::query(
        "-- insert_template
         insert into tasker.templates (id, namespace, name, version, definition, source, checksum, identity_strategy)
         values ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(id)
    .bind(&template.namespace)
    .bind(&template.name)
    .bind(&template.version)
    .bind(Json(template))
    .bind(source)
    .bind(checksum)
    .bind(template.identity_strategy);
    session.execute("insert_template", query).await.map(drop)
}

/// Removes a definition that no task uses; answers whether it is gone.
///
/// # Errors
/// [`Error::Statement`].
pub async fn delete_unused(session: &mut Session, id: TemplateId) -> Result<bool, Error> {
    let query = sqlx::query(
        "-- delete_unused_template
         delete from tasker.templates t
          where t.id = $1 and not exists (select from tasker.tasks where template_id = t.id)",
    );
    session.execute("delete_unused_template", query.bind(id)).await.map(|rows| rows > 0)
}

/// One version, or the newest; the row stays while the transaction lasts.
///
/// # Errors
/// [`Error::Statement`].
pub async fn find(
    session: &mut Session,
    namespace: &str,
    name: &str,
    version: Option<&str>,
) -> Result<Option<Row>, Error> {
    let sql = format!(
        "-- find_template
         select {COLUMNS} from tasker.templates
          where namespace = $1 and name = $2 and ($3::text is null or version = $3)
          order by created_at desc, id desc limit 1 for share"
    );
    session.fetch_optional("find_template", sqlx::query_as(&sql).bind(namespace).bind(name).bind(version)).await
}

/// These definitions.
///
/// # Errors
/// [`Error::Statement`].
pub async fn load(session: &mut Session, ids: &[TemplateId]) -> Result<Vec<Row>, Error> {
    let sql = format!("-- load_templates\nselect {COLUMNS} from tasker.templates where id = any ($1)");
    session.fetch("load_templates", sqlx::query_as(&sql).bind(ids)).await
}

/// Every registered template.
///
/// # Errors
/// [`Error::Statement`].
pub async fn list(session: &mut Session) -> Result<Vec<Row>, Error> {
    let sql =
        format!("-- list_templates\nselect {COLUMNS} from tasker.templates order by namespace, name, created_at, id");
    session.fetch("list_templates", sqlx::query_as(&sql)).await
}

/// Which definition each (namespace, name, version) names; a missing version is the newest one.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Resolved {
    /// The place in the question, from 1.
    pub question: i64,
    /// The definition.
    pub id: TemplateId,
}

/// Finds many definitions at once. One that no task uses may be replaced at any moment; storing a task that uses it is then
/// refused by its reference.
///
/// # Errors
/// [`Error::Statement`].
pub async fn resolve(
    session: &mut Session,
    questions: &[(String, String, Option<String>)],
) -> Result<Vec<Resolved>, Error> {
    let query = sqlx::query_as(
        "-- resolve_templates
         select q.question, t.id
           from unnest($1::text[], $2::text[], $3::text[]) with ordinality q (namespace, name, version, question)
          cross join lateral (
                select id from tasker.templates t
                 where t.namespace = q.namespace and t.name = q.name and (q.version is null or t.version = q.version)
                 order by t.created_at desc, t.id desc limit 1) t",
    )
    .bind(questions.iter().map(|q| q.0.as_str()).collect::<Vec<_>>())
    .bind(questions.iter().map(|q| q.1.as_str()).collect::<Vec<_>>())
    .bind(questions.iter().map(|q| q.2.as_deref()).collect::<Vec<_>>());
    session.fetch("resolve_templates", query).await
}
