//! Names of namespaces, templates and steps: checked once, cheap to clone.

use serde::{Deserialize, Serialize};
use std::{borrow::Borrow, fmt, ops::Deref, str::FromStr, sync::Arc};

/// The longest name, in bytes.
pub const MAX_LENGTH: usize = 255;

/// A name of 1 to [`MAX_LENGTH`] ASCII letters, digits, `_`, `-`, `.` and `:`, which begins with a letter, digit or `_`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(Arc<str>);

/// Why a text is not a [`Name`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Nothing was given.
    #[error("a name must not be empty")]
    Empty,
    /// More than [`MAX_LENGTH`] bytes.
    #[error("a name has at most {MAX_LENGTH} characters, this one has {0}")]
    TooLong(usize),
    /// A character that names do not have.
    #[error(
        "`{name}` has the character {character:?} at position {position}; names are made of letters, digits, `_`, `-`, `.` and `:`, and begin with a letter, a digit or `_`"
    )]
    Character {
        /// The whole text.
        name: String,
        /// What was found.
        character: char,
        /// Where, counted in bytes from 0.
        position: usize,
    },
}

impl Name {
    /// Checks `text`.
    ///
    /// # Errors
    /// [`Invalid`] says which rule is broken, and where.
    pub fn new(text: &str) -> Result<Self, Invalid> {
        if text.is_empty() {
            return Err(Invalid::Empty);
        }
        if text.len() > MAX_LENGTH {
            return Err(Invalid::TooLong(text.len()));
        }
        let allowed = |(position, c): &(usize, char)| {
            c.is_ascii_alphanumeric() || *c == '_' || (*position > 0 && matches!(c, '-' | '.' | ':'))
        };
        match text.char_indices().find(|at| !allowed(at)) {
            Some((position, character)) => Err(Invalid::Character { name: text.to_owned(), character, position }),
            None => Ok(Self(text.into())),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text, shared.
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Deref for Name {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::new(text)
    }
}

impl TryFrom<String> for Name {
    type Error = Invalid;
    fn try_from(text: String) -> Result<Self, Invalid> {
        Self::new(&text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0.as_ref().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::{Invalid, MAX_LENGTH, Name};

    #[test]
    fn names_of_real_workflows_are_accepted() {
        for text in
            ["a", "mathematical_sequence", "NFCORE_SAREK.SAREK.GATK4_APPLYBQSR_24", "bowtie2-build_ID0000001", "1st"]
        {
            assert_eq!(Name::new(text).as_deref(), Ok(text));
        }
    }

    #[test]
    fn a_bad_character_is_named_with_its_position() {
        let refused =
            |character, position, name: &str| Err(Invalid::Character { name: name.to_owned(), character, position });
        assert_eq!(Name::new("a b"), refused(' ', 1, "a b"));
        assert_eq!(Name::new("-a"), refused('-', 0, "-a"));
        assert_eq!(Name::new("größe"), refused('ö', 2, "größe"));
    }

    #[test]
    fn empty_and_endless_names_are_refused() {
        assert_eq!(Name::new(""), Err(Invalid::Empty));
        assert_eq!(Name::new(&"x".repeat(MAX_LENGTH + 1)), Err(Invalid::TooLong(MAX_LENGTH + 1)));
    }
}
