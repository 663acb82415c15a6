//! The template engine, set up once for each role: HTML escapes; text, subject and headers do not;
//! conditions must be true or false; patterns remember which words came from where.

use std::fmt::Write as _;

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State, UndefinedBehavior, Value};

use super::{filters, pictures, strict};

/// What one rendering may cost, in instructions of the engine: a loop without an end is stopped
/// after a fraction of a second. A long newsletter takes some ten thousand.
const FUEL: u64 = 20_000_000;

/// Around what a `{{ }}` in a pattern wrote. No value may hold them.
pub(super) const VALUE_START: char = '\u{1}';
pub(super) const VALUE_END: char = '\u{2}';

/// The environments by role.
pub(super) struct Engine {
    /// Bodies in HTML.
    pub(super) html: Environment<'static>,
    /// All that is text: subject, text bodies, addresses, headers.
    pub(super) text: Environment<'static>,
    /// `where` and `when`.
    pub(super) conditions: Environment<'static>,
    /// File patterns.
    pub(super) patterns: Environment<'static>,
}

impl Engine {
    pub(super) fn new() -> Engine {
        let base = base();
        let mut html = base.clone();
        html.set_auto_escape_callback(|_| AutoEscape::Html);
        html.set_formatter(print_html);
        html.add_function(pictures::EMBED, pictures::embed);
        let mut text = base.clone();
        text.set_formatter(print_text);
        let mut conditions = base.clone();
        conditions.set_formatter(print_truth);
        let mut patterns = base;
        patterns.set_formatter(|out, state, value| {
            out.write_char(VALUE_START)?;
            print_text(out, state, value)?;
            out.write_char(VALUE_END)?;
            Ok(())
        });
        Engine { html, text, conditions, patterns }
    }
}

fn base() -> Environment<'static> {
    let mut env = Environment::new();
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_fuel(Some(FUEL));
    env.set_auto_reload(false);
    // With it, errors name the expression at fault. What else it collects is never shown.
    env.set_debug(true);
    // Prints all that is in reach.
    env.remove_global("debug");
    strict::add_to(&mut env);
    filters::add_to(&mut env);
    env
}

/// Whether a filter exists.
pub(super) fn has_filter(env: &Environment, name: &str) -> bool {
    env.empty_state().apply_filter(name, &[]).err().is_none_or(|e| e.kind() != ErrorKind::UnknownFilter)
}

/// Whether a test exists, as in `is even`.
pub(super) fn has_test(env: &Environment, name: &str) -> bool {
    env.empty_state().perform_test(name, &[]).err().is_none_or(|e| e.kind() != ErrorKind::UnknownTest)
}

/// That a null was to be printed.
pub(super) fn null() -> Error {
    Error::new(ErrorKind::InvalidOperation, "it is null, which is never printed; `default` gives it a value")
}

fn null_within() -> Error {
    Error::new(
        ErrorKind::InvalidOperation,
        "a null is in it, which is never printed; `default` gives it a value",
    )
}

fn print_text(out: &mut Output, _state: &mut State, value: &Value) -> Result<(), Error> {
    if let Some(text) = value.as_str() {
        return Ok(out.write_str(text)?);
    }
    match value.kind() {
        ValueKind::None => Err(null()),
        ValueKind::Invalid => Err(Error::new(ErrorKind::InvalidOperation, "it holds an error")),
        _ if strict::holds_null(value) => Err(null_within()),
        _ => Ok(write!(out, "{value}")?),
    }
}

fn print_html(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    match state.auto_escape() {
        AutoEscape::Html => {}
        AutoEscape::None => return print_text(out, state, value),
        _ => return minijinja::escape_formatter(out, state, value),
    }
    if let Some(text) = value.as_str() {
        return if value.is_safe() { Ok(out.write_str(text)?) } else { write_escaped(out, text) };
    }
    match value.kind() {
        ValueKind::None => Err(null()),
        ValueKind::Invalid => Err(Error::new(ErrorKind::InvalidOperation, "it holds an error")),
        ValueKind::Number | ValueKind::Bool | ValueKind::Undefined => Ok(write!(out, "{value}")?),
        _ if strict::holds_null(value) => Err(null_within()),
        _ => write_escaped(out, &value.to_string()),
    }
}

/// A condition's answer in one letter. Anything but true and false is a mistake: text is true
/// whatever it says, "no" too.
fn print_truth(out: &mut Output, _state: &mut State, value: &Value) -> Result<(), Error> {
    match value.kind() {
        ValueKind::Bool => Ok(out.write_str(if value.is_true() { "t" } else { "f" })?),
        kind => Err(Error::new(
            ErrorKind::InvalidOperation,
            format!("the condition is neither true nor false, but a {kind}; compare it with something"),
        )),
    }
}

/// Writes text with the five characters escaped that mean something in HTML; the slash, which the
/// engine would escape too, means nothing and is in every link.
fn write_escaped(out: &mut Output, text: &str) -> Result<(), Error> {
    let mut from = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escaped = match byte {
            b'&' => "&amp;",
            b'<' => "&lt;",
            b'>' => "&gt;",
            b'"' => "&quot;",
            b'\'' => "&#39;",
            _ => continue,
        };
        out.write_str(&text[from..at])?;
        out.write_str(escaped)?;
        from = at + 1;
    }
    Ok(out.write_str(&text[from..])?)
}

/// Refuses named arguments that a filter does not know.
pub(super) fn finish(kwargs: &Kwargs) -> Result<(), Error> {
    kwargs.assert_all_used()
}
