//! What is said on stderr beside the answer: words for people, or with `--log json` one JSON object a line, whatever
//! it is. Only the command line's own mistakes are always words: they are found before it is known what was asked.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use serde_json::{Value as Json, json};

use crate::diagnostic::{self, Diagnostic};

/// How all of this process is said: set once, before anything is.
static JSON: AtomicBool = AtomicBool::new(false);

/// Whether only what went wrong is said.
static QUIET: AtomicBool = AtomicBool::new(false);

/// Whether nothing is said that is only worth knowing.
pub fn is_quiet() -> bool {
    QUIET.load(Relaxed)
}

/// From here on nothing is said that is only worth knowing.
pub fn begin_quiet() {
    QUIET.store(true, Relaxed);
}

/// Bars that are drawn at the end of the terminal.
static BARS: AtomicUsize = AtomicUsize::new(0);

/// A bar stands on the terminal's last line, or no longer: words take its place, and it is drawn again below them.
pub fn above_a_bar(drawn: bool) {
    match drawn {
        true => BARS.fetch_add(1, Relaxed),
        false => BARS.fetch_sub(1, Relaxed),
    };
}

/// From here on everything is said in JSON, the last words of a thread that breaks among it.
pub fn begin_json() {
    JSON.store(true, Relaxed);
    std::panic::set_hook(Box::new(|broken| say(Level::Error, &broken.to_string())));
}

/// Whether everything is said in JSON.
pub fn is_json() -> bool {
    JSON.load(Relaxed)
}

/// How a line is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Something cannot be done.
    Error,
    /// One of many has failed.
    Failed,
    /// It goes on, and somebody should know.
    Warning,
    /// What can be done about the line before.
    Help,
    /// What is going on.
    Note,
}

impl Level {
    /// What stands before the words for people.
    fn prefix(self) -> &'static str {
        match self {
            Level::Error => "error: ",
            Level::Failed => "failed: ",
            Level::Warning => "warning: ",
            Level::Help => "help: ",
            Level::Note => "",
        }
    }

    /// The word for programs.
    fn word(self) -> &'static str {
        match self {
            Level::Error | Level::Failed => "error",
            Level::Warning => "warning",
            Level::Help => "help",
            Level::Note => "note",
        }
    }
}

/// Words of a line or several.
pub fn say(level: Level, words: &str) {
    if !is_json() {
        return write(&format!("{}{words}\n", level.prefix()));
    }
    let words = words.trim();
    message(level.word(), words.strip_prefix("postroom: ").unwrap_or(words));
}

/// Words that are only worth knowing: with `--quiet` nobody hears them.
pub fn note(words: &str) {
    if !is_quiet() {
        say(Level::Note, &format!("postroom: {words}"));
    }
}

/// Why a command ends as it does.
pub fn error(words: &str) {
    match is_json() {
        true => message("error", words),
        false => write(&format!("postroom: {words}\n")),
    }
}

/// A question, whose answer is read from the terminal.
pub fn question(words: &str) {
    match is_json() {
        true => message("question", words.trim()),
        false => write(words),
    }
}

/// Mistakes and warnings, each with its place.
pub fn diagnostics(diagnostics: &[Diagnostic], colour: bool) {
    match is_json() {
        true => diagnostics.iter().for_each(|one| event("diagnostic", object(one))),
        false if is_utf8(|name| std::env::var(name).ok()) => write(&diagnostic::print(diagnostics, colour)),
        false => write(&diagnostic::print_ascii(diagnostics, colour)),
    }
}

/// Whether a terminal shows UTF-8, as far as the locale says. Where it says nothing (cron), it is what mail and logs
/// are read in.
fn is_utf8(variable: impl Fn(&str) -> Option<String>) -> bool {
    let named = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().filter_map(variable).find(|name| !name.is_empty());
    named.is_none_or(|name| name.to_ascii_lowercase().replace('-', "").contains("utf8"))
}

/// What happened, for programs: an object with the members of `facts`. People are told otherwise.
pub fn event(name: &str, facts: Json) {
    let mut object = facts;
    object["event"] = name.into();
    object["time"] = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string().into();
    write(&format!("{object}\n"));
}

fn message(level: &str, text: &str) {
    event("message", json!({"level": level, "text": text}));
}

fn object(of: &Diagnostic) -> Json {
    let level = match of.level {
        diagnostic::Level::Error => "error",
        diagnostic::Level::Warning => "warning",
    };
    let mut object = json!({"level": level, "text": of.title});
    if let Some(place) = &of.place {
        let (line, column) = place.line_and_column();
        object["file"] = place.file.display().to_string().into();
        object["line"] = line.into();
        object["column"] = column.into();
    }
    if !of.label.is_empty() {
        object["label"] = of.label.as_str().into();
    }
    if let Some(help) = &of.help {
        object["help"] = help.as_str().into();
    }
    object
}

/// Whole lines, at once, so that no other thread's words come between; a closed stderr ends nothing.
pub fn write(text: &str) {
    let wipe = if BARS.load(Relaxed) > 0 { "\r\x1b[2K" } else { "" };
    let _ = std::io::stderr().lock().write_all(format!("{wipe}{text}").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_locale_says_what_a_terminal_shows() {
        for (all, lang, expected) in [
            ("", "zh_CN.UTF-8", true),
            ("", "zh_CN.GBK", false),
            ("C.utf8", "C", true),
            ("C", "en_US.UTF-8", false),
            ("", "", true),
        ] {
            let variable = |name: &str| match name {
                "LC_ALL" => Some(all.to_owned()),
                "LANG" => Some(lang.to_owned()),
                _ => None,
            };
            assert_eq!(is_utf8(variable), expected, "{all} {lang}");
        }
    }
}
