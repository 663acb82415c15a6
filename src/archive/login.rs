//! From the greeting to the transaction state: STLS, then the login that both sides have.

use base64::Engine as _;
use md5::{Digest as _, Md5};
use ring::rand::SecureRandom as _;

use super::session::{Session, SessionError, refusal};
use crate::job::{MailboxSpec, TlsMode};
use crate::secret::Secret;
use crate::wire::pop3::{Command, Reply, ResponseCode, Status};
use crate::wire::sasl::{self, Circumstances, Exchange, Mechanism, NoMechanism};

/// RFC 2449 §4: a command line has at most 255 octets; `AUTH `, CRLF.
const ROOM: usize = 255 - 5 - 2;

/// Logs in to a mailbox. `greeting` is the server's first line.
pub(super) fn login(
    session: &mut Session,
    greeting: &Reply,
    spec: &MailboxSpec,
    secret: &Secret,
) -> Result<(), SessionError> {
    session.capa()?;
    if spec.tls.mode == TlsMode::StartTls {
        if !session.capabilities.stls {
            return Err(SessionError::NoStls);
        }
        let reply = session.ask(Command::Stls)?;
        if !reply.is_ok() {
            return Err(refusal("STLS", reply));
        }
        session.start_tls()?;
        // What was said before TLS is not believed.
        session.capa()?;
    }
    let protected = session.link().link().protected();
    if spec.apop {
        return apop(session, greeting, spec, secret);
    }
    let token = spec.auth.token;
    let offered = session.capabilities.sasl.clone();
    let offered: Vec<&str> = offered.iter().map(String::as_str).collect();
    let binding = session.link().link().channel_binding();
    let chosen = sasl::choose(&Circumstances {
        offered: &offered,
        wanted: spec.auth.mechanism,
        token,
        protected,
        binding: binding.is_some(),
        refused: &[],
    });
    match chosen {
        Ok(mechanism) => auth(session, spec, secret, mechanism, &offered),
        // USER and PASS are what every server has, whatever it offers besides.
        Err(_) if spec.auth.mechanism.is_none() && !token && protected => user_pass(session, spec, secret),
        Err(NoMechanism::NoLogin | NoMechanism::NoneKnown { .. } | NoMechanism::Unprotected(_))
            if !protected =>
        {
            Err(SessionError::Unprotected)
        }
        Err(nothing) => Err(nothing.into()),
    }
}

fn user_pass(session: &mut Session, spec: &MailboxSpec, secret: &Secret) -> Result<(), SessionError> {
    let reply = session.ask(Command::User(&spec.auth.user))?;
    if reply.is_ok() {
        let reply = session.ask(Command::Pass(secret.expose()))?;
        return if reply.is_ok() { Ok(()) } else { Err(refused(spec, reply)) };
    }
    Err(refused(spec, reply))
}

fn apop(
    session: &mut Session,
    greeting: &Reply,
    spec: &MailboxSpec,
    secret: &Secret,
) -> Result<(), SessionError> {
    let stamp = greeting.timestamp().ok_or(SessionError::NoApop)?;
    let digest = Md5::new().chain_update(stamp).chain_update(secret.expose()).finalize();
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let reply = session.ask(Command::Apop(&spec.auth.user, &digest))?;
    if reply.is_ok() { Ok(()) } else { Err(refused(spec, reply)) }
}

fn auth(
    session: &mut Session,
    spec: &MailboxSpec,
    secret: &Secret,
    mechanism: Mechanism,
    offered: &[&str],
) -> Result<(), SessionError> {
    let mut nonce = [0; 18];
    ring::rand::SystemRandom::new()
        .fill(&mut nonce)
        .map_err(|_| SessionError::Credential("the system gives no random numbers".to_owned()))?;
    let mut exchange = Exchange::new(
        mechanism,
        sasl::Login {
            user: spec.auth.user.clone(),
            secret: secret.clone(),
            binding: session.link().link().channel_binding(),
            binding_offered: offered.iter().any(|name| name.to_ascii_uppercase().ends_with("-PLUS")),
            nonce: base64::engine::general_purpose::STANDARD.encode(nonce),
            server: (spec.host.clone(), spec.port),
            keys: sasl::KeyMemory::default(),
        },
    )?;
    let command = exchange.command(ROOM);
    let (name, initial) = match command.split_once(' ') {
        Some((name, initial)) => (name, Some(initial)),
        None => (command.as_str(), None),
    };
    let mut reply = session.ask(Command::Auth(name, initial))?;
    while reply.status == Status::Continue {
        match exchange.answer(reply.text.trim()) {
            Ok(answer) => reply = session.ask(Command::SaslLine(&answer))?,
            Err(error) => {
                // RFC 5034 §4: a line with `*` alone ends the exchange.
                session.ask(Command::SaslLine("*"))?;
                return Err(error.into());
            }
        }
    }
    if !reply.is_ok() {
        let words = exchange.trouble().map(str::to_owned);
        return Err(match (refused(spec, reply), words) {
            (SessionError::Login { host, user, words: said }, Some(words)) => {
                SessionError::Login { host, user, words: format!("{said} ({words})") }
            }
            (error, _) => error,
        });
    }
    exchange.finish(None)?;
    Ok(())
}

/// A `-ERR` to a login: the mailbox is busy, or the password is wrong.
fn refused(spec: &MailboxSpec, reply: Reply) -> SessionError {
    match reply.code {
        Some(ResponseCode::InUse | ResponseCode::LoginDelay | ResponseCode::SysTemp) => {
            SessionError::Busy(reply)
        }
        _ => SessionError::Login {
            host: spec.host.clone(),
            user: spec.auth.user.clone(),
            words: if reply.text.is_empty() { "-ERR".to_owned() } else { reply.text },
        },
    }
}
