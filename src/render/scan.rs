//! What a template asks for, read from its syntax tree before anything is rendered: names, other
//! templates, filters, and what a condition takes for a truth value.
//!
//! The tree is the engine's own and has no promise of staying as it is; its version is fixed in
//! `Cargo.toml` for the sake of this file alone.

use std::collections::{BTreeSet, HashSet};
use std::ops::Range;

use minijinja::machinery::ast::{BinOpKind, CallArg, CompareOpKind, Expr, Macro, Stmt, UnaryOpKind};
use minijinja::machinery::{Span, Token, parse, parse_expr, tokenize};
use minijinja::value::ValueKind;
use minijinja::{Error, Value};

/// A word of a template and the bytes it stands at.
pub(super) type Spot = (String, Range<usize>);

/// What was found in one template or expression.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Names that nothing in the template gives a value, each time they are used.
    pub(super) names: Vec<Spot>,
    /// Names that the template itself gives a value, somewhere.
    pub(super) assigned: BTreeSet<String>,
    /// Templates included, extended or imported by a constant name; several where the first that
    /// exists is taken. `true`: one that is missing is no mistake.
    pub(super) includes: Vec<(Vec<String>, Range<usize>, bool)>,
    /// Templates named by an expression: the shapes of the names that it can have.
    pub(super) computed: Vec<(Vec<Shape>, Range<usize>)>,
    /// Which of `includes` are carried out whenever the template is: no `if`, loop or block is around
    /// them.
    pub(super) always: Vec<usize>,
    /// Filters.
    pub(super) filters: Vec<Spot>,
    /// Tests, as in `is even`.
    pub(super) tests: Vec<Spot>,
    /// For each `{{ }}` in order, the names in it.
    pub(super) emits: Vec<BTreeSet<String>>,
    /// There are `{% %}` blocks.
    pub(super) statements: bool,
    /// Names that are given a value, and the names that value is made of. A `None` is not known.
    pub(super) flows: Vec<(String, Option<BTreeSet<String>>)>,
    /// Names that may be missing: behind them stands `default` or `is defined`.
    pub(super) asked: Vec<String>,
    /// Bare names that stand where a truth value is needed.
    pub(super) truths: Vec<Spot>,
    /// Bare names that are compared with a number or a truth value: the kind of that, in words.
    pub(super) compared: Vec<(Spot, Compared)>,
    /// Columns that are asked for by way of `row`.
    pub(super) of_row: Vec<Spot>,
}

/// A name that is known in part: its constant pieces, and `None` for what a value puts there.
pub(super) type Shape = Vec<Option<String>>;

/// More shapes than any name is meant to have.
const MOST_SHAPES: usize = 64;

/// What a name is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compared {
    Number,
    Truth,
}

impl Scan {
    /// Reads a template.
    pub(super) fn template(source: &str) -> Result<Scan, Error> {
        let tree = parse(source, "", Default::default())?;
        let mut walker = Walker::new();
        walker.stmt(&tree);
        Ok(walker.scan)
    }

    /// Reads a condition.
    pub(super) fn condition(source: &str) -> Result<Scan, Error> {
        let tree = parse_expr(source)?;
        let mut walker = Walker::new();
        walker.expr(&tree);
        walker.truth(&tree);
        Ok(walker.scan)
    }
}

/// The parts of a template that is nothing but text and `{{ name }}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Plain {
    Text(String),
    Name(String),
}

/// Takes a template apart, if it is as simple as most subjects and addresses are.
pub(super) fn plain(source: &str) -> Option<Vec<Plain>> {
    // The engine cuts a line end off the end; where there is one, leave it to the engine.
    if source.ends_with('\n') {
        return None;
    }
    let tree = parse(source, "", Default::default()).ok()?;
    let Stmt::Template(template) = &tree else { return None };
    let parts = template.children.iter().map(|child| match child {
        Stmt::EmitRaw(raw) => Some(Plain::Text(raw.raw.to_owned())),
        Stmt::EmitExpr(emit) => match &emit.expr {
            Expr::Var(var) => Some(Plain::Name(var.id.to_owned())),
            _ => None,
        },
        _ => None,
    });
    parts.collect()
}

/// Where the text of a template stands that everybody gets, but for what `raw` gives on as it is.
pub(super) fn bare(source: &str) -> impl Iterator<Item = Range<usize>> {
    let tokens = tokenize(source, false, Default::default()).map_while(Result::ok);
    tokens.filter(|(token, _)| matches!(token, Token::TemplateData(_))).map(|(_, span)| range(span)).filter(
        |text| {
            let tag =
                source[..text.start].trim_end().strip_suffix("%}").and_then(|tag| tag.rsplit("{%").next());
            tag.is_none_or(|tag| {
                tag.trim_matches(|sign: char| sign.is_whitespace() || "-+".contains(sign)) != "raw"
            })
        },
    )
}

/// Where what `~` puts together ends, on either side of each, but for words in quotes. The places of the tree leave
/// out parentheses, so it is told from the tokens.
pub(super) fn joined(source: &str) -> Option<BTreeSet<usize>> {
    let tokens = Tokens::new(tokenize(source, false, Default::default()).collect::<Result<_, _>>().ok()?);
    let tilde = |at: &usize| matches!(tokens.all[*at].0, Token::Tilde);
    let sides = (0..tokens.all.len()).filter(tilde).flat_map(|at| [at.checked_sub(1), tokens.last(at + 1)]);
    let ends = sides.flatten().filter_map(|at| match tokens.all.get(at)? {
        (Token::Str(_) | Token::String(_), _) => None,
        (_, span) => Some(span.end_offset as usize),
    });
    Some(ends.collect())
}

/// The operand that an expression, cut off behind it, ends with.
pub(super) fn operand(expression: &str) -> Option<&str> {
    let all = tokenize(expression, true, Default::default()).map_while(Result::ok);
    let tokens = Tokens::new(all.collect());
    let (_, first) = tokens.all.get(tokens.first(tokens.all.len().checked_sub(1)?))?;
    expression.get(first.start_offset as usize..)
}

/// The tokens of a template, and for each bracket the place of the one that it belongs to.
struct Tokens<'s> {
    all: Vec<(Token<'s>, Span)>,
    partners: Vec<usize>,
}

impl<'s> Tokens<'s> {
    fn new(all: Vec<(Token<'s>, Span)>) -> Self {
        let mut partners: Vec<usize> = (0..all.len()).collect();
        let mut open = Vec::new();
        for (at, (token, _)) in all.iter().enumerate() {
            match token {
                Token::ParenOpen | Token::BracketOpen | Token::BraceOpen => open.push(at),
                Token::ParenClose | Token::BracketClose | Token::BraceClose => {
                    let start = open.pop().unwrap_or(at);
                    (partners[start], partners[at]) = (at, start);
                }
                _ => {}
            }
        }
        Tokens { all, partners }
    }

    fn token(&self, at: usize) -> Option<&Token<'s>> {
        self.all.get(at).map(|(token, _)| token)
    }

    /// The last token of the operand that begins here, filters and all; none of a test, whose answer is never null.
    fn last(&self, mut at: usize) -> Option<usize> {
        while matches!(self.token(at)?, Token::Minus) {
            at += 1;
        }
        at = *self.partners.get(at)?;
        loop {
            at = match self.token(at + 1) {
                Some(Token::Dot | Token::Pipe) => at + 2,
                Some(Token::ParenOpen | Token::BracketOpen) => self.partners[at + 1],
                Some(Token::Ident("is")) => return None,
                _ => return Some(at),
            };
        }
    }

    /// The first token of the operand that ends here. What is called or asked for an item has its bracket close by.
    fn first(&self, mut at: usize) -> usize {
        loop {
            let from = self.partners[at];
            let Some(before) = from.checked_sub(1) else { return from };
            at = match (&self.all[before].0, &self.all[from].0) {
                (Token::Dot | Token::Pipe, _) if before > 0 => before - 1,
                (
                    Token::Ident(_) | Token::ParenClose | Token::BracketClose,
                    Token::ParenOpen | Token::BracketOpen,
                ) if self.all[before].1.end_offset == self.all[from].1.start_offset => before,
                _ => return from,
            };
        }
    }
}

/// The shapes that the text of an expression can have; of a list, those of its items.
fn shapes(expr: &Expr) -> Vec<Shape> {
    let unknown = || vec![vec![None]];
    let all = |items: &[Expr]| items.iter().flat_map(shapes).collect();
    let shapes: Vec<Shape> = match expr {
        Expr::Const(constant) => vec![vec![Some(constant.value.to_string())]],
        Expr::BinOp(op) if matches!(op.op, BinOpKind::Concat | BinOpKind::Add) => {
            let (left, right) = (shapes(&op.left), shapes(&op.right));
            let joined = left.iter().flat_map(|left| right.iter().map(move |right| (left, right)));
            joined.take(MOST_SHAPES + 1).map(|(left, right)| [&left[..], right].concat()).collect()
        }
        Expr::IfExpr(cond) => {
            let otherwise = cond.false_expr.iter().flat_map(shapes);
            shapes(&cond.true_expr).into_iter().chain(otherwise).collect()
        }
        Expr::List(list) => all(&list.items),
        Expr::Tuple(tuple) => all(&tuple.items),
        _ => unknown(),
    };
    if shapes.len() > MOST_SHAPES { unknown() } else { shapes }
}

fn range(span: Span) -> Range<usize> {
    span.start_offset as usize..span.end_offset as usize
}

struct Walker {
    scan: Scan,
    scopes: Vec<HashSet<String>>,
    emit: Option<BTreeSet<String>>,
    /// How many ifs, loops, blocks and macros are around.
    within: usize,
}

/// What the engine itself puts into a template's reach.
const GIVEN: [&str; 9] = ["loop", "self", "super", "caller", "varargs", "kwargs", "true", "false", "none"];

impl Walker {
    fn new() -> Walker {
        Walker { scan: Scan::default(), scopes: vec![HashSet::new()], emit: None, within: 0 }
    }

    fn assign(&mut self, name: &str) {
        self.scan.assigned.insert(name.to_owned());
        if let Some(scope) = self.scopes.last_mut() {
            scope.insert(name.to_owned());
        }
    }

    fn scoped(&mut self, walk: impl FnOnce(&mut Self)) {
        self.scopes.push(HashSet::new());
        walk(self);
        self.scopes.pop();
    }

    fn target(&mut self, target: &Expr) {
        match target {
            Expr::Var(var) => self.assign(var.id),
            Expr::List(list) => list.items.iter().for_each(|item| self.target(item)),
            Expr::Tuple(tuple) => tuple.items.iter().for_each(|item| self.target(item)),
            other => self.expr(other),
        }
    }

    /// Notes what a target is made of.
    fn flow(&mut self, target: &Expr, value: Option<&Expr>) {
        let sources = value.map(|value| {
            let mut inner = Walker::new();
            inner.emit = Some(BTreeSet::new());
            inner.expr(value);
            inner.emit.take().unwrap_or_default()
        });
        let mut inner = Walker::new();
        inner.target(target);
        self.scan.flows.extend(inner.scan.assigned.into_iter().map(|name| (name, sources.clone())));
    }

    fn stmts(&mut self, stmts: &[Stmt]) {
        stmts.iter().for_each(|stmt| self.stmt(stmt));
    }

    fn stmt(&mut self, stmt: &Stmt) {
        if !matches!(stmt, Stmt::Template(_) | Stmt::EmitExpr(_) | Stmt::EmitRaw(_)) {
            self.scan.statements = true;
        }
        let depth = self.within;
        self.within += usize::from(matches!(
            stmt,
            Stmt::ForLoop(_) | Stmt::IfCond(_) | Stmt::Block(_) | Stmt::Macro(_) | Stmt::CallBlock(_)
        ));
        self.parts(stmt);
        self.within = depth;
    }

    fn parts(&mut self, stmt: &Stmt) {
        match stmt {
            Stmt::Template(template) => self.stmts(&template.children),
            Stmt::EmitRaw(_) => {}
            Stmt::EmitExpr(emit) => {
                self.emit = Some(BTreeSet::new());
                self.expr(&emit.expr);
                let names = self.emit.take().unwrap_or_default();
                self.scan.emits.push(names);
            }
            Stmt::ForLoop(each) => {
                self.expr(&each.iter);
                self.flow(&each.target, Some(&each.iter));
                self.scoped(|walker| {
                    walker.target(&each.target);
                    each.filter_expr.iter().for_each(|filter| walker.expr(filter));
                    walker.stmts(&each.body);
                });
                self.scoped(|walker| walker.stmts(&each.else_body));
            }
            Stmt::IfCond(cond) => {
                self.expr(&cond.expr);
                self.stmts(&cond.true_body);
                self.stmts(&cond.false_body);
            }
            Stmt::WithBlock(with) => self.scoped(|walker| {
                for (target, value) in &with.assignments {
                    walker.expr(value);
                    walker.flow(target, Some(value));
                    walker.target(target);
                }
                walker.stmts(&with.body);
            }),
            Stmt::Set(set) => {
                self.expr(&set.expr);
                self.flow(&set.target, Some(&set.expr));
                self.target(&set.target);
            }
            Stmt::SetBlock(set) => {
                self.scoped(|walker| walker.stmts(&set.body));
                set.filter.iter().for_each(|filter| self.expr(filter));
                self.flow(&set.target, None);
                self.target(&set.target);
            }
            Stmt::AutoEscape(escape) => {
                self.expr(&escape.enabled);
                self.stmts(&escape.body);
            }
            Stmt::FilterBlock(filter) => {
                self.scoped(|walker| walker.stmts(&filter.body));
                self.expr(&filter.filter);
            }
            Stmt::Block(block) => self.scoped(|walker| walker.stmts(&block.body)),
            Stmt::Extends(extends) => self.other(&extends.name, range(extends.span()), false),
            Stmt::Include(include) => {
                self.other(&include.name, range(include.span()), include.ignore_missing);
            }
            Stmt::Import(import) => {
                self.other(&import.expr, range(import.span()), false);
                self.flow(&import.name, None);
                self.target(&import.name);
            }
            Stmt::FromImport(import) => {
                self.other(&import.expr, range(import.span()), false);
                for (name, alias) in &import.names {
                    self.flow(alias.as_ref().unwrap_or(name), None);
                    self.target(alias.as_ref().unwrap_or(name));
                }
            }
            Stmt::Macro(spanned) => {
                self.assign(spanned.name);
                self.scan.flows.push((spanned.name.to_owned(), None));
                self.scoped(|walker| walker.macro_body(spanned));
            }
            Stmt::CallBlock(call) => {
                self.expr(&call.call.expr);
                call.call.args.iter().for_each(|arg| self.arg(arg));
                self.scoped(|walker| walker.macro_body(&call.macro_decl));
            }
            Stmt::Do(call) => {
                self.expr(&call.call.expr);
                call.call.args.iter().for_each(|arg| self.arg(arg));
            }
            Stmt::Continue(_) | Stmt::Break(_) => {}
        }
    }

    fn macro_body(&mut self, body: &Macro) {
        body.defaults.iter().for_each(|default| self.expr(default));
        body.args.iter().for_each(|arg| {
            self.flow(arg, None);
            self.target(arg);
        });
        self.stmts(&body.body);
    }

    /// A template that is named by another.
    fn other(&mut self, name: &Expr, span: Range<usize>, may_be_missing: bool) {
        let mut found = Vec::new();
        match name.as_const() {
            Some(value) => match value.as_str() {
                Some(text) => found.push(text.to_owned()),
                None => found.extend(
                    value
                        .try_iter()
                        .into_iter()
                        .flatten()
                        .filter_map(|item| item.as_str().map(str::to_owned)),
                ),
            },
            None => {
                self.expr(name);
                self.scan.computed.push((shapes(name), span.clone()));
            }
        }
        if !found.is_empty() {
            if self.within == 0 {
                self.scan.always.push(self.scan.includes.len());
            }
            self.scan.includes.push((found, span, may_be_missing));
        }
    }

    fn name(&mut self, id: &str, span: Range<usize>) {
        if self.is_given(id) || GIVEN.contains(&id) {
            return;
        }
        if let Some(names) = &mut self.emit {
            names.insert(id.to_owned());
        }
        self.scan.names.push((id.to_owned(), span));
    }

    fn arg(&mut self, arg: &CallArg) {
        match arg {
            CallArg::Pos(expr)
            | CallArg::Kwarg(_, expr)
            | CallArg::PosSplat(expr)
            | CallArg::KwargSplat(expr) => self.expr(expr),
        }
    }

    fn expr(&mut self, expr: &Expr) {
        match expr {
            Expr::Var(var) => self.name(var.id, range(var.span())),
            Expr::Const(_) => {}
            Expr::Slice(slice) => {
                self.expr(&slice.expr);
                [&slice.start, &slice.stop, &slice.step].into_iter().flatten().for_each(|e| self.expr(e));
            }
            Expr::UnaryOp(op) => self.expr(&op.expr),
            Expr::BinOp(op) => {
                self.expr(&op.left);
                self.expr(&op.right);
                use BinOpKind::{Eq, Gt, Gte, Lt, Lte, Ne};
                if matches!(op.op, Eq | Ne | Lt | Lte | Gt | Gte) {
                    self.compared(&op.left, &op.right);
                    self.compared(&op.right, &op.left);
                }
            }
            Expr::Compare(compare) => {
                self.expr(&compare.expr);
                compare.ops.iter().for_each(|op| self.expr(&op.expr));
                let mut left = &compare.expr;
                for op in &compare.ops {
                    if !matches!(op.op, CompareOpKind::In | CompareOpKind::NotIn) {
                        self.compared(left, &op.expr);
                        self.compared(&op.expr, left);
                    }
                    left = &op.expr;
                }
            }
            Expr::IfExpr(cond) => {
                self.expr(&cond.test_expr);
                self.expr(&cond.true_expr);
                cond.false_expr.iter().for_each(|e| self.expr(e));
            }
            Expr::Filter(filter) => {
                self.scan.filters.push((filter.name.to_owned(), range(filter.span())));
                if let Some(value) = &filter.expr {
                    if matches!(filter.name, "default" | "d") {
                        self.may_be_missing(value)
                    } else {
                        self.expr(value)
                    }
                }
                filter.args.iter().for_each(|arg| self.arg(arg));
            }
            Expr::Test(test) => {
                self.scan.tests.push((test.name.to_owned(), range(test.span())));
                if matches!(test.name, "defined" | "undefined") {
                    self.may_be_missing(&test.expr);
                } else {
                    self.expr(&test.expr);
                }
                test.args.iter().for_each(|arg| self.arg(arg));
            }
            Expr::GetAttr(get) => {
                if self.is_row(&get.expr) {
                    self.scan.of_row.push((get.name.to_owned(), range(get.span())));
                }
                self.expr(&get.expr);
            }
            Expr::GetItem(get) => {
                if self.is_row(&get.expr)
                    && let Some(name) = get.subscript_expr.as_const().as_ref().and_then(Value::as_str)
                {
                    self.scan.of_row.push((name.to_owned(), range(get.span())));
                }
                self.expr(&get.expr);
                self.expr(&get.subscript_expr);
            }
            Expr::Call(call) => {
                match &call.expr {
                    // A method, not a column.
                    Expr::GetAttr(get) => self.expr(&get.expr),
                    other => self.expr(other),
                }
                call.args.iter().for_each(|arg| self.arg(arg));
            }
            Expr::List(list) => list.items.iter().for_each(|e| self.expr(e)),
            Expr::Tuple(tuple) => tuple.items.iter().for_each(|e| self.expr(e)),
            Expr::Map(map) => {
                map.keys.iter().for_each(|e| self.expr(e));
                map.values.iter().for_each(|e| self.expr(e));
            }
        }
    }

    /// An expression that is asked about, and may be undefined: a bare name in it is no mistake.
    fn may_be_missing(&mut self, expr: &Expr) {
        match expr {
            Expr::Var(var) => {
                if let Some(names) = &mut self.emit {
                    names.insert(var.id.to_owned());
                }
                self.scan.asked.push(var.id.to_owned());
            }
            Expr::GetAttr(get) => self.expr(&get.expr),
            Expr::GetItem(get) => {
                self.expr(&get.expr);
                self.expr(&get.subscript_expr);
            }
            other => self.expr(other),
        }
    }

    fn is_row(&self, expr: &Expr) -> bool {
        matches!(expr, Expr::Var(var) if var.id == "row") && !self.is_given("row")
    }

    /// Whether the template itself gives a name its value here.
    fn is_given(&self, id: &str) -> bool {
        self.scopes.iter().any(|scope| scope.contains(id))
    }

    /// Notes a bare name that is compared with what text never equals.
    fn compared(&mut self, name: &Expr, with: &Expr) {
        let Expr::Var(var) = name else { return };
        let minus = |expr: &Expr<'_>| matches!(expr, Expr::UnaryOp(op) if matches!(op.op, UnaryOpKind::Neg));
        let with = match with.as_const().map(|value| value.kind()) {
            Some(ValueKind::Number) => Compared::Number,
            Some(ValueKind::Bool) => Compared::Truth,
            None if minus(with) => Compared::Number,
            _ => return,
        };
        if !self.is_given(var.id) {
            self.scan.compared.push(((var.id.to_owned(), range(var.span())), with));
        }
    }

    /// An expression whose truth is taken.
    fn truth(&mut self, expr: &Expr) {
        match expr {
            Expr::Var(var) => self.scan.truths.push((var.id.to_owned(), range(var.span()))),
            Expr::UnaryOp(op) if matches!(op.op, UnaryOpKind::Not) => self.truth(&op.expr),
            Expr::BinOp(op) if matches!(op.op, BinOpKind::ScAnd | BinOpKind::ScOr) => {
                self.truth(&op.left);
                self.truth(&op.right);
            }
            Expr::IfExpr(cond) => {
                self.truth(&cond.test_expr);
                self.truth(&cond.true_expr);
                cond.false_expr.iter().for_each(|e| self.truth(e));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(source: &str) -> Vec<String> {
        Scan::template(source).expect(source).names.into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn names_are_those_that_nothing_gives_a_value() {
        for (source, expected) in [
            ("{{ a }} {{ b.c }} {{ d['e'] }}", vec!["a", "b", "d"]),
            ("{% for x in xs %}{{ x.y }}{{ loop.index }}{% endfor %}{{ x }}", vec!["xs", "x"]),
            ("{% set a = b %}{{ a }}", vec!["b"]),
            ("{% if a %}{% set c = 1 %}{% endif %}{{ c }}", vec!["a"]),
            ("{% with a = b %}{{ a }}{% endwith %}{{ a }}", vec!["b", "a"]),
            ("{% macro m(x, y=z) %}{{ x }}{{ y }}{% endmacro %}{{ m(1) }}", vec!["z"]),
            ("{{ a | default(b) }}{% if c is defined %}{% endif %}", vec!["b"]),
            ("{{ 姓名 }}", vec!["姓名"]),
            ("{% for k, v in m|items %}{{ k }}{{ v }}{% endfor %}", vec!["m"]),
        ] {
            assert_eq!(names(source), expected, "{source}");
        }
    }

    #[test]
    fn spans_are_bytes_of_the_source() {
        let source = "您好 {{ 姓名 }}, {{ plan|upper }}";
        let scan = Scan::template(source).expect("parses");
        let spots: Vec<&str> = scan.names.iter().map(|(_, span)| &source[span.clone()]).collect();
        assert_eq!(spots, ["姓名", "plan"]);
        assert_eq!(scan.filters[0].0, "upper");
    }

    #[test]
    fn other_templates_are_found_by_constant_names() {
        let scan = Scan::template(
            "{% extends 'base.html' %}{% include ['a', 'b'] ignore missing %}{% include x %}{% import 'm' as m %}",
        )
        .expect("parses");
        let found: Vec<_> =
            scan.includes.iter().map(|(names, _, missing)| (names.join("|"), *missing)).collect();
        assert_eq!(
            found,
            [("base.html".to_owned(), false), ("a|b".to_owned(), true), ("m".to_owned(), false)]
        );
        assert_eq!(scan.names[0].0, "x");
    }

    #[test]
    fn computed_names_have_shapes() {
        for (expression, expected) in [
            ("lang ~ '.html'", "*.html"),
            ("'mail/' ~ lang ~ '-' ~ n ~ '.html'", "mail/*-*.html"),
            ("'a.html' if x else 'b-' + y", "a.html b-*"),
            ("('de' if x else 'en') ~ '.html'", "de.html en.html"),
            ("[lang ~ '.html', 'en.html']", "*.html en.html"),
            ("name", "*"),
            ("x|lower ~ y", "**"),
        ] {
            let scan = Scan::template(&format!("{{% include {expression} %}}")).expect(expression);
            let [(shapes, _)] = &scan.computed[..] else { panic!("{expression}") };
            let text =
                |shape: &Shape| shape.iter().map(|part| part.as_deref().unwrap_or("*")).collect::<String>();
            assert_eq!(shapes.iter().map(text).collect::<Vec<_>>().join(" "), expected, "{expression}");
        }
        assert!(Scan::template("{% include 'a' ~ 1 %}{% include 'a' %}").expect("parses").computed.len() < 2);
    }

    #[test]
    fn truths_are_bare_names_in_a_condition() {
        for (source, expected) in [
            ("active", vec!["active"]),
            ("active and plan != 'free'", vec!["active"]),
            ("not (a or b) and c == 1", vec!["a", "b"]),
            ("country == 'DE'", vec![]),
            ("a if b else c", vec!["b", "a", "c"]),
        ] {
            let scan = Scan::condition(source).expect(source);
            let found: Vec<_> = scan.truths.into_iter().map(|(name, _)| name).collect();
            assert_eq!(found, expected, "{source}");
        }
        assert!(Scan::condition("a }} {{ b").is_err() && Scan::condition("").is_err());
    }

    #[test]
    fn comparisons_with_what_text_never_is_are_found() {
        for (source, expected) in [
            ("balance > 0", vec![("balance", Compared::Number)]),
            ("0 < balance <= 10", vec![("balance", Compared::Number), ("balance", Compared::Number)]),
            ("balance == -1", vec![("balance", Compared::Number)]),
            ("active == true", vec![("active", Compared::Truth)]),
            ("plan == 'free' and a != b", vec![]),
            ("balance|float > 0 and len in [1, 2]", vec![]),
        ] {
            let scan = Scan::condition(source).expect(source);
            let found: Vec<_> = scan.compared.iter().map(|((name, _), with)| (&**name, *with)).collect();
            assert_eq!(found, expected, "{source}");
        }
        let scan =
            Scan::template("{% for n in xs if n > 1 %}{{ n > 2 }}{% endfor %}{% if n > 3 %}{% endif %}");
        assert_eq!(scan.expect("parses").compared.len(), 1);
    }

    #[test]
    fn columns_are_found_behind_row() {
        for (source, expected) in [
            ("{{ row.a }}{{ row['First Name'] }}", vec!["a", "First Name"]),
            ("{{ row.items() }}{{ row[x] }}{{ x.row.a }}", vec![]),
            ("{{ row.a | default('') }}{% if row['b'] is defined %}{% endif %}", vec![]),
            ("{% for row in rows %}{{ row.a }}{% endfor %}", vec![]),
        ] {
            let scan = Scan::template(source).expect(source);
            let found: Vec<_> = scan.of_row.into_iter().map(|(name, _)| name).collect();
            assert_eq!(found, expected, "{source}");
        }
    }

    #[test]
    fn plain_templates_are_taken_apart() {
        let text = |text: &str| Plain::Text(text.to_owned());
        let name = |name: &str| Plain::Name(name.to_owned());
        for (source, expected) in [
            ("{{ email }}", Some(vec![name("email")])),
            (
                "News for {{ name }} in {{ city }}",
                Some(vec![text("News for "), name("name"), text(" in "), name("city")]),
            ),
            ("fixed", Some(vec![text("fixed")])),
            ("", Some(vec![])),
            ("{{ a.b }}", None),
            ("{{ a|upper }}", None),
            ("{% if a %}x{% endif %}", None),
            ("x\n", None),
        ] {
            assert_eq!(plain(source), expected, "{source}");
        }
    }
}
