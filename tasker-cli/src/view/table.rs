//! Tables without borders: a quiet header, two blanks between columns.

use super::{Look, Paint, Tone, plain};
use comfy_table::{Color, ColumnConstraint, ContentArrangement, Width, presets};

/// What a column that wraps keeps at least, in columns of the terminal.
const NARROWEST: u16 = 20;

/// One cell of a table.
#[derive(Debug, Clone, Default)]
pub struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// A cell with a colour.
    pub fn toned(tone: Tone, text: impl Into<String>) -> Self {
        Self { text: plain(&text.into()), tone }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::toned(Tone::Plain, text)
    }
}

/// A table in the making.
pub struct Table {
    table: comfy_table::Table,
    paint: Paint,
}

impl Table {
    /// A table with these columns. Where the terminal is too narrow, columns whose name is in `wraps` get narrower;
    /// the others keep their width, so that ids and names can be copied.
    pub fn new<const N: usize>(look: &Look, header: [&str; N], wraps: &[&str]) -> Self {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING);
        table.set_content_arrangement(ContentArrangement::Disabled);
        if let Some(width) = look.width {
            table.set_width(u16::try_from(width).unwrap_or(u16::MAX));
            table.set_content_arrangement(ContentArrangement::Dynamic);
        }
        if look.paint.is_on() {
            table.enforce_styling()
        } else {
            table.force_no_tty()
        };
        table.set_header(row(header.map(|name| Cell::toned(Tone::Quiet, name)), look.paint));
        for (column, name) in table.column_iter_mut().zip(header) {
            column.set_padding((0, 2));
            column.set_constraint(match wraps.contains(&name) && look.width.is_some() {
                true => ColumnConstraint::LowerBoundary(Width::Fixed(NARROWEST)),
                false => ColumnConstraint::ContentWidth,
            });
        }
        Self { table, paint: look.paint }
    }

    /// Adds a row, as wide as the header.
    pub fn row<const N: usize>(&mut self, cells: [Cell; N]) -> &mut Self {
        self.table.add_row(row(cells, self.paint));
        self
    }

    /// The text, each line without blanks at its end.
    pub fn draw(&self) -> String {
        self.table.trim_fmt()
    }
}

fn row<const N: usize>(cells: [Cell; N], paint: Paint) -> comfy_table::Row {
    comfy_table::Row::from(cells.map(|Cell { text, tone }| {
        let cell = comfy_table::Cell::new(text);
        if paint.is_on() { coloured(cell, tone) } else { cell }
    }))
}

fn coloured(cell: comfy_table::Cell, tone: Tone) -> comfy_table::Cell {
    use comfy_table::Attribute;
    match tone {
        Tone::Plain => cell,
        Tone::Good => cell.fg(Color::DarkGreen),
        Tone::Bad => cell.fg(Color::DarkRed),
        Tone::Busy => cell.fg(Color::DarkCyan),
        Tone::Warn => cell.fg(Color::DarkYellow),
        Tone::Quiet => cell.add_attribute(Attribute::Dim),
        Tone::Strong => cell.add_attribute(Attribute::Bold),
    }
}

#[cfg(test)]
mod tests {
    use super::{Cell, Table};
    use crate::view::{Look, Paint, Tone, fixed::look};

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&look(), ["NAME", "STATE"], &[]);
        table.row(["a".into(), "complete".into()]).row(["longer".into(), Cell::toned(Tone::Bad, "error")]);
        assert_eq!(table.draw(), "NAME    STATE\na       complete\nlonger  error");
    }

    #[test]
    fn long_cells_wrap_within_the_terminal() {
        let mut table = Table::new(&Look { width: Some(30), ..look() }, ["NAME", "ERROR"], &["ERROR"]);
        table.row(["step".into(), "the card was declined by the bank".into()]);
        assert!(table.draw().lines().all(|line| line.chars().count() <= 30), "{}", table.draw());
        assert!(table.draw().lines().count() > 2);
    }

    #[test]
    fn an_id_stays_whole_in_a_narrow_terminal() {
        let mut table = Table::new(&Look { width: Some(12), ..look() }, ["TASK", "TAGS"], &["TAGS"]);
        table.row(["0197f000-0000-7000-8000".into(), "a b c".into()]);
        assert!(table.draw().contains("0197f000-0000-7000-8000"), "{}", table.draw());
    }

    #[test]
    fn colours_appear_only_when_they_are_on() {
        let mut table = Table::new(&Look { paint: Paint::new(true), ..look() }, ["STATE"], &[]);
        table.row([Cell::toned(Tone::Bad, "error")]);
        assert!(
            table.draw().contains("\x1b[38;5;1merror") || table.draw().contains("\x1b[31merror"),
            "{:?}",
            table.draw()
        );
    }
}
