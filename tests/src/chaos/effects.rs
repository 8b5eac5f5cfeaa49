//! What handlers did in the world outside: lines in files, which no fault of PostgreSQL or a killed process takes back.

use anyhow::{Context, Result};
use std::{collections::BTreeMap, fs::File, io::Write as _, path::Path};
use tasker_shared::id::StepId;

/// The variable that names the directory of effects to workers.
pub const DIRECTORY: &str = "CHAOS_EFFECTS";

/// A file that effects are appended to. A line is one write, so that lines of several writers do not mix.
#[derive(Debug)]
pub struct Journal(File);

impl Journal {
    /// Opens `name` in `directory`.
    ///
    /// # Errors
    /// The machine refuses.
    pub fn open(directory: &Path, name: &str) -> Result<Self> {
        let path = directory.join(format!("{name}.effects"));
        let file = File::options().create(true).append(true).open(&path);
        Ok(Self(file.with_context(|| format!("open {}", path.display()))?))
    }

    /// Appends what an attempt did: `begin`, or `end` when its handler came to its end.
    ///
    /// # Errors
    /// The machine refuses.
    pub fn write(&self, step: &str, attempt: u64, what: &str) -> std::io::Result<()> {
        (&self.0).write_all(format!("{step} {attempt} {what}\n").as_bytes())
    }
}

/// How often each attempt began and ended.
#[derive(Debug, Clone, Default)]
pub struct Effects {
    /// By step and attempt.
    pub attempts: BTreeMap<(StepId, i32), Effect>,
    /// Lines that are none.
    pub unreadable: Vec<String>,
}

/// What one attempt did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Effect {
    /// How often it began.
    pub begun: u32,
    /// How often it came to its end.
    pub ended: u32,
}

impl Effects {
    /// Reads all files of `directory`.
    ///
    /// # Errors
    /// The machine refuses.
    pub fn read(directory: &Path) -> Result<Self> {
        let mut effects = Self::default();
        for file in std::fs::read_dir(directory)? {
            let path = file?.path();
            if path.extension().is_some_and(|extension| extension == "effects") {
                std::fs::read_to_string(path)?.lines().for_each(|line| effects.add(line));
            }
        }
        Ok(effects)
    }

    /// Adds one line.
    pub fn add(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let read = match words.as_slice() {
            [step, attempt, what] => step.parse().ok().zip(attempt.parse().ok()).zip(Some(*what)),
            _ => None,
        };
        match read {
            Some((of, "begin")) => self.attempts.entry(of).or_default().begun += 1,
            Some((of, "end")) => self.attempts.entry(of).or_default().ended += 1,
            _ => self.unreadable.push(line.to_owned()),
        }
    }
}
