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
            // Should the work break, its end of the channel is dropped, and that is seen, too.
            let bell = Bell(waker);
            let _ = answer.send(work());
            drop((answer, bell));
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
