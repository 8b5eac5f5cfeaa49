//! What is wrong with a template file: every problem with its place, its reason and the nearest right word.

use std::fmt;

/// The most problems that are listed; the rest is counted.
pub(super) const MAX_LISTED: usize = 100;

/// Why a file is not a template. Displayed as one line per problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// The problems in the order of the file, at least one and at most 100.
    pub problems: Vec<Problem>,
    /// How many more there are.
    pub omitted: usize,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, as the caller named it.
    pub file: Option<String>,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// The place in the document, such as `steps[2].retry.backoff`; empty for the whole document.
    pub path: String,
    /// What is wrong and what would be right.
    pub reason: String,
    /// The known word that is nearest to an unknown one.
    pub suggestion: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{file}:")?;
        }
        write!(f, "{}:{}: ", self.line, self.column)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.reason)?;
        match &self.suggestion {
            Some(word) => write!(f, "; did you mean `{word}`?"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let line_end = if index == 0 { "" } else { "\n" };
            write!(f, "{line_end}{problem}")?;
        }
        if self.omitted > 0 {
            write!(f, "\nand {} more", self.omitted)?;
        }
        Ok(())
    }
}

impl std::error::Error for Invalid {}

/// Where something stands in the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// The way from the document's root to a node, kept as links so that only a problem pays for its text.
#[derive(Debug, Clone, Copy)]
pub(super) enum Path<'a> {
    Root,
    Key(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Index(parent, index) => write!(f, "{parent}[{index}]"),
            Path::Key(parent, key) => {
                let plain = key.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '$'));
                match (plain, parent) {
                    (true, Path::Root) => write!(f, "{}", shown(key)),
                    (true, _) => write!(f, "{parent}.{}", shown(key)),
                    (false, _) => write!(f, "{parent}[{:?}]", shown(key)),
                }
            }
        }
    }
}

/// The problems found so far.
#[derive(Debug)]
pub(super) struct Problems {
    file: Option<String>,
    found: Vec<Problem>,
    omitted: usize,
}

impl Problems {
    pub(super) fn new(file: Option<&str>) -> Self {
        Self { file: file.map(str::to_owned), found: Vec::new(), omitted: 0 }
    }

    /// Adds a problem.
    pub(super) fn add(&mut self, place: Place, path: &Path<'_>, reason: impl Into<String>) {
        self.add_with(place, path, reason, || None);
    }

    /// Adds a problem, with the nearest right word if there is one. The search for it is left out once the list is full.
    pub(super) fn add_with(
        &mut self,
        place: Place,
        path: &Path<'_>,
        reason: impl Into<String>,
        suggestion: impl FnOnce() -> Option<String>,
    ) {
        if self.found.len() >= MAX_LISTED {
            self.omitted += 1;
            return;
        }
        self.found.push(Problem {
            file: self.file.clone(),
            line: place.line,
            column: place.column,
            path: path.to_string(),
            reason: reason.into(),
            suggestion: suggestion(),
        });
    }

    pub(super) fn count(&self) -> usize {
        self.found.len() + self.omitted
    }

    /// `value` when all is well, else everything found in the order of the file.
    pub(super) fn finish<T>(mut self, value: Option<T>) -> Result<T, Invalid> {
        if let (Some(value), true) = (value, self.found.is_empty()) {
            return Ok(value);
        }
        self.found.sort_by_key(|problem| (problem.line, problem.column));
        Err(Invalid { problems: self.found, omitted: self.omitted })
    }
}

/// The longest piece of the source that a message repeats, in characters.
const MAX_SHOWN: usize = 60;

/// `text` for a message, cut when it is long.
pub(super) fn shown(text: &str) -> String {
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The candidate that `word` was probably meant to be.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    const LONGEST: usize = 64;
    const MOST_COMPARED: usize = 1_000;
    let allowed = (word.len() / 3).max(1);
    if word.len() > LONGEST {
        return None;
    }
    candidates
        .into_iter()
        .filter(|candidate| candidate.len().abs_diff(word.len()) <= allowed)
        .take(MOST_COMPARED)
        .map(|candidate| (strsim::osa_distance(&word.to_lowercase(), &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate.to_owned())
}
