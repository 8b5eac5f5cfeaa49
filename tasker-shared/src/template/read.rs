//! Typed reading of nodes: what was expected, what was found instead, and no key that nobody asked for.

use super::{
    problem::{Path, Place, Problems, nearest, shown},
    source::{Content, Key, Node},
};
use crate::name::Name;
use serde_json::{Map, Number, Value};
use std::{ops::RangeInclusive, rc::Rc, time::Duration};

/// A node and the way to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) node: &'a Node,
    pub(super) path: Path<'a>,
}

/// What a plain word means by YAML 1.2's core schema, kept to what JSON can say.
enum Meaning {
    Null,
    Boolean(bool),
    Number(Number),
    /// A number that JSON does not have, with the reason.
    NoJsonNumber(&'static str),
    /// `yes`, `no`, `on` or `off`: a boolean in YAML 1.1, text in YAML 1.2.
    Ambiguous(bool),
    Text,
}

impl<'a> At<'a> {
    pub(super) fn place(&self) -> Place {
        self.node.place
    }

    /// Adds a problem of this node.
    pub(super) fn problem(&self, problems: &mut Problems, reason: impl Into<String>) {
        problems.add(self.place(), &self.path, reason);
    }

    /// Adds the problem that this node is not `what`.
    pub(super) fn expected(&self, problems: &mut Problems, what: &str) {
        self.problem(problems, format!("expected {what}, found {}", self.found()));
    }

    fn found(&self) -> String {
        match &self.node.content {
            Content::List(_) => "a list".to_owned(),
            Content::Map(_) => "a mapping".to_owned(),
            Content::Scalar { text, plain: false } => format!("the text \"{}\"", shown(text)),
            Content::Scalar { text, plain: true } => match meaning(text) {
                Meaning::Null => "nothing".to_owned(),
                Meaning::Boolean(value) => value.to_string(),
                Meaning::Number(_) | Meaning::NoJsonNumber(_) => format!("the number {}", shown(text)),
                Meaning::Ambiguous(_) | Meaning::Text => format!("the text \"{}\"", shown(text)),
            },
        }
    }

    /// Text, as it stands.
    pub(super) fn text(&self, problems: &mut Problems) -> Option<&'a str> {
        match &self.node.content {
            Content::Scalar { text, plain }
                if !plain || matches!(meaning(text), Meaning::Text | Meaning::Ambiguous(_)) =>
            {
                Some(text)
            }
            Content::Scalar { text, plain: true } if !matches!(meaning(text), Meaning::Null) => {
                self.problem(problems, format!("expected text, found {}; put it into quotes", self.found()));
                None
            }
            _ => {
                self.expected(problems, "text");
                None
            }
        }
    }

    /// Text or a number, as it is written.
    pub(super) fn word(&self, problems: &mut Problems) -> Option<&'a str> {
        match &self.node.content {
            Content::Scalar { text, plain: true } if matches!(meaning(text), Meaning::Number(_)) => Some(text),
            _ => self.text(problems),
        }
    }

    /// A [`Name`].
    pub(super) fn name(&self, problems: &mut Problems) -> Option<Name> {
        match Name::new(self.text(problems)?) {
            Ok(name) => Some(name),
            Err(invalid) => {
                self.problem(problems, invalid.to_string());
                None
            }
        }
    }

    /// One of `words`.
    pub(super) fn one_of<T: Copy>(&self, words: &[(&'static str, T)], problems: &mut Problems) -> Option<T> {
        let text = self.text(problems)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let reason = format!("`{}` is not one of {}", shown(text), known.join(", "));
        problems.add_with(self.place(), &self.path, reason, || nearest(text, known));
        None
    }

    pub(super) fn boolean(&self, problems: &mut Problems) -> Option<bool> {
        if let Content::Scalar { text, plain: true } = &self.node.content {
            match meaning(text) {
                Meaning::Boolean(value) => return Some(value),
                Meaning::Ambiguous(meant) => {
                    self.problem(problems, format!("expected true or false, found `{text}`; write {meant}"));
                    return None;
                }
                _ => {}
            }
        }
        self.expected(problems, "true or false");
        None
    }

    /// A whole number in `range`.
    pub(super) fn integer(&self, range: &RangeInclusive<u64>, problems: &mut Problems) -> Option<u64> {
        let number = match &self.node.content {
            Content::Scalar { text, plain: true } => match meaning(text) {
                Meaning::Number(number) => number.as_u64(),
                _ => None,
            },
            _ => None,
        };
        let value = number.filter(|value| range.contains(value));
        if value.is_none() {
            self.expected(problems, &format!("a whole number from {} to {}", range.start(), range.end()));
        }
        value
    }

    /// A time in units of `unit_ms` milliseconds, above 0 and at most `longest`; no finer than a millisecond.
    pub(super) fn duration(
        &self,
        unit: &str,
        unit_ms: u32,
        longest: Duration,
        problems: &mut Problems,
    ) -> Option<Duration> {
        let number = match &self.node.content {
            Content::Scalar { text, plain: true } => match meaning(text) {
                Meaning::Number(number) => number.as_f64(),
                _ => None,
            },
            _ => None,
        };
        let milliseconds = number.map(|value| value * f64::from(unit_ms));
        let longest_ms = longest.as_secs_f64() * 1_000.0;
        match milliseconds {
            Some(value) if value > 0.0 && value <= longest_ms => {
                let whole = value.round();
                if (value - whole).abs() > 1e-6 * whole.max(1.0) {
                    self.problem(problems, format!("{} is finer than a millisecond", self.found()));
                    return None;
                }
                Some(Duration::from_millis(whole as u64))
            }
            _ => {
                let most = longest_ms / f64::from(unit_ms);
                self.expected(problems, &format!("a number of {unit} above 0 and at most {most}"));
                None
            }
        }
    }

    pub(super) fn list(&self, problems: &mut Problems) -> Option<Vec<At<'_>>> {
        match &self.node.content {
            Content::List(items) => {
                let at = |(index, node): (usize, &'a Rc<Node>)| At { node, path: Path::Index(&self.path, index) };
                Some(items.iter().enumerate().map(at).collect())
            }
            _ => {
                self.expected(problems, "a list");
                None
            }
        }
    }

    pub(super) fn entries(&self, problems: &mut Problems) -> Option<&'a [(Key, Rc<Node>)]> {
        match &self.node.content {
            Content::Map(entries) => Some(entries),
            _ => {
                self.expected(problems, "a mapping");
                None
            }
        }
    }

    /// A mapping of which only `known` keys are understood; every other key is a problem.
    pub(super) fn fields(&self, known: &'static [&'static str], problems: &mut Problems) -> Option<Fields<'a>> {
        self.fields_except(known, |_| None, problems)
    }

    /// Like [`At::fields`]; `refused` says of a key that is not known why it is not understood here.
    pub(super) fn fields_except(
        &self,
        known: &'static [&'static str],
        refused: fn(&str) -> Option<&'static str>,
        problems: &mut Problems,
    ) -> Option<Fields<'a>> {
        let entries = self.entries(problems)?;
        for (key, _) in entries.iter().filter(|(key, _)| !known.contains(&key.text.as_str())) {
            let path = Path::Key(&self.path, &key.text);
            match refuse_merge(&key.text).or_else(|| refused(&key.text)) {
                Some(reason) => problems.add(key.place, &path, reason),
                None => problems.add_with(key.place, &path, "unknown key", || {
                    synonym(&key.text, known).or_else(|| nearest(&key.text, known.iter().copied()))
                }),
            }
        }
        Some(Fields { place: self.place(), path: self.path, entries })
    }

    /// Any value, as JSON.
    pub(super) fn value(&self, problems: &mut Problems) -> Value {
        match &self.node.content {
            Content::Scalar { text, plain: false } => Value::String(text.clone()),
            Content::Scalar { text, plain: true } => match meaning(text) {
                Meaning::Null => Value::Null,
                Meaning::Boolean(value) => Value::Bool(value),
                Meaning::Number(number) => Value::Number(number),
                Meaning::Text => Value::String(text.clone()),
                Meaning::NoJsonNumber(reason) => {
                    self.problem(problems, format!("the number {} {reason}", shown(text)));
                    Value::Null
                }
                Meaning::Ambiguous(meant) => {
                    let reason =
                        format!("`{text}` is a boolean in YAML 1.1 and text in YAML 1.2; write {meant} or \"{text}\"");
                    self.problem(problems, reason);
                    Value::Null
                }
            },
            Content::List(items) => {
                let at = |(index, node)| At { node, path: Path::Index(&self.path, index) }.value(problems);
                Value::Array(items.iter().map(|item| &**item).enumerate().map(at).collect())
            }
            Content::Map(entries) => Value::Object(self.object_of(entries, problems)),
        }
    }

    /// A mapping with free keys, as JSON.
    pub(super) fn object(&self, problems: &mut Problems) -> Option<Map<String, Value>> {
        let entries = self.entries(problems)?;
        Some(self.object_of(entries, problems))
    }

    fn object_of(&self, entries: &[(Key, Rc<Node>)], problems: &mut Problems) -> Map<String, Value> {
        let at = |(key, node): &(Key, Rc<Node>)| {
            let path = Path::Key(&self.path, &key.text);
            if let Some(reason) = refuse_merge(&key.text) {
                problems.add(key.place, &path, reason);
            }
            (key.text.clone(), At { node, path }.value(problems))
        };
        entries.iter().map(at).collect()
    }
}

/// An opened mapping.
pub(super) struct Fields<'a> {
    pub(super) place: Place,
    pub(super) path: Path<'a>,
    entries: &'a [(Key, Rc<Node>)],
}

impl Fields<'_> {
    /// The value of `key`, if given.
    pub(super) fn get(&self, key: &'static str) -> Option<At<'_>> {
        let (_, node) = self.entries.iter().find(|(entry, _)| entry.text == key)?;
        Some(At { node, path: Path::Key(&self.path, key) })
    }

    /// The value of `key`; a problem if it is missing.
    pub(super) fn required(&self, key: &'static str, problems: &mut Problems) -> Option<At<'_>> {
        let value = self.get(key);
        if value.is_none() {
            problems.add(self.place, &self.path, format!("the key `{key}` is missing"));
        }
        value
    }

    /// The value under whichever of two spellings is given; a problem if both are.
    pub(super) fn either(&self, first: &'static str, second: &'static str, problems: &mut Problems) -> Option<At<'_>> {
        match (self.get(first), self.get(second)) {
            (Some(_), Some(at)) => {
                at.problem(problems, format!("`{first}` and `{second}` mean the same; give one of them"));
                None
            }
            (one, other) => one.or(other),
        }
    }
}

fn refuse_merge(key: &str) -> Option<&'static str> {
    (key == "<<").then_some("merge keys are not supported; write the keys out")
}

/// The key that stands here for a word used elsewhere.
fn synonym(word: &str, known: &[&str]) -> Option<String> {
    let meant = match word {
        "depends_on" | "depends_on_step" | "depends_on_steps" | "needs" | "after" => "dependencies",
        "namespace" => "namespace_name",
        "timeout" | "timeout_ms" => "timeout_seconds",
        "backoff_strategy" | "backoff_type" => "backoff",
        "initial_delay_ms" | "base_delay_ms" => "backoff_base_ms",
        "max_delay_ms" => "max_backoff_ms",
        "max_retries" | "attempts" => "max_attempts",
        "schema" => "input_schema",
        _ => return None,
    };
    known.contains(&meant).then(|| meant.to_owned())
}

fn meaning(text: &str) -> Meaning {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Meaning::Null,
        "true" | "True" | "TRUE" => Meaning::Boolean(true),
        "false" | "False" | "FALSE" => Meaning::Boolean(false),
        "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Meaning::Ambiguous(true),
        "no" | "No" | "NO" | "off" | "Off" | "OFF" => Meaning::Ambiguous(false),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" | "-.inf" | "-.Inf" | "-.INF" | ".nan" | ".NaN"
        | ".NAN" => Meaning::NoJsonNumber("is not a number of JSON"),
        _ => number(text).unwrap_or(Meaning::Text),
    }
}

fn number(text: &str) -> Option<Meaning> {
    let too_large = Meaning::NoJsonNumber("is too large; put it into quotes to keep its digits");
    let prefixed =
        text.strip_prefix("0x").map(|digits| (digits, 16)).or(text.strip_prefix("0o").map(|digits| (digits, 8)));
    if let Some((digits, radix)) = prefixed {
        let all_digits = !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
        return all_digits.then(|| u64::from_str_radix(digits, radix).map_or(too_large, |n| Meaning::Number(n.into())));
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !unsigned.is_empty() && unsigned.bytes().all(|b| b.is_ascii_digit()) {
        let plus = text.strip_prefix('+').unwrap_or(text);
        let parsed = plus.parse::<u64>().map(Number::from).or_else(|_| plus.parse::<i64>().map(Number::from));
        return Some(parsed.map_or(too_large, Meaning::Number));
    }
    if !is_float(unsigned) {
        return None;
    }
    let parsed = text.parse::<f64>().ok().and_then(Number::from_f64);
    Some(parsed.map_or(too_large, Meaning::Number))
}

/// Digits with a point, an exponent or both, by YAML's core schema.
fn is_float(unsigned: &str) -> bool {
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mantissa_is_number = digits(whole) && digits(fraction) && !(whole.is_empty() && fraction.is_empty());
    mantissa_is_number && exponent.is_none_or(|exponent| !exponent.is_empty() && digits(exponent))
}
