//! Colours, or none.

/// What a text means; the colour follows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Tone {
    /// Like everything around it.
    #[default]
    Plain,
    /// Done.
    Good,
    /// Failed.
    Bad,
    /// Runs.
    Busy,
    /// Wants attention, or waits for a retry.
    Warn,
    /// Of less interest.
    Quiet,
    /// Of more interest.
    Strong,
}

/// Paints texts for terminals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paint {
    on: bool,
}

impl Paint {
    /// With colours or without.
    pub const fn new(on: bool) -> Self {
        Self { on }
    }

    /// Whether there are colours.
    pub const fn is_on(self) -> bool {
        self.on
    }

    /// `text` in the colour of `tone`.
    pub fn paint(self, tone: Tone, text: &str) -> String {
        match tone.code() {
            Some(code) if self.on && !text.is_empty() => format!("\x1b[{code}m{text}\x1b[0m"),
            _ => text.to_owned(),
        }
    }
}

impl Tone {
    const fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Good => Some("32"),
            Self::Bad => Some("31"),
            Self::Busy => Some("36"),
            Self::Warn => Some("33"),
            Self::Quiet => Some("2"),
            Self::Strong => Some("1"),
        }
    }
}

/// `line` without colours.
#[cfg(test)]
pub(super) fn bare(line: &str) -> String {
    let mut parts = line.split("\x1b[");
    let first = parts.next().unwrap_or_default().to_owned();
    first + &parts.map(|part| part.split_once('m').map_or("", |(_, text)| text)).collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::{Paint, Tone};

    #[test]
    fn without_colours_a_text_stays_as_it_is() {
        assert_eq!(Paint::new(false).paint(Tone::Bad, "x"), "x");
        assert_eq!(Paint::new(true).paint(Tone::Bad, "x"), "\x1b[31mx\x1b[0m");
        assert_eq!(Paint::new(true).paint(Tone::Plain, "x"), "x");
    }
}
