//! What a command sees of the world: its streams, the terminal, the environment, the clock, and the service.

use crate::{
    args::{ColorChoice, Global},
    error::{Error, Result},
    profile::{self, Connection, Variables},
    view::{Clock, Look, Paint},
};
use nix::unistd::{User, getuid};
use serde::Serialize;
use std::{
    io::{self, IsTerminal as _, Read, Write},
    path::{Path, PathBuf},
};
use tasker_client::{Client, Credentials};

/// The world of one command.
pub struct Shell {
    /// What holds for every command.
    pub global: Global,
    /// The environment variables.
    pub variables: Variables,
    /// Where results go.
    pub out: Box<dyn Write + Send>,
    /// Where errors and remarks go.
    pub err: Box<dyn Write + Send>,
    /// Where `-` reads from.
    pub input: Box<dyn Read + Send>,
    /// Whether results go to a terminal.
    pub terminal: bool,
    /// The time.
    pub clock: Clock,
}

impl Shell {
    /// The world of this process.
    pub fn of_process(global: Global) -> Self {
        Self {
            global,
            variables: std::env::vars_os()
                .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
                .collect(),
            out: Box::new(io::stdout()),
            err: Box::new(io::stderr()),
            input: Box::new(io::stdin()),
            terminal: io::stdout().is_terminal(),
            clock: Clock::of_machine(),
        }
    }

    /// A client of the service that is meant.
    ///
    /// # Errors
    /// Exit code 2 when the address cannot be found out or used.
    pub fn client(&self) -> Result<Client> {
        self.connect(profile::connection(&self.global, &self.variables)?)
    }

    /// A client of the service at `url`, with the token and certificates that are given.
    ///
    /// # Errors
    /// As [`Shell::client`].
    pub fn client_of(&self, url: String) -> Result<Client> {
        self.connect(profile::given(&self.global, &self.variables, Connection { url, ..Connection::default() }))
    }

    fn connect(&self, connection: Connection) -> Result<Client> {
        let file = |path: Option<PathBuf>| path.map(|path| bytes(&path)).transpose();
        let credentials = Credentials {
            token: connection.token.map(|token| token.0),
            authority: file(connection.ca)?,
            certificate: file(connection.certificate)?,
        };
        Ok(Client::with_credentials(&connection.url, &credentials)?)
    }

    /// How things are drawn now.
    pub fn look(&self) -> Look {
        Look { paint: self.paint(), width: self.width(), clock: self.clock }
    }

    /// Whether and how the results are coloured.
    pub fn paint(&self) -> Paint {
        let set = |name: &str| self.variables.get(name).is_some_and(|text| !text.is_empty());
        let dumb = self.variables.get("TERM").is_some_and(|term| term == "dumb");
        Paint::new(match self.global.color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => self.terminal && !dumb && !set("NO_COLOR"),
        })
    }

    /// Who acts, when the command line does not say.
    pub fn user(&self) -> Option<String> {
        ["USER", "LOGNAME"].iter().find_map(|name| self.variables.get(*name)).filter(|name| !name.is_empty()).cloned()
    }

    /// Who runs this command, for the audit: the operating system's user, whatever the environment says.
    pub fn operator() -> String {
        let id = getuid();
        match User::from_uid(id) {
            Ok(Some(user)) => format!("cli:{}", user.name),
            Ok(None) | Err(_) => format!("cli:uid {id}"),
        }
    }

    /// Prints a result: `value` for programs, `text` for people.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub fn print(&mut self, value: &impl Serialize, text: impl FnOnce(&Look) -> String) -> Result<()> {
        let text = if self.global.json { self.json(value)? } else { text(&self.look()) };
        writeln!(self.out, "{}", text.trim_end_matches('\n'))?;
        Ok(self.out.flush()?)
    }

    /// Tells people something beside the result; programs do not see it.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub fn remark(&mut self, text: &str) -> Result<()> {
        if !self.global.json {
            writeln!(self.err, "{text}")?;
        }
        Ok(())
    }

    /// Tells of a failure.
    pub fn fail(&mut self, error: &Error) {
        if error.is_broken_pipe() {
            return;
        }
        let text = if self.global.json { error.to_json().to_string() } else { format!("error: {error}") };
        // Where the error cannot be written either, the exit code still tells.
        let _ = writeln!(self.err, "{text}");
    }

    /// The text of a file, or of the standard input for `-`.
    ///
    /// # Errors
    /// Exit code 2 when it cannot be read or is not UTF-8.
    pub fn read(&mut self, file: &Path) -> Result<String> {
        if file != Path::new("-") {
            return std::fs::read_to_string(file)
                .map_err(|error| Error::usage(format!("failed to read {}: {error}", file.display())));
        }
        let mut text = String::new();
        let read = self.input.read_to_string(&mut text);
        read.map_err(|error| Error::usage(format!("failed to read the standard input: {error}")))?;
        Ok(text)
    }

    fn json(&self, value: &impl Serialize) -> Result<String> {
        let text = if self.terminal { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
        text.map_err(|error| Error::new(crate::exit::Exit::Broken, "json", format!("failed to write JSON: {error}")))
    }

    fn width(&self) -> Option<usize> {
        let columns = self.terminal.then(crossterm::terminal::size)?.ok()?.0;
        (columns > 0).then_some(usize::from(columns))
    }
}

fn bytes(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| Error::usage(format!("failed to read {}: {error}", path.display())))
}
