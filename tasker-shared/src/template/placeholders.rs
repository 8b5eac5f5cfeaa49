//! What may stand between `{{` and `}}` in the texts of the handlers `http` and `command`: expressions that are short, and
//! that make nothing much larger than what they are given. Checked when a template is applied, and by the worker.

use std::{iter::Peekable, str::CharIndices};

/// The longest expression, in bytes: what reads one opens a function of its own for each operator and each filter.
pub const LONGEST_EXPRESSION: usize = 1024;

/// The most `~`, `+` and `,` in one expression: each makes a text or a list that has both sides.
const MOST_JOINED: usize = 16;

/// Checks the placeholders of `text`; one without `{{` and `{%` is taken as it is.
///
/// # Errors
/// A sentence that says what is not offered, and what to do.
pub fn check(text: &str) -> Result<(), String> {
    if !text.contains("{{") && !text.contains("{%") {
        return Ok(());
    }
    for (tag, what) in [("{%", "statements"), ("{#", "comments")] {
        if text.contains(tag) {
            return Err(format!(
                "`{tag}` begins {what}, which are not offered; there are only placeholders such as `{{{{ input.id }}}}`"
            ));
        }
    }
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("{{") {
        rest = &after[expression(after)?..];
    }
    Ok(())
}

/// Checks the expression that `text` begins with. Where it ends, after the `}}`.
fn expression(text: &str) -> Result<usize, String> {
    let mut joined = 0;
    let mut chars = text.char_indices().peekable();
    while let Some((at, char)) = chars.next() {
        if at > LONGEST_EXPRESSION {
            break;
        }
        match char {
            '}' if chars.peek().is_some_and(|(_, next)| *next == '}') => return Ok(at + 2),
            '{' | '}' => {
                return Err("a placeholder with `{` or `}` in it is not offered; write the mapping outside".to_owned());
            }
            '*' => {
                return Err("a placeholder with `*` is not offered: it repeats texts and lists; leave the sum to who \
                            submits the task or to who is called"
                    .to_owned());
            }
            '~' | '+' | ',' => joined += 1,
            '\'' | '"' => skip_text(&mut chars, char),
            _ => {}
        }
        if joined > MOST_JOINED {
            return Err(format!(
                "a placeholder with more than {MOST_JOINED} `~`, `+` and `,` is not offered; write several placeholders"
            ));
        }
    }
    Err(format!("a placeholder does not end with `}}}}` within {LONGEST_EXPRESSION} bytes; make it shorter"))
}

/// Goes to the end of a text in quotes, as the reader of expressions does.
fn skip_text(chars: &mut Peekable<CharIndices<'_>>, quote: char) {
    while let Some((_, char)) = chars.next() {
        if char == '\\' {
            chars.next();
        } else if char == quote {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn usual_placeholders_pass_and_texts_without_any_are_taken_as_they_are() {
        for text in [
            "plain {text} ${#shell} }} * ~ {",
            "/orders/{{ input.id|urlencode }}?n={{ attempt }}",
            "{{ parents['quote-1'].price - 1 }} {{- '{{ * %}'|lower -}} {{ \"it's \\\" * }}\" }}",
            "{{ input.a if input.a is defined else 'none' }}",
            &"{{ input.a ~ input.b }}".repeat(10_000),
            &format!("{{{{ {}1 }}}}", " ".repeat(1_000)),
        ] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn what_grows_or_nests_without_bound_is_refused() {
        for (text, reason) in [
            ("{% set a = 1 %}{{ a }}", "`{%` begins statements"),
            ("{% if true %}", "`{%` begins statements"),
            ("{# {{ ' #}{{ [1] * 9 }}{# ' }} #}", "`{#` begins comments"),
            ("{{ 'a' * 1000000 }}", "`*` is not offered"),
            ("{{ {'a': 1} }}", "`{` or `}`"),
            ("{{ {'a': {'b': 1}}, 'c' }}", "`{` or `}`"),
            ("{{ input.a", "does not end with `}}` within 1024 bytes"),
            ("{{ 'a }}", "does not end"),
            ("{{ 'a\\' }}", "does not end"),
            (&format!("{{{{ {} }}}}", "1+".repeat(17)), "more than 16 `~`, `+` and `,`"),
            (&format!("{{{{ [{}] }}}}", "a,".repeat(17)), "more than 16 `~`, `+` and `,`"),
            (&format!("{{{{ {}1 }}}}", "-".repeat(1_024)), "within 1024 bytes"),
            (&format!("{{{{ '{}' }}}}", "x".repeat(1_024)), "within 1024 bytes"),
            (&format!("{{{{ 1 }}}} {{{{ a{} }}}}", "|abs".repeat(20_000)), "within 1024 bytes"),
        ] {
            let refused = check(text).expect_err(text);
            assert!(refused.contains(reason), "{refused}");
        }
    }
}
