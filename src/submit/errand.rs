//! What a connection needs that takes its time, a name looked up or an access token fetched, on a thread of its own:
//! the connections there are need not wait for it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread;

use mio::Waker;

use super::SubmitError;
use crate::net::token::Access;

/// What it brings.
pub(super) enum Found {
    /// What the relay's name stands for.
    Addresses(Vec<SocketAddr>),
    /// What its login needs.
    Access(Access),
}

/// An errand on its way. Who no longer waits for it lets it go; it ends by itself.
pub(super) struct Errand(Receiver<Result<Found, SubmitError>>);

impl Errand {
    /// Sends somebody out, who wakes the pool when back.
    pub(super) fn begin(
        waker: &Arc<Waker>,
        work: impl FnOnce() -> Result<Found, SubmitError> + Send + 'static,
    ) -> io::Result<Errand> {
        let (answer, answered) = channel();
        let waker = Arc::clone(waker);
        thread::Builder::new().name("errand".to_owned()).spawn(move || {
            // Should the work break, its end of the channel is dropped, and that is seen, too. Dropped in the other
            // order: when the bell rings the end is gone.
            let _bell = Bell(waker);
            let answer = answer;
            let _ = answer.send(work());
        })?;
        Ok(Errand(answered))
    }

    /// What it brought, once it is back. `None` within: it broke.
    pub(super) fn is_back(&self) -> Option<Option<Result<Found, SubmitError>>> {
        match self.0.try_recv() {
            Ok(found) => Some(Some(found)),
            Err(TryRecvError::Disconnected) => Some(None),
            Err(TryRecvError::Empty) => None,
        }
    }
}

/// Rings when it is dropped.
struct Bell(Arc<Waker>);

impl Drop for Bell {
    fn drop(&mut self) {
        // A failed wake-up means that the poll is gone, and with it the pool.
        let _ = self.0.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mio::{Events, Poll, Token};

    use super::*;

    #[test]
    fn whoever_is_woken_finds_what_came_of_it() {
        let mut poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        for round in 0..50 {
            let breaks = round % 2 == 0;
            let work = move || if breaks { panic!("on purpose") } else { Ok(Found::Addresses(Vec::new())) };
            let errand = Errand::begin(&waker, work).unwrap();
            let mut events = Events::with_capacity(1);
            while events.is_empty() {
                poll.poll(&mut events, Some(Duration::from_secs(30))).unwrap();
            }
            let back = errand.is_back().expect("it is back when the bell rings");
            assert_eq!(back.is_none(), breaks);
        }
    }
}
