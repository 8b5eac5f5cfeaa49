//! A template ready for use at run time: graph by index, schemas compiled.

use super::{
    StepTemplate, Template,
    dag::{self, Dag},
    schema::{self, Fault, Schema, SchemaViolation},
};
use crate::name::Name;
use serde_json::Value;
use std::collections::HashMap;

/// A template that was resolved for its environment, with what running it needs. Meant to be shared in an `Arc`.
#[derive(Debug)]
pub struct Compiled {
    template: Template,
    dag: Dag,
    index: HashMap<Name, usize>,
    input: Option<Schema>,
    results: Vec<Option<Schema>>,
}

/// Why a template cannot be used. One that [`super::parse`] gave always can.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The steps are no graph.
    #[error("template {template} cannot be used: {source}")]
    Dag {
        /// Its name.
        template: Name,
        /// What is wrong.
        source: dag::Error,
    },
    /// A schema does not compile.
    #[error("template {template} cannot be used: {key} is not a JSON Schema: {reason}")]
    Schema {
        /// The template's name.
        template: Name,
        /// `input_schema`, or which step's `result_schema`.
        key: String,
        /// What is wrong.
        reason: String,
    },
}

impl Compiled {
    /// Compiles `template`, which was resolved by [`Template::for_environment`].
    ///
    /// # Errors
    /// [`Error`] if the template did not come from [`super::parse`] and breaks its rules.
    pub fn new(template: Template) -> Result<Self, Error> {
        let dag = Dag::new(&template.steps).map_err(|source| Error::Dag { template: template.name.clone(), source })?;
        let validator = |schema: &Option<Value>, key: &dyn Fn() -> String| match schema {
            None => Ok(None),
            Some(schema) => schema::compile(schema).map(Some).map_err(|faults| Error::Schema {
                template: template.name.clone(),
                key: key(),
                reason: faults.iter().map(Fault::to_string).collect::<Vec<_>>().join("; "),
            }),
        };
        let input = validator(&template.input_schema, &|| "input_schema".to_owned())?;
        let result =
            |step: &StepTemplate| validator(&step.result_schema, &|| format!("result_schema of `{}`", step.name));
        let results = template.steps.iter().map(result).collect::<Result<_, _>>()?;
        let index = template.steps.iter().enumerate().map(|(index, step)| (step.name.clone(), index)).collect();
        Ok(Self { template, dag, index, input, results })
    }

    /// The template.
    pub fn template(&self) -> &Template {
        &self.template
    }

    /// The graph; its indices are those of `template().steps`.
    pub fn dag(&self) -> &Dag {
        &self.dag
    }

    /// The steps, in the order of the file.
    pub fn steps(&self) -> &[StepTemplate] {
        &self.template.steps
    }

    /// The index of the step with this name.
    pub fn index(&self, step: &str) -> Option<usize> {
        self.index.get(step).copied()
    }

    /// The step with this name.
    pub fn step(&self, step: &str) -> Option<&StepTemplate> {
        self.index(step).and_then(|index| self.template.steps.get(index))
    }

    /// Checks a task's input against `input_schema`; without one, every input is good.
    ///
    /// # Errors
    /// [`SchemaViolation`] lists what is wrong.
    pub fn validate_input(&self, input: &Value) -> Result<(), SchemaViolation> {
        self.input.as_ref().map_or(Ok(()), |schema| schema.check(input))
    }

    /// Checks the result of step number `step` against its `result_schema`; without one, every result is good.
    ///
    /// # Errors
    /// [`SchemaViolation`] lists what is wrong.
    pub fn validate_result(&self, step: usize, result: &Value) -> Result<(), SchemaViolation> {
        let schema = self.results.get(step).and_then(Option::as_ref);
        schema.map_or(Ok(()), |schema| schema.check(result))
    }
}
