//! The table: `date,precipitation,temp_max,temp_min,wind,weather`, one row per day, dates such as `2012/01/01` ascending.

use chrono::{Datelike, NaiveDate};

const HEADER: &str = "date,precipitation,temp_max,temp_min,wind,weather";

/// How many bad rows a message lists.
const MOST_LISTED: usize = 10;

/// One row. Numbers are kept in thousandths, so that sums are exact.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Day {
    pub(super) date: NaiveDate,
    pub(super) precipitation: i64,
    pub(super) temp_max: i64,
    pub(super) temp_min: i64,
    pub(super) wind: i64,
    pub(super) weather: String,
}

impl Day {
    pub(super) fn year(&self) -> i32 {
        self.date.year()
    }

    pub(super) fn month(&self) -> u32 {
        self.date.month()
    }
}

/// The rows of `text`, or what is wrong with each bad one, by line.
pub(super) fn parse(text: &str) -> Result<Vec<Day>, String> {
    let mut lines = text.strip_prefix('\u{feff}').unwrap_or(text).lines().enumerate();
    match lines.next() {
        Some((_, HEADER)) => {}
        Some((_, other)) => return Err(format!("line 1: expected the columns `{HEADER}`, found `{other}`")),
        None => return Err("the file is empty".to_owned()),
    }
    let mut days: Vec<Day> = Vec::new();
    let mut bad = Vec::new();
    for (index, line) in lines.filter(|(_, line)| !line.is_empty()) {
        match row(line).and_then(|day| following(days.last(), day)) {
            Ok(day) => days.push(day),
            Err(reason) => bad.push(format!("line {}: {reason}", index + 1)),
        }
    }
    if bad.is_empty() {
        return Ok(days);
    }
    let count = bad.len();
    bad.truncate(MOST_LISTED);
    let more = if count > MOST_LISTED { format!("; and {} more", count - MOST_LISTED) } else { String::new() };
    Err(format!("{}{more}", bad.join("; ")))
}

fn row(line: &str) -> Result<Day, String> {
    let cells: Vec<&str> = line.split(',').collect();
    let [date, precipitation, temp_max, temp_min, wind, weather] = cells[..] else {
        return Err(format!("expected 6 columns, found {}", cells.len()));
    };
    let day = Day {
        date: parse_date(date)?,
        precipitation: thousandths("precipitation", precipitation)?,
        temp_max: thousandths("temp_max", temp_max)?,
        temp_min: thousandths("temp_min", temp_min)?,
        wind: thousandths("wind", wind)?,
        weather: weather.to_owned(),
    };
    if weather.is_empty() || !weather.bytes().all(|b| b.is_ascii_lowercase()) {
        return Err(format!("weather: expected a word, found `{weather}`"));
    }
    if day.precipitation < 0 || day.wind < 0 {
        return Err("precipitation and wind cannot be negative".to_owned());
    }
    if day.temp_min > day.temp_max {
        return Err(format!("temp_min ({temp_min}) is above temp_max ({temp_max})"));
    }
    Ok(day)
}

fn parse_date(text: &str) -> Result<NaiveDate, String> {
    let wrong = || format!("date: expected a day such as 2012/01/31, found `{text}`");
    let shape_is_right = text.len() == 10
        && text.bytes().enumerate().all(|(at, b)| if at == 4 || at == 7 { b == b'/' } else { b.is_ascii_digit() });
    if !shape_is_right {
        return Err(wrong());
    }
    NaiveDate::parse_from_str(text, "%Y/%m/%d").map_err(|_| wrong())
}

fn following(before: Option<&Day>, day: Day) -> Result<Day, String> {
    match before {
        Some(before) if before.date >= day.date => Err(format!("{} does not come after {}", day.date, before.date)),
        _ => Ok(day),
    }
}

/// A decimal number with up to three decimals.
fn thousandths(column: &str, text: &str) -> Result<i64, String> {
    let wrong = || format!("{column}: expected a number with up to 3 decimals, found `{text}`");
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let all_digits =
        |text: &str, most: usize| (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    if !all_digits(whole, 6) || !all_digits(fraction, 3) {
        return Err(wrong());
    }
    let number: i64 = format!("{whole}{fraction:0<3}").parse().map_err(|_| wrong())?;
    Ok(if negative { -number } else { number })
}

#[cfg(test)]
mod tests {
    use super::{HEADER, parse};

    #[test]
    fn numbers_are_read_exactly() {
        let days = parse(&format!("{HEADER}\n2012/02/29,0.0,-1.25,-10,4.7,rain\n")).unwrap();
        let day = &days[0];
        assert_eq!((day.precipitation, day.temp_max, day.temp_min, day.wind), (0, -1_250, -10_000, 4_700));
    }

    #[test]
    fn bad_rows_are_told_by_line() {
        for (row, expected) in [
            ("2012/01/01,0.0,1,0,1", "line 2: expected 6 columns, found 5"),
            ("2013/02/29,0.0,1,0,1,sun", "line 2: date: expected a day such as 2012/01/31, found `2013/02/29`"),
            ("2012-01-01,0.0,1,0,1,sun", "line 2: date: expected a day such as 2012/01/31, found `2012-01-01`"),
            ("2012/01/01,x,1,0,1,sun", "line 2: precipitation: expected a number with up to 3 decimals, found `x`"),
            ("2012/01/01,1e3,1,0,1,sun", "line 2: precipitation: expected a number with up to 3 decimals, found `1e3`"),
            ("2012/01/01,0,1,0,,sun", "line 2: wind: expected a number with up to 3 decimals, found ``"),
            ("2012/01/01,-1,1,0,1,sun", "line 2: precipitation and wind cannot be negative"),
            ("2012/01/01,0,1,2,1,sun", "line 2: temp_min (2) is above temp_max (1)"),
            ("2012/01/01,0,1,0,1,", "line 2: weather: expected a word, found ``"),
            ("2012/01/02,0,1,0,1,sun\n2012/01/02,0,1,0,1,sun", "line 3: 2012-01-02 does not come after 2012-01-02"),
        ] {
            assert_eq!(parse(&format!("{HEADER}\n{row}\n")).unwrap_err(), expected);
        }
        let many = format!("{HEADER}\n{}", "x\n".repeat(12));
        assert!(parse(&many).unwrap_err().ends_with("line 11: expected 6 columns, found 1; and 2 more"));
        assert_eq!(parse("a,b\n").unwrap_err(), format!("line 1: expected the columns `{HEADER}`, found `a,b`"));
        assert_eq!(parse("").unwrap_err(), "the file is empty");
    }
}
