//! Template files: where they are looked for, and that no name leads out of there.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use crate::diagnostic::Diagnostic;
use crate::job::Text;
use crate::render::scan::Scan;

use super::Compiler;
use super::names::nearest;
use super::places::{place, syntax_in_file};

/// A template file longer than this is taken for something else.
const LONGEST_TEMPLATE: u64 = 16 << 20;

/// What is said of a file in another encoding.
const NOT_UTF8: &str = "it is not UTF-8";

/// More files than a folder of templates has.
const MOST_TEMPLATES: usize = 10_000;

/// A template file that was read.
pub(super) struct Loaded {
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) source: Arc<str>,
    pub(super) scan: Scan,
}

impl Compiler<'_> {
    /// Where a template is: in `templates/`, from the root, beside the template that names it. Only
    /// the job file may lead out of these.
    pub(super) fn find(&self, name: &str, beside: Option<&Path>, of_job: bool) -> Option<PathBuf> {
        let root = &self.job.root;
        let templates = root.join("templates");
        if of_job {
            return [templates.join(name), root.join(name)].into_iter().find(|path| path.is_file());
        }
        [Some(templates.as_path()), Some(root.as_path()), beside]
            .into_iter()
            .flatten()
            .find_map(|folder| confined(folder, name))
    }

    pub(super) fn load(&mut self, name: &str, path: PathBuf, text: &Text) -> Option<Loaded> {
        let source: Arc<str> = match read(&path) {
            Ok(source) => source.into(),
            Err(reason) => {
                let title = format!("the template `{name}` cannot be read: {reason}");
                let mut mistake = Diagnostic::error(title);
                if reason == NOT_UTF8 {
                    mistake =
                        mistake.help("save the file as UTF-8; some editors write GBK or UTF-16 unless told");
                }
                self.mistakes.push(place(mistake, text));
                return None;
            }
        };
        match Scan::template(&source) {
            Ok(scan) => Some(Loaded { name: name.to_owned(), path, source, scan }),
            Err(error) => {
                let shown = self.shown(&path);
                self.flawed(syntax_in_file(name, &shown, &source, &error), &source);
                None
            }
        }
    }

    pub(super) fn missing(&self, name: &str, text: &Text) -> Diagnostic {
        let folder = self.job.root.join("templates");
        let there: Vec<String> = std::fs::read_dir(&folder)
            .map(|entries| {
                entries
                    .flatten()
                    .filter(|entry| entry.path().is_file())
                    .map(|entry| entry.file_name().to_string_lossy().into_owned())
                    .take(1000)
                    .collect()
            })
            .unwrap_or_default();
        let mistake = Diagnostic::error(format!("the template `{name}` is not there"))
            .label("neither in templates/ nor from the root");
        let mistake = match nearest(name, there.iter().map(String::as_str)) {
            Some(near) => mistake.help(format!("did you mean `{near}`?")),
            None => mistake.help_maybe(text.as_path()),
        };
        place(mistake, text)
    }

    /// A path as it is shown: from the root where it is below it.
    pub(super) fn shown(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.job.root).unwrap_or(path).to_owned()
    }
}

/// The files below a folder, as templates name them.
pub(super) fn files_below(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = walkdir::WalkDir::new(folder)
        .follow_links(true)
        .into_iter()
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_file())
        .filter_map(|entry| entry.path().strip_prefix(folder).ok()?.to_str().map(str::to_owned))
        .take(MOST_TEMPLATES)
        .collect();
    names.sort_unstable();
    names
}

/// A file below a folder, or nothing: no name and no link leads out of it.
pub(super) fn confined(folder: &Path, name: &str) -> Option<PathBuf> {
    let path = Path::new(name);
    let below = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !below || name.contains(['\\', '\0']) {
        return None;
    }
    let (folder, path) = (folder.canonicalize().ok()?, folder.join(path).canonicalize().ok()?);
    (path.starts_with(&folder) && path.is_file()).then_some(path)
}

pub(super) fn read(path: &Path) -> Result<String, String> {
    let size = path.metadata().map_err(|error| error.to_string())?.len();
    if size > LONGEST_TEMPLATE {
        return Err(format!("it has {size} octets, which is too long for a template"));
    }
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    let text = String::from_utf8(bytes).map_err(|_| NOT_UTF8.to_owned())?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}
