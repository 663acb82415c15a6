//! Rendering, seen from outside: what a row and a job's templates become, and what is said when
//! they do not fit.

#[path = "../benches/bare_job.rs"]
mod bare_job;

use std::path::Path;
use std::sync::Arc;

use bare_job::bare_job;
use postroom::diagnostic::Place;
use postroom::job::{
    AttachmentSpec, ColumnKind, ImageSpec, MailboxTemplate, MailboxTemplates, SendJob, TemplateSource, Text,
    Unsubscribe,
};
use postroom::letter::{Cell, Columns, Piece, Row};
use postroom::render::{Addressed, Templates};
use serde_json::json;

/// A text with a place of its own, as the job file gives it.
fn placed(value: &str) -> Text {
    let source = format!("# a job\nkey: {value}\n");
    let span = 13..13 + value.len();
    Text { place: Some(Place { file: "job.yaml".into(), source: source.into(), span }), ..Text::new(value) }
}

fn inline(value: &str) -> Option<TemplateSource> {
    Some(TemplateSource::Inline(placed(value)))
}

fn file(name: &str) -> Option<TemplateSource> {
    Some(TemplateSource::File(placed(name)))
}

fn row(cells: &[(&str, Cell)]) -> Row {
    let columns = Columns::new(cells.iter().map(|(name, _)| (*name).to_owned()).collect());
    Row {
        number: 2,
        line: None,
        columns: Arc::new(columns),
        cells: cells.iter().map(|(_, cell)| cell.clone()).collect(),
    }
}

fn text(value: &str) -> Cell {
    Cell::Text(value.to_owned())
}

fn job(change: impl FnOnce(&mut SendJob)) -> SendJob {
    let mut job = bare_job(Path::new("/nonexistent"));
    change(&mut job);
    job
}

fn compile(job: &SendJob, row: &Row) -> Templates {
    match Templates::compile(job, Some(&row.columns)) {
        Ok(templates) => templates,
        Err(mistakes) => panic!("{}", postroom::diagnostic::print(&mistakes, false)),
    }
}

/// The rendered text of a body, or the error's words.
fn render_text(template: &str, row: &Row) -> Result<String, String> {
    let job = job(|job| {
        job.body.text = inline(template);
        job.vars = json!({"year": 2026, "name": "var", "items": [{"t": "a", "n": 1}, {"t": "b", "n": 2}]})
            .as_object()
            .expect("an object")
            .clone();
    });
    let columns = Columns::loose(Vec::new());
    let templates =
        Templates::compile(&job, Some(&columns)).map_err(|m| postroom::diagnostic::print(&m, false))?;
    let letter =
        templates.letter(row, Vec::new(), Vec::new(), Vec::new()).map_err(|error| error.to_string())?;
    Ok(letter.letter.text.unwrap_or_default())
}

/// Writes a file of a project.
fn write(root: &Path, path: &str, content: &str) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
    std::fs::write(path, content).expect("written");
}

#[test]
fn a_text_sees_the_row_over_the_vars() {
    let row = row(&[
        ("email", text("ada@example.org")),
        ("name", text("Ada & <Co>")),
        ("姓名", text("张伟")),
        ("First Name", text("Ada")),
        ("joined", Cell::Date(jiff::civil::date(2026, 11, 3))),
        ("balance", Cell::Float(1234.5)),
        ("count", Cell::Int(3)),
        ("nothing", Cell::Null),
        ("nested", Cell::Nested(json!({"a": [1, {"b": "c"}]}))),
    ]);
    for (template, expected) in [
        ("{{ name }}", "Ada & <Co>"),
        ("{{ 姓名 }}，您好", "张伟，您好"),
        ("{{ row[\"First Name\"] }} {{ row.email }}", "Ada ada@example.org"),
        ("{{ year }}", "2026"),
        ("{{ joined }} {{ joined|date('%d/%m/%Y') }} {{ joined.year }}", "2026-11-03 03/11/2026 2026"),
        ("{{ balance|money('EUR') }} {{ count * 2 }}", "€1,234.50 6"),
        ("{% for i in items %}{{ loop.index }}{{ i.t }}{{ i['n'] }} {% endfor %}", "1a1 2b2 "),
        ("{{ nothing|default('none', true) }}", "none"),
        ("{% if nothing is none %}yes{% endif %}", "yes"),
        ("{{ absent|default('x') }}{% if absent is defined %}no{% endif %}", "x"),
        ("{{ nested.a[1].b }}", "c"),
        ("{{ name.upper() }} {{ 'x' if count > 2 }}", "ADA & <CO> x"),
        ("{% for i in range(9) %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}", "012"),
        ("{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m(count) }}", "<3>"),
        ("{{ items|map(attribute='t')|join(', ') }}", "a, b"),
        ("{% for k, v in nested|items %}{{ k }}{% endfor %}", "a"),
    ] {
        assert_eq!(render_text(template, &row).as_deref(), Ok(expected), "{template}");
    }
    for (template, expected) in [
        ("x\n{{ absent }}", "body.text, line 3: `absent` is undefined"),
        (
            "{{ nothing }}",
            "body.text, line 2: `nothing`: it is null, which is never printed; `default` gives it a value",
        ),
        ("{{ [count, nothing] }}", "line 2: `[count, nothing]`: a null is in it, which is never printed"),
        ("{{ {'n': [nothing]} }}", "line 2: `{'n': [nothing]}`: a null is in it"),
        ("{{ nothing|int + 5 }}", "line 2: it is null, which is never printed"),
        ("{{ nested.zz }}", "body.text, line 2: `nested.zz` is undefined"),
        ("{% if absent %}{% endif %}", "body.text, line 2: `absent` is undefined"),
        (
            "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
            "line 2: the template takes too long",
        ),
        ("{{ name|number }}", "line 2: `number` is given no number"),
        ("{{ name + 1 }}", "line 2:"),
    ] {
        let error = render_text(template, &row).expect_err(template);
        assert!(error.contains(expected), "{template}: {error}");
        assert!(!error.contains("ada@example.org"), "{error}");
    }
}

#[test]
fn html_escapes_and_nothing_else_does() {
    let row = row(&[("email", text("a@b.example")), ("name", text("<b>\"A\" & 'B'</b>/"))]);
    let job = job(|job| {
        job.subject = placed("{{ name }}");
        job.body.html = inline("<p title=\"{{ name }}\">{{ name|safe }} {{ name|upper }}</p>");
        job.body.text = inline("{{ name }}");
    });
    let letter = compile(&job, &row).letter(&row, vec![], vec![], vec![]).expect("rendered").letter;
    assert_eq!(letter.subject, "<b>\"A\" & 'B'</b>/");
    assert_eq!(letter.text.as_deref(), Some("<b>\"A\" & 'B'</b>/"));
    assert_eq!(
        letter.html.as_deref(),
        Some(
            "<p title=\"&lt;b&gt;&quot;A&quot; &amp; &#39;B&#39;&lt;/b&gt;/\"><b>\"A\" & 'B'</b>/ \
             &lt;B&gt;&quot;A&quot; &amp; &#39;B&#39;&lt;/B&gt;/</p>"
        )
    );
}

#[test]
fn addresses_are_put_together_without_trusting_values() {
    let usual =
        |name: &str, address: &str| MailboxTemplate { name: Some(placed(name)), address: placed(address) };
    let check = |name: &str, email: &str| {
        let row = row(&[
            ("email", text(email)),
            ("name", text(name)),
            ("cc", text("x@y.example; Eve <e@y.example>")),
        ]);
        let job = job(|job| {
            job.recipients.to = Some(usual("{{ name }}", "{{ email }}"));
            job.recipients.cc = MailboxTemplates::Split { each: placed("{{ cc }}"), split: ";".to_owned() };
        });
        compile(&job, &row).address(&row).map_err(|error| error.reason)
    };
    let Ok(Addressed::To { key, to, cc, bcc }) = check("Lovelace, Ada", "Ada@Example.org") else {
        panic!("not addressed")
    };
    assert_eq!((key.as_str(), to[0].name.as_deref()), ("ada@example.org", Some("Lovelace, Ada")));
    assert_eq!(to[0].address.as_str(), "Ada@Example.org");
    assert_eq!((cc.len(), cc[1].name.as_deref(), bcc.len()), (2, Some("Eve"), 0));
    for (name, email, expected) in [
        ("Ada\r\nBcc: eve@example.org", "a@b.example", "line break"),
        ("Ada\0", "a@b.example", "control character"),
        ("Ada", "a@b.example\r\nRCPT TO:<eve@b.example>", "line break"),
        ("Ada", "a@b.example> <eve@b.example", "is not an address"),
        ("Ada", "", "the address is empty"),
        ("Ada", "nobody", "is not an address"),
    ] {
        let reason = check(name, email).expect_err(email);
        assert!(reason.contains(expected), "{name:?} {email:?}: {reason}");
    }
    // What looks like another address in a name stays a name.
    let Ok(Addressed::To { to, .. }) = check("Eve <eve@b.example>", "a@b.example") else {
        panic!("not addressed")
    };
    assert_eq!(to[0].address.as_str(), "a@b.example");
}

#[test]
fn an_edition_that_comes_back_is_warned_of() {
    let row = row(&[("email", text("a@b.example"))]);
    for (edition, warned) in [
        ("{{ now | date('%Y-W%V') }}", true),
        ("{{ now | date('%m') }}", true),
        ("{{ now | date('%A') }}", true),
        ("{{ now | date('%H') }}", true),
        ("{{ now | date('%Y-%m-%d-%H') }}", false),
        ("{{ now | date('%G-W%V') }}", false),
        ("{{ now | date('%Y-%m') }}", false),
        ("{{ now | date('%Y-%m-%d') }}", false),
        ("{{ now | date('%Y') }}", false),
        ("2026-11", false),
    ] {
        let job = job(|job| {
            job.edition = placed(edition);
            job.timezone = Some("Europe/Berlin".to_owned());
        });
        let templates = compile(&job, &row);
        let said: Vec<&str> = templates.warnings().iter().map(|warning| &*warning.title).collect();
        assert_eq!(said.iter().any(|title| title.contains("a second time")), warned, "{edition}: {said:?}");
    }
}

#[test]
fn where_the_home_folder_lies_is_no_change_of_a_letter() {
    let fingerprint = |home: &str| {
        let folder = tempfile::tempdir().expect("a folder");
        let home = folder.path().join(home);
        std::fs::create_dir(&home).expect("made");
        std::fs::write(home.join("letter.txt"), "Hello").expect("written");
        let text = |name: &str| {
            let value = home.join(name).display().to_string();
            Text { with_tilde: Some(format!("~/{name}")), ..Text::new(value) }
        };
        let job = job(|job| {
            job.body.text = Some(TemplateSource::File(text("letter.txt")));
            let (cid, file) = ("logo".to_owned(), text("logo.png"));
            job.images.push(postroom::job::ImageSpec { cid, file });
        });
        compile(&job, &row(&[("email", Cell::Text("a@b.example".to_owned()))])).fingerprint()
    };
    assert_eq!(fingerprint("ada"), fingerprint("bob"));
}

#[test]
fn answers_go_to_whom_the_row_names() {
    let check = |seller: &str, reply: &str| {
        let row = row(&[("email", text("a@b.example")), ("seller", text(seller)), ("reply", text(reply))]);
        let job = job(|job| {
            let (name, address) = (Some(placed("{{ seller }}")), placed("{{ reply }}"));
            job.reply_to = MailboxTemplates::Each(vec![MailboxTemplate { name, address }]);
        });
        let letter = compile(&job, &row).letter(&row, Vec::new(), Vec::new(), Vec::new());
        letter.map(|made| made.letter.reply_to).map_err(|error| error.to_string())
    };
    let named = check("王芳", "wang@b.example").expect("a letter");
    assert_eq!(named[0].to_string(), "王芳 <wang@b.example>");
    assert_eq!(check("王芳", ""), Ok(Vec::new()), "answers go to `from`");
    let wrong = check("王芳", "wang").expect_err("no address");
    assert!(wrong.contains("reply_to") && wrong.contains("`wang` is not an address"), "{wrong}");
    let split = check("王芳", "wang@b.example\r\nBcc: eve@b.example").expect_err("two lines");
    assert!(split.contains("line break"), "{split}");
}

#[test]
fn conditions_are_true_or_false() {
    let list = row(&[
        ("email", text("a@b.example")),
        ("plan", text("pro")),
        ("active", Cell::Bool(true)),
        ("n", Cell::Int(1)),
    ]);
    let check = |condition: &str| {
        let job = job(|job| {
            job.recipients.filter = Some(placed(condition));
            job.recipients.columns.insert("active".to_owned(), (ColumnKind::Bool, placed("bool")));
            job.recipients.columns.insert("n".to_owned(), (ColumnKind::Int, placed("int")));
        });
        match Templates::compile(&job, Some(&list.columns)) {
            Ok(templates) => {
                templates.address(&list).map(|to| to != Addressed::Filtered).map_err(|e| e.reason)
            }
            Err(mistakes) => Err(postroom::diagnostic::print(&mistakes, false)),
        }
    };
    for (condition, expected) in [
        ("active", true),
        ("active and plan != \"free\"", true),
        ("not active or plan == \"free\"", false),
        ("plan in [\"pro\", \"team\"]", true),
        ("n > 0", true),
    ] {
        assert_eq!(check(condition), Ok(expected), "{condition}");
    }
    for (condition, expected) in [
        ("plan", "takes `plan` for true or false, but the column is text"),
        ("active and plan", "columns: {plan: bool}"),
        ("n", "neither true nor false, but a number"),
        ("activ", "did you mean `active`?"),
        ("active }} {{ n", "is not a template as it should be"),
        ("active and", "is not a template as it should be"),
        ("plan|uper == 'X'", "did you mean `upper`?"),
    ] {
        let error = check(condition).expect_err(condition);
        assert!(error.contains(expected), "{condition}: {error}");
    }
}

#[test]
fn a_pattern_tells_whose_words_are_whose() {
    let list = row(&[("email", text("a@b.example")), ("id", text("../7")), ("voice", Cell::Bool(false))]);
    let spec = |files: &str, rename: Option<&str>, when: Option<&str>| AttachmentSpec {
        files: placed(files),
        rename: rename.map(placed),
        content_type: None,
        when: when.map(placed),
        expect: (1, usize::MAX),
        shared: false,
    };
    let job = job(|job| {
        job.vars = json!({"dir": "reports/2026"}).as_object().expect("an object").clone();
        job.recipients.columns.insert("voice".to_owned(), (ColumnKind::Bool, placed("bool")));
        job.attachments = vec![
            spec("{{ dir }}/{{ id }}-*.pdf", None, None),
            spec("x/{{ id }}.mp3", None, Some("voice")),
            spec("fixed.pdf", Some("Terms {{ email }}.pdf"), None),
            spec("{{ dir ~ id }}", None, None),
        ];
    });
    let wanted: Result<Vec<_>, _> = compile(&job, &list).patterns(&list).into_iter().collect();
    let wanted = wanted.expect("patterns");
    assert_eq!(wanted.iter().map(|wanted| wanted.spec).collect::<Vec<_>>(), [0, 2, 3]);
    assert_eq!(
        wanted[0].pieces,
        [
            Piece::Operator("reports/2026/".to_owned()),
            Piece::Value("../7".to_owned()),
            Piece::Operator("-*.pdf".to_owned())
        ]
    );
    assert_eq!(wanted[1].pieces, [Piece::Operator("fixed.pdf".to_owned())]);
    let name = wanted[1].rename.as_ref().expect("a name");
    assert_eq!(name.as_deref(), Some("Terms a@b.example.pdf"));
    assert_eq!(wanted[2].pieces, [Piece::Value("reports/2026../7".to_owned())]);
    let broken = row(&[("email", text("a@b.example")), ("id", text("7\u{1}")), ("voice", Cell::Bool(false))]);
    // One that cannot be made out leaves the others what they are: their files are this row's.
    let wanted = compile(&job, &list).patterns(&broken);
    let made_out: Vec<bool> = wanted.iter().map(Result::is_ok).collect();
    assert_eq!(made_out, [false, true, false]);
}

#[test]
fn values_never_make_a_header() {
    let job = job(|job| {
        job.headers = vec![("X-Campaign".to_owned(), placed("{{ v }}"))];
        job.unsubscribe = Some(Unsubscribe {
            url: Some(placed("https://example.com/u/{{ token }}")),
            mailto: Some(placed("leave+{{ token }}@example.com")),
            one_click: true,
        });
        job.list_id = Some(placed("news.example.com"));
        job.subject = placed("{{ v|trim }}");
    });
    let check = |v: &str, token: &str| {
        let row = row(&[("email", text("a@b.example")), ("v", text(v)), ("token", text(token))]);
        compile(&job, &row)
            .letter(&row, vec![], vec![], vec![])
            .map(|r| r.letter)
            .map_err(|error| error.to_string())
    };
    let letter = check("fine", "t1").expect("rendered");
    assert_eq!(letter.headers, [("X-Campaign".to_owned(), "fine".to_owned())]);
    assert_eq!(
        letter.list.unsubscribe.as_deref(),
        Some("<https://example.com/u/t1>, <mailto:leave+t1@example.com>")
    );
    assert_eq!(letter.list.id.as_deref(), Some("<news.example.com>"));
    assert!(letter.list.one_click && letter.list.auto_submitted);
    for (v, token, expected) in [
        ("a\r\nBcc: eve@example.org", "t", "subject, line 2: a value in it holds a line break"),
        ("a\nb", "t", "line break"),
        ("a\0b", "t", "control character"),
        ("a", "t>, <https://eve.example", "it is no https URL"),
        ("a", "t x", "it is no https URL"),
        ("a", &"t".repeat(1000), "longer than 254 octets"),
    ] {
        let error = check(v, token).expect_err(v);
        assert!(error.contains(expected), "{v:?} {token:?}: {error}");
    }
}

#[test]
fn a_letter_of_leave_keeps_its_subject() {
    let row = row(&[("email", text("a@b.example")), ("id", text("4 2&body=<x>,y%z")), ("n", text("Ö"))]);
    for (template, expected) in [
        ("leave@example.com?subject=unsubscribe", "leave@example.com?subject=unsubscribe"),
        (
            "leave@example.com?subject=Leave%20it&body=a%0D%0Ab",
            "leave@example.com?subject=Leave%20it&body=a%0D%0Ab",
        ),
        (
            "leave@example.com?subject=Leave it, <now> Ö",
            "leave@example.com?subject=Leave%20it%2C%20%3Cnow%3E%20%C3%96",
        ),
        (
            "leave@example.com?subject=leave {{ id }}",
            "leave@example.com?subject=leave%204%202%26body%3D%3Cx%3E%2Cy%25z",
        ),
        (
            "leave+{{ n|lower|length }}@example.com?subject={{ n|urlencode }}",
            "leave+1@example.com?subject=%C3%96",
        ),
        ("leave@example.com?subject={{ list }}", "leave@example.com?subject=A%26B"),
        ("le&ave@bücher.example", "le%26ave@xn--bcher-kva.example"),
    ] {
        let job = job(|job| {
            job.unsubscribe =
                Some(Unsubscribe { url: None, mailto: Some(placed(template)), one_click: false });
            job.vars = json!({"list": "A&B"}).as_object().expect("an object").clone();
        });
        let letter = compile(&job, &row).letter(&row, vec![], vec![], vec![]).expect(template).letter;
        assert_eq!(letter.list.unsubscribe, Some(format!("<mailto:{expected}>")), "{template}");
    }
    let job = job(|job| {
        let mailto = placed("{{ id }}@example.com?subject=x");
        job.unsubscribe = Some(Unsubscribe { url: None, mailto: Some(mailto), one_click: false });
    });
    let error = compile(&job, &row).letter(&row, vec![], vec![], vec![]).expect_err("no address");
    assert!(error.to_string().contains("is not an address"), "{error}");
}

#[test]
fn all_mistakes_are_found_at_once_where_they_are() {
    let root = tempfile::tempdir().expect("a folder");
    let write = |path: &str, content: &str| write(root.path(), path, content);
    write(
        "templates/welcome.html",
        "<p>Hello {{ first_name }},\n{% include \"footer.html\" %}{{ name|uppper }}</p>",
    );
    write("templates/footer.html", "{{ compny }}");
    write("templates/other.txt", "{% if name %}");
    let columns = Columns::new(vec!["email".to_owned(), "name".to_owned(), "company".to_owned()]);
    let mut job = bare_job(root.path());
    job.subject = placed("Hi {{ nmae }}");
    job.body.html = file("welcome.html");
    job.body.text = file("other.txt");
    job.edition = placed("{{ now | date('%G') }}-{{ name }}");
    job.headers = vec![("Bcc".to_owned(), placed("x@y.example"))];
    job.images =
        vec![ImageSpec { cid: "logo".to_owned(), file: placed("images/{% if name %}a{% endif %}.png") }];
    let mistakes = Templates::compile(&job, Some(&columns)).expect_err("mistakes");
    let printed = postroom::diagnostic::print(&mistakes, false);
    for words in [
        "template `welcome.html` asks for `first_name`, which `list.csv` does not have",
        "templates/welcome.html:1:13",
        "its columns are email, name, company",
        "`welcome.html` uses the filter `uppper`",
        "did you mean `upper`?",
        "template `footer.html` asks for `compny`",
        "did you mean `company`?",
        "`subject` asks for `nmae`",
        "did you mean `name`?",
        "template `other.txt`",
        "`edition` asks for `name`",
        "the field `Bcc` is not for `headers`",
        "a pattern has names in it",
    ] {
        assert!(printed.contains(words), "{words}\n{printed}");
    }
    assert_eq!(mistakes.len(), 8, "{printed}");
    job.body.text = file("othr.txt");
    let mistakes = Templates::compile(&job, Some(&columns)).expect_err("mistakes");
    let printed = postroom::diagnostic::print(&mistakes, false);
    assert!(
        printed.contains("the template `othr.txt` is not there")
            && printed.contains("did you mean `other.txt`?")
    );
}

#[test]
fn pictures_of_a_sheet_of_styles_are_embedded_and_what_is_not_is_told() {
    let root = tempfile::tempdir().expect("a folder");
    let write = |path: &str, content: &str| write(root.path(), path, content);
    write("images/a.png", "a picture");
    write("templates/s.css", "p > b { background: url(images/a.png) } /* <img src='none.png'> */");
    let page = "<style>{% include \"s.css\" %}</style>\n<img src=\"images/a.png\" srcset=\"images/b.png 2x\">\
                <video poster=\"p.jpg\">{% raw %}<img src=\"p/{{ id }}.png\">{% endraw %}";
    write("templates/letter.html", page);
    let row = row(&[("email", text("a@b.example"))]);
    let mut job = bare_job(root.path());
    job.body.html = file("letter.html");
    let templates = compile(&job, &row);
    let html = templates.letter(&row, vec![], vec![], vec![]).expect("rendered").letter.html.expect("HTML");
    let [(cid, _)] = templates.inline_files() else { panic!("{:?}", templates.inline_files()) };
    assert_eq!(html.matches(&format!("cid:{cid}")).count(), 2, "{html}");
    assert!(html.contains(&format!("background: url(cid:{cid})")), "{html}");
    assert!(html.contains("<img src=\"p/{{ id }}.png\">"), "{html}");
    let printed = postroom::diagnostic::print(templates.warnings(), false);
    assert_eq!(templates.warnings().len(), 1, "{printed}");
    for words in [
        "a picture in `letter.html` is not embedded",
        "`srcset` of `img` is left as it is, and so is 1 more",
        "templates/letter.html:2:33",
    ] {
        assert!(printed.contains(words), "{words}\n{printed}");
    }
}

#[test]
fn templates_named_in_part_are_prepared_as_if_they_were_named() {
    let root = tempfile::tempdir().expect("a folder");
    let write = |path: &str, content: &str| write(root.path(), path, content);
    write("images/a.png", "a picture");
    write("templates/letter.html", "{% include lang ~ \".html\" %}");
    write("templates/de.html", "<img src=\"images/a.png\">{{ city }}{% include \"foot.txt\" %}");
    write("templates/foot.txt", "<img src='images/a.png'>");
    write("templates/en.html", "<img src=\"images/none.png\">{{ nobody_knows }}");
    write("templates/fr.html", "{% if %}");
    write("templates/sub/it.html", "below");
    let row = row(&[("email", text("a@b.example")), ("lang", text("de")), ("city", text("Köln"))]);
    let mut job = bare_job(root.path());
    job.body.html = file("letter.html");
    let templates = compile(&job, &row);
    let html = templates.letter(&row, vec![], vec![], vec![]).expect("rendered").letter.html.expect("HTML");
    let [(cid, _)] = templates.inline_files() else { panic!("{:?}", templates.inline_files()) };
    assert_eq!(html, format!("<img src=\"cid:{cid}\">Köln<img src='cid:{cid}'>"));
    assert!(templates.warnings().is_empty(), "{:?}", templates.warnings());
    for (path, seen) in [("foot.txt", true), ("de.html", true), ("en.html", true), ("sub/it.html", false)] {
        let before = compile(&job, &row).fingerprint();
        write(&format!("templates/{path}"), "changed");
        assert_eq!(compile(&job, &row).fingerprint() != before, seen, "{path}");
    }
    // Of a name that is a value alone nothing is known before it is needed.
    write("templates/de.html", "{{ city }}<img src=\"images/a.png\">");
    write("templates/letter.html", "<p>\n{% include lang %}");
    let row = Row { cells: vec![text("a@b.example"), text("de.html"), text("Köln")], ..row };
    let templates = compile(&job, &row);
    let html = templates.letter(&row, vec![], vec![], vec![]).expect("rendered").letter.html.expect("HTML");
    assert_eq!(html, "<p>\nKöln<img src=\"images/a.png\">");
    write("templates/de.html", "{{ \"Herr \" ~ city }}");
    for (city, expected) in [(text("Köln"), Some("Herr Köln")), (Cell::Null, None)] {
        let row = Row { cells: vec![text("a@b.example"), text("de.html"), city], ..row.clone() };
        let letter = compile(&job, &row).letter(&row, vec![], vec![], vec![]);
        let html = letter.ok().and_then(|rendered| rendered.letter.html);
        assert_eq!(html.as_deref().map(|html| html.trim_start_matches("<p>\n")), expected);
    }
    let printed = postroom::diagnostic::print(templates.warnings(), false);
    for words in ["a template is named by a value alone in `letter.html`", "templates/letter.html:2:"] {
        assert!(printed.contains(words), "{words}\n{printed}");
    }
}

#[test]
fn templates_inherit_include_and_stay_in_their_folder() {
    let root = tempfile::tempdir().expect("a folder");
    let write = |path: &str, content: &str| write(root.path(), path, content);
    write("templates/base.html", "<body>{% block main %}{% endblock %}{% include \"part.html\" %}</body>");
    write("templates/part.html", "[{{ name }}]");
    write(
        "templates/letter.html",
        "{% extends \"base.html\" %}{% block main %}{% include pick %}{% endblock %}",
    );
    write("templates/a.html", "A");
    write("secret.yaml", "password");
    let columns = Arc::new(Columns::new(vec!["email".to_owned(), "name".to_owned(), "pick".to_owned()]));
    let mut job = bare_job(root.path());
    job.body.html = file("letter.html");
    let templates = Templates::compile(&job, Some(&columns)).expect("compiled");
    let check = |pick: &str| {
        let row = Row {
            number: 1,
            line: None,
            columns: columns.clone(),
            cells: vec![text("a@b.example"), text("<A>"), text(pick)],
        };
        templates
            .letter(&row, vec![], vec![], vec![])
            .map(|rendered| rendered.letter.html.unwrap_or_default())
    };
    assert_eq!(check("a.html").as_deref(), Ok("<body>A[&lt;A&gt;]</body>"));
    for pick in ["../secret.yaml", "secret.yaml", "/etc/passwd", "a.html/../../secret.yaml", "nothing.html"] {
        let error = check(pick).expect_err(pick);
        assert_eq!((error.template.as_str(), error.line), ("letter.html", 1), "{error}");
    }
    std::fs::write(root.path().join("templates/part.html"), "{{ name }}!").expect("written");
    let changed = Templates::compile(&job, Some(&columns)).expect("compiled");
    assert_ne!(templates.fingerprint(), changed.fingerprint());
    let mut other = job.clone();
    other.relay.port = 2525;
    other.recipients.key = Some(placed("{{ email }}"));
    assert_eq!(
        Templates::compile(&other, Some(&columns)).expect("compiled").fingerprint(),
        changed.fingerprint()
    );
}

#[test]
fn an_edition_is_named_by_the_clock_of_the_job() {
    for (edition, zone, expected) in [
        ("2026-11", "UTC", "2026-11"),
        ("{{ now | date('%G-W%V') }}", "UTC", "2026-W47"),
        ("{{ now | date('%Y-%m-%d') }}", "UTC", "2026-11-22"),
        ("{{ now | date('%Y-%m-%d') }}", "Asia/Shanghai", "2026-11-23"),
        ("{{ year }}", "UTC", "2026"),
    ] {
        let job = job(|job| {
            job.edition = placed(edition);
            job.timezone = Some(zone.to_owned());
            job.vars = json!({"year": 2026}).as_object().expect("an object").clone();
        });
        let templates =
            Templates::compile(&job, Some(&Columns::new(vec!["email".to_owned()]))).expect("compiled");
        assert_eq!(templates.edition(1_795_390_000).as_deref(), Ok(expected), "{edition} {zone}");
    }
}

#[test]
fn pictures_on_the_disk_are_embedded_once() {
    let root = tempfile::tempdir().expect("a folder");
    let write = |path: &str, content: &str| write(root.path(), path, content);
    write("images/a.png", "a");
    write("images/logo.png", "logo");
    write("templates/beside.png", "b");
    write(
        "templates/letter.html",
        "<img src=\"images/a.png\"><table background='images/a.png'><img src=\"images/logo.png\"><img src=\"beside.png\">\
         <img src=\"https://example.com/x.png\"><img src=\"cid:logo\">\
         <img src=\"people/{{ id }}.jpg\"><img src=\"people/{{ id }}.jpg\">\
         {% for item in items %}<img src=\"{{ item.pic }}\">{% endfor %}",
    );
    let list = row(&[("email", text("a@b.example")), ("id", text("7"))]);
    let mut job = bare_job(root.path());
    job.body.html = file("letter.html");
    job.images = vec![ImageSpec { cid: "logo".to_owned(), file: placed("images/logo.png") }];
    job.vars = json!({"items": [{"pic": "images/p1.png"}, {"pic": "https://example.com/p2.png"}]})
        .as_object()
        .expect("an object")
        .clone();
    let templates = compile(&job, &list);
    let inline: Vec<(&str, &Path)> =
        templates.inline_files().iter().map(|(cid, path)| (cid.as_str(), path.as_path())).collect();
    let canonical = root.path().canonicalize().expect("canonical");
    assert_eq!(inline.len(), 3, "{inline:?}");
    assert_eq!(inline[0], ("logo", root.path().join("images/logo.png").as_path()));
    assert_eq!(inline[1].1, canonical.join("images/a.png"));
    assert_eq!(inline[2].1, canonical.join("templates/beside.png"));
    let rendered = templates.letter(&list, vec![], vec![], vec![]).expect("rendered");
    let html = rendered.letter.html.unwrap_or_default();
    assert_eq!(html.matches(&format!("cid:{}", inline[1].0)).count(), 2, "{html}");
    assert_eq!(html.matches("cid:logo").count(), 2, "{html}");
    assert!(html.contains("src=\"https://example.com/p2.png\""), "{html}");
    let pieces: Vec<&[Piece]> = rendered.images.iter().map(|(_, pieces)| pieces.as_slice()).collect();
    let (operator, value) =
        (|text: &str| Piece::Operator(text.to_owned()), |text: &str| Piece::Value(text.to_owned()));
    assert_eq!(
        pieces,
        [&[operator("people/"), value("7"), operator(".jpg")][..], &[operator("images/p1.png")][..]]
    );
    for (cid, _) in &rendered.images {
        assert!(html.contains(&format!("\"cid:{cid}\"")), "{html}");
    }
    write("templates/letter.html", "<p>\n<img src=\"images/gone.png\"></p>");
    let mistakes = Templates::compile(&job, Some(&list.columns)).expect_err("a picture is not there");
    let printed = postroom::diagnostic::print(&mistakes, false);
    assert!(printed.contains("the picture `images/gone.png` is not there"), "{printed}");
    assert!(printed.contains("templates/letter.html:2:11"), "{printed}");
}

#[test]
fn a_list_whose_rows_are_not_alike_is_asked_row_by_row() {
    let mut job = job(|job| job.subject = placed("{{ n }}"));
    job.recipients.to = None;
    for columns in [None, Some(Columns::loose(vec!["email".to_owned()]))] {
        let templates = Templates::compile(&job, columns.as_ref()).expect("compiled");
        for (name, number) in [("email", 1), ("邮箱", 2)] {
            let row = row(&[("n", Cell::Int(number)), (name, text("a@b.example"))]);
            assert!(matches!(templates.address(&row), Ok(Addressed::To { .. })), "{name}");
            let letter = templates.letter(&row, vec![], vec![], vec![]).expect("rendered").letter;
            assert_eq!(letter.subject, number.to_string());
        }
        let error = templates.letter(&row(&[("x", Cell::Int(1))]), vec![], vec![], vec![]).expect_err("no n");
        assert_eq!(error.to_string(), "subject, line 2: `n` is undefined");
    }
}

#[test]
fn the_column_of_the_address_is_found_whatever_the_others_are_called() {
    let mut job = bare_job(Path::new("/nonexistent"));
    job.recipients.to = None;
    for (names, cells) in [
        (["E-Mail", "row"], ["a@b.example", "7"]),
        (["row", "邮箱"], ["7", "a@b.example"]),
        (["email", "now"], ["a@b.example", "noon"]),
    ] {
        let row = row(&[(names[0], text(cells[0])), (names[1], text(cells[1]))]);
        let addressed = compile(&job, &row).address(&row);
        let Ok(Addressed::To { to, .. }) = addressed else { panic!("{names:?}: {addressed:?}") };
        assert_eq!(to[0].to_string(), "a@b.example");
    }
}

#[test]
fn lines_of_a_body_in_the_job_file_are_those_of_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let yaml = "kind: send
name: a
edition: \"1\"
from: a@b.example
recipients:
  list: [{email: x@y.example}]
subject: x
body:
  text:
    inline: |
      first
      second {{ gone }}
relay: {host: 127.0.0.1, tls: none}
";
    std::fs::write(folder.path().join("a.yaml"), yaml).expect("written");
    let environment = postroom::job::Environment::fixed(folder.path(), &[]);
    let Ok(postroom::job::Job::Send(job)) = postroom::job::read(Path::new("a.yaml"), &environment) else {
        panic!("not a job")
    };
    let templates = Templates::compile(&job, None).expect("compiled");
    let row = row(&[("email", text("x@y.example"))]);
    let error = templates.letter(&row, vec![], vec![], vec![]).expect_err("gone is undefined");
    assert_eq!(error.to_string(), "body.text, line 12: `gone` is undefined");
    let mistakes = Templates::compile(&job, Some(&row.columns)).expect_err("gone is no column");
    let printed = postroom::diagnostic::print(&mistakes, false);
    assert!(printed.contains("a.yaml:12:17"), "{printed}");
}
