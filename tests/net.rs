//! Links against a server on loopback whose certificates are made for the test: what is trusted, what is
//! not and how that is said, and that every byte arrives.

use std::io::{self, BufRead, BufReader, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use postroom::job::{Timeouts, TlsMode, TlsSpec};
use postroom::net::{Dialer, NetError, TlsTrouble};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A folder with a CA, and a server's certificate from it.
struct House {
    dir: tempfile::TempDir,
    config: Arc<ServerConfig>,
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
        House { dir, config: Arc::new(config) }
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

/// Reads a line of at most 100 bytes, one byte at a time, so that nothing behind it is taken.
fn line(link: &mut impl Read) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < 100 && link.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
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
