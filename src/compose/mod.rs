//! Turns a rendered letter and its enclosures into the bytes of one message (RFC 5322, MIME).
//! Pure: date, Message-ID and boundary arrive in a [`Stamp`]; the same letter is the same bytes.
//! Who receives it is the envelope's affair, and Bcc is written nowhere.
//!
//! `mixed( alternative( text, related( html, images… ) ), attachments… )`, empty levels collapsed.
//! No line begins with a dot, so that nothing needs stuffing (RFC 5321 §4.5.2).

mod body;
mod header;

use std::sync::Arc;

use crate::letter::{Content, EncodedPart, Letter, Slice, Stamp};

use body::TextBody;
use header::Header;

/// Composes a message of a letter, the images its HTML shows, and its attachments. Parts are
/// borrowed: the message's own bytes are the header, the texts and the lines between the parts.
///
/// Where there is no HTML to show them, images go as attachments do.
pub fn compose(
    letter: &Letter,
    inline: &[Arc<EncodedPart>],
    attachments: &[Arc<EncodedPart>],
    stamp: &Stamp,
) -> Content {
    let text = letter.text.as_deref().map(TextBody::new);
    let html = letter.html.as_deref().map(TextBody::new);
    // A letter of nothing but enclosures is an empty text with them.
    let text = if text.is_none() && html.is_none() { Some(TextBody::new("")) } else { text };
    let bodies = text.as_ref().map_or(0, |t| t.estimate) + html.as_ref().map_or(0, |h| h.estimate);
    let parts = inline.len() + attachments.len();
    let header = header_estimate(letter);
    let mut writer = Writer {
        own: Vec::with_capacity(header + bodies + 512 + parts * 64),
        slices: Vec::with_capacity(2 * parts + 1),
        from: 0,
        depth: 0,
        seed: &stamp.boundary,
    };
    write_header(letter, stamp, &mut Header::new(&mut writer.own));
    let (inline, beside) = if html.is_some() { (inline, &[][..]) } else { (&[][..], inline) };
    if beside.is_empty() && attachments.is_empty() {
        writer.message(text.as_ref(), html.as_ref(), inline);
    } else {
        writer.begin(Level::Mixed);
        writer.boundary(Level::Mixed);
        writer.message(text.as_ref(), html.as_ref(), inline);
        for part in beside.iter().chain(attachments) {
            writer.boundary(Level::Mixed);
            writer.part(part);
        }
        writer.end(Level::Mixed);
    }
    writer.content()
}

/// The multiparts a message may have, each at most once.
#[derive(Clone, Copy)]
enum Level {
    Mixed,
    Alternative,
    Related,
}

impl Level {
    fn content_type(self) -> &'static str {
        match self {
            Level::Mixed => "multipart/mixed",
            Level::Alternative => "multipart/alternative",
            // RFC 2387: the type of the part that refers to the others.
            Level::Related => "multipart/related; type=\"text/html\"",
        }
    }

    fn letter(self) -> u8 {
        match self {
            Level::Mixed => b'm',
            Level::Alternative => b'a',
            Level::Related => b'r',
        }
    }
}

struct Writer<'a> {
    own: Vec<u8>,
    slices: Vec<Slice>,
    /// Where in `own` the stretch begins that is not in `slices` yet.
    from: usize,
    /// How many multiparts are open.
    depth: usize,
    seed: &'a str,
}

impl Writer<'_> {
    /// The texts, with the images of the HTML; part headers first, as at the top of a message.
    fn message(&mut self, text: Option<&TextBody>, html: Option<&TextBody>, images: &[Arc<EncodedPart>]) {
        match (text, html) {
            (Some(text), Some(html)) => {
                self.begin(Level::Alternative);
                self.boundary(Level::Alternative);
                self.text("text/plain", text);
                self.boundary(Level::Alternative);
                self.html(html, images);
                self.end(Level::Alternative);
            }
            (Some(text), None) => self.text("text/plain", text),
            (None, Some(html)) => self.html(html, images),
            (None, None) => {}
        }
    }

    fn html(&mut self, html: &TextBody, images: &[Arc<EncodedPart>]) {
        if images.is_empty() {
            return self.text("text/html", html);
        }
        self.begin(Level::Related);
        self.boundary(Level::Related);
        self.text("text/html", html);
        for part in images {
            self.boundary(Level::Related);
            self.part(part);
        }
        self.end(Level::Related);
    }

    fn text(&mut self, content_type: &str, body: &TextBody) {
        self.push("Content-Type: ");
        self.push(content_type);
        self.push("; charset=utf-8\r\nContent-Transfer-Encoding: ");
        self.push(body.encoding.word());
        self.push("\r\n\r\n");
        body.append(&mut self.own);
        if self.depth > 0 {
            // The line end before a boundary belongs to the boundary (RFC 2046 §5.1.1), and the
            // text keeps its own.
            self.push("\r\n");
        }
    }

    /// The header of a multipart and the empty line behind it.
    fn begin(&mut self, level: Level) {
        self.push("Content-Type: ");
        self.push(level.content_type());
        self.push(";\r\n boundary=\"");
        self.delimiter(level);
        self.push("\"\r\n\r\n");
        self.depth += 1;
    }

    fn boundary(&mut self, level: Level) {
        self.push("--");
        self.delimiter(level);
        self.push("\r\n");
    }

    fn end(&mut self, level: Level) {
        self.push("--");
        self.delimiter(level);
        self.push("--\r\n");
        self.depth -= 1;
    }

    /// `=_seed_m`: no text has a line that begins so, see [`body`], and what is attached in base64
    /// has none either. An attached message, which must not be encoded (RFC 2046 §5.2.1), may have
    /// one, but of another seed: the seed is a hash that nobody can tell before the letter is made.
    fn delimiter(&mut self, level: Level) {
        self.push("=_");
        self.own.extend(self.seed.bytes().filter(u8::is_ascii_alphanumeric).take(40));
        self.own.extend_from_slice(&[b'_', level.letter()]);
    }

    /// A part that was encoded before, with its own header; it ends in CRLF.
    fn part(&mut self, part: &EncodedPart) {
        self.close_stretch();
        self.slices.push(Slice::Shared(part.bytes.clone()));
    }

    fn push(&mut self, ascii: &str) {
        self.own.extend_from_slice(ascii.as_bytes());
    }

    fn close_stretch(&mut self) {
        if self.from < self.own.len() {
            self.slices.push(Slice::Own(self.from..self.own.len()));
            self.from = self.own.len();
        }
    }

    fn content(mut self) -> Content {
        self.close_stretch();
        Content::new(self.own, self.slices)
    }
}

/// The fields in an order that never changes, so that two letters can be compared.
fn write_header(letter: &Letter, stamp: &Stamp, header: &mut Header) {
    header.plain("Date", &stamp.date);
    header.mailboxes("From", std::slice::from_ref(&letter.from));
    header.mailboxes("Reply-To", &letter.reply_to);
    header.mailboxes("To", &letter.to);
    header.mailboxes("Cc", &letter.cc);
    if letter.to.is_empty() && letter.cc.is_empty() {
        // RFC 5322 asks for no destination field, but filters for spam do.
        header.plain("To", "undisclosed-recipients:;");
    }
    header.text("Subject", &letter.subject);
    header.plain("Message-ID", &stamp.message_id);
    let list = &letter.list;
    if let Some(unsubscribe) = &list.unsubscribe {
        header.whole("List-Unsubscribe", unsubscribe);
        if list.one_click {
            header.plain("List-Unsubscribe-Post", "List-Unsubscribe=One-Click");
        }
    }
    if let Some(id) = &list.id {
        header.token_text("List-Id", id);
    }
    if let Some(id) = &list.feedback_id {
        header.token_text("Feedback-ID", id);
    }
    if list.auto_submitted {
        header.plain("Auto-Submitted", "auto-generated");
    }
    for (name, value) in &letter.headers {
        header.token_text(name, value);
    }
    header.plain("MIME-Version", "1.0");
}

/// About how long the header becomes: encoded words take up to three octets for one, and each
/// field has its name.
fn header_estimate(letter: &Letter) -> usize {
    let mailboxes = [&letter.reply_to, &letter.to, &letter.cc];
    let mailbox = |mailbox: &crate::mail::Mailbox| {
        mailbox.name.as_ref().map_or(0, |name| 3 * name.len()) + mailbox.address.as_str().len() + 24
    };
    let list = &letter.list;
    let list = [&list.unsubscribe, &list.id, &list.feedback_id];
    512 + mailbox(&letter.from)
        + mailboxes.iter().flat_map(|list| list.iter()).map(mailbox).sum::<usize>()
        + 3 * letter.subject.len()
        + list.iter().map(|text| text.as_ref().map_or(0, |text| text.len() + 32)).sum::<usize>()
        + letter.headers.iter().map(|(name, value)| name.len() + 3 * value.len() + 4).sum::<usize>()
}
