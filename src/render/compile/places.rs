//! Where in the job file, or in a template, a mistake is.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Place};
use crate::job::Text;
use crate::render::error::reason;

/// The line of the job file a text stands in; 0 where that is not known.
pub(super) fn line_of(text: &Text) -> usize {
    text.place.as_ref().map_or(0, |place| {
        let (before, written) = place.source.split_at_checked(place.span.start).unwrap_or_default();
        // A block begins with its sign, and its words on the next line.
        let block = written.starts_with(['|', '>']);
        before.matches('\n').count() + 1 + usize::from(block)
    })
}

pub(super) fn place(diagnostic: Diagnostic, text: &Text) -> Diagnostic {
    diagnostic.at_maybe(text.place.clone())
}

/// The diagnostic at the words `span` of a text of the job file.
pub(super) fn within(diagnostic: Diagnostic, text: &Text, span: Range<usize>) -> Diagnostic {
    diagnostic.at_maybe(narrowed(text, span))
}

/// The place of `span` of a text. YAML may have quoted or folded the text, so the words are looked
/// for in what the file has there; if they are not found the whole text is the place.
pub(super) fn narrowed(text: &Text, span: Range<usize>) -> Option<Place> {
    let mut place = text.place.clone()?;
    let words = text.value.get(span.clone()).unwrap_or_default();
    let mut written = place.source.get(place.span.clone()).unwrap_or_default();
    if written.starts_with(['|', '>']) {
        // The words of a block follow its sign.
        written = place.source.get(place.span.start..).unwrap_or_default();
    }
    if words.is_empty() {
        return Some(place);
    }
    // As often as the words come before in the text, they do in the file.
    let nth = text.value.get(..span.start).unwrap_or_default().matches(words).count();
    if let Some((at, _)) = written.match_indices(words).nth(nth) {
        let start = place.span.start + at;
        place.span = start..start + words.len();
    }
    Some(place)
}

pub(super) fn syntax(key: &str, text: &Text, error: &minijinja::Error, shift: usize) -> Diagnostic {
    let title = format!("`{key}` is not a template as it should be: {}", reason(error));
    let span = error.range().map(|range| range.start.saturating_sub(shift)..range.end.saturating_sub(shift));
    match span {
        Some(span) => within(Diagnostic::error(title), text, span),
        None => place(Diagnostic::error(title), text),
    }
}

pub(super) fn syntax_in_file(
    name: &str,
    path: &Path,
    source: &Arc<str>,
    error: &minijinja::Error,
) -> Diagnostic {
    let title = format!("template `{name}`: {}", reason(error));
    let start =
        |line: usize| source.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum::<usize>();
    let span = error.range().unwrap_or_else(|| {
        let start = start(error.line().unwrap_or(1));
        start..start + source.get(start..).and_then(|rest| rest.lines().next()).map_or(0, str::len)
    });
    Diagnostic::error(title).at(Place { file: path.to_owned(), source: source.clone(), span })
}
