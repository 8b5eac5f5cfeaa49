//! Registered templates.

use crate::{Client, Error};
use tasker_shared::api::{Applied, ApplyTemplate, TemplateDetail, TemplateList};

impl Client {
    /// All registered templates.
    ///
    /// # Errors
    /// As the connection fails.
    pub async fn templates(&self) -> Result<TemplateList, Error> {
        self.get(&["v1", "templates"]).send().await
    }

    /// One template; the newest registered version when none is given.
    ///
    /// # Errors
    /// [`Error::Refused`] with status 404 when it is not registered; else as the connection fails.
    pub async fn template(&self, namespace: &str, name: &str, version: Option<&str>) -> Result<TemplateDetail, Error> {
        let version: Vec<_> = version.map(|version| ("version", version)).into_iter().collect();
        self.get(&["v1", "templates", namespace, name]).query(&version).send().await
    }

    /// Registers a template; the same definition again changes nothing.
    ///
    /// # Errors
    /// [`Error::Refused`] when the text is invalid, or the version exists with another definition and is in use.
    pub async fn apply(&self, template: &ApplyTemplate) -> Result<Applied, Error> {
        self.post(&["v1", "templates"], template).send().await
    }
}
