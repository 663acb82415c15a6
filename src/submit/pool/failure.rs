//! What follows where a connection is lost or comes to nothing: what it held goes back, another is tried, a fallback
//! takes over, or the relay is given up.

use std::time::Instant;

use mio::event::Source;

use super::{IDLE, Known, Phase, Pool, UNHEARD};
use crate::job::Pipelining;
use crate::measure;
use crate::submit::connection::{Connection, Loss};
use crate::submit::lanes::Lanes;
use crate::submit::patience::{Failure, Verdict};
use crate::submit::relay::{Relay, refused_by_net};
use crate::submit::{Event, Queued, SubmitError};
use crate::wire::smtp::{Awaited, Event as Wire, Level, Way};

impl Pool {
    /// A connection is over. What it held is given back.
    pub(super) fn lose(&mut self, slot: usize, loss: Option<Loss>, now: Instant) {
        let Some(connection) = &mut self.connections[slot] else { return };
        let wordless =
            matches!(loss, Some(Loss::Closed | Loss::Net(_))) && connection.session.awaits().is_some();
        let answered = connection.session.has_answered();
        let unheard = connection.session.level_begun().filter(|_| !answered);
        connection.session.lost();
        let letters = connection.session.accepted();
        let accepted = letters > 0;
        let begun = connection.session.begun() > 0;
        let quitting = connection.session.awaits() == Some(Awaited::Quit);
        let (address, young) = (connection.address, connection.is_young());
        let was_ready = connection.ready_as.is_some();
        let idled = was_ready && !begun && connection.quiet_for(now) >= IDLE;
        if let Some(loss) = &loss {
            connection.note(&format!("the connection is over: {}", words(loss)));
        }
        let nonsense = match &loss {
            Some(Loss::Protocol(reason)) => Some(reason.clone()),
            _ => None,
        };
        self.attend_rest(slot, nonsense, now);
        let Some(mut connection) = self.connections[slot].take() else { return };
        connection.link.close();
        // A socket that is closed leaves the poll by itself.
        let _ = connection.link.deregister(self.poll.registry());
        // Where others work there, it is about their number, said or not.
        let crowded = !idled
            && !answered
            && self.connections.iter().flatten().any(|other| {
                let works = other.session.is_ready() && (!was_ready || other.session.has_answered());
                works && other.address == address
            });
        if young || (!was_ready && !crowded) {
            self.relay.addresses.led_nowhere(address);
        }
        if accepted {
            self.learn_limit(letters, wordless && !quitting);
        }
        let Some(loss) = loss.filter(|_| !quitting && !accepted) else { return };
        if let Some(level) = unheard {
            self.went_unheard(level);
        }
        if crowded && self.others_do(None, now) {
            return;
        }
        let relay = self.relay.name.clone();
        let error = match loss {
            Loss::Net(error) => refused_by_net(&relay, error),
            Loss::Protocol(reason) => SubmitError::Protocol { relay, reason },
            Loss::Silence(reason) => SubmitError::Silent { relay, reason },
            Loss::Closed if idled => return self.back_off(now),
            Loss::Closed if begun => {
                let reason = "it closed the connection before it answered a letter".to_owned();
                SubmitError::Silent { relay, reason }
            }
            Loss::Closed => SubmitError::Silent { relay, reason: "it closed the connection".to_owned() },
        };
        let failure = if begun { Failure::Unanswered } else { Failure::Away };
        self.failed(error, failure, now);
    }

    /// Hears what a lost session gives back. `nonsense`: it was lost because of what came in place of a reply.
    pub(super) fn attend_rest(&mut self, slot: usize, nonsense: Option<String>, now: Instant) {
        let mut untouched = Vec::new();
        let (mut first, mut in_doubt) = (true, false);
        while let Some(event) =
            self.connections[slot].as_mut().and_then(|connection| connection.session.next_event())
        {
            match event {
                Wire::Done(queued, mut record) => {
                    // Only the oldest may be the cause.
                    let culprit = std::mem::take(&mut first);
                    record.nonsense = nonsense.clone().filter(|_| culprit);
                    in_doubt |= record.way == Way::Silent && record.level == Level::Window;
                    self.judge(slot, queued, record, culprit, now);
                }
                Wire::Untouched(queued) => untouched.push(queued),
                _ => {}
            }
        }
        for queued in untouched.into_iter().rev() {
            self.put_back(queued);
        }
        if in_doubt {
            self.known.growth.lost();
            self.set_windows();
        }
    }

    /// A session ended after so many letters. Two in a row that were cut off at the same count, or within one of it
    /// (the last answer may have been lost, too), say how many a session may hold, as a 421 would.
    pub(super) fn learn_limit(&mut self, accepted: u32, cut_off: bool) {
        let before = std::mem::replace(&mut self.known.cut_off, cut_off.then_some(accepted));
        if let Some(before) = before.filter(|before| cut_off && before.abs_diff(accepted) <= 1) {
            self.limit_sessions(before.min(accepted));
        }
    }

    pub(super) fn limit_sessions(&mut self, letters: u32) {
        self.known.session_limit = self.known.session_limit.into_iter().chain([letters]).min();
        for connection in self.connections.iter_mut().flatten() {
            connection.session.set_limit(Some(letters));
        }
    }

    /// A connection ended before anything was answered to letters begun at this level. It may be that the server
    /// closes when commands come early.
    pub(super) fn went_unheard(&mut self, level: Level) {
        // Those that were begun before the last step say nothing new.
        if self.relay.spec.pipelining != Pipelining::Auto || level == Level::Off || level > self.known.ceiling
        {
            return;
        }
        self.known.unheard += 1;
        if self.known.unheard >= UNHEARD {
            self.known.unheard = 0;
            self.step_down(level);
        }
    }

    /// Whether others are ready where a connection came to nothing. So many as are, or may be yet, are enough for a
    /// while: a relay, or what stands before it, may turn away one more, said or not.
    pub(super) fn others_do(&mut self, lost: Option<usize>, now: Instant) -> bool {
        let others = || {
            let others = self.connections.iter().enumerate().filter(|&(slot, _)| Some(slot) != lost);
            others.filter_map(|(_, connection)| connection.as_ref())
        };
        if !others().any(|other| other.session.is_ready()) {
            return false;
        }
        let may_be = |other: &&Connection| {
            other.carries() || (other.is_opening() && other.session.awaits() != Some(Awaited::Quit))
        };
        let enough = others().filter(may_be).count() + self.openings.len();
        // A login may have waited for what comes of it.
        self.at_once = true;
        self.shrink(enough, now);
        true
    }

    /// A connection came to nothing before a letter was begun on it.
    pub(super) fn came_to_nothing(&mut self, error: SubmitError, now: Instant) {
        self.failed(error, Failure::Away, now);
    }

    /// A connection came to nothing. The relay is given up when patience is at its end.
    pub(super) fn failed(&mut self, error: SubmitError, failure: Failure, now: Instant) {
        self.at_once = true;
        // One that lets us in and is then silent about the first letter does not work yet.
        let works = self.connections.iter().flatten().any(|connection| {
            let session = &connection.session;
            session.is_ready() && (session.has_answered() || session.begun() == 0)
        });
        let hopeless = match &error {
            SubmitError::Tls { .. } => true,
            SubmitError::NoStartTls { .. } => !self.relay.addresses.have_worked(),
            // What is fetched in the middle of a run was there before.
            SubmitError::Credential { refused, .. } => *refused || !self.patience.has_served(),
            SubmitError::NoToken { .. } => !self.patience.has_served(),
            SubmitError::Connect { source, .. } => !source.may_pass(),
            _ => false,
        };
        let verdict = self.patience.failed(failure, works, !self.fallbacks.is_empty(), now);
        let trial = matches!(self.phase, Phase::Trial(_));
        let enough = match trial {
            true => !self.relay.addresses.any_left(),
            false => verdict == Verdict::GiveUp,
        };
        if !works && (hopeless || enough) {
            return self.fail(error, now);
        }
        if trial {
            return;
        }
        self.back_off(now);
        if verdict == Verdict::Stay {
            let stay = measure::duration_words(self.relay.spec.retry.stay.as_secs_f64());
            self.accounts.say(&format!("{error}; it is tried again, for {stay}"));
        }
        if self.patience.waits() {
            self.return_unspoken();
        }
    }

    pub(super) fn back_off(&mut self, now: Instant) {
        self.patience.back_off(now);
        // Names may have moved.
        self.relay.addresses.expire();
    }

    /// The relay cannot be worked with. Its fallback takes over, if it cannot be reached and there is one.
    pub(super) fn fail(&mut self, error: SubmitError, now: Instant) {
        let reachable = !matches!(
            error,
            SubmitError::Connect { .. } | SubmitError::Refused { .. } | SubmitError::Silent { .. }
        );
        if matches!(self.phase, Phase::Stopping(_) | Phase::Over) {
            return;
        }
        let error = match (error, self.known.refusal.take()) {
            (SubmitError::Connect { relay, .. }, Some(answer)) => SubmitError::Refused { relay, answer },
            (error, _) => error,
        };
        if !reachable && let Some(next) = self.fallbacks.pop_front() {
            self.accounts.say(&format!("{error}; {} takes over", next.name));
            return self.take_over(next, now);
        }
        if let Phase::Trial(_) = &self.phase
            && let Phase::Trial(first) = std::mem::replace(&mut self.phase, Phase::Over)
        {
            let _ = first.send(Err(error));
            return self.abort(now);
        }
        self.batch.push(Event::Failed(error));
        self.stop(now);
    }

    /// From now on letters go to this relay. What was opened to the one before is lost with it: a connection that is
    /// greeted late must not get the password of another relay, nor its letters.
    pub(super) fn take_over(&mut self, next: Relay, now: Instant) {
        self.errand = None;
        self.openings.clear();
        for slot in 0..self.connections.len() {
            self.lose(slot, None, now);
        }
        // What the lost ones gave back may have ended the run.
        if matches!(self.phase, Phase::Stopping(_) | Phase::Over) {
            return;
        }
        self.release();
        self.known = Known::of(&next);
        let waiting: Vec<Queued> = self.lanes.drain().collect();
        self.lanes = Lanes::new(&next.spec.limits, &next.account);
        waiting.into_iter().for_each(|queued| self.lanes.push(queued));
        self.relay = next;
        self.patience.with_another(self.relay.spec.retry.stay);
        self.at_once = true;
        (self.berth_at, self.berth_since) = (None, None);
    }
}

fn words(loss: &Loss) -> String {
    match loss {
        Loss::Closed => "the relay closed it".to_owned(),
        Loss::Net(error) => error.to_string(),
        Loss::Protocol(reason) | Loss::Silence(reason) => reason.clone(),
    }
}
