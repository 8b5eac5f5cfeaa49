//! What every station of this service works with.

/// Database, templates, bell, settings and metrics; cheap to clone.
#[derive(Debug, Clone)]
pub struct Orchestration {}
