//! What there is to be permitted, and how it is granted.

use std::{fmt, str::FromStr};
use strsim::damerau_levenshtein;

crate::text_enum! {
    /// One thing that a caller may be allowed to do.
    Permission {
        /// Look at tasks, their steps and their history.
        TasksRead = "tasks:read",
        /// Submit tasks.
        TasksWrite = "tasks:write",
        /// Cancel, pause, resume, retry and resolve tasks and steps.
        TasksOperate = "tasks:operate",
        /// Look at templates, and check one.
        TemplatesRead = "templates:read",
        /// Register templates.
        TemplatesWrite = "templates:write",
        /// Look at workers.
        WorkersRead = "workers:read",
        /// Look at dead letters.
        DlqRead = "dlq:read",
        /// Redrive, resolve and discard dead letters.
        DlqOperate = "dlq:operate",
        /// Look at limits of how many steps run at once.
        LimitsRead = "limits:read",
        /// Set and remove such limits.
        LimitsWrite = "limits:write",
        /// Create, list and revoke API keys.
        KeysAdmin = "keys:admin",
        /// Read what operators did.
        AuditRead = "audit:read",
        /// Scrape metrics.
        MetricsRead = "metrics:read",
    }
}

impl Permission {
    /// The part before the colon.
    pub fn resource(self) -> &'static str {
        self.as_str().split(':').next().unwrap_or_default()
    }
}

/// What is granted: one permission, all of a resource (`tasks:*`), or everything (`*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Grant {
    /// Everything, also what later versions add.
    Everything,
    /// Every permission of a resource, also those that later versions add.
    Resource(&'static str),
    /// One permission.
    One(Permission),
}

impl Grant {
    /// Whether it has `permission` in it.
    pub fn allows(self, permission: Permission) -> bool {
        self.covers(Self::One(permission))
    }

    /// Whether whoever has this may hand on `other`.
    pub fn covers(self, other: Self) -> bool {
        match (self, other) {
            (Self::Everything, _) => true,
            (Self::Resource(resource), Self::Resource(other)) => resource == other,
            (Self::Resource(resource), Self::One(permission)) => resource == permission.resource(),
            (Self::One(permission), Self::One(other)) => permission == other,
            (Self::Resource(_) | Self::One(_), _) => false,
        }
    }

    /// Every grant that can be written.
    pub fn all() -> impl Iterator<Item = Self> {
        let mut resources: Vec<_> = Permission::ALL.iter().map(|permission| permission.resource()).collect();
        resources.dedup();
        let one = Permission::ALL.iter().copied().map(Self::One);
        std::iter::once(Self::Everything).chain(resources.into_iter().map(Self::Resource)).chain(one)
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everything => f.write_str("*"),
            Self::Resource(resource) => write!(f, "{resource}:*"),
            Self::One(permission) => f.write_str(permission.as_str()),
        }
    }
}

/// A text that grants nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{word}` is not a permission{}; the permissions are {}, all of a resource such as `tasks:*`, and `*`", hint(.nearest), words())]
pub struct Unknown {
    /// What was given.
    pub word: String,
    /// What was probably meant.
    pub nearest: Option<String>,
}

fn hint(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|nearest| format!("; did you mean `{nearest}`?")).unwrap_or_default()
}

fn words() -> String {
    Permission::ALL.iter().map(|permission| permission.as_str()).collect::<Vec<_>>().join(", ")
}

impl FromStr for Grant {
    type Err = Unknown;
    fn from_str(text: &str) -> Result<Self, Unknown> {
        Self::all().find(|grant| grant.to_string() == text).ok_or_else(|| {
            let all = Self::all().map(|grant| grant.to_string());
            let nearest = all.min_by_key(|known| damerau_levenshtein(known, text));
            Unknown { word: text.to_owned(), nearest: nearest.filter(|known| damerau_levenshtein(known, text) <= 3) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Grant, Permission};

    fn grant(text: &str) -> Grant {
        text.parse().unwrap()
    }

    #[test]
    fn a_grant_is_read_as_it_is_written() {
        for known in Grant::all() {
            assert_eq!(grant(&known.to_string()), known);
        }
        assert_eq!(Grant::all().filter(|grant| matches!(grant, Grant::Resource("tasks"))).count(), 1);
    }

    #[test]
    fn a_grant_allows_what_it_names_and_nothing_else() {
        for permission in Permission::ALL.iter().copied() {
            assert!(grant("*").allows(permission));
            assert_eq!(grant("tasks:*").allows(permission), permission.as_str().starts_with("tasks:"), "{permission}");
            assert_eq!(grant("tasks:read").allows(permission), permission == Permission::TasksRead, "{permission}");
        }
    }

    #[test]
    fn nobody_hands_on_more_than_he_has() {
        for (has, wants, may) in [
            ("*", "*", true),
            ("*", "tasks:*", true),
            ("tasks:*", "tasks:read", true),
            ("tasks:*", "tasks:*", true),
            ("tasks:*", "*", false),
            ("tasks:*", "templates:read", false),
            ("tasks:read", "tasks:*", false),
            ("tasks:read", "tasks:write", false),
        ] {
            assert_eq!(grant(has).covers(grant(wants)), may, "{has} {wants}");
        }
    }

    #[test]
    fn an_unknown_word_is_refused_with_what_was_probably_meant() {
        let refused = "task:read".parse::<Grant>().unwrap_err().to_string();
        assert!(refused.starts_with("`task:read` is not a permission; did you mean `tasks:read`?"), "{refused}");
        for word in ["", "tasks", "tasks:", ":read", "**", "tasks:read ", "TASKS:READ"] {
            assert!(word.parse::<Grant>().is_err(), "{word}");
        }
    }
}
