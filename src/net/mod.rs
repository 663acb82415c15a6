//! Sockets, TLS and what goes over them: link, tls, transcript, proxy, resolve.
