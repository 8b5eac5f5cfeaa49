//! Asks Prometheus.

use anyhow::{Result, bail};
use serde_json::Value;
use std::time::Duration;

/// A Prometheus that answers queries.
#[derive(Debug)]
pub(super) struct Prometheus {
    http: reqwest::Client,
    query: reqwest::Url,
}

impl Prometheus {
    pub(super) fn new(url: &str) -> Result<Self> {
        let query = reqwest::Url::parse(&format!("{}/api/v1/query", url.trim_end_matches('/')))?;
        Ok(Self { http: reqwest::Client::new(), query })
    }

    /// The one number that a query returns now, if it returns something.
    pub(super) async fn number(&self, query: &str) -> Result<Option<f64>> {
        self.ask(query, None).await
    }

    /// The same at a time since 1970.
    pub(super) async fn number_at(&self, query: &str, at: Duration) -> Result<Option<f64>> {
        self.ask(query, Some(at)).await
    }

    async fn ask(&self, query: &str, at: Option<Duration>) -> Result<Option<f64>> {
        let mut url = self.query.clone();
        url.query_pairs_mut().append_pair("query", query);
        if let Some(at) = at {
            url.query_pairs_mut().append_pair("time", &format!("{:.3}", at.as_secs_f64()));
        }
        let answer: Value = self.http.get(url).send().await?.json().await?;
        if answer["status"] != "success" {
            bail!("{query}: {answer}");
        }
        let values: Vec<f64> = answer["data"]["result"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|series| series["value"][1].as_str()?.parse().ok())
            .collect();
        match values[..] {
            [] => Ok(None),
            [value] => Ok(Some(value)),
            _ => bail!("{query} returns {} series", values.len()),
        }
    }
}
