//! A mistake, shown where it was made: file, line, the words at fault, and what would be right.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level as Heading, Renderer, Snippet};

use crate::exit::Exit;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Worth knowing; nothing is stopped.
    Warning,
    /// Nothing is sent.
    Error,
}

/// A place in a file that was read as text.
#[derive(Debug, Clone)]
pub struct Place {
    /// The file, as it is shown.
    pub file: PathBuf,
    /// Its whole text.
    pub source: Arc<str>,
    /// The bytes at fault.
    pub span: Range<usize>,
}

impl Place {
    /// Line and column of its first sign, counted from 1.
    pub fn line_and_column(&self) -> (usize, usize) {
        let (window, line, span) = window(self);
        (line, 1 + window[..span.start].chars().count())
    }
}

/// One mistake or warning.
#[derive(Debug, Clone)]
pub struct Diagnostic {
    /// Warning or error.
    pub level: Level,
    /// One sentence: what is wrong.
    pub title: String,
    /// Where, when it is in a file.
    pub place: Option<Place>,
    /// A few words under the mark.
    pub label: String,
    /// What would be right.
    pub help: Option<String>,
    /// How the process ends on account of it.
    pub exit: Exit,
}

impl Diagnostic {
    /// An error without a place.
    pub fn error(title: impl Into<String>) -> Diagnostic {
        let (label, title) = (String::new(), title.into());
        Diagnostic { level: Level::Error, title, place: None, label, help: None, exit: Exit::Job }
    }

    /// A warning without a place.
    pub fn warning(title: impl Into<String>) -> Diagnostic {
        Diagnostic { level: Level::Warning, ..Diagnostic::error(title) }
    }

    /// The same, at a place.
    pub fn at(mut self, place: Place) -> Diagnostic {
        self.place = Some(place);
        self
    }

    /// The same, at a place if there is one.
    pub fn at_maybe(mut self, place: Option<Place>) -> Diagnostic {
        self.place = place;
        self
    }

    /// The same, with words under the mark.
    pub fn label(mut self, label: impl Into<String>) -> Diagnostic {
        self.label = label.into();
        self
    }

    /// The same, with what would be right.
    pub fn help(mut self, help: impl Into<String>) -> Diagnostic {
        self.help = Some(help.into());
        self
    }

    /// The same, with what would be right if that is known.
    pub fn help_maybe(self, help: Option<impl Into<String>>) -> Diagnostic {
        match help {
            Some(help) => self.help(help),
            None => self,
        }
    }

    /// The same, ending the process in another way than [`Exit::Job`].
    pub fn ending(mut self, exit: Exit) -> Diagnostic {
        self.exit = exit;
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.title)
    }
}

/// How the process ends on account of them: a mistake of the job comes before a file that is missing.
pub fn exit(diagnostics: &[Diagnostic]) -> Exit {
    let errors = diagnostics.iter().filter(|one| one.level == Level::Error);
    errors.map(|one| one.exit).fold(Exit::Done, Exit::or_worse)
}

/// What people see of them: each with its line, its words marked, and what would be right; with
/// escape sequences for a terminal if `colour`. Ends in a line end unless there is nothing.
pub fn print(diagnostics: &[Diagnostic], colour: bool) -> String {
    draw(diagnostics, colour, DecorStyle::Unicode)
}

/// The same in the signs that every terminal has.
pub fn print_ascii(diagnostics: &[Diagnostic], colour: bool) -> String {
    draw(diagnostics, colour, DecorStyle::Ascii)
}

fn draw(diagnostics: &[Diagnostic], colour: bool, decor: DecorStyle) -> String {
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    let renderer = renderer.decor_style(decor).term_width(WIDTH);
    let mut text = String::new();
    for (number, diagnostic) in diagnostics.iter().take(MOST).enumerate() {
        if number > 0 {
            text.push('\n');
        }
        text.push_str(&renderer.render(&[group(diagnostic)]));
        text.push('\n');
    }
    if let Some(rest @ 1..) = diagnostics.len().checked_sub(MOST) {
        text.push_str(&format!("\n… and {rest} more\n"));
    }
    text
}

/// Nobody reads on after so many; a list in the job file can have a mistake in every row.
const MOST: usize = 100;

/// Lines of a file that are longer are cut around the mark.
const WIDTH: usize = 110;

fn group(diagnostic: &Diagnostic) -> Group<'_> {
    let heading = match diagnostic.level {
        Level::Error => Heading::ERROR,
        Level::Warning => Heading::WARNING,
    };
    let mut group = Group::with_title(heading.primary_title(&diagnostic.title));
    if let Some(place) = &diagnostic.place {
        // Only the lines at fault are handed over: the file may be large, and is not read for each mistake.
        let (window, line, span) = window(place);
        let mut mark = AnnotationKind::Primary.span(span);
        if !diagnostic.label.is_empty() {
            mark = mark.label(&diagnostic.label);
        }
        let file = place.file.display().to_string();
        group = group.element(Snippet::source(window).line_start(line).path(file).annotation(mark));
    }
    match &diagnostic.help {
        Some(help) => group.element(Heading::HELP.message(help)),
        None => group,
    }
}

/// The lines of a place, the number of the first, and the span within them.
fn window(place: &Place) -> (&str, usize, Range<usize>) {
    let source = &*place.source;
    let span = within(place);
    let start = source[..span.start].rfind('\n').map_or(0, |at| at + 1);
    let end = source[span.end..].find('\n').map_or(source.len(), |at| span.end + at);
    let line = 1 + source[..start].bytes().filter(|byte| *byte == b'\n').count();
    (&source[start..end], line, span.start - start..span.end - start)
}

/// The span, moved to where the source has characters: a place that is off must not end the program
/// while it tells of a mistake.
fn within(place: &Place) -> Range<usize> {
    let source = &*place.source;
    let boundary = |mut at: usize| {
        at = at.min(source.len());
        while !source.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let start = boundary(place.span.start);
    start..boundary(place.span.end).max(start)
}

/// An error and all that lies behind it, in one line.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !words.contains(&said) {
            words = format!("{words}: {said}");
        }
        cause = error.source();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(source: &str, words: &str) -> Place {
        let start = source.find(words).expect("the words are there");
        Place { file: "jobs/通知.yaml".into(), source: Arc::from(source), span: start..start + words.len() }
    }

    #[test]
    fn mistakes_are_shown_where_they_were_made() {
        let nowhere = Place { file: "a.yaml".into(), source: Arc::from("a: b\nc: 好"), span: 9..999 };
        for (diagnostic, expected) in [
            (
                Diagnostic::error("unknown key `subjekt`")
                    .at(at("kind: send\nsubjekt: 你好\nfrom: x\n", "subjekt"))
                    .label("no such key here")
                    .help("did you mean `subject`?"),
                "error: unknown key `subjekt`
  ╭▸ jobs/通知.yaml:2:1
  │
2 │ subjekt: 你好
  │ ━━━━━━━ no such key here
  │
  ╰ help: did you mean `subject`?
",
            ),
            (
                // Wide characters take two columns, before the mark and under it.
                Diagnostic::warning("wrong").at(at("主题: 您好世界abc # x\n", "世界abc")).label("这里"),
                "warning: wrong
  ╭▸ jobs/通知.yaml:1:7
  │
1 │ 主题: 您好世界abc # x
  ╰╴          ━━━━━━━ 这里
",
            ),
            (
                Diagnostic::error("no place").help("do this"),
                "error: no place
 │
 ╰ help: do this
",
            ),
            (
                // A span inside a character and beyond the end.
                Diagnostic::error("off").at(nowhere),
                "error: off
  ╭▸ a.yaml:2:4
  │
2 │ c: 好
  ╰╴   ━━
",
            ),
        ] {
            assert_eq!(print(&[diagnostic], false), expected);
        }
        assert_eq!(print(&[], false), "");
        assert_eq!(print(&[Diagnostic::error("a"), Diagnostic::error("b")], false), "error: a\n\nerror: b\n");
        assert!(print(&[Diagnostic::error("a")], true).contains('\u{1b}'));
        let plain = print_ascii(&[Diagnostic::error("a").at(at("b", "b")).label("c")], false);
        assert!(!plain.contains(['╭', '│', '━']) && plain.contains("^ c"), "{plain}");
        let many = vec![Diagnostic::error("a"); 102];
        assert!(print(&many, false).ends_with("error: a\n\n… and 2 more\n"));
    }
}
