//! Jinja's own filters, Python's methods, and `~`. Of a null they make `None` or 0, and `Dear None` is a letter that
//! nobody is to get.

use std::ops::Range;

use minijinja::filters::{
    capitalize, escape, float, format, indent, int, join, lower, pprint, replace, safe, string, sum, title,
    trim, upper,
};
use minijinja::value::{Kwargs, Rest, StringInput, ValueKind, ValueOrKwargs, from_args};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat::unknown_method_callback;

use super::engine::null;
use super::scan::{self, Scan};

/// The filter that stands behind each operand of a `~`.
const GUARD: &str = "|never_null";

/// More columns than any text is set in by; the engine's own filter knows no limit.
const WIDEST_INDENT: i64 = 1000;

/// Puts filters and methods that refuse a null in the place of the engine's.
pub(super) fn add_to(env: &mut Environment<'static>) {
    for (name, filter) in [
        ("capitalize", Value::from_function(capitalize)),
        ("e", Value::from_function(escape)),
        ("escape", Value::from_function(escape)),
        ("indent", Value::from_function(narrow_indent)),
        ("lower", Value::from_function(lower)),
        ("pprint", Value::from_function(charged_pprint)),
        ("replace", Value::from_function(replace_some)),
        ("safe", Value::from_function(safe)),
        ("string", Value::from_function(string)),
        ("title", Value::from_function(title)),
        ("trim", Value::from_function(trim)),
        ("upper", Value::from_function(upper)),
    ] {
        env.add_filter(name, move |state: &mut State, args: Rest<ValueOrKwargs>| {
            let args = args.into_values();
            // A list that can be gone through only once is none that a filter prints.
            if args.iter().any(|arg| arg.kind() != ValueKind::Iterable && holds_null(arg)) {
                return Err(null());
            }
            filter.call(state, &args)
        });
    }
    for (name, filter) in [("float", Value::from_function(float)), ("int", Value::from_function(int))] {
        env.add_filter(name, move |state: &mut State, args: Rest<ValueOrKwargs>| {
            let args = args.into_values();
            without_nulls(if has_default(&args) { &args[1..] } else { &args })?;
            filter.call(state, &args)
        });
    }
    env.add_filter("sum", |state: &mut State, args: Rest<ValueOrKwargs>| {
        Value::from_function(sum).call(state, without_nulls(&args.into_values())?)
    });
    env.add_filter(
        &GUARD[1..],
        |value: &Value| if holds_null(value) { Err(null()) } else { Ok(value.clone()) },
    );
    env.add_filter("format", format_filled);
    env.add_filter("join", join_whole);
    env.set_unknown_method_callback(method);
}

/// Python's methods of text, of which two print what they are given.
fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let args = match (name, args) {
        ("format", _) => printable(args)?,
        ("join", [list]) => vec![without_null(list)?],
        _ => return unknown_method_callback(state, value, name, args),
    };
    unknown_method_callback(state, value, name, &args)
}

/// The arguments as they are, if none is a null, of those with a name either.
fn without_nulls(args: &[Value]) -> Result<&[Value], Error> {
    let null_in =
        |arg: &Value| arg.is_none() || (arg.is_kwargs() && fields(arg).any(|(_, value)| value.is_none()));
    if args.iter().any(null_in) { Err(null()) } else { Ok(args) }
}

/// Whether a filter of numbers is told what to take for what is none.
fn has_default(args: &[Value]) -> bool {
    args.get(1).is_some_and(|second| {
        !second.is_kwargs() || fields(second).any(|(name, _)| name.as_str() == Some("default"))
    })
}

/// Whether a value is null, or a list or map with one in it: printed whole it shows `None`.
pub(super) fn holds_null(value: &Value) -> bool {
    match value.kind() {
        ValueKind::None => true,
        ValueKind::Map => fields(value).any(|(_, value)| holds_null(&value)),
        ValueKind::Seq | ValueKind::Iterable => {
            value.try_iter().is_ok_and(|mut items| items.any(|item| holds_null(&item)))
        }
        _ => false,
    }
}

/// Arguments for a text that may look into them, as `{d.n}` and `%(n)s` do: no null is found there.
fn printable(args: &[Value]) -> Result<Vec<Value>, Error> {
    Ok(without_nulls(args)?.iter().map(filled).collect())
}

fn format_filled(state: &mut State, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    Value::from_function(format).call(state, &printable(&args.into_values())?)
}

/// What is in a map.
fn fields(map: &Value) -> impl Iterator<Item = (Value, Value)> {
    map.as_object().and_then(|map| map.try_iter_pairs()).into_iter().flatten()
}

/// A value without the nulls in it.
fn filled(value: &Value) -> Value {
    match value.kind() {
        ValueKind::None => Value::UNDEFINED,
        ValueKind::Map if value.is_kwargs() => {
            let named = fields(value).map(|(key, value)| (key.to_string(), filled(&value)));
            Kwargs::from_iter(named).into()
        }
        ValueKind::Map => Value::from_pairs(fields(value).map(|(key, value)| (key, filled(&value)))),
        ValueKind::Seq => value.try_iter().into_iter().flatten().map(|item| filled(&item)).collect(),
        _ => value.clone(),
    }
}

/// The list as it is, if no null is in it. Some can be gone through only once.
fn without_null(list: &Value) -> Result<Value, Error> {
    if list.as_str().is_some() || list.is_undefined() {
        return Ok(list.clone());
    }
    let items: Vec<Value> = list.try_iter()?.collect();
    if list.is_none() || items.iter().any(Value::is_none) { Err(null()) } else { Ok(items.into()) }
}

fn join_whole(state: &mut State, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let mut args = args.into_values();
    let (list, attribute) = {
        type Args<'a> = (&'a Value, Option<&'a Value>, Option<Value>, Kwargs);
        let (list, _, attribute, named): Args = from_args(&args)?;
        (without_null(list)?, attribute.or(named.peek("attribute")?))
    };
    if let Some(attribute) = attribute {
        let of_each = Kwargs::from_iter([("attribute", attribute)]).into();
        without_null(&state.apply_filter("map", &[list.clone(), of_each])?)?;
    }
    args[0] = list;
    Value::from_function(join).call(state, &args)
}

/// A template in which `~` refuses a null: there is no other place where the engine can be told. A filter binds closer
/// than any operator, so behind an operand one needs no parentheses.
pub(super) fn guarded(source: String) -> String {
    let Some(ends) = source.contains('~').then(|| scan::joined(&source)).flatten() else {
        return source;
    };
    let mut out = String::with_capacity(source.len() + GUARD.len() * ends.len());
    let mut from = 0;
    for end in ends {
        out.push_str(&source[from..end]);
        out.push_str(GUARD);
        from = end;
    }
    out.push_str(&source[from..]);
    if Scan::template(&out).is_ok() { out } else { source }
}

/// The words at a place of a [`guarded`] template as they were before.
pub(super) fn as_written(source: &str, at: Range<usize>) -> Option<String> {
    let mut words = source.get(at.clone())?;
    if words == &GUARD[1..] {
        let before = source[..at.start].strip_suffix('|')?;
        let start = ["{{", "{%"].iter().filter_map(|open| before.rfind(open)).max()? + 2;
        words = scan::operand(&before[start..])?;
    }
    Some(words.replace(GUARD, "").trim().to_owned())
}

/// `pprint`, of which each sign costs as much as the engine's own takes for it.
fn charged_pprint(state: &State, value: &Value) -> Result<String, Error> {
    let text = pprint(value);
    state.consume_fuel(text.len() as u64 / 4)?;
    Ok(text)
}

fn narrow_indent(state: &mut State, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let args = args.into_values();
    type Args<'a> = (&'a Value, Option<i64>, Option<bool>, Option<bool>, Kwargs);
    let (_, width, _, _, named): Args = from_args(&args)?;
    if width.or(named.peek("width")?) > Some(WIDEST_INDENT) {
        return Err(Error::new(ErrorKind::InvalidOperation, "`indent` is of at most 1000 columns"));
    }
    Value::from_function(indent).call(state, &args)
}

/// `replace`, of the first `count` only where that is given; what is safe in HTML is told apart as the engine does.
fn replace_some(state: &mut State, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let args = args.into_values();
    let (value, from, to, count, named): (&Value, &Value, &Value, Option<i64>, Kwargs) = from_args(&args)?;
    let count = count.or(named.get("count")?);
    named.assert_all_used()?;
    let Some(count) = count.and_then(|count| usize::try_from(count).ok()) else {
        return Value::from_function(replace).call(state, &args[..3]);
    };
    let value = StringInput::new(state, value)?;
    let from = StringInput::new(state, from)?;
    let to = StringInput::new(state, to)?;
    let any_safe = value.is_safe() || from.is_safe() || to.is_safe();
    if !any_safe || matches!(state.auto_escape(), AutoEscape::None) {
        return Ok(value.as_str().replacen(from.as_str(), to.as_str(), count).into());
    }
    let (value, to) = (value.format(state)?, to.format(state)?);
    Ok(Value::from_safe_string(value.replacen(from.as_str(), &to, count)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_is_put_together_with_a_null() {
        let mut env = Environment::new();
        env.set_undefined_behavior(minijinja::UndefinedBehavior::Strict);
        add_to(&mut env);
        let context = minijinja::context! { v => (), a => "ü", b => 2, d => minijinja::context! { x => "x", n => () },
        e => minijinja::context! { l => [Some(minijinja::context! { y => 1, z => 3 }), None] } };
        for (template, expected) in [
            ("{{ 'x' ~ v }}", None),
            ("{{ v ~ 'x' }}", None),
            ("{{ a ~ (b ~ d.n) }}", None),
            ("{{ ('x' ~ d['n'])|upper }}", None),
            ("{% set x = a ~ v %}{{ x }}", None),
            ("{{ 'x' ~ d.n.x }}", None),
            ("{{ (v if b else a) ~ 'x' }}", None),
            ("{{ (d).n ~ 'x' }}", None),
            ("{{ e['l'][1] ~ 'x' }}", None),
            ("{{ e.l[0].y ~ e['l'][b - 1] }}", None),
            ("{{ e.l[0] ~ e['l'][b - 2].y ~ (d).x ~ (e)['l'][0].z }}", Some("{'y': 1, 'z': 3}1x3")),
            ("{{ a ~ missing }}", None),
            ("{{ (v or d.n) ~ '!' }}", None),
            ("{{ [v]|first ~ '!' }}", None),
            ("{{ '!' ~ [v]|first }}", None),
            ("{{ '!' ~ [b, v][1] }}", None),
            ("{{ d.get('n') ~ '!' }}", None),
            ("{{ (d if b else e).n ~ 'x' }}", None),
            ("{{ 'x' ~ ('y' ~ (d.get('n'))) }}", None),
            ("{{ 'x' ~ none }}", None),
            ("{% for i in ('x' ~ v) %}{% endfor %}", None),
            ("{% macro m(x=v ~ '') %}{{ x }}{% endmacro %}{{ m() }}", None),
            ("{% macro m(x) %}{{ x }}{% endmacro %}{{ m(x='a' ~ d.n) }}", None),
            ("{% set x %}{{ a ~ v }}{% endset %}{{ x }}", None),
            ("{% filter upper %}{{ a ~ v }}{% endfilter %}", None),
            ("{{ (v or a) ~ d.n|default('n', true) ~ '%'|replace('%', '~') }}", Some("ün~")),
            ("{{ a ~ v is none ~ (b is eq 2) ~ (a is eq 'ü' ~ a) }}", Some("üTrueTrueTrueü")),
            ("{{ a ~ d.x.upper().lower() ~ e.l[0]['y'] ~ {'k': [1, 2]}['k'][1:] }}", Some("üx1[2]")),
            ("{{ 'p' ~ - b ~ --b ~ 1.5 ~ 'q' 'r' ~ b if a ~ b else 'x' ~ b }}", Some("p-221.5qr2")),
            (
                "{{+ a ~ b +}}{#- ~ v -#}\n{%- if not a ~ b %}{% elif (a) ~ [b] ~ (b,) %}y{% endif -%} ",
                Some("ü2y"),
            ),
            (
                "{% for k, i in {'a' ~ b: b}|items if k ~ i %}{{ k ~ i }}{% else %}{{ v ~ v }}{% endfor %}",
                Some("a22"),
            ),
            (
                "{% with x = a ~ b, y = b ~ a %}{{ x ~ y }}{% endwith %}{% set x = a ~ b, b %}{{ x }}",
                Some("ü22ü('ü2', 2)"),
            ),
            ("ü{{ 'x' ~ a ~ b ~ d.x }}", Some("üxü2x")),
            ("{{ a ~ b * 2 ~ -b ~ 'x' * 3 }}", Some("ü4-2xxx")),
            ("{{ (a if v else b) ~ (v or 'n') ~ (v is none) }}", Some("2nTrue")),
            ("{{ a|upper ~ [b, 1][0] ~ {'k': 'w'}.k ~ range(3)|join }}", Some("Ü2w012")),
            ("{{- (a) ~ ((b)) -}} {% if a ~ b == 'ü2' %}y{% endif %}", Some("ü2y")),
            ("{% raw %}{{ a ~ v }}{% endraw %}{# v ~ v #} ~ {{ '~' ~ \"~)\" }}", Some("{{ a ~ v }} ~ ~~)")),
            (
                "{% macro m(x, y='p' ~ 'q') %}{{ x ~ y }}{% endmacro %}{{ m('r' ~ b) ~ m(a, y=b) }}",
                Some("r2pqü2"),
            ),
            (
                "{{ a ~ 'x'\n ~ b }}{% for i in 'ab' ~ 'c' %}{{ i ~ loop.index }}{% endfor %}",
                Some("üx2a1b2c3"),
            ),
            ("{{ a[0:1] ~ a[-1] ~ 2 ** 2 ~ (not v) }}", Some("üü4True")),
        ] {
            let guarded = guarded(template.to_owned());
            let found = env.render_str(&guarded, &context).ok();
            assert_eq!(found.as_deref(), expected, "{guarded}");
            // It is the guard that refuses, and nothing but a null.
            let bare = env.render_str(template, &context).ok();
            let undefined = ["missing", "d.n.x"].iter().any(|words| template.contains(words));
            assert!(
                if expected.is_none() { bare.is_some() != undefined } else { bare == found },
                "{template}"
            );
        }
    }

    #[test]
    fn errors_show_the_words_as_they_were() {
        let guard = &GUARD[1..];
        for (template, expected) in [
            ("{{ 'x' ~ (d).n ~ upper }}", "(d).n"),
            ("{{ 'x' ~ d['n'][0].z }}", "d['n'][0].z"),
            ("{{ 'x' ~ (a or b) }}", "(a or b)"),
            ("{% if (a or b) ~ 'x' %}{% endif %}", "(a or b)"),
            ("{{- names|first|join(',') ~ 'x' }}", "names|first|join(',')"),
            ("ü{{ 'x' if a else d.get(\"n\") ~ 'x' }}", "d.get(\"n\")"),
            ("{{ 1 + n ~ '|never' }}", "n"),
        ] {
            let template = guarded(template.to_owned());
            let at = template.find(guard).expect("guarded");
            assert_eq!(as_written(&template, at..at + guard.len()).as_deref(), Some(expected), "{template}");
        }
        let template = guarded("{{ (a ~ b).c }}".into());
        assert_eq!(as_written(&template, 3..template.len() - 3).as_deref(), Some("(a ~ b).c"));
    }

    #[test]
    fn no_filter_prints_a_null() {
        let mut env = Environment::new();
        add_to(&mut env);
        let context = minijinja::context! { v => (), some => " ada x ", list => [Some("a"), None], all => ["a", "b"],
        d => minijinja::context! { n => (), x => 1, l => [None, Some(2)] } };
        for (template, expected) in [
            ("{{ v|upper }}", None),
            ("{{ v|trim }}", None),
            ("{{ v|e }}", None),
            ("{{ v|replace('a', 'b') }}", None),
            ("{{ 'a'|replace('a', v) }}", None),
            ("{{ '%s'|format(v) }}", None),
            ("{{ v|indent(2) }}", None),
            ("{{ v|join }}", None),
            ("{{ v|int }}", None),
            ("{{ v|float }}", None),
            ("{{ v|sum }}", None),
            ("{{ v|pprint }}", None),
            (
                "{{ v|int(0) }}{{ v|float(default=1.5) }}{{ v|int(default=2) }}{{ 'x'|int(3) }}",
                Some("01.523"),
            ),
            ("{{ v|int(v) }}", None),
            ("{{ v|float(default=v) }}", None),
            ("{{ v|int(base=16) }}", None),
            ("{{ list|string }}", None),
            ("{{ [d]|upper }}", None),
            ("{{ '7'|int }}{{ '1.5'|float }}{{ [1, 2]|sum }}{{ [d]|sum(attribute='x') }}", Some("71.531")),
            ("{{ list|join(',') }}", None),
            ("{{ list|map('upper')|list }}", None),
            ("{{ [d]|join(',', 'n') }}", None),
            ("{{ [d]|join(',', attribute='n') }}", None),
            ("{{ [d]|join(',', attribute='l.0') }}", None),
            ("{{ '%(n)s'|format(n=v) }}", None),
            ("{{ '%(n)s'|format(d) }}", None),
            ("{{ '{}'.format(v) }}", None),
            ("{{ '{n}'.format(n=v) }}", None),
            ("{{ '{d.n}'.format(d=d) }}", None),
            ("{{ '{0[n]}'.format(d) }}", None),
            ("{{ '{0.l[0]}'.format(d) }}", None),
            ("{{ '{}'.format(**{'x': v}) }}", None),
            ("{{ ', '.join(list) }}", None),
            ("{{ ', '.join(v) }}", None),
            ("{{ ', '.join(list|map('default', '-', true)) }}{{ ','.join('xy') }}", Some("a, -x,y")),
            ("{{ [d]|join(',', attribute='x') }}{{ [d, d]|join('-', 'l.1') }}", Some("12-2")),
            ("{{ '%(x)s %(x)d'|format(d) }} {{ '%(x)s'|format(x=2) }}", Some("1 1 2")),
            ("{{ '{d.x} {0[x]} {1.l[1]} {y}'.format(d, d, d=d, y=3) }}", Some("1 1 2 3")),
            (
                "{{ d.get('n', none) is none }} {{ d.get('y', 4) }} {{ 'a b'.split(none, 1)|join('-') }}",
                Some("True 4 a-b"),
            ),
            ("{{ 'ab'.strip(none).upper().replace('B', 'c') }}{{ list.count(none) }}", Some("Ac1")),
            ("{{ some|indent(2000) }}", None),
            ("{{ some|indent(width=2000) }}", None),
            ("{{ some|trim|title }}", Some("Ada X")),
            ("{{ 'a\nb'|indent(width=2, first=true) }}", Some("  a\n  b")),
            ("{{ 'aaa'|replace('a', 'b') }}", Some("bbb")),
            ("{{ 'aaa'|replace('a', 'b', 2) }}", Some("bba")),
            ("{{ 'aaa'|replace('a', 'b', count=1) }}", Some("baa")),
            ("{{ 'aaa'|replace('a', 'b', -1) }}", Some("bbb")),
            ("{{ 'aaa'|replace('a', 'b', times=1) }}", None),
            ("{{ all|map('upper')|join('-') }}", Some("A-B")),
            ("{{ 'xyz'|join('-') }}", Some("x-y-z")),
            ("{{ 3|string }}{{ '%d'|format(3) }}", Some("33")),
        ] {
            assert_eq!(env.render_str(template, &context).ok().as_deref(), expected, "{template}");
        }
    }

    #[test]
    fn what_pprint_prints_is_paid_for() {
        let render = |fuel| {
            let mut env = Environment::new();
            env.set_fuel(Some(fuel));
            add_to(&mut env);
            env.render_str("{{ list|pprint|length }}", minijinja::context! { list => vec!["word"; 1000] })
        };
        assert!(render(20_000).is_ok());
        assert_eq!(render(2000).map_err(|error| error.kind()), Err(ErrorKind::OutOfFuel));
    }

    #[test]
    fn a_count_changes_nothing_but_how_often() {
        let mut env = Environment::new();
        env.set_undefined_behavior(minijinja::UndefinedBehavior::Strict);
        env.set_auto_escape_callback(|_| AutoEscape::Html);
        add_to(&mut env);
        let context = minijinja::context! { body => "a\n<b>", name => "<i>" };
        for (template, expected) in [
            ("{{ body|replace('\\n', '<br>'|safe, 1) }}", Some("a<br>&lt;b&gt;")),
            ("{{ '<b>x</b>'|safe|replace('x', name, 1) }}", Some("<b>&lt;i&gt;</b>")),
            ("{{ '<b>x</b>'|safe|replace('x', 'y'|safe, count=1) }}", Some("<b>y</b>")),
            ("{{ name|replace('i', 'u', 1) }}", Some("&lt;u&gt;")),
            (
                "{% autoescape false %}{{ body|replace('\\n', '<br>'|safe, 1) }}{% endautoescape %}",
                Some("a<br><b>"),
            ),
            ("{{ nick|replace('a', 'b', 1) }}", None),
            ("{{ name|replace(nick, 'b', 1) }}", None),
            ("{{ name|replace('a', nick, count=1) }}", None),
        ] {
            assert_eq!(env.render_str(template, &context).ok().as_deref(), expected, "{template}");
            let all = template.replace(", 1)", ")").replace(", count=1)", ")");
            assert_eq!(env.render_str(&all, &context).ok().as_deref(), expected, "{all}");
        }
    }

    proptest! {
        #[test]
        fn a_guard_changes_no_words(words in "((a|b|d\\.x|l\\[0\\]|l|'q'|\"~\"|2|-b|d\\.get\\('x'\\)|a\\.upper\\(\\)|\\[a, b\\]|\\(a, b\\)|\\{'k': a\\})(\\|upper|\\|replace\\('a', 'b'\\)| is string|\\.x|\\[0\\]|)( ~ |~| \\+ | \\* | ~ \\(| if a else | and | == | in |\\) ~ |, )){0,5}(a|b|'q'|l\\|first|d\\.x)\\)?") {
            let mut env = Environment::new();
            add_to(&mut env);
            let context =
                minijinja::context! { a => "ü", b => 2, l => ["x", "y"], d => minijinja::context! { x => "x" } };
            for source in [
                format!("{{{{ {words} }}}}"),
                format!("{{% set v = {words} %}}{{{{- v }}}}"),
                format!("{{{{ [{words}]|join('~') ~ ({words}) }}}}"),
            ] {
                let Ok(expected) = env.render_str(&source, &context) else { continue };
                let guarded = guarded(source.clone());
                let none = scan::joined(&source).is_some_and(|ends| ends.is_empty());
                prop_assert_eq!(guarded == source, none, "{}", source);
                prop_assert_eq!(env.render_str(&guarded, &context).ok(), Some(expected), "{}", guarded);
            }
        }

        #[test]
        fn no_null_is_behind_a_guard(words in "((a|n|d\\.n|l\\|last|d\\.get\\('n'\\)|n\\|d\\('z', true\\)|n is none|\\(n or d\\.n\\)|\\(d if a else l\\)\\.n|l\\[1\\]|\\(a or n\\)|\\(n\\))(~| ~ \\(| if a else | or |\\) ~ | ~ )){1,4}(a|n|l\\[1\\]|d\\.n)\\)?") {
            let mut env = Environment::new();
            add_to(&mut env);
            env.add_filter("d", |value: &Value, other: Value| if value.is_none() { other } else { value.clone() });
            let context =
                minijinja::context! { a => "ü", n => (), l => [Some("x"), None], d => minijinja::context! { n => () } };
            let bare = format!("{{% set v = '' ~ ({words}) %}}{{{{ v }}}}");
            let found = env.render_str(&guarded(bare.clone()), &context).ok();
            let expected = env.render_str(&bare, &context).ok().filter(|text| !text.contains("one"));
            prop_assert_eq!(found, expected, "{}", words);
        }
    }
}
