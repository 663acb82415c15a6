//! What was said on the connections, fit to paste into a letter to whoever runs the server.
//!
//! ```text
//! 09:30:00.041 1 *: connected to mail.example.com:587 (192.0.2.1:587)
//! 09:30:00.062 1 S: 220 mail.example.com ESMTP
//! 09:30:00.062 1 C: EHLO client.example.com
//! 09:30:00.105 1 C: AUTH PLAIN [secret]
//! 09:30:00.160 1 C: [13412 bytes]
//! ```
//!
//! Time of day (UTC), number of the connection, who spoke, the line. What is secret is never handed to a
//! transcript: the protocol core knows which of its lines are, and gives what may be shown.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

use crate::mail::acts_on_terminals;
use crate::secret::MASK;
use crate::talk;

/// A place where dialogues are written down, seen from one connection. Cheap to clone.
#[derive(Clone)]
pub struct Transcript {
    sink: Arc<Sink>,
    connection: u32,
}

struct Sink {
    clock: Box<dyn Fn() -> Timestamp + Send + Sync>,
    /// `None`: standard error.
    buffer: Option<Mutex<String>>,
}

/// Most bytes that a transcript in memory holds: some thousand letters' worth of dialogue.
const MAX_BUFFER: usize = 4 << 20;

/// Most characters of a line that are shown: replies are shorter, and a line without end is no dialogue.
const MAX_LINE: usize = 1000;

impl Transcript {
    /// To standard error, as it is said.
    pub fn stderr() -> Transcript {
        Transcript::with(Box::new(Timestamp::now), None)
    }

    /// Into memory, at most some megabytes: [`Transcript::text`].
    pub fn buffer() -> Transcript {
        Transcript::with(Box::new(Timestamp::now), Some(Mutex::default()))
    }

    /// Into memory, by another clock.
    pub fn buffer_by(clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Transcript {
        Transcript::with(Box::new(clock), Some(Mutex::default()))
    }

    fn with(clock: Box<dyn Fn() -> Timestamp + Send + Sync>, buffer: Option<Mutex<String>>) -> Transcript {
        Transcript { sink: Arc::new(Sink { clock, buffer }), connection: 1 }
    }

    /// The same place, seen from the connection of this number.
    pub fn connection(&self, number: u32) -> Transcript {
        Transcript { sink: Arc::clone(&self.sink), connection: number }
    }

    /// What we said: a line, or several that went together; line ends are not shown.
    pub fn client(&self, lines: &[u8]) {
        self.said('C', lines);
    }

    /// What we said that holds a secret: `shown` is what comes before it, such as `AUTH PLAIN` or nothing.
    pub fn client_secret(&self, shown: &str) {
        match shown {
            "" => self.said('C', MASK.as_bytes()),
            shown => self.said('C', format!("{shown} {MASK}").as_bytes()),
        }
    }

    /// Content that we sent: how many bytes.
    pub fn client_content(&self, bytes: u64) {
        self.said('C', format!("[{bytes} bytes]").as_bytes());
    }

    /// What the server said: a line or several.
    pub fn server(&self, lines: &[u8]) {
        self.said('S', lines);
    }

    /// Content that the server sent: how many bytes.
    pub fn server_content(&self, bytes: u64) {
        self.said('S', format!("[{bytes} bytes]").as_bytes());
    }

    /// What happened that nobody said: connected, TLS begun, closed.
    pub fn note(&self, text: &str) {
        self.said('*', text.as_bytes());
    }

    /// All that was written down in memory; nothing for standard error.
    pub fn text(&self) -> String {
        match &self.sink.buffer {
            Some(buffer) => buffer.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            None => String::new(),
        }
    }

    fn said(&self, who: char, lines: &[u8]) {
        let time = (self.sink.clock)().strftime("%H:%M:%S%.3f").to_string();
        let lines = lines.strip_suffix(b"\n").unwrap_or(lines);
        let lines = lines.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        if self.sink.buffer.is_none() && talk::is_json() {
            return lines.for_each(|line| self.said_in_json(who, line));
        }
        let mut text = String::new();
        for line in lines {
            let _ = write!(text, "{time} {} {who}: ", self.connection);
            plain(line, &mut text);
            text.push('\n');
        }
        match &self.sink.buffer {
            None => talk::write(&text),
            Some(buffer) => {
                let mut buffer = buffer.lock().unwrap_or_else(PoisonError::into_inner);
                if buffer.len() + text.len() <= MAX_BUFFER {
                    buffer.push_str(&text);
                } else if !buffer.ends_with(LEFT_OUT) {
                    buffer.push_str(LEFT_OUT);
                }
            }
        }
    }

    fn said_in_json(&self, who: char, line: &[u8]) {
        let mut text = String::new();
        plain(line, &mut text);
        let who = who.to_string();
        talk::event("trace", serde_json::json!({"connection": self.connection, "who": who, "text": text}));
    }
}

const LEFT_OUT: &str = "[the rest is left out]\n";

/// A line as it can be shown on any terminal: what is not text is escaped, what is too long is cut.
fn plain(line: &[u8], text: &mut String) {
    let mut shown = 0;
    for chunk in line.utf8_chunks() {
        for sign in chunk.valid().chars() {
            if shown == MAX_LINE {
                let _ = write!(text, "… [{} bytes]", line.len());
                return;
            }
            shown += 1;
            match sign {
                sign if acts_on_terminals(sign) => text.extend(sign.escape_default()),
                sign => text.push(sign),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
}

impl std::fmt::Debug for Transcript {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Transcript({})", self.connection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dialogue_is_fit_to_paste() {
        let transcript = Transcript::buffer_by(|| Timestamp::from_millisecond(34_200_041).unwrap());
        let second = transcript.connection(2);
        transcript.note("connected to mail.example.com:587");
        transcript.server(b"250-mail.example.com\r\n250 SIZE 1000\r\n");
        second.client(b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.com>\r\n");
        second.client_secret("AUTH PLAIN");
        second.client_secret("");
        second.client_content(13412);
        second.server(b"250 \x1b[31mred \xff");
        assert_eq!(
            transcript.text(),
            "09:30:00.041 1 *: connected to mail.example.com:587\n\
             09:30:00.041 1 S: 250-mail.example.com\n\
             09:30:00.041 1 S: 250 SIZE 1000\n\
             09:30:00.041 2 C: MAIL FROM:<a@example.com>\n\
             09:30:00.041 2 C: RCPT TO:<b@example.com>\n\
             09:30:00.041 2 C: AUTH PLAIN [secret]\n\
             09:30:00.041 2 C: [secret]\n\
             09:30:00.041 2 C: [13412 bytes]\n\
             09:30:00.041 2 S: 250 \\u{1b}[31mred \\xff\n"
        );
    }

    #[test]
    fn it_does_not_grow_without_end() {
        let transcript = Transcript::buffer();
        for _ in 0..6000 {
            transcript.server(&[b'x'; 5000]);
        }
        let text = transcript.text();
        assert!(text.len() <= MAX_BUFFER + LEFT_OUT.len());
        assert!(text.ends_with(LEFT_OUT));
        assert!(text.lines().next().unwrap().ends_with("x… [5000 bytes]"));
    }
}
