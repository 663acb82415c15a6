//! How a connection comes about: a place for it, what it needs, the race of addresses, greeting and login.

use std::time::{Duration, Instant};

use mio::event::Source;
use mio::{Interest, Token};

use super::{BERTH_AGAIN, HEED, LAST_CHANCE, Opening, Phase, Pool, RACE, REGROWTH};
use crate::job::TlsMode;
use crate::net::{Link, NetError};
use crate::submit::SubmitError;
use crate::submit::account::Berth;
use crate::submit::connection::Connection;
use crate::submit::errand::{Errand, Found};
use crate::submit::outcome;
use crate::submit::relay::{Relay, refused_by_net};
use crate::wire::smtp::{Awaited, Heard, LoginError, Security, Session};

impl Pool {
    /// Opens as many connections as the waiting letters need.
    pub(super) fn open_connections(&mut self, now: Instant) {
        if self.known.regrow_at.is_some_and(|at| at <= now) {
            self.known.cap = (self.known.cap + 1).min(self.relay.spec.connections.max(1));
            self.known.regrow_at = (self.known.cap < self.relay.spec.connections).then_some(now + REGROWTH);
        }
        let wanted = match self.phase {
            Phase::Trial(_) => usize::from(self.live() == 0),
            Phase::Running | Phase::Draining(_) if self.lanes.waiting() > 0 => {
                let (mut room, mut ready, mut opening) = (0, 0, self.openings.len());
                for connection in self.connections.iter().flatten() {
                    room += connection.session.room();
                    ready += usize::from(connection.carries());
                    opening += usize::from(connection.is_opening());
                }
                // One that is being opened will take a few.
                let served = room + opening * self.depth();
                // One more ranks behind all of them. Whoever may use it may use their room, too; others wait for
                // theirs, and need no other.
                let waiting = self.lanes.waiting_for(ready + opening);
                let startable = self.startable(now, Duration::from_millis(50)).min(waiting);
                let needed = startable.saturating_sub(served).div_ceil(self.depth().max(1));
                // While it is not known whether the relay works again, one finds out.
                let most = if self.patience.is_whole() { self.known.cap } else { ready + 1 };
                needed.min(most.min(self.known.cap).saturating_sub(self.live()))
            }
            _ => 0,
        };
        if wanted == 0 || self.patience.not_before(now).is_some() {
            return;
        }
        self.patience.wants(now);
        if self.berth_at.is_some_and(|at| at > now) || !self.is_prepared(now) {
            return;
        }
        for _ in 0..wanted {
            let Some(berth) = self.relay.berths.take(self.live(), now) else {
                return self.wait_for_berth(now);
            };
            (self.berth_at, self.berth_since) = (None, None);
            self.open(berth, now);
        }
    }

    /// Whether all is there that a connection needs. If not, somebody goes for it.
    pub(super) fn is_prepared(&mut self, now: Instant) -> bool {
        if self.errand.is_some() {
            return false;
        }
        let relay = &self.relay;
        let begun = if relay.addresses.are_wanted() {
            let (dialer, name) = (relay.dialer.clone(), relay.name.clone());
            let find = move || {
                dialer.addresses().map(Found::Addresses).map_err(|error| refused_by_net(&name, error))
            };
            Errand::begin(&self.waker, find)
        } else if let Some(identity) = relay.identity.as_ref().filter(|identity| identity.is_due(now)) {
            let fetch = identity.errand();
            Errand::begin(&self.waker, move || fetch().map(Found::Access))
        } else {
            return true;
        };
        match begun {
            Ok(errand) => self.errand = Some(errand),
            Err(source) => {
                let source = NetError::Setting(format!("no thread is to be had: {source}"));
                self.came_to_nothing(SubmitError::Connect { relay: self.relay.name.clone(), source }, now);
            }
        }
        false
    }

    pub(super) fn hear_errand(&mut self, now: Instant) {
        let Some(found) = self.errand.as_ref().and_then(Errand::is_back) else { return };
        self.errand = None;
        let relay = self.relay.name.clone();
        match found {
            Some(Ok(Found::Addresses(addresses))) => self.relay.addresses.found(addresses),
            Some(Ok(Found::Access(access))) => {
                let Some(identity) = &mut self.relay.identity else { return };
                if let Some(answer) = identity.fetched(access) {
                    let user = identity.user().to_owned();
                    self.fail(SubmitError::Login { relay, user, answer }, now);
                }
            }
            Some(Err(_)) if self.others_do(None, now) => {}
            Some(Err(error)) => self.came_to_nothing(error, now),
            None => {
                self.fail(SubmitError::Broken { relay }, now);
            }
        }
    }

    /// Other processes have all connections that the account may have.
    pub(super) fn wait_for_berth(&mut self, now: Instant) {
        self.berth_at = Some(now + BERTH_AGAIN);
        if self.live() > 0 {
            return;
        }
        let (relay, most) = (self.relay.name.clone(), self.relay.spec.connections);
        let busy = SubmitError::Busy { relay, most };
        let since = *self.berth_since.get_or_insert_with(|| {
            self.accounts.say(&format!("{busy}; waiting for one"));
            now
        });
        let patience = self.relay.spec.retry.stay;
        if matches!(self.phase, Phase::Trial(_)) && now.saturating_duration_since(since) >= patience {
            self.fail(busy, now);
        }
    }

    /// Gives a connection back, if another process asks for its share and we have more than ours.
    pub(super) fn heed_others(&mut self, now: Instant) {
        if now < self.heed_at || !self.relay.berths.are_shared() {
            return;
        }
        self.heed_at = now + HEED;
        let idle = |connection: &Connection| connection.session.is_ready() && connection.session.held() == 0;
        let live = self.connections.iter().flatten();
        let (count, any_idle) = (self.live(), live.clone().any(idle));
        let none_needed = self.lanes.waiting() == 0 && any_idle;
        if count == 0 || !self.relay.berths.are_asked_for(count, none_needed, now) {
            return;
        }
        // One that has nothing to do, or else the last: earlier ones may carry a group of domains that no other may.
        let given = self
            .connections
            .iter_mut()
            .flatten()
            .filter(|connection| connection.session.is_ready())
            .max_by_key(|connection| (idle(connection), connection.ready_as));
        if let Some(connection) = given {
            connection.note("another run asks for a connection of this account: this one ends");
            connection.session.set_limit(Some(connection.session.begun()));
        }
    }

    pub(super) fn open(&mut self, berth: Berth, now: Instant) {
        let relay = &mut self.relay;
        self.opened += 1;
        let addresses = relay.addresses.next();
        let outrun = relay.addresses.are_outrun(&addresses);
        let mut race = relay.dialer.begin_race(addresses, now);
        if self.known.refusal.is_some() && outrun {
            // What the one that was faster said is to be told soon.
            race.hurry(now + LAST_CHANCE);
        }
        self.openings.push(Opening {
            race,
            berth,
            began: now,
            transcript: self.trace.as_ref().map(|trace| trace.connection(self.opened)),
        });
    }

    /// Goes on with the connections that are on their way.
    pub(super) fn race(&mut self, now: Instant) {
        let mut place = 0;
        while let Some(opening) = self.openings.get_mut(place) {
            let registry = self.poll.registry();
            let step = opening
                .race
                .step(&self.relay.dialer, now, |link| link.register(registry, RACE, Interest::WRITABLE));
            if let Ok(None) = step {
                place += 1;
                continue;
            }
            let opening = self.openings.remove(place);
            match step {
                Ok(None) => {}
                Ok(Some(link)) => self.connected(link, opening, now),
                Err(error) => self.nobody_answered(&opening, error, now),
            }
        }
    }

    /// Somebody has answered.
    pub(super) fn connected(&mut self, mut link: Link, opening: Opening, now: Instant) {
        let winner = link.peer();
        let others = opening.race.tried().iter().filter(|&&address| address != winner);
        others.for_each(|&address| self.relay.addresses.outran(address));
        let relay = &self.relay;
        let slot = match self.connections.iter().position(Option::is_none) {
            Some(free) => free,
            None => {
                self.connections.push(None);
                self.connections.len() - 1
            }
        };
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(source) = link.reregister(self.poll.registry(), Token(slot), interest) {
            let error = NetError::Lost { to: relay.name.clone(), source };
            return self.nobody_answered(&opening, error, now);
        }
        let security =
            if relay.spec.tls.mode == TlsMode::StartTls { Security::StartTls } else { Security::Settled };
        let mut session = Session::new(
            &client_name(relay, &link),
            security,
            self.known.ceiling,
            self.known.proven,
            self.known.growth.window(),
        );
        session
            .set_limit(relay.spec.messages_per_connection.into_iter().chain(self.known.session_limit).min());
        let Opening { berth, began, transcript, .. } = opening;
        self.connections[slot] = Some(Connection::new(link, session, berth, began, transcript));
        self.set_windows();
    }

    pub(super) fn nobody_answered(&mut self, opening: &Opening, error: NetError, now: Instant) {
        if let Some(transcript) = &opening.transcript {
            transcript.note(&format!("no connection: {error}"));
        }
        opening.race.tried().iter().for_each(|&address| self.relay.addresses.led_nowhere(address));
        if self.relay.addresses.any_left() || !self.others_do(None, now) {
            self.came_to_nothing(refused_by_net(&self.relay.name, error), now);
        }
    }

    pub(super) fn greeted(&mut self, slot: usize, now: Instant) {
        let tried = self.login_is_tried(now);
        let Some(connection) = &mut self.connections[slot] else { return };
        let Some(identity) = &mut self.relay.identity else {
            connection.session.open();
            return self.became_ready(slot, now);
        };
        if identity.is_doubted() {
            // Its place is for one with the secret that is fetched.
            connection.login_waits = false;
            connection.note("the access token was refused on another connection: this one ends");
            return connection.session.quit();
        }
        connection.login_waits = tried;
        if tried {
            return;
        }
        connection.issue = identity.issue();
        match identity.begin(&connection.link, connection.session.offers(), &connection.refused) {
            Ok(exchange) => {
                connection.refused.push(exchange.mechanism());
                connection.session.login(exchange);
            }
            Err(reason) => {
                let (relay, user) = (self.relay.name.clone(), identity.user().to_owned());
                connection.session.quit();
                self.fail(SubmitError::Login { relay, user, answer: outcome::said_by_us(&reason) }, now);
            }
        }
    }

    /// Whether a login is on its way, and it is a while since one succeeded: others wait for what comes of it, so that
    /// a password that was changed meanwhile is not tried as often as there are connections. One that is slow is waited
    /// for no longer: it may hang, and the next as well.
    fn login_is_tried(&self, now: Instant) -> bool {
        let mut connections = self.connections.iter().flatten();
        !self.relay.identity.as_ref().is_some_and(|identity| identity.has_just_succeeded(now))
            && connections
                .any(|connection| connection.session.awaits() == Some(Awaited::Auth) && !connection.is_slow())
    }

    /// Begins the logins that waited, if they need no longer.
    pub(super) fn log_in(&mut self, now: Instant) {
        if !matches!(self.phase, Phase::Trial(_) | Phase::Running | Phase::Draining(_)) {
            return;
        }
        for slot in 0..self.connections.len() {
            // Nothing is said behind a QUIT, least of all a password.
            let waits =
                |connection: &Connection| connection.login_waits && connection.session.awaits().is_none();
            if self.connections[slot].as_ref().is_some_and(waits) {
                self.greeted(slot, now);
            }
        }
    }

    pub(super) fn logged_in(&mut self, slot: usize, now: Instant) {
        if let Some((connection, identity)) =
            self.connections[slot].as_ref().zip(self.relay.identity.as_mut())
        {
            identity.succeeded(connection.issue, now);
        }
        self.became_ready(slot, now);
    }

    pub(super) fn login_failed(&mut self, slot: usize, error: LoginError, now: Instant) {
        let Some((connection, identity)) = self.connections[slot].as_mut().zip(self.relay.identity.as_mut())
        else {
            return;
        };
        if let LoginError::Refused(heard) = &error
            && heard.code >= 500
            && !matches!(heard.code, 504 | 534)
        {
            let answer = outcome::answer_of(heard);
            if identity.another_is_worth_a_try(connection.issue, &answer) {
                connection.note("the access token was refused: another connection gets a new one");
                return connection.session.quit();
            }
        }
        let (answer, may_pass) = match error {
            // After 535 another mechanism would be another wrong password.
            LoginError::Refused(heard) if matches!(heard.code, 504 | 534) => {
                let other =
                    identity.begin(&connection.link, connection.session.offers(), &connection.refused);
                if other.is_ok() {
                    return self.greeted(slot, now);
                }
                (outcome::answer_of(&heard), false)
            }
            LoginError::Refused(heard) => (outcome::answer_of(&heard), heard.code < 500),
            LoginError::Exchange(reason) => (outcome::said_by_us(&reason), false),
        };
        connection.session.quit();
        let error =
            SubmitError::Login { relay: self.relay.name.clone(), user: identity.user().to_owned(), answer };
        if !may_pass || matches!(self.phase, Phase::Trial(_)) {
            // A wrong password that is tried again locks accounts.
            self.fail(error, now);
        } else if !self.others_do(Some(slot), now) {
            self.came_to_nothing(error, now);
        }
    }

    pub(super) fn became_ready(&mut self, slot: usize, now: Instant) {
        let Some(connection) = &mut self.connections[slot] else { return };
        self.readied += 1;
        connection.ready_as = Some(self.readied);
        connection.ready_at = Some(now);
        self.relay.addresses.worked(connection.address);
        self.known.refusal = None;
        if let Phase::Trial(_) = &self.phase
            && let Phase::Trial(first) = std::mem::replace(&mut self.phase, Phase::Running)
        {
            self.tried = true;
            // Addresses that led nowhere are no failures of the one that does not.
            self.patience.forgive();
            let offers = connection.session.offers().clone();
            // Nobody waits any more: then nobody will hand anything over, and the engine's end aborts us.
            let _ = first.send(Ok((offers, self.relay.name.clone())));
        }
        self.set_windows();
    }

    /// The greeting, EHLO or STARTTLS was refused, or the relay has closed the session before anything was begun.
    pub(super) fn refused(&mut self, slot: usize, heard: Heard, now: Instant) {
        if self.others_do(Some(slot), now) {
            return;
        }
        if let Some(connection) = &self.connections[slot] {
            self.relay.addresses.led_nowhere(connection.address);
        }
        let answer = outcome::answer_of(&heard);
        // RFC 5321 §3.1 and RFC 7504: 554 and 521 say that there is no SMTP here. There may be at another address
        // (§5.1); and where there was some in this run, it is said of now: of our pace, or of one server among
        // several. A fallback need not wait for another word.
        let elsewhere = self.relay.addresses.any_left();
        self.known.refusal = elsewhere.then(|| answer.clone());
        let error = SubmitError::Refused { relay: self.relay.name.clone(), answer };
        let worked = self.relay.addresses.have_worked() && self.fallbacks.is_empty();
        match elsewhere || heard.code < 500 || worked {
            true => self.came_to_nothing(error, now),
            false => self.fail(error, now),
        }
    }
}

/// The name that EHLO gives: the job's, this host's where it has a full one, or our address (RFC 5321 §4.1.3).
fn client_name(relay: &Relay, link: &crate::net::Link) -> String {
    if let Some(name) = &relay.spec.helo {
        return name.clone();
    }
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    let plain = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'));
    if plain && host.contains('.') && !host.starts_with('.') && !host.ends_with('.') {
        return host.to_owned();
    }
    match link.local().map(|address| address.ip()) {
        Ok(std::net::IpAddr::V4(address)) => format!("[{address}]"),
        Ok(std::net::IpAddr::V6(address)) => format!("[IPv6:{address}]"),
        Err(_) => "localhost".to_owned(),
    }
}
