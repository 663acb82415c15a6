//! Why a connection could not be made or kept, in words that say what to mend.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// What went wrong between us and a server, below the protocol spoken there.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The name has no address, or the resolver failed.
    #[error("the host name {host} cannot be resolved: {source}")]
    Resolve {
        /// The name as it was asked for.
        host: String,
        /// The cause.
        source: io::Error,
    },
    /// Nobody answers there.
    #[error("cannot connect to {to}: {source}")]
    Connect {
        /// host:port, or the address tried.
        to: String,
        /// The cause.
        source: io::Error,
    },
    /// Nothing came, or could be sent, for as long as we wait.
    #[error("no answer from {to} within {} while {doing}", shown(.after))]
    Timeout {
        /// host:port
        to: String,
        /// What was being done: "connecting", "the TLS handshake", "reading".
        doing: &'static str,
        /// How long we waited.
        after: Duration,
    },
    /// The TLS handshake failed, or a record could not be trusted.
    #[error("TLS with {to}: {trouble}")]
    Tls {
        /// host:port
        to: String,
        /// What it was.
        trouble: TlsTrouble,
    },
    /// Bytes came in plain text that would have been taken for the server's words under TLS
    /// (STARTTLS injection).
    #[error("{to} sent {bytes} bytes after its answer to STARTTLS and before the handshake: refused")]
    Injected {
        /// host:port
        to: String,
        /// How many bytes.
        bytes: usize,
    },
    /// The proxy did not open the way.
    #[error("proxy {proxy}: {reason}")]
    Proxy {
        /// The proxy, without its password.
        proxy: String,
        /// Its words.
        reason: String,
    },
    /// A file named by the job for TLS cannot be used.
    #[error("{what} {}: {reason}", .path.display())]
    File {
        /// `ca_file`, `client_cert`, `client_key`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A setting cannot be used: a host name, a proxy, a client certificate.
    #[error("{0}")]
    Setting(String),
    /// The connection broke.
    #[error("the connection to {to} was lost: {source}")]
    Lost {
        /// host:port
        to: String,
        /// The cause.
        source: io::Error,
    },
}

/// What is wrong with the TLS of the other side.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsTrouble {
    /// Nobody we trust vouches for the certificate.
    #[error(
        "the certificate is not trusted: its issuer is not among the certificates of this system or of `ca_file`"
    )]
    Untrusted,
    /// The certificate is another host's.
    #[error("the certificate is not for {expected}; it is for {}", list(.names))]
    WrongHostName {
        /// The name we asked for.
        expected: String,
        /// The names the certificate has.
        names: Vec<String>,
    },
    /// The certificate has expired.
    #[error("the certificate expired{}", moment(.at, " on "))]
    Expired {
        /// Seconds since 1970, where known.
        at: Option<u64>,
    },
    /// The certificate is not yet valid.
    #[error("the certificate is not valid yet{}; is the clock right?", moment(.at, ", but from "))]
    NotYetValid {
        /// Seconds since 1970, where known.
        at: Option<u64>,
    },
    /// The certificate was revoked.
    #[error("the certificate was revoked by its issuer")]
    Revoked,
    /// The certificate cannot be used for another reason.
    #[error("the certificate cannot be used: {0}")]
    Certificate(String),
    /// The server refused the handshake.
    #[error("the server refused the handshake: {0}")]
    Refused(String),
    /// No version or cipher suite in common.
    #[error("no TLS version or cipher in common ({0}); TLS 1.2 is the least we speak")]
    Version(String),
    /// The server wants to know who we are.
    #[error("the server asks for a client certificate that it accepts (`client_cert`, `client_key`): {0}")]
    ClientCertificate(String),
    /// What came is no TLS at all.
    #[error("this port does not speak TLS from the first byte; is it `tls: starttls`?")]
    NotTls,
    /// What came after STARTTLS is no TLS.
    #[error("the server went on in plain text after STARTTLS")]
    StillPlain,
    /// The server hung up in the middle of the handshake.
    #[error("the server closed the connection during the handshake")]
    Closed,
    /// Something else.
    #[error("{0}")]
    Other(String),
}

impl NetError {
    /// Wraps the error, so that it passes through `io::Result`; [`NetError::from_io`] takes it out.
    pub(super) fn into_io(self) -> io::Error {
        let kind = match &self {
            NetError::Timeout { .. } => io::ErrorKind::TimedOut,
            NetError::Connect { source, .. } | NetError::Lost { source, .. } => source.kind(),
            _ => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, self)
    }

    /// The error that a link's `io::Error` carries; any other one is a lost connection to `to`.
    pub fn from_io(error: io::Error, to: &str) -> NetError {
        match error.downcast::<NetError>() {
            Ok(carried) => carried,
            Err(source) => NetError::Lost { to: to.to_owned(), source },
        }
    }

    /// Whether trying again later, unchanged, may help: nobody there, silence, a broken connection.
    pub fn may_pass(&self) -> bool {
        matches!(
            self,
            NetError::Resolve { .. }
                | NetError::Connect { .. }
                | NetError::Timeout { .. }
                | NetError::Lost { .. }
                | NetError::Proxy { .. }
                | NetError::Tls { trouble: TlsTrouble::Closed, .. }
        )
    }
}

/// A duration as a person says it.
fn shown(duration: &Duration) -> String {
    match duration.as_millis() {
        ms if ms % 1000 != 0 => format!("{ms} ms"),
        ms => format!("{} s", ms / 1000),
    }
}

/// At most so many names of a certificate are shown: some have hundreds.
const MAX_NAMES_SHOWN: usize = 5;

fn list(names: &[String]) -> String {
    match names {
        [] => "no host at all (it has no subjectAltName)".to_owned(),
        names if names.len() <= MAX_NAMES_SHOWN => names.join(", "),
        names => {
            format!("{} and {} more", names[..MAX_NAMES_SHOWN].join(", "), names.len() - MAX_NAMES_SHOWN)
        }
    }
}

fn moment(at: &Option<u64>, before: &str) -> String {
    at.and_then(|seconds| jiff::Timestamp::from_second(i64::try_from(seconds).ok()?).ok())
        .map(|time| format!("{before}{}", time.strftime("%Y-%m-%d %H:%M UTC")))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn troubles_are_said_in_plain_words() {
        let names = |n: usize| (0..n).map(|i| format!("h{i}.example")).collect::<Vec<_>>();
        for (trouble, expected) in [
            (TlsTrouble::Expired { at: Some(0) }, "the certificate expired on 1970-01-01 00:00 UTC"),
            (TlsTrouble::Expired { at: None }, "the certificate expired"),
            (
                TlsTrouble::WrongHostName { expected: "a.example".into(), names: names(2) },
                "the certificate is not for a.example; it is for h0.example, h1.example",
            ),
            (
                TlsTrouble::WrongHostName { expected: "a.example".into(), names: names(7) },
                "the certificate is not for a.example; it is for h0.example, h1.example, h2.example, h3.example, \
                 h4.example and 2 more",
            ),
            (
                TlsTrouble::WrongHostName { expected: "a.example".into(), names: names(0) },
                "the certificate is not for a.example; it is for no host at all (it has no subjectAltName)",
            ),
        ] {
            assert_eq!(trouble.to_string(), expected);
        }
    }

    #[test]
    fn a_carried_error_survives_io() {
        let error = NetError::Tls { to: "h:25".into(), trouble: TlsTrouble::NotTls }.into_io();
        assert!(matches!(
            NetError::from_io(error, "h:25"),
            NetError::Tls { trouble: TlsTrouble::NotTls, .. }
        ));
        let plain = io::Error::from(io::ErrorKind::ConnectionReset);
        assert!(matches!(NetError::from_io(plain, "h:25"), NetError::Lost { .. }));
    }
}
