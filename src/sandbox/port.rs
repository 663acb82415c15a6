//! An open port: a thread that accepts, and one for each connection, until it is closed.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

/// Sessions need little; the default of 8 MiB would make a thousand connections dear.
const STACK: usize = 256 << 10;

/// Who answers at a port.
pub(super) trait Host: Send + Sync + 'static {
    /// A connection came in. `None`: it was turned away. Else its session, for a thread of its own.
    fn welcome(self: &Arc<Self>, socket: TcpStream) -> Option<Box<dyn FnOnce() + Send>>;

    /// There was no thread for a session: the client sees a close.
    fn lost(&self);
}

/// A port that is open. Dropping it closes it and waits for its sessions.
pub(super) struct Port {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Port {
    /// Listens; sessions are to end once `stop` is set.
    pub(super) fn open(
        listen: SocketAddr,
        name: &str,
        host: &Arc<impl Host>,
        stop: &Arc<AtomicBool>,
    ) -> io::Result<Port> {
        let listener = TcpListener::bind(listen)?;
        let address = listener.local_addr()?;
        let (host, theirs) = (Arc::clone(host), Arc::clone(stop));
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || accept(&listener, &host, &theirs))?;
        Ok(Port { address, stop: Arc::clone(stop), thread: Some(thread) })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the port and every connection.
    pub(super) fn close(&mut self) {
        self.stop.store(true, Relaxed);
        // Wakes the thread that waits in `accept`; it may be gone already.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // a panic there has been reported by its own thread
        }
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.close();
        }
    }
}

fn accept(listener: &TcpListener, host: &Arc<impl Host>, stop: &AtomicBool) {
    let mut sessions: Vec<JoinHandle<()>> = Vec::new();
    while !stop.load(Relaxed) {
        let Ok((socket, _)) = listener.accept() else {
            std::thread::sleep(Duration::from_millis(10)); // out of descriptors
            continue;
        };
        if stop.load(Relaxed) {
            break;
        }
        sessions.retain(|session| !session.is_finished());
        let Some(session) = host.welcome(socket) else { continue };
        match std::thread::Builder::new().name("sandbox session".to_owned()).stack_size(STACK).spawn(session)
        {
            Ok(session) => sessions.push(session),
            Err(_) => host.lost(), // the socket went with the closure
        }
    }
    for session in sessions {
        let _ = session.join(); // a panic there has been reported by its own thread
    }
}
