//! The filters and tests that placeholders have. None makes a text much larger than what it is given.

use minijinja::{Environment, Error, ErrorKind, Value, filters, tests};

/// The largest text that a filter makes, in bytes.
const LARGEST: usize = 8 * 1024 * 1024;

/// An environment with these alone; it has no functions.
pub(super) fn environment() -> Environment<'static> {
    let mut offered = Environment::empty();
    offered.add_filter("abs", filters::abs);
    offered.add_filter("bool", filters::bool);
    offered.add_filter("capitalize", filters::capitalize);
    offered.add_filter("count", filters::length);
    offered.add_filter("d", filters::default);
    offered.add_filter("default", filters::default);
    offered.add_filter("first", filters::first);
    offered.add_filter("float", filters::float);
    offered.add_filter("int", filters::int);
    offered.add_filter("join", join);
    offered.add_filter("last", filters::last);
    offered.add_filter("length", filters::length);
    offered.add_filter("list", filters::list);
    offered.add_filter("lower", filters::lower);
    offered.add_filter("max", filters::max);
    offered.add_filter("min", filters::min);
    offered.add_filter("replace", replace);
    offered.add_filter("reverse", filters::reverse);
    offered.add_filter("round", filters::round);
    offered.add_filter("sort", filters::sort);
    offered.add_filter("split", filters::split);
    offered.add_filter("string", filters::string);
    offered.add_filter("sum", filters::sum);
    offered.add_filter("title", filters::title);
    offered.add_filter("tojson", tojson);
    offered.add_filter("trim", filters::trim);
    offered.add_filter("unique", filters::unique);
    offered.add_filter("upper", |text: String| bounded(text.to_uppercase()));
    offered.add_filter("urlencode", urlencode);
    offered.add_test("boolean", tests::is_boolean);
    offered.add_test("defined", tests::is_defined);
    offered.add_test("false", tests::is_false);
    offered.add_test("float", tests::is_float);
    offered.add_test("int", tests::is_integer);
    offered.add_test("integer", tests::is_integer);
    offered.add_test("iterable", tests::is_iterable);
    offered.add_test("mapping", tests::is_mapping);
    offered.add_test("none", tests::is_none);
    offered.add_test("number", tests::is_number);
    offered.add_test("sequence", tests::is_sequence);
    offered.add_test("string", tests::is_string);
    offered.add_test("true", tests::is_true);
    offered.add_test("undefined", tests::is_undefined);
    offered
}

fn refused(reason: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason)
}

fn too_large() -> Error {
    refused(format!("a text becomes larger than {LARGEST} bytes"))
}

fn bounded(text: String) -> Result<String, Error> {
    if text.len() > LARGEST { Err(too_large()) } else { Ok(text) }
}

/// The items of a list as one text.
fn join(list: &Value, between: Option<String>) -> Result<String, Error> {
    let between = between.unwrap_or_default();
    let mut joined = String::new();
    for (index, item) in list.try_iter()?.enumerate() {
        if index > 0 {
            joined.push_str(&between);
        }
        match item.as_str() {
            Some(text) => joined.push_str(text),
            None => joined.push_str(&item.to_string()),
        }
        if joined.len() > LARGEST {
            return Err(too_large());
        }
    }
    Ok(joined)
}

fn replace(text: String, from: String, to: String) -> Result<String, Error> {
    let more = text.matches(&from).count().saturating_mul(to.len());
    if text.len().saturating_add(more) > LARGEST { Err(too_large()) } else { Ok(text.replace(&from, &to)) }
}

fn tojson(value: &Value) -> Result<String, Error> {
    let text = serde_json::to_string(value).map_err(|error| refused(format!("no JSON: {error}")))?;
    bounded(text)
}

fn urlencode(value: &Value) -> Result<String, Error> {
    let text = value.to_string();
    if matches!(text.as_str(), "." | "..") {
        return Err(refused(format!("`{text}` cannot be a part of a URL")));
    }
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    bounded(encoded)
}
