//! Values on the command line that have a form of their own.

use chrono::{DateTime, Utc};
use std::{fmt, str::FromStr, time::Duration};
use tasker_shared::name::Name;

/// A template: `NAMESPACE/NAME` or `NAMESPACE/NAME@VERSION`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateRef {
    /// The namespace.
    pub namespace: Name,
    /// The name.
    pub name: Name,
    /// The version; the newest when not given.
    pub version: Option<String>,
}

impl FromStr for TemplateRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (path, version) = match text.split_once('@') {
            Some((_, "")) => return Err("the version after `@` is empty; leave `@` out for the newest".to_owned()),
            Some((path, version)) => (path, Some(version.to_owned())),
            None => (text, None),
        };
        let (namespace, name) = path
            .split_once('/')
            .ok_or_else(|| "write NAMESPACE/NAME or NAMESPACE/NAME@VERSION, such as shop/order@1.0.0".to_owned())?;
        let part = |what: &str, text: &str| Name::new(text).map_err(|reason| format!("the {what}: {reason}"));
        Ok(Self { namespace: part("namespace", namespace)?, name: part("name", name)?, version })
    }
}

impl fmt::Display for TemplateRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)?;
        self.version.iter().try_for_each(|version| write!(f, "@{version}"))
    }
}

/// A text that is not shown for debugging.
#[derive(Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl FromStr for Secret {
    type Err = std::convert::Infallible;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A time: written out, or counted from now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Moment {
    /// RFC 3339.
    At(DateTime<Utc>),
    /// So long from now.
    In(Duration),
}

impl Moment {
    /// The time, when it is `now`.
    pub fn from(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        match self {
            Self::At(at) => *at,
            Self::In(delay) => now + *delay,
        }
    }
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = "write a time like 2026-01-31T08:00:00+01:00, or a delay like `in 10m`";
        if let Some(delay) = text.trim().strip_prefix("in ") {
            let delay = humantime::parse_duration(delay.trim()).map_err(|error| format!("{error}; {wanted}"))?;
            // Beyond what a calendar holds an addition would panic.
            return if delay > LONGEST { Err(format!("more than 100 years; {wanted}")) } else { Ok(Self::In(delay)) };
        }
        let at = DateTime::parse_from_rfc3339(text).map_err(|error| format!("{error}; {wanted}"))?;
        Ok(Self::At(at.to_utc()))
    }
}

const LONGEST: Duration = Duration::from_secs(100 * 366 * 86_400);

#[cfg(test)]
mod tests {
    use super::{Moment, TemplateRef};
    use chrono::DateTime;
    use std::time::Duration;

    #[test]
    fn a_template_is_written_with_or_without_version() {
        let parsed: TemplateRef = "shop/order".parse().unwrap();
        assert_eq!((parsed.namespace.as_str(), parsed.name.as_str(), parsed.version), ("shop", "order", None));
        let parsed: TemplateRef = "shop/order@1.2.0-rc.1".parse().unwrap();
        assert_eq!(parsed.version.as_deref(), Some("1.2.0-rc.1"));
        assert_eq!(parsed.to_string(), "shop/order@1.2.0-rc.1");
    }

    #[test]
    fn a_bad_template_says_how_it_is_written() {
        let message = |text: &str| text.parse::<TemplateRef>().unwrap_err();
        assert!(message("order").starts_with("write NAMESPACE/NAME"));
        assert!(message("shop/order@").contains("leave `@` out"));
        assert!(message("/order").starts_with("the namespace: a name must not be empty"));
        assert!(message("shop/a b").starts_with("the name: `a b`"));
    }

    #[test]
    fn a_moment_is_absolute_or_counted_from_now() {
        let now = DateTime::from_timestamp(1_000, 0).unwrap();
        let moment = |text: &str| text.parse::<Moment>().unwrap().from(now).timestamp();
        assert_eq!(moment("in 10m"), 1_600);
        assert_eq!(moment("1970-01-01T01:00:00+01:00"), 0);
        assert_eq!("in 2s".parse(), Ok(Moment::In(Duration::from_secs(2))));
    }

    #[test]
    fn a_moment_that_cannot_be_says_how_it_is_written() {
        for text in ["tomorrow", "in a while", "in 1000years", "2026-13-01T00:00:00Z"] {
            assert!(text.parse::<Moment>().unwrap_err().contains("in 10m"), "{text}");
        }
    }
}
