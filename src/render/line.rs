//! Templates of one line that stand in the job file: subject, addresses, headers, patterns,
//! conditions. Most of them are a name or two in some text; these are put together without the
//! engine.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::sync::Arc;

use minijinja::{Environment, Value};

use crate::letter::{Cell, Piece, Row, default_address_column};

use super::engine::{Engine, VALUE_END, VALUE_START};
use super::error::{RowError, innermost, reason};
use super::strict;
use super::value::{Context, Names, cell};

/// What is rendered with: the engine, and the names of one row. The names are put up when the first
/// template needs them.
pub(super) struct View<'a> {
    pub(super) engine: &'a Engine,
    pub(super) names: &'a Arc<Names>,
    pub(super) now: &'a Value,
    pub(super) row: Option<&'a Row>,
    context: OnceCell<(Arc<Context>, Value)>,
}

impl<'a> View<'a> {
    pub(super) fn new(
        engine: &'a Engine,
        names: &'a Arc<Names>,
        now: &'a Value,
        row: Option<&'a Row>,
    ) -> Self {
        View { engine, names, now, row, context: OnceCell::new() }
    }

    fn context(&self) -> &(Arc<Context>, Value) {
        self.context.get_or_init(|| {
            let context = Arc::new(Context::new(self.names, self.row, self.now));
            let value = Value::from_dyn_object(context.clone());
            (context, value)
        })
    }

    /// The pictures that were asked for so far.
    pub(super) fn take_images(&self) -> Vec<(String, Vec<Piece>)> {
        self.context.get().map(|(context, _)| context.take_images()).unwrap_or_default()
    }

    /// Renders a template of an environment; its name and line go into the error.
    pub(super) fn render(
        &self,
        env: &Environment<'static>,
        name: &str,
        first_line: usize,
    ) -> Result<String, RowError> {
        env.get_template(name)
            .and_then(|template| template.render(&self.context().1))
            .map_err(|error| row_error(env, &error, first_line))
    }
}

/// Says of an engine's error where it is and what. A template that stands in the job file begins
/// there at `first_line`.
pub(super) fn row_error(env: &Environment<'static>, error: &minijinja::Error, first_line: usize) -> RowError {
    let error = innermost(error);
    let name = error.name().unwrap_or_default();
    let line = error.line().unwrap_or(0);
    let mut reason = reason(error);
    let source = env.get_template(name).ok();
    let words = source.as_ref().and_then(|template| {
        let words = strict::as_written(template.source(), error.range()?)?;
        (!words.is_empty() && words.len() <= 80 && !words.contains(['\n', '`'])).then_some(words)
    });
    if let Some(words) = words.filter(|words| !reason.contains(words)) {
        reason = format!("`{words}`: {reason}");
    }
    match name.strip_prefix('<').and_then(|name| name.strip_suffix('>')) {
        Some(key) if first_line > 0 => RowError::new(key, first_line + line.saturating_sub(1), reason),
        Some(key) => RowError::new(key, 0, reason),
        None => RowError::new(name, line, reason),
    }
}

/// A template that makes one line of text.
#[derive(Debug, Clone)]
pub(super) struct Line {
    /// The key of the job file, for error texts.
    pub(super) key: String,
    /// The line of the job file it stands in; 0 where that is not known.
    pub(super) at: usize,
    pub(super) form: Form,
}

#[derive(Debug, Clone)]
pub(super) enum Form {
    /// Text and columns only.
    Parts(Vec<Part>),
    /// The column that means the address, of each row its own.
    Address,
    /// All else: a template of this name in the text environment.
    Template(String),
}

#[derive(Debug, Clone)]
pub(super) enum Part {
    Text(String),
    /// A column, and where it was when the templates were compiled.
    Column(String, usize),
}

impl Line {
    /// The text, where it is the same for every row.
    pub(super) fn words(&self) -> Option<String> {
        let Form::Parts(parts) = &self.form else { return None };
        parts
            .iter()
            .map(|part| if let Part::Text(text) = part { Some(text.as_str()) } else { None })
            .collect()
    }

    /// The text for the row of the view.
    pub(super) fn render(&self, view: &View) -> Result<String, RowError> {
        match &self.form {
            Form::Template(name) => view.render(&view.engine.text, name, self.at),
            Form::Address => {
                let Some(row) = view.row else { return Err(self.error("there is no row")) };
                let name =
                    default_address_column(&row.columns).map_err(|error| self.error(error.to_string()))?;
                let mut out = String::new();
                self.push_cell(&mut out, view, name, 0)?;
                Ok(out)
            }
            Form::Parts(parts) => {
                let mut out = String::with_capacity(64);
                for part in parts {
                    match part {
                        Part::Text(text) => out.push_str(text),
                        Part::Column(name, place) => self.push_cell(&mut out, view, name, *place)?,
                    }
                }
                Ok(out)
            }
        }
    }

    fn push_cell(&self, out: &mut String, view: &View, name: &str, place: usize) -> Result<(), RowError> {
        let found = view.row.and_then(|row| {
            // The columns are nearly always those of the list, in its order.
            if row.columns.names().get(place).is_some_and(|known| known == name) {
                row.cells.get(place)
            } else {
                row.cell(name)
            }
        });
        match found {
            Some(Cell::Text(text)) => out.push_str(text),
            None => return Err(self.error(format!("`{name}` is undefined"))),
            Some(Cell::Null) => {
                return Err(self.error(format!(
                    "`{name}`: it is null, which is never printed; `default` gives it a value"
                )));
            }
            Some(other) => out.push_str(&cell(other).to_string()),
        }
        Ok(())
    }

    /// The text, which must be one line: it becomes a header, a command or a name.
    pub(super) fn render_line(&self, view: &View) -> Result<String, RowError> {
        let mut text = self.render(view)?;
        text.truncate(text.trim_end_matches(['\r', '\n']).len());
        match text.chars().find(|c| c.is_control()) {
            None => Ok(text),
            Some(_) if text.contains(['\r', '\n']) => Err(self.error("a value in it holds a line break")),
            Some(_) => Err(self.error("a value in it holds a control character")),
        }
    }

    pub(super) fn error(&self, reason: impl Into<String>) -> RowError {
        RowError::new(self.key.clone(), self.at, reason)
    }
}

/// `where`, `when`: a template in the environment of conditions.
#[derive(Debug, Clone)]
pub(super) struct Condition {
    pub(super) key: String,
    pub(super) at: usize,
    /// The template's name.
    pub(super) name: String,
    /// Bare names that it takes for truth values.
    pub(super) truths: Vec<String>,
}

impl Condition {
    pub(super) fn holds(&self, view: &View) -> Result<bool, RowError> {
        for name in &self.truths {
            if matches!(view.row.and_then(|row| row.cell(name)), Some(Cell::Text(_))) {
                let reason =
                    format!("`{name}` is text, which is true whatever it says; compare it with something");
                return Err(RowError::new(self.key.clone(), self.at, reason));
            }
        }
        Ok(view.render(&view.engine.conditions, &self.name, self.at)? == "t")
    }
}

/// A file pattern or path: text of the job's and `{{ }}`, of which each knows whether what it writes
/// is the job's own or a row's.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    pub(super) line: Line,
    /// For each `{{ }}` in order, the names in it.
    pub(super) emits: Vec<BTreeSet<String>>,
    /// Made by the engine with marks around values; else `line` has no `{{ }}` at all.
    pub(super) marked: bool,
}

impl Pattern {
    pub(super) fn render(&self, view: &View) -> Result<Vec<Piece>, RowError> {
        let text = if self.marked {
            let Form::Template(name) = &self.line.form else { return Ok(Vec::new()) };
            view.render(&view.engine.patterns, name, self.line.at)?
        } else {
            self.line.render(view)?
        };
        let mut pieces = Vec::new();
        let mut push = |piece: Piece| match (pieces.last_mut(), piece) {
            (Some(Piece::Operator(before)), Piece::Operator(text)) => before.push_str(&text),
            (_, piece) => pieces.push(piece),
        };
        let mut rest = text.as_str();
        let mut emits = self.emits.iter();
        while let Some((before, behind)) = rest.split_once(VALUE_START) {
            let (value, behind) = behind.split_once(VALUE_END).unwrap_or((behind, ""));
            if !before.is_empty() {
                push(Piece::Operator(before.to_owned()));
            }
            let names = emits.next();
            let operator = names.is_some_and(|names| names.iter().all(|name| self.is_operators(view, name)));
            push(if operator { Piece::Operator(value.to_owned()) } else { Piece::Value(value.to_owned()) });
            rest = behind;
        }
        if !rest.is_empty() {
            push(Piece::Operator(rest.to_owned()));
        }
        let control = |text: &str| text.chars().any(char::is_control);
        let bad = pieces.iter().any(|piece| match piece {
            Piece::Operator(text) | Piece::Value(text) => control(text),
        });
        if bad {
            return Err(self.line.error("a value in it holds a control character"));
        }
        Ok(pieces)
    }

    /// Whether a name is one of `vars`, and no column of this row hides it.
    fn is_operators(&self, view: &View, name: &str) -> bool {
        (name == "now" || view.names.var(name).is_some())
            && view.row.is_none_or(|row| row.columns.place(name).is_none())
    }
}
