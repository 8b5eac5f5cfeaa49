//! The one who asks: known by name, with what is granted and where that holds.

use super::{Grant, Permission};
use chrono::{DateTime, Utc};
use std::{collections::BTreeSet, fmt, sync::Arc};

/// The namespaces that grants hold for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Namespaces {
    /// Every namespace.
    All,
    /// These alone.
    Only(BTreeSet<String>),
}

impl Namespaces {
    /// From a list; `*` in it is every namespace, and an empty one is none.
    pub fn from_list(names: impl IntoIterator<Item = String>) -> Self {
        let names: BTreeSet<String> = names.into_iter().collect();
        if names.contains("*") { Self::All } else { Self::Only(names) }
    }

    /// Whether `namespace` is one of them.
    pub fn contain(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.contains(namespace),
        }
    }

    /// Whether all of `other` are among them.
    pub fn cover(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, _) => true,
            (Self::Only(_), Self::All) => false,
            (Self::Only(names), Self::Only(other)) => other.is_subset(names),
        }
    }

    /// As a list, for statements and answers; `None` is every namespace.
    pub fn limit(&self) -> Option<Vec<String>> {
        match self {
            Self::All => None,
            Self::Only(names) => Some(names.iter().cloned().collect()),
        }
    }
}

/// How a caller proved who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Not at all: authentication is off, or the route is open.
    Anonymous,
    /// By an API key.
    Key,
    /// By a token of the configured issuer.
    Token,
}

/// The one who asks; cheap to clone. Every request carries one as an extension, before any handler sees it.
#[derive(Debug, Clone)]
pub struct Principal(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    kind: Kind,
    name: String,
    grants: Vec<Grant>,
    namespaces: Namespaces,
    ends: Option<DateTime<Utc>>,
}

impl Principal {
    /// Anyone, where authentication is off: everything is allowed.
    pub fn anyone() -> Self {
        Self::new(Kind::Anonymous, "anonymous".to_owned(), vec![Grant::Everything], Namespaces::All)
    }

    /// Somebody who did not say who it is, at a route that is open to all: nothing else is allowed.
    pub fn nobody() -> Self {
        Self::new(Kind::Anonymous, "anonymous".to_owned(), Vec::new(), Namespaces::Only(BTreeSet::new()))
    }

    /// The holder of the key of this name.
    pub fn of_key(name: &str, grants: Vec<Grant>, namespaces: Namespaces) -> Self {
        Self::new(Kind::Key, format!("key:{name}"), grants, namespaces)
    }

    /// The subject of a token.
    pub fn of_token(subject: &str, grants: Vec<Grant>, namespaces: Namespaces) -> Self {
        Self::new(Kind::Token, format!("jwt:{subject}"), grants, namespaces)
    }

    fn new(kind: Kind, name: String, grants: Vec<Grant>, namespaces: Namespaces) -> Self {
        Self(Arc::new(Inner { kind, name, grants, namespaces, ends: None }))
    }

    /// The same, by a key or token that ends at this time.
    #[must_use]
    pub fn until(self, ends: Option<DateTime<Utc>>) -> Self {
        let Inner { kind, name, grants, namespaces, .. } = &*self.0;
        let (name, grants, namespaces) = (name.clone(), grants.clone(), namespaces.clone());
        Self(Arc::new(Inner { kind: *kind, name, grants, namespaces, ends }))
    }

    /// When its key or token ends by itself.
    pub fn ends(&self) -> Option<DateTime<Utc>> {
        self.0.ends
    }

    /// How it proved who it is.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Whether it proved who it is.
    pub fn is_authenticated(&self) -> bool {
        self.0.kind != Kind::Anonymous
    }

    /// The one name in histories, in the audit, and for limits: `key:NAME`, `jwt:SUBJECT` or `anonymous`.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Whether it may do this, in its namespaces.
    pub fn may(&self, permission: Permission) -> bool {
        self.0.grants.iter().any(|grant| grant.allows(permission))
    }

    /// Whether it may hand on this grant.
    pub fn covers(&self, grant: Grant) -> bool {
        self.0.grants.iter().any(|own| own.covers(grant))
    }

    /// The namespaces that its grants hold for.
    pub fn namespaces(&self) -> &Namespaces {
        &self.0.namespaces
    }

    /// Who is written into a history: the caller itself where it is known, else whom it names.
    pub fn or_named(&self, named: Option<String>) -> Option<String> {
        if self.is_authenticated() { Some(self.name().to_owned()) } else { named }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::{Namespaces, Principal};
    use crate::access::{Grant, Permission};

    fn only(names: &[&str]) -> Namespaces {
        Namespaces::from_list(names.iter().map(|&name| name.to_owned()))
    }

    #[test]
    fn a_star_is_every_namespace_and_an_empty_list_is_none() {
        assert_eq!(only(&["shop", "*"]), Namespaces::All);
        assert!(only(&["*"]).contain("shop"));
        assert!(!only(&[]).contain("shop"));
        assert!(only(&["shop"]).contain("shop") && !only(&["shop"]).contain("shop2"));
    }

    #[test]
    fn namespaces_are_handed_on_only_by_those_who_have_them() {
        assert!(Namespaces::All.cover(&Namespaces::All) && Namespaces::All.cover(&only(&["a"])));
        assert!(only(&["a", "b"]).cover(&only(&["b"])) && only(&["a"]).cover(&only(&[])));
        assert!(!only(&["a"]).cover(&only(&["a", "b"])) && !only(&["a"]).cover(&Namespaces::All));
    }

    #[test]
    fn nobody_may_do_nothing_and_anyone_everything() {
        for permission in Permission::ALL.iter().copied() {
            assert!(!Principal::nobody().may(permission) && Principal::anyone().may(permission));
        }
        assert!(!Principal::nobody().namespaces().contain("shop"));
    }

    #[test]
    fn a_known_caller_is_written_down_whomever_it_names() {
        let key = Principal::of_key("ci", vec![Grant::Everything], Namespaces::All);
        assert_eq!(key.or_named(Some("ada".into())).as_deref(), Some("key:ci"));
        assert_eq!(Principal::anyone().or_named(Some("ada".into())).as_deref(), Some("ada"));
        assert_eq!(Principal::anyone().or_named(None), None);
    }
}
