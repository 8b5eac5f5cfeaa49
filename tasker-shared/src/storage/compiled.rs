//! Templates ready for use, kept in memory: a stored definition never changes, so each is read once.

use super::{Error, Session, templates};
use crate::{id::TemplateId, template::Compiled};
use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

/// A definition as it applies in one environment.
type Key = (TemplateId, String);

/// The templates that this process has used.
#[derive(Debug, Default)]
pub struct CompiledTemplates(RwLock<HashMap<Key, Arc<Compiled>>>);

impl CompiledTemplates {
    /// These definitions as they apply in these environments; one that does not exist is missing from the answer.
    ///
    /// # Errors
    /// [`Error::Statement`], and [`Error::Inconsistent`] for a definition that does not compile.
    pub async fn get(&self, session: &mut Session, wanted: Vec<Key>) -> Result<HashMap<Key, Arc<Compiled>>, Error> {
        let mut found = HashMap::new();
        let mut missing = Vec::new();
        {
            let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
            for key in wanted {
                match known.get(&key) {
                    Some(template) => drop(found.insert(key, Arc::clone(template))),
                    None => missing.push(key),
                }
            }
        }
        if missing.is_empty() {
            return Ok(found);
        }
        missing.sort_unstable();
        missing.dedup();
        let ids: Vec<TemplateId> = missing.iter().map(|(id, _)| *id).collect();
        let rows = templates::load(session, &ids).await?;
        for (id, environment) in missing {
            let Some(row) = rows.iter().find(|row| row.id == id) else { continue };
            let compiled = Compiled::new(row.definition.0.for_environment(&environment));
            let template = Arc::new(compiled.map_err(|e| Error::Inconsistent {
                table: "templates",
                column: "definition",
                row: id.to_string(),
                reason: e.to_string(),
            })?);
            found.insert((id, environment.clone()), Arc::clone(&template));
            self.0.write().unwrap_or_else(PoisonError::into_inner).insert((id, environment), template);
        }
        Ok(found)
    }
}
