//! Links against a server on loopback whose certificates are made for the test: what is trusted, what is
//! not and how that is said, and that every byte arrives.

use std::io::{self, BufRead, BufReader, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use mio::{Events, Interest, Poll, Token};
use postroom::job::{Timeouts, TlsMode, TlsSpec};
use postroom::net::{BlockingLink, Dialer, Link, NetError, TlsTrouble, nonce};
use postroom::secret::Secret;
use postroom::wire::sasl::{Exchange, KeyMemory, Login, Mechanism, SaslError};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A folder with a CA, and a server's certificate from it.
struct House {
    dir: tempfile::TempDir,
    config: Arc<ServerConfig>,
    /// The server's certificate, as it goes over the wire.
    der: Vec<u8>,
}

/// What a server's certificate says.
#[derive(Default)]
struct Certificate {
    names: &'static [&'static str],
    /// Days from now.
    from: i64,
    until: i64,
    self_signed_ca: bool,
    only_tls12: bool,
}

const GOOD: Certificate = Certificate {
    names: &["localhost", "127.0.0.1"],
    from: -1,
    until: 30,
    self_signed_ca: false,
    only_tls12: false,
};

impl House {
    fn new(certificate: Certificate) -> House {
        let dir = tempfile::tempdir().unwrap();
        let mut params =
            CertificateParams::new(certificate.names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>())
                .unwrap();
        params.not_before = time_of(certificate.from).into();
        params.not_after = time_of(certificate.until).into();
        let key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.distinguished_name.push(rcgen::DnType::CommonName, "test CA");
        let ca_key = KeyPair::generate().unwrap();
        let ca_cert = ca.self_signed(&ca_key).unwrap();
        let (cert, trusted) = if certificate.self_signed_ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let cert = params.self_signed(&key).unwrap();
            let pem = cert.pem();
            (cert, pem)
        } else {
            (params.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap(), ca_cert.pem())
        };
        std::fs::write(dir.path().join("ca.pem"), trusted).unwrap();
        let versions: &[_] =
            if certificate.only_tls12 { &[&rustls::version::TLS12] } else { rustls::ALL_VERSIONS };
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![cert.der().clone()],
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )
            .unwrap();
        House { dir, config: Arc::new(config), der: cert.der().to_vec() }
    }

    fn spec(&self, mode: TlsMode) -> TlsSpec {
        TlsSpec { mode, ca_file: Some(self.ca()), client_cert: None, only_tls13: false }
    }

    fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }
}

/// So many days from now.
fn time_of(days: i64) -> SystemTime {
    let distance = Duration::from_secs(86_400 * days.unsigned_abs());
    if days < 0 { SystemTime::now() - distance } else { SystemTime::now() + distance }
}

/// Serves connections one after the other, each by `serve`, until the test ends.
fn server(mut serve: impl FnMut(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            serve(stream);
        }
    });
    address
}

fn tls(config: &Arc<ServerConfig>, stream: TcpStream) -> StreamOwned<ServerConnection, TcpStream> {
    StreamOwned::new(ServerConnection::new(Arc::clone(config)).unwrap(), stream)
}

fn timeouts() -> Timeouts {
    Timeouts { connect: Duration::from_secs(20), ..Timeouts::default() }
}

fn dialer(host: &str, address: SocketAddr, spec: &TlsSpec) -> Dialer {
    let resolver = Arc::new(move |_: &str, port| Ok(vec![SocketAddr::new(address.ip(), port)]));
    Dialer::new(host, address.port(), spec, &timeouts()).unwrap().resolver(resolver)
}

/// Says what it hears, until the end.
fn echo(mut stream: impl Read + Write) {
    let mut buf = vec![0; 65536];
    while let Ok(count @ 1..) = stream.read(&mut buf) {
        if stream.write_all(&buf[..count]).and_then(|()| stream.flush()).is_err() {
            break;
        }
    }
}

#[test]
fn a_good_certificate_is_trusted_and_bytes_arrive() {
    for certificate in
        [GOOD, Certificate { only_tls12: true, ..GOOD }, Certificate { self_signed_ca: true, ..GOOD }]
    {
        let house = House::new(certificate);
        let config = Arc::clone(&house.config);
        let address = server(move |stream| echo(tls(&config, stream)));
        for host in ["localhost", "127.0.0.1"] {
            let mut link = dialer(host, address, &house.spec(TlsMode::Implicit)).dial().unwrap();
            link.write_all(b"hello").unwrap();
            let mut back = [0; 5];
            link.read_exact(&mut back).unwrap();
            assert_eq!(&back, b"hello");
            assert!(link.link().secured());
            assert!(link.link().channel_binding().is_some());
        }
    }
}

#[test]
fn a_bad_certificate_is_refused_in_plain_words() {
    type Expect = fn(&TlsTrouble) -> bool;
    let cases: [(&str, Certificate, bool, Expect); 6] = [
        ("untrusted", GOOD, false, |trouble| matches!(trouble, TlsTrouble::Untrusted)),
        (
            "another's",
            Certificate { names: &["mail.example.com", "*.example.org"], ..GOOD },
            true,
            |trouble| {
                trouble.to_string()
                    == "the certificate is not for localhost; it is for mail.example.com, *.example.org"
            },
        ),
        ("expired", Certificate { from: -10, until: -2, ..GOOD }, true, |trouble| {
            matches!(trouble, TlsTrouble::Expired { at: Some(_) })
        }),
        ("not yet", Certificate { from: 2, until: 10, ..GOOD }, true, |trouble| {
            matches!(trouble, TlsTrouble::NotYetValid { at: Some(_) })
        }),
        (
            "own, expired",
            Certificate { from: -10, until: -2, self_signed_ca: true, ..GOOD },
            true,
            |trouble| matches!(trouble, TlsTrouble::Expired { at: Some(_) }),
        ),
        (
            "own, another's",
            Certificate { names: &["mail.example.com"], self_signed_ca: true, ..GOOD },
            true,
            |trouble| {
                trouble.to_string() == "the certificate is not for localhost; it is for mail.example.com"
            },
        ),
    ];
    for (name, certificate, trusted, expected) in cases {
        let house = House::new(certificate);
        let config = Arc::clone(&house.config);
        let address = server(move |stream| echo(tls(&config, stream)));
        let stranger = House::new(GOOD);
        let spec = if trusted { house.spec(TlsMode::Implicit) } else { stranger.spec(TlsMode::Implicit) };
        match dialer("localhost", address, &spec).dial() {
            Err(NetError::Tls { trouble, .. }) => assert!(expected(&trouble), "{name}: {trouble}"),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn a_plain_server_is_named_as_such() {
    let house = House::new(GOOD);
    let address = server(|mut stream| {
        let _ = stream.write_all(b"220 mail.example.com ESMTP\r\n");
        echo(stream);
    });
    let error = dialer("localhost", address, &house.spec(TlsMode::Implicit)).dial().unwrap_err();
    assert!(matches!(error, NetError::Tls { trouble: TlsTrouble::NotTls, .. }), "{error}");
    let address = server(drop);
    let error = dialer("localhost", address, &house.spec(TlsMode::Implicit)).dial().unwrap_err();
    assert!(
        matches!(error, NetError::Tls { trouble: TlsTrouble::Closed, .. } | NetError::Lost { .. }),
        "{error}"
    );
}

#[test]
fn a_refused_handshake_says_why() {
    type Expect = fn(&TlsTrouble) -> bool;
    let house = House::new(GOOD);
    let alert = |code: u8| vec![21, 3, 3, 0, 2, 2, code];
    let cases: [(&str, Vec<u8>, Expect); 8] = [
        ("HTTP", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), |trouble| *trouble == TlsTrouble::NotTls),
        ("POP3", b"+OK hi\r\n".to_vec(), |trouble| *trouble == TlsTrouble::NotTls),
        ("handshake_failure", alert(40), |trouble| matches!(trouble, TlsTrouble::Version(_))),
        ("protocol_version", alert(70), |trouble| matches!(trouble, TlsTrouble::Version(_))),
        ("unrecognized_name", alert(112), |trouble| matches!(trouble, TlsTrouble::Refused(_))),
        ("certificate_required", alert(116), |trouble| matches!(trouble, TlsTrouble::ClientCertificate(_))),
        ("half a record", vec![22, 3, 3, 0, 200, 2, 0], |trouble| *trouble == TlsTrouble::Closed),
        ("no handshake", [vec![22, 3, 3, 0, 60], vec![0xff; 60]].concat(), |trouble| {
            matches!(trouble, TlsTrouble::Other(_))
        }),
    ];
    for (name, said, expected) in cases {
        let address = server(move |mut stream| {
            // The client's first words are taken, so that closing is no reset.
            let mut hello = [0; 4096];
            let _ = stream.read(&mut hello);
            let _ = stream.write_all(&said);
        });
        match dialer("localhost", address, &house.spec(TlsMode::Implicit)).dial() {
            Err(NetError::Tls { trouble, .. }) => assert!(expected(&trouble), "{name}: {trouble:?}"),
            other => panic!("{name}: {other:?}"),
        }
    }
}

/// Reads a line of at most 1000 bytes, one byte at a time, so that nothing behind it is taken.
fn line(link: &mut impl Read) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < 1000 && link.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap().trim_end().to_owned()
}

#[test]
fn starttls_secures_the_rest_and_refuses_what_was_slipped_in() {
    for injected in ["", "250 evil\r\n"] {
        let house = House::new(GOOD);
        let config = Arc::clone(&house.config);
        let address = server(move |mut stream| {
            let _ = stream.write_all(b"220 hi\r\n");
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut command = String::new();
            let _ = reader.read_line(&mut command);
            let _ = stream.write_all(format!("220 go ahead\r\n{injected}").as_bytes());
            echo(tls(&config, stream));
        });
        let mut link = dialer("localhost", address, &house.spec(TlsMode::StartTls)).dial().unwrap();
        assert_eq!(line(&mut link), "220 hi");
        link.write_all(b"STARTTLS\r\n").unwrap();
        let mut answer = [0; 100];
        let mut have = 0;
        let whole = "220 go ahead\r\n".len() + injected.len();
        while have < whole {
            have += link.read(&mut answer[have..]).unwrap();
        }
        let unread = &answer["220 go ahead\r\n".len()..have];
        match link.start_tls(unread) {
            Ok(()) => {
                assert_eq!(injected, "");
                link.write_all(b"EHLO me\r\n").unwrap();
                assert_eq!(line(&mut link), "EHLO me");
                assert!(link.link().secured());
            }
            Err(NetError::Injected { bytes, .. }) => assert_eq!(bytes, injected.len()),
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn what_comes_in_plain_text_after_starttls_is_no_reply() {
    let house = House::new(GOOD);
    let (began, begun) = std::sync::mpsc::channel();
    let begun = std::sync::Mutex::new(begun);
    let address = server(move |mut stream| {
        // Not with the server's yes, but behind it: nobody has read it when the handshake begins.
        let _ = begun.lock().unwrap().recv();
        let _ = stream.write_all(b"250 evil\r\n");
        echo(stream);
    });
    let mut link = dialer("localhost", address, &house.spec(TlsMode::StartTls)).dial().unwrap();
    began.send(()).unwrap();
    let error = link.start_tls(&[]).unwrap_err();
    assert!(matches!(error, NetError::Tls { trouble: TlsTrouble::StillPlain, .. }), "{error}");
    assert!(!link.link().secured() && link.link().channel_binding().is_none());
    assert!(link.write_all(b"secret").is_err(), "nothing goes out in plain text");
}

#[test]
fn large_vectored_writes_arrive_in_order() {
    let house = House::new(GOOD);
    // The bytes: slices of very different sizes, several megabytes in all.
    let mut text = Vec::new();
    for number in 0u32..1_500_000 {
        text.extend_from_slice(&number.to_le_bytes());
    }
    for secure in [false, true] {
        let config = Arc::clone(&house.config);
        let (got, received) = std::sync::mpsc::channel();
        let address = server(move |stream| {
            // Slow to read at first: the writer has to wait in the middle.
            thread::sleep(Duration::from_millis(50));
            let mut all = Vec::new();
            match secure {
                true => drop(tls(&config, stream).read_to_end(&mut all)),
                false => drop((&stream).read_to_end(&mut all)),
            }
            let _ = got.send(all);
        });
        let mode = if secure { TlsMode::Implicit } else { TlsMode::None };
        let mut link = dialer("localhost", address, &house.spec(mode)).dial().unwrap();
        let mut sent = 0;
        let mut step = 1;
        while sent < text.len() {
            let mut slices = Vec::new();
            let mut at = sent;
            for _ in 0..40 {
                step = step * 7 % 9973 + 1;
                let end = (at + step).min(text.len());
                slices.push(IoSlice::new(&text[at..end]));
                at = end;
            }
            sent += link.write_vectored(&slices).unwrap();
        }
        link.flush().unwrap();
        link.link().close();
        assert!(received.recv().unwrap() == text, "secure: {secure}");
    }
}

#[test]
fn sessions_are_resumed() {
    for only_tls12 in [false, true] {
        let house = House::new(Certificate { only_tls12, ..GOOD });
        let config = Arc::clone(&house.config);
        let address = server(move |stream| echo(tls(&config, stream)));
        let dialer = dialer("localhost", address, &house.spec(TlsMode::Implicit));
        let mut resumed = Vec::new();
        for _ in 0..3 {
            let mut link = dialer.dial().unwrap();
            link.write_all(b"x").unwrap();
            link.read_exact(&mut [0]).unwrap();
            resumed.push(link.link().resumed());
            assert!(link.link().channel_binding().is_some());
        }
        assert_eq!(resumed, [false, true, true], "1.2 only: {only_tls12}");
    }
}

#[test]
fn silence_is_a_timeout_and_a_half_close_is_an_end() {
    let address = server(|stream| {
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut all = Vec::new();
        let _ = (&stream).read_to_end(&mut all);
        assert_eq!(all, b"still heard");
    });
    let house = House::new(GOOD);
    let mut link = dialer("localhost", address, &house.spec(TlsMode::None)).dial().unwrap();
    assert_eq!(link.read(&mut [0; 10]).unwrap(), 0);
    link.write_all(b"still heard").unwrap();

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut link = dialer("localhost", address, &house.spec(TlsMode::None)).dial().unwrap();
    link.set_timeout(Duration::from_millis(20));
    let error = link.read(&mut [0; 10]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert!(matches!(link.error(error), NetError::Timeout { .. }));
    // The handshake has a limit too.
    let short = Timeouts { connect: Duration::from_millis(50), ..Timeouts::default() };
    let dialer = Dialer::new("127.0.0.1", address.port(), &house.spec(TlsMode::Implicit), &short).unwrap();
    let error = dialer.dial().unwrap_err();
    assert!(matches!(error, NetError::Timeout { doing: "in the TLS handshake", .. }), "{error}");
}

#[test]
fn readiness_drives_many_links_on_one_thread() {
    const LINKS: usize = 8;
    let house = House::new(GOOD);
    let text: Vec<u8> = (0..400_000u32).map(|number| (number % 251) as u8).collect();
    for secure in [false, true] {
        let config = Arc::clone(&house.config);
        let address = server(move |stream| {
            let config = Arc::clone(&config);
            thread::spawn(move || if secure { echo(tls(&config, stream)) } else { echo(stream) });
        });
        let mode = if secure { TlsMode::Implicit } else { TlsMode::None };
        let dialer = dialer("localhost", address, &house.spec(mode));
        let mut poll = Poll::new().unwrap();
        let mut links: Vec<(Link, usize, Vec<u8>)> = Vec::new();
        for number in 0..LINKS {
            let mut link = dialer.begin(address).unwrap();
            poll.registry()
                .register(&mut link, Token(number), Interest::READABLE | Interest::WRITABLE)
                .unwrap();
            links.push((link, 0, Vec::new()));
        }
        let mut events = Events::with_capacity(64);
        let mut buf = vec![0; 10_000];
        while links.iter().any(|(_, _, back)| back.len() < text.len()) {
            poll.poll(&mut events, Some(Duration::from_secs(20))).unwrap();
            assert!(!events.is_empty(), "nothing happens any more");
            for event in &events {
                let (link, sent, back) = &mut links[event.token().0];
                let mut moved = true;
                while std::mem::take(&mut moved) {
                    match link.read(&mut buf) {
                        Ok(count) => {
                            assert!(count > 0, "closed too early");
                            back.extend_from_slice(&buf[..count]);
                            // What is said to be drained needs no further read before the next event.
                            moved = !link.drained();
                        }
                        Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}"),
                    }
                    let rest = &text[*sent..];
                    let (one, two) = rest.split_at(rest.len() / 3);
                    if rest.is_empty() && !link.wants_write() {
                        continue;
                    }
                    let step = match rest.is_empty() {
                        true => link.flush().map(|()| 0),
                        false => link.write_vectored(&[IoSlice::new(one), IoSlice::new(two)]),
                    };
                    match step {
                        Ok(count) => {
                            *sent += count;
                            moved |= count > 0;
                        }
                        Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}"),
                    }
                }
            }
        }
        assert!(links.iter().all(|(_, _, back)| *back == text));
    }
}

/// An address on loopback where connections are neither taken nor refused: a queue that is full.
fn black_hole() -> (SocketAddr, Vec<socket2::Socket>) {
    let new = || socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let listener = new();
    listener.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let mut held = vec![listener];
    for _ in 0..4 {
        let socket = new();
        socket.set_nonblocking(true).unwrap();
        let _ = socket.connect(&address.into());
        held.push(socket);
    }
    (address, held)
}

#[test]
fn the_next_address_is_tried_when_one_refuses_or_is_silent() {
    let address = server(echo);
    let refused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (silent, _held) = black_hole();
    let plain = TlsSpec { mode: TlsMode::None, ca_file: None, client_cert: None, only_tls13: false };
    let dial = |found: Vec<SocketAddr>, timeouts: &Timeouts| {
        let resolver = Arc::new(move |_: &str, _| Ok(found.clone()));
        Dialer::new("mail.example.com", 25, &plain, timeouts).unwrap().resolver(resolver).dial()
    };
    for found in [vec![refused, address], vec![silent, address], vec![refused, silent, address]] {
        let mut link = dial(found.clone(), &timeouts()).unwrap();
        assert_eq!(link.link().peer(), address, "{found:?}");
        link.write_all(b"x").unwrap();
        link.read_exact(&mut [0]).unwrap();
    }
    let error = dial(vec![refused], &timeouts()).unwrap_err();
    assert!(matches!(&error, NetError::Connect { .. }) && error.may_pass(), "{error}");
    let short = Timeouts { connect: Duration::from_millis(50), ..Timeouts::default() };
    let error = dial(vec![silent], &short).unwrap_err();
    assert!(matches!(error, NetError::Timeout { doing: "connecting", .. }), "{error}");
}

#[test]
fn our_address_is_kept_and_families_fit() {
    let address = server(echo);
    let house = House::new(GOOD);
    let dialer = dialer("localhost", address, &house.spec(TlsMode::None));
    let mut link = dialer.clone().local_address(Some("127.0.0.2".parse().unwrap())).dial().unwrap();
    assert_eq!(link.link().local().unwrap().ip().to_string(), "127.0.0.2");
    assert!(link.link().protected() && !link.link().secured());
    let error = dialer.local_address(Some("::1".parse().unwrap())).dial().unwrap_err();
    assert!(error.to_string().contains("no IPv6 address"), "{error}");
}

#[test]
fn versions_and_client_certificates_are_told_apart() {
    let house = House::new(Certificate { only_tls12: true, ..GOOD });
    let config = Arc::clone(&house.config);
    let address = server(move |stream| echo(tls(&config, stream)));
    let spec = TlsSpec { only_tls13: true, ..house.spec(TlsMode::Implicit) };
    let error = dialer("localhost", address, &spec).dial().unwrap_err();
    assert!(matches!(error, NetError::Tls { trouble: TlsTrouble::Version(_), .. }), "{error}");

    // A server that asks who we are.
    let house = House::new(GOOD);
    let key = KeyPair::generate().unwrap();
    let cert =
        CertificateParams::new(vec!["client.example.com".to_owned()]).unwrap().self_signed(&key).unwrap();
    let (cert_file, key_file) = (house.dir.path().join("cert.pem"), house.dir.path().join("key.pem"));
    std::fs::write(&cert_file, cert.pem()).unwrap();
    std::fs::write(&key_file, key.serialize_pem()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let asks = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let server_key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&server_key).unwrap();
    std::fs::write(house.ca(), own.pem()).unwrap();
    let config = Arc::new(
        ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(asks.build().unwrap())
            .with_single_cert(
                vec![own.der().clone()],
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(server_key.serialize_der())),
            )
            .unwrap(),
    );
    let address = server(move |stream| echo(tls(&config, stream)));
    let with =
        TlsSpec { client_cert: Some((cert_file.clone(), key_file.clone())), ..house.spec(TlsMode::Implicit) };
    let mut link = dialer("localhost", address, &with).dial().unwrap();
    link.write_all(b"x").unwrap();
    link.read_exact(&mut [0]).unwrap();

    drop(link);

    // Under TLS 1.3 the server's no comes when we think we are done.
    let mut link = dialer("localhost", address, &house.spec(TlsMode::Implicit)).dial().unwrap();
    let error = link.read(&mut [0]).unwrap_err();
    let error = link.error(error);
    assert!(matches!(error, NetError::Tls { trouble: TlsTrouble::ClientCertificate(_), .. }), "{error}");

    // Files that cannot be used are named.
    let other = KeyPair::generate().unwrap();
    std::fs::write(&key_file, other.serialize_pem()).unwrap();
    for (spec, words) in [
        (with.clone(), "does not belong to the key"),
        (
            TlsSpec { client_cert: Some((cert_file.clone(), cert_file.clone())), ..with.clone() },
            "no private key",
        ),
        (TlsSpec { ca_file: Some(key_file.clone()), ..with.clone() }, "holds no certificate"),
        (TlsSpec { ca_file: Some("/nowhere/ca.pem".into()), ..with }, "/nowhere/ca.pem"),
    ] {
        let error = Dialer::new("localhost", 1, &spec, &timeouts()).err().unwrap();
        assert!(matches!(error, NetError::File { .. }) && error.to_string().contains(words), "{error}");
    }
}

/// Carries bytes between two sockets until both have ended.
fn carry(one: TcpStream, two: TcpStream) {
    let (mut from, mut to) = (one.try_clone().unwrap(), two.try_clone().unwrap());
    thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
    let (mut from, mut to) = (two, one);
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(std::net::Shutdown::Write);
}

/// A proxy that speaks just enough SOCKS5 with user and password, or HTTP.
fn proxy(target: SocketAddr, http: bool) -> SocketAddr {
    server(move |mut client| {
        thread::spawn(move || -> io::Result<()> {
            let mut take = |count: usize| -> io::Result<Vec<u8>> {
                let mut bytes = vec![0; count];
                client.read_exact(&mut bytes)?;
                Ok(bytes)
            };
            if http {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.extend(take(1)?);
                }
                let head = String::from_utf8_lossy(&head).into_owned();
                if !head.contains("Proxy-Authorization: Basic bWU6aHVudGVyMg==") {
                    return client.write_all(b"HTTP/1.1 407 Who are you\r\nContent-Length: 0\r\n\r\n");
                }
                assert!(head.starts_with("CONNECT localhost:"));
            } else {
                let methods = take(2)?[1];
                if !take(usize::from(methods))?.contains(&2) {
                    return client.write_all(&[5, 0xff]);
                }
                client.write_all(&[5, 2])?;
                let mut take = |count: usize| -> io::Result<Vec<u8>> {
                    let mut bytes = vec![0; count];
                    client.read_exact(&mut bytes)?;
                    Ok(bytes)
                };
                let user = take(2)?[1];
                let user = take(usize::from(user))?;
                let password = take(1)?[0];
                let password = take(usize::from(password))?;
                let right = user == b"me" && password == b"hunter2";
                client.write_all(&[1, u8::from(!right)])?;
                let mut request = [0; 4 + 1 + 9 + 2];
                client.read_exact(&mut request)?;
                assert_eq!(&request[..5], [5, 1, 0, 3, 9]);
                assert_eq!(&request[5..14], b"localhost");
            }
            let server = TcpStream::connect(target)?;
            // The server's greeting may come together with the proxy's yes.
            let mut greeting = [0; 8];
            server.set_read_timeout(Some(Duration::from_millis(200)))?;
            let count = (&server).read(&mut greeting).unwrap_or(0);
            server.set_read_timeout(None)?;
            let yes: &[u8] = if http { b"HTTP/1.1 200 OK\r\n\r\n" } else { &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0] };
            client.write_all(&[yes, &greeting[..count]].concat())?;
            carry(client, server);
            Ok(())
        });
    })
}

#[test]
fn proxies_open_the_way() {
    let house = House::new(GOOD);
    for secure in [false, true] {
        let config = Arc::clone(&house.config);
        let address = server(move |mut stream| {
            if secure {
                echo(tls(&config, stream));
            } else {
                let _ = stream.write_all(b"220 hi\r\n");
                echo(stream);
            }
        });
        let mode = if secure { TlsMode::Implicit } else { TlsMode::None };
        for http in [false, true] {
            let at = proxy(address, http);
            let scheme = if http { "http" } else { "socks5" };
            let dialer = |login: &str| {
                let url = format!("{scheme}://{login}{at}");
                let dialer =
                    Dialer::new("localhost", address.port(), &house.spec(mode), &timeouts()).unwrap();
                dialer.proxy(Some(&url)).unwrap()
            };
            let mut link = dialer("me:hunter2@").dial().unwrap();
            assert_eq!(link.link().peer(), at);
            // The proxy is on loopback; what goes on from there in plain text is for all to hear.
            assert_eq!(link.link().protected(), secure);
            if !secure {
                assert_eq!(line(&mut link), "220 hi");
            }
            link.write_all(b"through\r\n").unwrap();
            assert_eq!(line(&mut link), "through");
            let error = dialer("").dial().unwrap_err();
            assert!(error.to_string().contains("wants a user and a password"), "{error}");
        }
    }
}

/// The server's side of SCRAM-SHA-256-PLUS (RFC 5802), with the binding as this end of TLS sees it.
fn scram_server(
    mut stream: StreamOwned<ServerConnection, TcpStream>,
    certificate: &[u8],
    password: &str,
    honest: bool,
) -> io::Result<()> {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use ring::{digest, hmac, pbkdf2};

    let decode = |text: &str| String::from_utf8(STANDARD.decode(text).unwrap()).unwrap();
    let sign =
        |key: &[u8], text: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text).as_ref().to_vec();
    let first = line(&mut stream);
    let first = decode(first.strip_prefix("AUTH SCRAM-SHA-256-PLUS ").unwrap());
    let (header, bare) = first.split_once(",,").unwrap();
    let (name, theirs) = bare.split_once(",r=").unwrap();
    assert_eq!(name, "n=user");
    let (salt, count, nonce) = (b"pepper", 4096, format!("{theirs}ours"));
    let challenge = format!("r={nonce},s={},i={count}", STANDARD.encode(salt));
    stream.write_all(format!("334 {}\r\n", STANDARD.encode(&challenge)).as_bytes())?;
    let last = decode(&line(&mut stream));
    let (without_proof, proof) = last.rsplit_once(",p=").unwrap();
    let mut bound = format!("{header},,").into_bytes();
    match header {
        "p=tls-exporter" => {
            let seen = stream.conn.export_keying_material([0u8; 32], b"EXPORTER-Channel-Binding", Some(b""));
            bound.extend_from_slice(&seen.unwrap());
        }
        "p=tls-server-end-point" => {
            bound.extend_from_slice(digest::digest(&digest::SHA256, certificate).as_ref());
        }
        other => panic!("{other}"),
    }
    assert_eq!(without_proof, format!("c={},r={nonce}", STANDARD.encode(bound)), "another TLS session");
    let mut salted = [0; 32];
    let rounds = std::num::NonZeroU32::new(count).unwrap();
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, salt, password.as_bytes(), &mut salted);
    let message = format!("{bare},{challenge},{without_proof}");
    let client_key = sign(&salted, b"Client Key");
    let stored = digest::digest(&digest::SHA256, &client_key);
    let expected: Vec<u8> =
        client_key.iter().zip(sign(stored.as_ref(), message.as_bytes())).map(|(a, b)| a ^ b).collect();
    if STANDARD.decode(proof).unwrap() != expected {
        return stream.write_all(b"535 no\r\n");
    }
    if honest {
        let signature = STANDARD.encode(sign(&sign(&salted, b"Server Key"), message.as_bytes()));
        stream.write_all(format!("334 {}\r\n", STANDARD.encode(format!("v={signature}"))).as_bytes())?;
        assert_eq!(line(&mut stream), "");
    }
    stream.write_all(b"235 yes\r\n")
}

#[test]
fn scram_plus_ties_the_login_to_the_session() {
    for (only_tls12, password, honest, expected) in [
        (false, "pencil", true, "yes"),
        (false, "pencil", false, "impostor"),
        (false, "pen", true, "no"),
        (true, "pencil", true, "yes"),
    ] {
        let house = House::new(Certificate { only_tls12, ..GOOD });
        let (config, der) = (Arc::clone(&house.config), house.der.clone());
        let address = server(move |stream| {
            let _ = scram_server(tls(&config, stream), &der, "pencil", honest);
        });
        let mut link = dialer("localhost", address, &house.spec(TlsMode::Implicit)).dial().unwrap();
        let login = Login {
            user: "user".to_owned(),
            secret: Secret::new(password),
            binding: link.link().channel_binding(),
            binding_offered: true,
            nonce: nonce().unwrap(),
            server: ("localhost".to_owned(), address.port()),
            keys: KeyMemory::default(),
        };
        let mut exchange = Exchange::new(Mechanism::ScramSha256Plus, login).unwrap();
        write!(link, "AUTH {}\r\n", exchange.command(500)).unwrap();
        let outcome = loop {
            let reply = line(&mut link);
            match reply.split_at(3) {
                ("334", challenge) => {
                    let answer = exchange.answer(challenge).unwrap();
                    write!(link, "{answer}\r\n").unwrap();
                }
                ("235", _) => match exchange.finish(None) {
                    Ok(()) => break "yes",
                    Err(SaslError::NotTheServer) => break "impostor",
                    Err(other) => panic!("{other}"),
                },
                _ => break "no",
            }
        };
        assert_eq!(outcome, expected);
    }
}

#[test]
fn a_slow_server_is_read_byte_by_byte() {
    let house = House::new(GOOD);
    let config = Arc::clone(&house.config);
    // Each byte of the server's side of TLS in a segment of its own, handshake and all.
    struct Slow(TcpStream);
    impl Read for Slow {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            self.0.read(buf)
        }
    }
    impl Write for Slow {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            self.0.write(&buf[..buf.len().min(1)])
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let address = server(move |stream| {
        stream.set_nodelay(true).unwrap();
        let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), Slow(stream));
        let _ = stream.write_all(b"220 slow\r\n");
        echo(stream);
    });
    let mut link: BlockingLink = dialer("localhost", address, &house.spec(TlsMode::Implicit)).dial().unwrap();
    assert_eq!(line(&mut link), "220 slow");
    link.write_all(b"hello\r\n").unwrap();
    assert_eq!(line(&mut link), "hello");
    link.link().close();
    assert_eq!(link.read(&mut [0; 10]).unwrap(), 0);
}
