//! The JSON Schema of the job file, for editors: what may be written where, and a word about it. It
//! is written by hand, and a test holds it to the decoder: both know the same keys and words.

use serde_json::{Map, Value as Json, json};

use super::preset;

/// The schema (draft 2020-12) of job files and of `postroom.yaml`.
pub fn schema() -> Json {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "postroom job file",
        "description": "A job (`kind: send` or `kind: archive`), or postroom.yaml, which holds what jobs share.",
        "oneOf": [
            reference("kind: send"),
            reference("kind: archive"),
            reference("postroom.yaml"),
        ],
        "$defs": definitions(),
    })
}

fn definitions() -> Json {
    let all = [files(), letter(), logins(), rules()].into_iter().flatten();
    Json::Object(all.map(|(under, schema)| (definition(under), schema)).collect())
}

/// Whole files, and what jobs share.
fn files() -> Vec<(&'static str, Json)> {
    vec![
        (
            "kind: send",
            object(
                &["kind", "name", "edition", "recipients", "subject", "body"],
                both(
                    json!({
                        "kind": {"const": "send"},
                        "name": text("What the job is called; part of what the ledger says."),
                        "edition": text("A recipient gets each edition once. May be a template of `now`: \"{{ now | date('%G-W%V') }}\"."),
                        "timezone": text("For `now` and the Date header, such as Asia/Shanghai; otherwise the system's."),
                        "recipients": reference("recipients"),
                        "subject": text("A template."),
                        "body": reference("body"),
                        "attachments": one_or_more(any_of(&[text("A pattern, rendered for each recipient; expects at least one file."), reference("attachments")])),
                        "images": {"type": "object", "description": "Names for cid: and their files.", "additionalProperties": {"type": "string"}},
                        "ledger": text("sqlite:PATH; otherwise sqlite:.postroom/ledger.db."),
                    }),
                    defaults_of_letters(),
                ),
            ),
        ),
        (
            "kind: archive",
            object(
                &["kind", "name", "store"],
                both(
                    json!({
                        "kind": {"const": "archive"},
                        "name": text("What the job is called."),
                        "mailbox": mailbox_or_name(),
                        "mailboxes": {"type": "array", "items": mailbox_or_name(), "minItems": 1},
                        "store": text("The archive's folder, from the root."),
                    }),
                    defaults_of_archives(),
                ),
            ),
        ),
        (
            "postroom.yaml",
            object(
                &[],
                json!({
                    "relays": {"type": "object", "additionalProperties": reference("relay")},
                    "mailboxes": {"type": "object", "additionalProperties": reference("mailbox")},
                    "defaults": reference("defaults"),
                    "ledger": text("sqlite:PATH, for jobs that name none."),
                    "timezone": text("For jobs that name none."),
                }),
            ),
        ),
        ("defaults", object(&[], both(defaults_of_letters(), defaults_of_archives()))),
    ]
}

/// Who gets what.
fn letter() -> Vec<(&'static str, Json)> {
    let part = any_of(&[text("A file: templates/NAME, else from the root."), reference("body: html")]);
    vec![
        ("recipients", recipients()),
        (
            "recipients: ledger",
            object(
                &["job", "edition", "outcome"],
                json!({
                    "job": text("The other job's name."),
                    "edition": text("Its edition."),
                    "outcome": words(&["accepted", "refused", "failed", "unsure", "deferred", "skipped"], "What became of them there."),
                }),
            ),
        ),
        (
            "cc",
            object(
                &["each", "split"],
                json!({
                    "each": text("A template that gives several mailboxes."),
                    "split": text("What stands between two of them."),
                }),
            ),
        ),
        (
            "body",
            json!({
                "type": "object", "additionalProperties": false, "minProperties": 1,
                "properties": {"html": part, "text": part},
            }),
        ),
        ("body: html", object(&["inline"], json!({"inline": text("The template itself.")}))),
        (
            "attachments",
            object(
                &["files"],
                json!({
                    "files": text("A pattern, rendered for each recipient."),
                    "as": text("The name the recipient sees, a template."),
                    "type": text("The content type; otherwise found out."),
                    "when": expression("Enclosed only if this holds."),
                    "expect": any_of(&[count(0, "So many files."), text("1..3, 0.. or any; otherwise at least one.")]),
                    "shared": flag("Several recipients may be given the same file."),
                }),
            ),
        ),
        (
            "unsubscribe",
            json!({
                "type": "object", "additionalProperties": false, "minProperties": 1,
                "properties": {
                    "url": text("A template of an https URL."),
                    "mailto": text("A template of a mail address."),
                    "one_click": flag("List-Unsubscribe-Post (RFC 8058)."),
                },
            }),
        ),
        (
            "notify",
            object(
                &["to"],
                json!({
                    "to": one_or_more(text("A mailbox.")),
                    "when": words(&["finished", "trouble"], "After every edition, or only when something went wrong."),
                }),
            ),
        ),
    ]
}

/// Servers, and how to log in.
fn logins() -> Vec<(&'static str, Json)> {
    vec![
        ("relay", relay()),
        ("mailbox", mailbox()),
        (
            "auth",
            object(
                &[],
                json!({
                    "user": text("The login name."),
                    "password": secret(),
                    "token": any_of(&[text("The secret itself: a warning."), reference("token")]),
                    "mechanism": words(
                        &["auto", "plain", "login", "cram-md5", "scram-sha-1", "scram-sha-256", "scram-sha-256-plus", "xoauth2", "oauthbearer"],
                        "The SASL mechanism; otherwise the strongest that both sides have.",
                    ),
                }),
            ),
        ),
        ("password", one_of(places())),
        ("token", one_of(both(places(), json!({"refresh": reference("refresh")})))),
        (
            "refresh",
            object(
                &["client_id", "refresh_token"],
                json!({
                    "url": text("The provider's token server, https; known of some providers."),
                    "client_id": text("What the provider calls our application."),
                    "client_secret": secret(),
                    "refresh_token": secret(),
                    "scope": text("Scopes, with spaces between them; otherwise those that were granted."),
                    "ca_file": text("Trusted besides the system's, PEM."),
                }),
            ),
        ),
    ]
}

/// How long, how fast, how often; what is signed and what is deleted.
fn rules() -> Vec<(&'static str, Json)> {
    let times = ["connect", "greeting", "command", "mail", "rcpt", "data", "block", "end"];
    let times: Map<String, Json> =
        times.into_iter().map(|key| (key.to_owned(), duration("How long at most."))).collect();
    vec![
        ("timeouts", object(&[], Json::Object(times))),
        (
            "limits",
            object(
                &["domains"],
                json!({
                    "domains": one_or_more(text("A domain; *.example.com names those below it.")),
                    "rate": rate("Their pace together."),
                    "connections": count(1, "Their connections together."),
                }),
            ),
        ),
        (
            "retry",
            object(
                &[],
                json!({
                    "first": duration("The wait after a first deferral."),
                    "factor": {"type": "number", "minimum": 1, "maximum": 100, "description": "Each wait is this many times the last."},
                    "max": duration("The longest wait."),
                    "stay": duration("How long a run waits for what is due (then it exits with 75), or for a relay that has gone away (then 69)."),
                    "give_up": duration("After this long a deferred recipient has failed."),
                }),
            ),
        ),
        (
            "stop_when",
            object(
                &[],
                json!({
                    "refused": percent("The part that was refused."),
                    "after": count(1, "Not before so many; otherwise 200."),
                    "code": one_or_more(text("A recipient is refused with it: \"550\", \"5.7.1\" or \"5.7.*\".")),
                }),
            ),
        ),
        (
            "dkim",
            object(
                &["domain", "selector", "key"],
                json!({"domain": text("d="), "selector": text("s="), "key": secret()}),
            ),
        ),
        (
            "delete",
            object(
                &["after"],
                json!({
                    "after": duration("Counted from archiving."),
                    "keep_newest": count(0, "So many stay whatever their age."),
                    "max_fraction": percent("More of the mailbox at once is refused."),
                }),
            ),
        ),
    ]
}

/// The keys of a job that sends which `defaults` of postroom.yaml may have.
fn defaults_of_letters() -> Json {
    json!({
        "class": words(&["bulk", "personal"], "Which headers, and which lint."),
        "from": text("The author: Name <user@example.com>."),
        "return_path": text("The address of the envelope; otherwise that of `from`."),
        "reply_to": copies(),
        "headers": {"type": "object", "description": "Further headers; the values are templates.", "additionalProperties": {"type": "string"}},
        "unsubscribe": reference("unsubscribe"),
        "list_id": text("List-Id, a template."),
        "feedback_id": text("Feedback-ID, a template."),
        "vars": {"type": "object", "description": "What templates know besides the row."},
        "vars_file": one_or_more(text("A JSON or YAML file of more.")),
        "relay": any_of(&[text("A relay of postroom.yaml."), reference("relay")]),
        "keep": text("A folder for the exact bytes of every letter that was accepted; `digest`: only their hash, in the ledger."),
        "notify": any_of(&[one_or_more(text("A mailbox.")), reference("notify")]),
    })
}

/// The keys of a job that archives which `defaults` may have.
fn defaults_of_archives() -> Json {
    json!({
        "layout": words(&["dated", "maildir"], "How the archive's files lie."),
        "delete": any_of(&[words(&["never"], "Nothing is ever deleted."), reference("delete")]),
    })
}

/// The keys of both.
fn both(mut one: Json, other: Json) -> Json {
    if let (Some(one), Json::Object(other)) = (one.as_object_mut(), other) {
        one.extend(other);
    }
    one
}

/// Where a secret may be had.
fn places() -> Json {
    json!({
        "env": text("The name of an environment variable."),
        "file": text("A file whose first line it is."),
        "command": {"type": "array", "items": {"type": "string"}, "minItems": 1, "description": "A command and its arguments; no shell; 10 seconds."},
    })
}

fn one_of(properties: Json) -> Json {
    json!({
        "type": "object", "additionalProperties": false, "minProperties": 1, "maxProperties": 1,
        "properties": properties,
    })
}

/// Mailboxes with templates in them.
fn copies() -> Json {
    let one = text("A template of a mailbox; left out where it renders empty.");
    any_of(&[one_or_more(one), reference("cc")])
}

fn recipients() -> Json {
    object(
        &[],
        json!({
            "file": text("A .csv, .tsv, .json, .jsonl or .yaml file; \"-\" is standard input."),
            "list": {"type": "array", "items": {"type": "object"}, "description": "The rows themselves."},
            "ledger": reference("recipients: ledger"),
            "sql": {"description": "Not built in yet."},
            "format": words(&["csv", "tsv", "json", "jsonl", "yaml"], "Where the file's name does not say."),
            "encoding": text("Of a text file, such as gb18030; otherwise UTF-8."),
            "delimiter": text("What stands between two CSV cells; otherwise found out."),
            "columns": {
                "type": "object",
                "description": "The kinds of CSV columns; text unless said.",
                "additionalProperties": words(&["text", "bool", "int", "number", "date", "json"], "The column's kind."),
            },
            "key": text("A template: what a recipient is known by in the ledger; otherwise the address."),
            "to": text("A template of one mailbox: \"{{ name }} <{{ email }}>\"; otherwise the column email or 邮箱."),
            "cc": copies(),
            "bcc": copies(),
            "where": expression("Only rows for which this holds."),
            "suppress": one_or_more(text("A file of addresses that get nothing.")),
            "max_bad": any_of(&[count(0, "So many bad rows are borne."), text("A percentage, or any.")]),
            "dedupe": words(&["refuse", "first"], "What two different rows with one key mean."),
        }),
    )
}

/// What a relay and a mailbox have in common.
fn server() -> Json {
    json!({
        "provider": {
            "description": "A provider whose host, port and TLS are known.",
            "anyOf": [{"enum": preset::names()}, {"enum": [163, 126]}],
        },
        "host": text("The host's name."),
        "port": {"type": "integer", "minimum": 1, "maximum": 65535},
        "tls": words(&["starttls", "implicit", "none"], "How TLS begins; otherwise as the port says."),
        "ca_file": text("Trusted besides the system's, PEM."),
        "client_cert": text("PEM."),
        "client_key": text("PEM."),
        "tls_min": {"enum": ["1.2", "1.3", 1.2, 1.3]},
        "auth": reference("auth"),
        "timeouts": reference("timeouts"),
        "proxy": text("socks5://host:port or http://host:port."),
    })
}

fn relay() -> Json {
    object(
        &[],
        both(
            server(),
            json!({
                "region": text("Of a provider that has regions: eu-west-1."),
                "connections": count(1, "How many at once; otherwise 4."),
                "messages_per_connection": count(1, "A connection is opened anew after so many."),
                "rate": rate("Per account, over all jobs and machines."),
                "burst": count(1, "So many at once within the rate; otherwise 1."),
                "limits": {"type": "array", "items": reference("limits")},
                "retry": reference("retry"),
                "pipelining": words(&["auto", "off", "envelope", "message", "window"], "How much one flight holds."),
                "doubt": any_of(&[words(&["auto"], ""), count(1, "Most letters that a crash may leave unsure.")]),
                "unsure": words(&["hold", "resend"], "What is done where content was sent and no reply came."),
                "helo": text("The name we give."),
                "local_address": text("An IP address of this machine."),
                "fallback": any_of(&[text("A relay of postroom.yaml."), reference("relay")]),
                "stop_when": any_of(&[percent("The part that was refused."), reference("stop_when")]),
                "dkim": reference("dkim"),
            }),
        ),
    )
}

fn mailbox() -> Json {
    object(
        &["auth"],
        both(
            server(),
            json!({
                "apop": flag("Log in with APOP."),
                "pipelining": words(&["auto", "on", "off"], "Several messages asked for at once."),
            }),
        ),
    )
}

fn mailbox_or_name() -> Json {
    any_of(&[text("A mailbox of postroom.yaml."), reference("mailbox")])
}

fn object(required: &[&str], properties: Json) -> Json {
    json!({"type": "object", "additionalProperties": false, "required": required, "properties": properties})
}

fn reference(name: &str) -> Json {
    json!({"$ref": format!("#/$defs/{}", definition(name))})
}

/// The name of a definition: one that needs no escapes in a URI.
fn definition(under: &str) -> String {
    under.replace(": ", "-")
}

fn any_of(choices: &[Json]) -> Json {
    json!({"anyOf": choices})
}

fn one_or_more(item: Json) -> Json {
    json!({"anyOf": [item, {"type": "array", "items": item}]})
}

fn text(description: &str) -> Json {
    json!({"type": "string", "description": description})
}

fn flag(description: &str) -> Json {
    json!({"type": "boolean", "description": description})
}

/// An expression; `true` and `false` are such.
fn expression(description: &str) -> Json {
    json!({"type": ["string", "boolean"], "description": description})
}

fn count(least: u64, description: &str) -> Json {
    json!({"type": "integer", "minimum": least, "description": description})
}

fn words(words: &[&str], description: &str) -> Json {
    json!({"enum": words, "description": description})
}

fn duration(description: &str) -> Json {
    json!({"type": "string", "pattern": "^\\s*[0-9]+\\s*(ms|s|m|h|d|w|y)\\s*$", "description": description})
}

fn rate(description: &str) -> Json {
    json!({
        "type": "string",
        "pattern": "^\\s*[0-9]+\\s*/\\s*(s|sec|second|m|min|minute|h|hour|d|day)\\s*$",
        "description": description,
    })
}

fn percent(description: &str) -> Json {
    json!({"type": "string", "pattern": "^\\s*[0-9.]+\\s*%\\s*$", "description": description})
}

fn secret() -> Json {
    any_of(&[text("The secret itself: a warning."), reference("password")])
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::lower::ALL;
    use super::super::tests::{EVERYTHING, HOUSE, LEAST};
    use super::super::tree::Document;
    use super::*;

    #[test]
    fn schema_and_decoder_know_the_same_keys() {
        let schema = schema();
        let definitions = schema["$defs"].as_object().expect("definitions");
        assert_eq!(definitions.len(), ALL.len());
        for keys in ALL {
            let properties =
                definitions[&definition(keys.under)]["properties"].as_object().expect(keys.under);
            let mut schema: Vec<&str> = properties.keys().map(String::as_str).collect();
            let mut decoder = keys.known.to_vec();
            schema.sort_unstable();
            decoder.sort_unstable();
            assert_eq!(schema, decoder, "{}", keys.under);
        }
    }

    /// As much of JSON Schema as ours uses, but for patterns.
    fn fits(schema: &Json, value: &Json, whole: &Json) -> bool {
        let Some(schema) = schema.as_object() else { return false };
        schema.iter().all(|(word, is)| match word.as_str() {
            "$ref" => {
                let name = is.as_str().and_then(|path| path.strip_prefix("#/$defs/")).expect("a path");
                fits(&whole["$defs"][name], value, whole)
            }
            "type" => {
                let kinds: Vec<&Json> =
                    is.as_array().map_or_else(|| vec![is], |kinds| kinds.iter().collect());
                kinds.iter().any(|kind| match kind.as_str().expect("a word") {
                    "string" => value.is_string(),
                    "boolean" => value.is_boolean(),
                    "integer" => value.is_i64() || value.is_u64(),
                    "number" => value.is_number(),
                    "array" => value.is_array(),
                    "object" => value.is_object(),
                    other => panic!("{other}"),
                })
            }
            "const" => is == value,
            "enum" => is.as_array().expect("a list").contains(value),
            "anyOf" => is.as_array().expect("a list").iter().any(|one| fits(one, value, whole)),
            "oneOf" => {
                is.as_array().expect("a list").iter().filter(|one| fits(one, value, whole)).count() == 1
            }
            "items" => value.as_array().is_none_or(|items| items.iter().all(|item| fits(is, item, whole))),
            "required" => is
                .as_array()
                .expect("a list")
                .iter()
                .all(|key| value.get(key.as_str().expect("a key")).is_some()),
            "properties" => value.as_object().is_none_or(|object| {
                object.iter().all(|(key, value)| is.get(key).is_none_or(|schema| fits(schema, value, whole)))
            }),
            "additionalProperties" => value.as_object().is_none_or(|object| {
                let known = schema.get("properties").and_then(Json::as_object);
                object
                    .iter()
                    .filter(|(key, _)| !known.is_some_and(|known| known.contains_key(*key)))
                    .all(|(_, value)| is.as_bool().unwrap_or_else(|| fits(is, value, whole)))
            }),
            "minimum" => value.as_f64().is_none_or(|number| number >= is.as_f64().expect("a number")),
            "maximum" => value.as_f64().is_none_or(|number| number <= is.as_f64().expect("a number")),
            "minProperties" => {
                value.as_object().is_none_or(|object| object.len() as u64 >= is.as_u64().expect("a number"))
            }
            "maxProperties" => {
                value.as_object().is_none_or(|object| object.len() as u64 <= is.as_u64().expect("a number"))
            }
            "minItems" => {
                value.as_array().is_none_or(|items| items.len() as u64 >= is.as_u64().expect("a number"))
            }
            "$schema" | "$defs" | "title" | "description" | "pattern" => true,
            other => panic!("the test does not know `{other}`"),
        })
    }

    fn judge(text: &str) -> bool {
        let (document, _) = Document::parse(Path::new("x.yaml"), text).expect("YAML");
        let schema = schema();
        fits(&schema, &document.root.to_json(), &schema)
    }

    #[test]
    fn the_schema_takes_what_the_decoder_takes() {
        for text in [
            LEAST,
            EVERYTHING,
            HOUSE,
            "kind: archive\nname: a\nmailbox: {host: a.b, tls: implicit, auth: {user: u, password: {env: P}}}\nstore: s\ndelete: never\n",
            "kind: archive\nname: a\nmailboxes: [x, {provider: 163, auth: {user: u, password: p}}]\nstore: s\ndelete: {after: 1d}\n",
        ] {
            assert!(judge(text), "{text}");
        }
        for text in [
            "kind: sent\n",
            "kind: send\nname: x\n",
            &LEAST.replace("port: 2525", "prot: 2525"),
            &LEAST.replace("\"1\"", "1.10"),
        ] {
            assert!(!judge(text), "{text}");
        }
    }

    #[test]
    fn the_decoder_takes_every_word_of_the_schema() {
        let schema = schema();
        // Where a definition stands in a job.
        for (name, before, behind) in [
            ("kind: send", "", ""),
            ("recipients", "recipients: {file: x, ", "}"),
            ("relay", "relay: {host: a.b, ", "}"),
            ("notify", "notify: {to: a@b.c, ", "}"),
            ("recipients: ledger", "recipients: {ledger: {job: a, edition: b, ", "}}"),
            ("auth", "relay: {host: a.b, auth: {user: u, password: {env: P}, ", "}}"),
        ] {
            for (key, property) in schema["$defs"][definition(name)]["properties"].as_object().expect(name) {
                for word in property["enum"].as_array().into_iter().flatten() {
                    let text = super::super::tests::with(
                        before.split(':').next().filter(|key| !key.is_empty()).unwrap_or(key),
                        &format!("{before}{key}: {word}{behind}"),
                    );
                    let dir = tempfile::tempdir().expect("a folder");
                    std::fs::write(dir.path().join("job.yaml"), &text).expect("written");
                    let env = super::super::Environment::fixed(dir.path(), &[]);
                    let mistakes = super::super::read(Path::new("job.yaml"), &env).err().unwrap_or_default();
                    let refused = mistakes.iter().any(|mistake| mistake.title.contains("cannot be"));
                    assert!(!refused, "{text}\n{}", crate::diagnostic::print(&mistakes, false));
                }
            }
        }
    }
}
