//! Bodies: a template with all that it includes, and the pictures that its HTML shows.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use minijinja::Environment;

use crate::diagnostic::{Diagnostic, Place};
use crate::job::{TemplateSource, Text};
use crate::render::pictures::{self, Language, Shown, Target};
use crate::render::scan::{Scan, Shape};
use crate::render::{Body, strict};

use super::files::{Loaded, confined, files_below, read};
use super::names::{listed, nearest};
use super::places::{line_of, narrowed, place, syntax, syntax_in_file};
use super::{Compiler, Role, Sees};

impl Compiler<'_> {
    /// Compiles a body with all it includes; gives the name of its template.
    pub(super) fn body(&mut self, source: &TemplateSource, role: Role) -> Option<Body> {
        let key = if role == Role::Html { "body.html" } else { "body.text" };
        let (text, main) = match source {
            TemplateSource::Inline(text) => (text, self.inline(key, text)?),
            TemplateSource::File(text) => (text, self.named(text)?),
        };
        let inline = matches!(source, TemplateSource::Inline(_));
        let silent = main.source.trim().is_empty();
        let name = main.name.clone();
        let beside = main.path.parent().filter(|_| !inline).map(Path::to_owned);
        let family = self.family(main, text, beside.as_deref())?;
        let perhaps = self.perhaps(&family, text);
        let before = self.mistakes.len();
        let assigned: HashSet<String> = if family.len() + perhaps.len() > 1 {
            let all = family.iter().chain(&perhaps);
            all.flat_map(|loaded| loaded.scan.assigned.iter().cloned()).collect()
        } else {
            HashSet::new()
        };
        for loaded in &family {
            if inline && loaded.name == name {
                self.check_job_text(key, text, &loaded.scan, Sees::Row);
                self.warn_unfilled(&format!("`{key}`"), &text.value, |span| narrowed(text, span));
            } else {
                self.check_file(loaded, &assigned);
            }
        }
        if self.mistakes.len() > before {
            return None;
        }
        self.add(role, key, text, family, perhaps)?;
        Some(Body { name, at: if inline { line_of(text) } else { 0 }, silent })
    }

    /// A body that stands in the job file.
    fn inline(&mut self, key: &str, text: &Text) -> Option<Loaded> {
        match Scan::template(&text.value) {
            Ok(scan) => {
                let path = text.place.as_ref().map_or_else(PathBuf::new, |place| place.file.clone());
                Some(Loaded { name: format!("<{key}>"), path, source: text.value.as_str().into(), scan })
            }
            Err(error) => {
                self.flawed(syntax(key, text, &error, 0), &text.value);
                None
            }
        }
    }

    /// A body in a file.
    fn named(&mut self, text: &Text) -> Option<Loaded> {
        let Some(path) = self.find(&text.value, None, true) else {
            self.mistakes.push(self.missing(&text.value, text));
            return None;
        };
        let loaded = self.load(text.written(), path, text)?;
        if loaded.source.trim().is_empty() {
            // An editor that is just saving leaves such a file for a moment.
            let title = format!("the template `{}` is empty", text.value);
            let help = "a letter without words is written `{inline: \"\"}`";
            self.mistakes.push(place(Diagnostic::error(title).help(help), text));
            return None;
        }
        Some(loaded)
    }

    /// Gives the engine a body's templates, and those that may be needed.
    fn add(
        &mut self,
        role: Role,
        key: &str,
        text: &Text,
        family: Vec<Loaded>,
        perhaps: Vec<Loaded>,
    ) -> Option<()> {
        let foreign = self.foreign(family.iter().chain(&perhaps));
        for loaded in perhaps {
            self.saw(format!("{key}: {}", loaded.name), &loaded.source);
            let source = match role {
                Role::Text => loaded.source.to_string(),
                Role::Html => self.embed_perhaps(&loaded, text, &foreign),
            };
            // One that the engine does not take is told of when it is needed.
            let _ = self.env(role).add_template_owned(loaded.name, strict::guarded(source));
        }
        for loaded in family {
            self.saw(format!("{key}: {}", loaded.name), &loaded.source);
            let source = match role {
                Role::Text => loaded.source.to_string(),
                Role::Html => self.embed(&loaded, text, &foreign),
            };
            if let Err(error) =
                self.env(role).add_template_owned(loaded.name.clone(), strict::guarded(source))
            {
                let mistake = syntax_in_file(&loaded.name, &loaded.path, &loaded.source, &error);
                self.flawed(mistake, &loaded.source);
                return None;
            }
        }
        // Any other that is named by a value is looked for when it is needed, and only among the
        // templates: a row must not be able to have the job file printed.
        let templates = self.job.root.join("templates");
        self.env(role).set_loader(move |name| {
            Ok(confined(&templates, name).and_then(|path| read(&path).ok()).map(strict::guarded))
        });
        Some(())
    }

    /// Names in a family of templates whose values a row may have made: columns, and what flows
    /// from them. What is known to come from `vars` alone is the operator's own word.
    fn foreign<'f>(&self, family: impl Iterator<Item = &'f Loaded> + Clone) -> HashSet<String> {
        let flows = || family.clone().flat_map(|loaded| loaded.scan.flows.iter());
        let given: HashSet<&str> = flows().map(|(name, _)| name.as_str()).collect();
        let mut foreign: HashSet<String> = HashSet::new();
        loop {
            let before = foreign.len();
            for (name, sources) in flows() {
                let own = sources.as_ref().is_some_and(|sources| {
                    sources.iter().all(|source| {
                        let var = self.names.knows_columns() && self.names.var(source).is_some();
                        (var || given.contains(source.as_str()) || source == "range")
                            && !foreign.contains(source)
                    })
                });
                if !own {
                    foreign.insert(name.clone());
                }
            }
            if foreign.len() == before {
                return foreign;
            }
        }
    }

    /// The source of an HTML template with its pictures rewritten; those that are named literally
    /// are noted.
    fn embed(&mut self, loaded: &Loaded, text: &Text, foreign: &HashSet<String>) -> String {
        let Shown { references, left } = pictures::shown(&loaded.source, Language::of(&loaded.name));
        if let [(words, span), more @ ..] = &left[..] {
            let spot = self.spot_in(loaded, text, span.clone());
            self.warnings.push(not_embedded(loaded, words, more.len()).at_maybe(spot));
        }
        let mut replacements = Vec::with_capacity(references.len());
        for reference in &references {
            let (replacement, mistake) = match &reference.target {
                Target::File(path) => match self.picture(path, loaded) {
                    Some(cid) => (format!("cid:{cid}"), None),
                    None => (String::new(), Some(no_picture(path))),
                },
                Target::Named(name) => {
                    let known = self.job.images.iter().any(|spec| spec.cid == *name);
                    let mistake = (!known).then(|| self.unnamed_picture(name));
                    (format!("cid:{}", pictures::content_id_of_name(name)), mistake)
                }
                Target::Template(parts) => {
                    let own = |expression: &String| self.is_own(expression, loaded, foreign);
                    let operators: Vec<bool> = parts.iter().skip(1).step_by(2).map(own).collect();
                    (pictures::call(parts, &operators), None)
                }
            };
            if let Some(mistake) = mistake {
                let spot = self.spot_in(loaded, text, reference.span.clone());
                self.mistakes.push(mistake.at_maybe(spot));
            }
            replacements.push(replacement);
        }
        pictures::rewrite(&loaded.source, &references, &replacements)
    }

    /// Whether an expression is made of the operator's own words alone.
    fn is_own(&self, expression: &str, loaded: &Loaded, foreign: &HashSet<String>) -> bool {
        let names = pictures::names_in(expression);
        let known = |name: &String| {
            let assigned = loaded.scan.assigned.contains(name);
            let var = self.names.knows_columns() && self.names.var(name).is_some();
            (assigned || var) && !foreign.contains(name)
        };
        !names.is_empty() && names.iter().all(known)
    }

    fn unnamed_picture(&self, name: &str) -> Diagnostic {
        let cids = || self.job.images.iter().map(|spec| &*spec.cid);
        let help = match nearest(name, cids()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if self.job.images.is_empty() => {
                format!("name its file in the job, `images: {{{name}: images/x.png}}`")
            }
            None => format!("it has {}", listed(cids())),
        };
        Diagnostic::error(format!("`images` has no picture `{name}`")).help(help)
    }

    /// The content-id of a picture on the disk, noted once however often it is shown. One that
    /// `images` has already keeps the name it has there.
    fn picture(&mut self, path: &str, loaded: &Loaded) -> Option<String> {
        let root = &self.job.root;
        let beside = loaded.path.parent().filter(|_| !loaded.name.starts_with('<'));
        let file = [Some(root.as_path()), beside].into_iter().flatten().find_map(|folder| {
            let file = folder.join(path);
            file.is_file().then(|| file.canonicalize().unwrap_or(file))
        })?;
        if let Some((cid, _)) = self.inline.iter().find(|(_, known)| *known == file) {
            return Some(cid.clone());
        }
        let named = self
            .job
            .images
            .iter()
            .find(|spec| root.join(&spec.file.value).canonicalize().is_ok_and(|known| known == file));
        if let Some(spec) = named {
            return Some(pictures::content_id_of_name(&spec.cid));
        }
        let shown = self.shown(&file);
        let cid = pictures::content_id(&shown.to_string_lossy());
        self.inline.push((cid.clone(), file));
        Some(cid)
    }

    fn env(&mut self, role: Role) -> &mut Environment<'static> {
        match role {
            Role::Html => &mut self.engine.html,
            Role::Text => &mut self.engine.text,
        }
    }

    /// A template and all that it names, each once.
    fn family(&mut self, main: Loaded, text: &Text, folder: Option<&Path>) -> Option<Vec<Loaded>> {
        let mut family: BTreeMap<String, Loaded> = BTreeMap::new();
        let mut next = vec![main];
        let mut whole = true;
        while let Some(loaded) = next.pop() {
            for (names, span, may_be_missing) in &loaded.scan.includes {
                let mut found = false;
                for name in names {
                    if family.contains_key(name)
                        || *name == loaded.name
                        || next.iter().any(|l| l.name == *name)
                    {
                        found = true;
                        continue;
                    }
                    let Some(path) = self.find(name, folder, false) else { continue };
                    found = true;
                    match self.load(name, path, text) {
                        Some(other) => next.push(other),
                        None => whole = false,
                    }
                }
                if !found && !may_be_missing {
                    whole = false;
                    let title = format!("the template `{}` is not there", names.join("`, `"));
                    let mistake = Diagnostic::error(title)
                        .label("named here")
                        .help("templates are looked for in templates/, then from the root");
                    let spot = self.spot_in(&loaded, text, span.clone());
                    self.mistakes.push(mistake.at_maybe(spot));
                }
            }
            family.insert(loaded.name.clone(), loaded);
        }
        if let Some((from, at)) = endless(&family) {
            let (names, span, _) = &from.scan.includes[at];
            let mistake =
                Diagnostic::error(format!("the template `{}` is within itself", names.join("`, `")))
                    .label("from here it comes round to itself, without an end")
                    .help("a template may include itself only within an `if` or a loop that ends");
            self.mistakes.push(mistake.at_maybe(self.spot_in(from, text, span.clone())));
            return None;
        }
        whole.then(|| family.into_values().collect())
    }

    /// Templates that may be needed: those below templates/ that a computed name of the family can have, and
    /// what they name in their turn. What is wrong in them is no mistake of the job, for which of them is
    /// needed the rows say.
    fn perhaps(&mut self, family: &[Loaded], text: &Text) -> Vec<Loaded> {
        let mut found: Vec<Loaded> = Vec::new();
        let (mut there, mut blind) = (None, false);
        let mut at = 0;
        while let Some(loaded) = family.get(at).or_else(|| found.get(at - family.len())) {
            let mut names: Vec<String> = Vec::new();
            if at >= family.len() {
                names.extend(loaded.scan.includes.iter().flat_map(|(names, ..)| names.iter().cloned()));
            }
            for (shapes, span) in &loaded.scan.computed {
                for shape in shapes {
                    if shape.iter().all(Option::is_none) {
                        self.whole_row = true;
                        if !blind {
                            blind = true;
                            let spot = self.spot_in(loaded, text, span.clone());
                            self.warnings.push(by_a_value_alone(loaded).at_maybe(spot));
                        }
                        continue;
                    }
                    let there = there.get_or_insert_with(|| files_below(&self.job.root.join("templates")));
                    names.extend(there.iter().filter(|name| fits(shape, name)).cloned());
                }
            }
            for name in names {
                let known = family.iter().chain(&found).any(|known| known.name == name);
                let templates = self.job.root.join("templates");
                let Some(path) = confined(&templates, &name).filter(|_| !known) else { continue };
                let Ok(source) = read(&path) else { continue };
                let Ok(scan) = Scan::template(&source) else { continue };
                self.asked.extend(scan.names.iter().map(|(name, _)| name.clone()));
                self.asked.extend(scan.asked.iter().cloned());
                self.whole_row |= self.asked.contains("row");
                found.push(Loaded { name, path, source: source.into(), scan });
            }
            at += 1;
        }
        found
    }

    /// As [`Compiler::embed`]; where something is wrong the template stays as it is, and nothing is said.
    fn embed_perhaps(&mut self, loaded: &Loaded, text: &Text, foreign: &HashSet<String>) -> String {
        let before = (self.mistakes.len(), self.warnings.len(), self.inline.len());
        let source = self.embed(loaded, text, foreign);
        self.warnings.truncate(before.1);
        if self.mistakes.len() == before.0 {
            return source;
        }
        self.mistakes.truncate(before.0);
        self.inline.truncate(before.2);
        loaded.source.to_string()
    }

    fn spot_in(&self, loaded: &Loaded, text: &Text, span: Range<usize>) -> Option<Place> {
        if loaded.name.starts_with('<') {
            return text.place.clone();
        }
        Some(Place { file: self.shown(&loaded.path), source: loaded.source.clone(), span })
    }
}

/// The template, and the place in its `includes`, from where a template is reached again that is
/// still being carried out, whatever the row says.
fn endless(family: &BTreeMap<String, Loaded>) -> Option<(&Loaded, usize)> {
    /// Goes on from a template; `way` leads to it, `done` are those from which nothing comes round.
    fn from<'f>(
        family: &'f BTreeMap<String, Loaded>,
        loaded: &'f Loaded,
        way: &mut Vec<&'f str>,
        done: &mut HashSet<&'f str>,
    ) -> Option<(&'f Loaded, usize)> {
        way.push(&loaded.name);
        for &at in &loaded.scan.always {
            // Of several names the first that is there is taken.
            let next = loaded.scan.includes[at].0.iter().find_map(|name| family.get(name));
            let Some(next) = next.filter(|next| !done.contains(&*next.name)) else { continue };
            if way.contains(&&*next.name) {
                return Some((loaded, at));
            }
            let found = from(family, next, way, done);
            if found.is_some() {
                return found;
            }
        }
        way.pop();
        done.insert(&loaded.name);
        None
    }
    let mut done = HashSet::new();
    family.values().find_map(|loaded| from(family, loaded, &mut Vec::new(), &mut done))
}

/// Whether a name has a shape. What a value puts into it is part of a name, not of a path.
fn fits(shape: &Shape, name: &str) -> bool {
    let pattern: String =
        shape.iter().map(|part| part.as_deref().map_or_else(|| "*".to_owned(), globset::escape)).collect();
    let glob = globset::GlobBuilder::new(&pattern).literal_separator(true).build();
    glob.is_ok_and(|glob| glob.compile_matcher().is_match(name))
}

fn no_picture(path: &str) -> Diagnostic {
    Diagnostic::error(format!("the picture `{path}` is not there"))
        .label("neither from the root nor beside the template")
        .help("a picture on the web needs its whole URL, https://…")
}

/// Of a picture that is left as it is, and so many more.
fn not_embedded(loaded: &Loaded, words: &str, more: usize) -> Diagnostic {
    let name = loaded.name.trim_matches(['<', '>']);
    let more = match more {
        0 => String::new(),
        1 => ", and so is 1 more".to_owned(),
        more => format!(", and so are {more} more"),
    };
    Diagnostic::warning(format!("a picture in `{name}` is not embedded"))
        .label(format!("{words} is left as it is{more}"))
        .help(
            "`src` of `img`, `background` and `url()` embed a file; elsewhere give its whole URL, https://…",
        )
}

fn by_a_value_alone(loaded: &Loaded) -> Diagnostic {
    let name = loaded.name.trim_matches(['<', '>']);
    Diagnostic::warning(format!("a template is named by a value alone in `{name}`"))
        .label("pictures in it are not embedded, and a change of it midway is not seen")
        .help("a part of the name that is written out helps: `{% include lang ~ \".html\" %}`")
}
